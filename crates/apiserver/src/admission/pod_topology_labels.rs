//! PodTopologyLabels: a pod carries the zone and the region of its node, for those who read them through the downward API
//! (KEP-4742). A binding brings them to the pod that is bound.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use apimachinery::value::{Map, Value};
use std::sync::Arc;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// Looks up nodes.
pub(super) struct PodTopologyLabels(pub Arc<Objects>);

impl Immediate for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let pods = a.is("", "pods");
        let Some(object) = a.object.as_deref_mut().filter(|_| pods) else { return Ok(()) };
        let node = match a.subresource {
            "" => object["spec"]["nodeName"].as_str(),
            "binding" if object["target"]["kind"] == "Node" => object["target"]["name"].as_str(),
            _ => None,
        };
        let Some(node) = node.filter(|node| !node.is_empty()) else { return Ok(()) };
        // Of a node that is not there nothing is known, and that is nobody's fault.
        let Some(node) = self.0.get("", node)? else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node["metadata"]["labels"].get(label) {
                let labels = crate::object::metadata_mut(object).entry("labels");
                let labels = labels.or_insert_with(|| Value::Object(Map::new()));
                labels[label] = value.clone();
            }
        }
        Ok(())
    }
}
