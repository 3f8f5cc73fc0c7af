//! Nodes.

use super::{agree, node_validation};
use crate::tree::{column, list, remove, text, time_age, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use api::core::v1::Node;
use apimachinery::field::{ErrorList, Path};
use apimachinery::time::Time;
use apimachinery::validation::warnings_for_cidr;
use apimachinery::value::Value;

pub(super) struct Nodes;

const ROLE: &str = "node-role.kubernetes.io/";

impl Strategy for Nodes {
    fn default(&self, node: &mut Value) {
        if node["status"]["allocatable"].is_null()
            && let Some(capacity) = node["status"].get("capacity").cloned()
        {
            node["status"]["allocatable"] = capacity;
        }
        with(node, "spec", |spec| {
            agree(
                spec,
                "podCIDR",
                "podCIDRs",
                |range| range.as_str().unwrap_or_default(),
                |range| range.into(),
            );
        });
    }

    fn prepare_for_create(&self, node: &mut Value, _: &Context) {
        // The kubelet's dynamic configuration is no more; what old objects have of it stays.
        with(node, "spec", |spec| remove(spec, "configSource"));
        with(node, "status", |status| remove(status, "config"));
    }

    fn prepare_for_update(&self, node: &mut Value, old: &Value, _: &Context) {
        for (outer, inner) in [("spec", "configSource"), ("status", "config")] {
            if old[outer].get(inner).is_none() {
                with(node, outer, |value| remove(value, inner));
            }
        }
    }

    fn validate(&self, node: &Value, _: &Context) -> ErrorList {
        node_validation::validate(&typed(node))
    }

    fn validate_update(&self, node: &Value, old: &Value, context: &Context) -> ErrorList {
        let node: Node = typed(node);
        let mut errors = match context.subresource {
            Some("status") => ErrorList::new(),
            _ => node_validation::validate(&node),
        };
        errors.extend(node_validation::validate_update(&node, &typed(old)));
        errors
    }

    fn warnings(&self, node: &Value, _: Option<&Value>, context: &Context) -> Vec<String> {
        let mut found = Vec::new();
        if context.subresource.is_some() {
            return found;
        }
        if node["spec"].get("configSource").is_some() {
            found.push("spec.configSource: the feature is removed".to_owned());
        }
        if !text(node, &["spec", "externalID"]).is_empty() {
            found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        for (i, range) in list(node, &["spec", "podCIDRs"]).iter().enumerate() {
            let at = Path::new("spec").child("podCIDRs").index(i);
            found.extend(warnings_for_cidr(&at, range.as_str().unwrap_or_default()));
        }
        found
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Name",
                "string",
                0,
                "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
            column("Status", "string", 0, "The status of the node"),
            column("Roles", "string", 0, "The roles of the node"),
            column(
                "Age",
                "string",
                0,
                "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ),
            column("Version", "string", 0, "Kubelet Version reported by the node."),
            column(
                "Internal-IP",
                "string",
                1,
                "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
            ),
            column(
                "External-IP",
                "string",
                1,
                "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).",
            ),
            column(
                "OS-Image",
                "string",
                1,
                "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy)).",
            ),
            column(
                "Kernel-Version",
                "string",
                1,
                "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64).",
            ),
            column(
                "Container-Runtime",
                "string",
                1,
                "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, node: &Value, now: Time) -> Vec<Value> {
        let node: Node = typed(node);
        let ready = node.status.conditions.iter().find(|c| c.type_ == "Ready");
        let mut status = match ready {
            Some(c) if c.status == "True" => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if node.spec.unschedulable {
            status += ",SchedulingDisabled";
        }
        let labels = &node.metadata.labels;
        let mut roles: Vec<&str> = labels
            .iter()
            .filter_map(|(key, value)| match (key.strip_prefix(ROLE), key.as_str()) {
                (Some(role), _) if !role.is_empty() => Some(role),
                (_, "kubernetes.io/role") if !value.is_empty() => Some(value),
                _ => None,
            })
            .collect();
        roles.sort_unstable();
        let address = |ty: &str| {
            let found = node.status.addresses.iter().find(|a| a.type_ == ty);
            Value::from(found.map_or("<none>", |a| a.address.as_str()))
        };
        let info = &node.status.node_info;
        let kernel = match (info.kernel_version.as_str(), info.architecture.as_str()) {
            ("", "") => String::new(),
            ("", architecture) => format!("<unknown> ({architecture})"),
            (kernel, "") => kernel.to_owned(),
            (kernel, architecture) => format!("{kernel} ({architecture})"),
        };
        let or_unknown = |text: &str| Value::from(if text.is_empty() { "<unknown>" } else { text });
        vec![
            node.metadata.name.as_str().into(),
            status.into(),
            if roles.is_empty() { "<none>".into() } else { roles.join(",").into() },
            time_age(node.metadata.creation_timestamp, now).into(),
            info.kubelet_version.as_str().into(),
            address("InternalIP"),
            address("ExternalIP"),
            or_unknown(&info.os_image),
            or_unknown(&kernel),
            or_unknown(&info.container_runtime_version),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("spec.unschedulable", |node| (node["spec"]["unschedulable"] == true).to_string())]
    }

    fn takes_status_on_create(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }
}
