//! Plugins of a few lines: TaintNodesByCondition and StorageObjectInUseProtection.

use super::{Attributes, Operation, Plugin, When};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// A new node takes no pods until the node lifecycle controller has seen it ready.
#[derive(Debug)]
pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let applies = a.operation == Operation::Create && a.is("", "nodes") && a.subresource.is_empty();
        if let Some(node) = a.object.as_deref_mut().filter(|_| applies) {
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
        Box::pin(std::future::ready(Ok(())))
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

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let create = a.operation == Operation::Create && a.subresource.is_empty();
        let finalizer = match (a.resource.row.group.as_ref(), a.resource.row.resource.as_ref()) {
            ("", "persistentvolumes") => Some("kubernetes.io/pv-protection"),
            ("", "persistentvolumeclaims") => Some("kubernetes.io/pvc-protection"),
            ("storage.k8s.io", "volumeattributesclasses") => Some("kubernetes.io/vac-protection"),
            _ => None,
        };
        if let (Some(object), Some(finalizer)) = (a.object.as_deref_mut().filter(|_| create), finalizer) {
            add_finalizer(object, finalizer);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
