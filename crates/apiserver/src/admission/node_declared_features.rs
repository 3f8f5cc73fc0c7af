//! NodeDeclaredFeatureValidator: a pod on a node changes in no way that the node would not understand.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use api::core::v1::PodSpec;
use apimachinery::decode::Decode as _;
use apimachinery::status::Status;
use apimachinery::value::Value;
use rules::declared_features::{missing, to_change};
use std::sync::Arc;

pub(super) struct NodeDeclaredFeatureValidator(pub Arc<Objects>);

fn spec(pod: &Value) -> Result<PodSpec, Status> {
    PodSpec::from_value(&pod["spec"]).map_err(|error| Status::bad_request(error.to_string()))
}

impl Immediate for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let applies = a.is("", "pods") && matches!(a.subresource, "" | "resize");
        let (Some(pod), Some(old)) = (a.object.as_deref().filter(|_| applies), a.old) else {
            return Ok(());
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        // A generation is of one specification.
        if node.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
            return Ok(());
        }
        let needed = to_change(&spec(old)?, &spec(pod)?);
        if needed.is_empty() {
            return Ok(());
        }
        let refuse = |why: String| Err(a.forbidden(why));
        let Some(known) = self.0.get("", node)? else { return refuse(format!("node {node:?} not found")) };
        let declared = known["status"]["declaredFeatures"].as_array();
        let declared: Vec<String> =
            declared.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let missing = missing(&needed, &declared);
        if missing.is_empty() {
            return Ok(());
        }
        refuse(format!(
            "pod update requires features {} which are not available on node {node:?}",
            missing.join(", ")
        ))
    }
}
