//! PodResizeValidator: a pod does not grow beyond what its node has at all, nor where growing is not supported.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use api::core::v1::Pod;
use apimachinery::decode::Decode;
use apimachinery::quantity::Quantity;
use apimachinery::status::{Status, StatusCause};
use apimachinery::value::Value;
use rules::pod_requests::{Options, amount, pod_requests};
use std::sync::Arc;

/// Looks up nodes.
pub(super) struct PodResizeValidator(pub Arc<Objects>);

/// What of a pod's requests is more than a node has.
fn beyond(pod: &Value, allocatable: &Value) -> Result<Option<String>, Status> {
    let pod = Pod::from_value(pod).map_err(|error| Status::bad_request(error.to_string()))?;
    let requests = pod_requests(&pod, Options::default());
    let mut more = Vec::new();
    for resource in ["cpu", "memory"] {
        let has: Quantity = Decode::from_value(&allocatable[resource]).unwrap_or_default();
        let Some(wanted) = requests.get(resource) else { continue };
        if wanted.cmp(&has).is_gt() {
            let (wanted, has) = (amount(resource, wanted), amount(resource, &has));
            more.push(format!("{resource}, requested: {wanted}, allocatable: {has}"));
        }
    }
    let why = || format!("node didn't have enough allocatable resources: {}", more.join("; "));
    Ok((!more.is_empty()).then(why))
}

impl Immediate for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let applies = a.is_of("", "pods", "resize");
        let (Some(pod), Some(old)) = (a.object.as_deref().filter(|_| applies), a.old) else {
            return Ok(());
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        // A generation is of one specification.
        if node.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
            return Ok(());
        }
        let Some(known) = self.0.get("", node)? else {
            return Err(a.forbidden(format!("node {node:?} not found")));
        };
        let because = |why: String, reason: &'static str| {
            Err(a.forbidden(why).with_cause(StatusCause { reason: reason.into(), ..StatusCause::default() }))
        };
        if let Some(system) =
            known["metadata"]["labels"]["kubernetes.io/os"].as_str().filter(|s| *s != "linux")
        {
            let why = format!("pod resize is only supported on linux nodes, node {node:?} is {system:?}");
            return because(why, "UnsupportedPlatform");
        }
        match beyond(pod, &known["status"]["allocatable"])? {
            None => Ok(()),
            Some(why) => because(why, "NodeCapacity"),
        }
    }
}
