//! Plugins of a few lines: TaintNodesByCondition and StorageObjectInUseProtection.

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;

/// A new node takes no pods until the node lifecycle controller has seen it ready.
#[derive(Debug)]
pub(super) struct TaintNodesByCondition;

impl Immediate for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if let Some(node) = a.written_mut("", "nodes") {
            let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
            match node["spec"]["taints"].as_array_mut() {
                Some(taints) => {
                    if !taints.iter().any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]) {
                        taints.push(taint);
                    }
                }
                None => node["spec"]["taints"] = json!([taint]),
            }
        }
        Ok(())
    }
}

/// Claims and volumes that are in use stay until they are not: the finalizer is there from the beginning.
#[derive(Debug)]
pub(super) struct StorageObjectInUseProtection;

fn add_finalizer(object: &mut Value, finalizer: &str) {
    match object["metadata"]["finalizers"].as_array_mut() {
        Some(list) if list.iter().any(|f| f == finalizer) => {}
        Some(list) => list.push(finalizer.into()),
        None => object["metadata"]["finalizers"] = json!([finalizer]),
    }
}

impl Immediate for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let finalizer = match (a.resource.row.group.as_ref(), a.resource.row.resource.as_ref(), a.subresource)
        {
            ("", "persistentvolumes", "") => "kubernetes.io/pv-protection",
            ("", "persistentvolumeclaims", "") => "kubernetes.io/pvc-protection",
            ("storage.k8s.io", "volumeattributesclasses", "") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        if let Some(object) = a.object.as_deref_mut() {
            add_finalizer(object, finalizer);
        }
        Ok(())
    }
}
