//! NodeRestriction: a kubelet changes its own node and the pods on it, and nothing that would widen its reach.

use super::{Attributes, Operation, Plugin};
use crate::object;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use serde_json::Value;

#[derive(Debug)]
pub(super) struct NodeRestriction;

/// Labels under reserved domains that a kubelet may set on its node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "kubelet.kubernetes.io/self",
];

fn restricted(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |d: &str| domain == d || domain.ends_with(&format!(".{d}"));
    if !within("kubernetes.io") && !within("k8s.io") {
        return false;
    }
    let own_prefix = ["kubelet.kubernetes.io", "node.kubernetes.io"].iter().any(|d| within(d));
    !own_prefix && !OWN_LABELS.contains(&label) || within("node-restriction.kubernetes.io")
}

fn refuse(a: &Attributes<'_>, why: String) -> Status {
    Status::forbidden(&a.resource.group_resource(), a.name, why)
}

fn check(a: &Attributes<'_>) -> Result<(), Status> {
    if !a.user.in_group(crate::user::NODES) {
        return Ok(());
    }
    let Some(node) = a.user.node_name() else {
        return Err(refuse(a, format!("could not determine node from user {:?}", a.user.name)));
    };
    match (a.resource.row.group.as_ref(), a.resource.row.resource.as_ref()) {
        ("", "pods") => pods(a, node),
        ("", "nodes") => nodes(a, node),
        ("coordination.k8s.io", "leases") => {
            if a.namespace != "kube-node-lease" {
                return Err(refuse(
                    a,
                    "can only access leases in the \"kube-node-lease\" system namespace".into(),
                ));
            }
            let name = a.object.as_deref().map_or(a.name, object::name);
            if name != node {
                return Err(refuse(
                    a,
                    "can only access node lease with the same name as the requesting node".into(),
                ));
            }
            Ok(())
        }
        ("", "serviceaccounts") if a.subresource == "token" => {
            let bound = a.object.as_deref().map(|o| &o["spec"]["boundObjectRef"]);
            if bound.is_none_or(|b| b["kind"] != "Pod" || b["name"].as_str().unwrap_or_default().is_empty()) {
                return Err(refuse(a, format!("node requested token not bound to a pod: {node:?}")));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn pods(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let on_node = |pod: &Value| pod["spec"]["nodeName"] == node;
    match (a.operation, a.subresource) {
        (Operation::Create, "") => {
            let Some(pod) = a.object.as_deref() else { return Ok(()) };
            if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none() {
                return Err(refuse(
                    a,
                    format!(
                        "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                    ),
                ));
            }
            if !on_node(pod) {
                return Err(refuse(
                    a,
                    format!("node {node:?} can only create pods with spec.nodeName set to itself"),
                ));
            }
            let uses = |key: &str| {
                pod["spec"]["volumes"].as_array().into_iter().flatten().any(|v| v.get(key).is_some())
            };
            for (key, what) in [
                ("secret", "secrets"),
                ("configMap", "configmaps"),
                ("persistentVolumeClaim", "persistentvolumeclaims"),
                ("projected", "projected volumes"),
            ] {
                if uses(key) {
                    return Err(refuse(
                        a,
                        format!("node {node:?} can not create pods that reference {what}"),
                    ));
                }
            }
            if pod["spec"]["resourceClaims"].as_array().is_some_and(|c| !c.is_empty()) {
                return Err(refuse(
                    a,
                    format!("node {node:?} can not create pods that reference resourceclaims"),
                ));
            }
            Ok(())
        }
        (Operation::Delete, _) | (Operation::Update, "status") => match a.old {
            Some(old) if !on_node(old) => Err(refuse(
                a,
                format!(
                    "node {node:?} can only {} pods with spec.nodeName set to itself",
                    if a.operation == Operation::Delete { "delete" } else { "update pod status for" }
                ),
            )),
            _ => Ok(()),
        },
        (Operation::Update, "") => Err(refuse(a, format!("node {node:?} cannot update pods"))),
        _ => Ok(()),
    }
}

fn nodes(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let name = if a.name.is_empty() { a.object.as_deref().map_or("", object::name) } else { a.name };
    if name != node {
        return Err(refuse(a, format!("node {node:?} is not allowed to modify node {name:?}")));
    }
    let Some(new) = a.object.as_deref() else { return Ok(()) };
    let labels = |o: &Value| o["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let (now, was) = (labels(new), a.old.map(labels).unwrap_or_default());
    let mut changed: Vec<&str> =
        now.iter().filter(|(k, v)| was.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
    changed.extend(was.keys().filter(|k| !now.contains_key(*k)).map(String::as_str));
    let forbidden: Vec<&str> = changed.into_iter().filter(|l| restricted(l)).collect();
    if !forbidden.is_empty() {
        return Err(refuse(a, format!("is not allowed to modify labels: {}", forbidden.join(", "))));
    }
    match a.old {
        None => {
            if new["metadata"]["ownerReferences"].as_array().is_some_and(|o| !o.is_empty()) {
                return Err(refuse(
                    a,
                    format!("node {node:?} is not allowed to set owner references on itself"),
                ));
            }
            Ok(())
        }
        Some(old) => {
            if new["spec"]["taints"] != old["spec"]["taints"] {
                return Err(refuse(a, format!("node {node:?} is not allowed to modify taints")));
            }
            if new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
                return Err(refuse(a, format!("node {node:?} is not allowed to modify owner references")));
            }
            if old["spec"]["configSource"] != new["spec"]["configSource"] {
                return Err(refuse(a, format!("node {node:?} is not allowed to update configSource")));
            }
            Ok(())
        }
    }
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(check(attributes)))
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let result = if attributes.operation == Operation::Delete { check(attributes) } else { Ok(()) };
        Box::pin(std::future::ready(result))
    }
}
