//! The downward API: what `fieldRef` and `resourceFieldRef` stand for. Pure. Upstream: `pkg/fieldpath`, `pkg/api/v1/resource`.

use api::core::v1::{Container, Pod, ResourceFieldSelector};
use apimachinery::quantity::Quantity;
use rules::pod_requests::{ResourceList, amount};
use std::collections::BTreeMap;

/// What the runtime and the node know, beyond the pod object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub node_name: String,
    pub host_ips: Vec<String>,
    pub pod_ips: Vec<String>,
    /// Stands in for limits that a container does not state.
    pub node_allocatable: ResourceList,
}

/// The value of a field path, for environment variables and single-line files.
pub(crate) fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let meta = &pod.metadata;
    if let Some((map, key)) = subscript(path) {
        return match map {
            "metadata.labels" => Ok(meta.labels.get(key).cloned().unwrap_or_default()),
            "metadata.annotations" => Ok(meta.annotations.get(key).cloned().unwrap_or_default()),
            _ => Err(format!("fieldPath {path:?} does not support subscript")),
        };
    }
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => format_map(&meta.labels),
        "metadata.annotations" => format_map(&meta.annotations),
        "spec.nodeName" => {
            if pod.spec.node_name.is_empty() {
                facts.node_name.clone()
            } else {
                pod.spec.node_name.clone()
            }
        }
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['key']` in its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted.
fn format_map(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={}", apimachinery::quote::quote(v))).collect::<Vec<_>>().join("\n")
}

/// The value of a container's resource, divided and rounded up.
pub(crate) fn resource(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let container = if selector.container_name.is_empty() || selector.container_name == own.name {
        own
    } else {
        let mut all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        all.find(|c| c.name == selector.container_name)
            .ok_or_else(|| format!("container {} not found", selector.container_name))?
    };
    let (list, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let quantity: Option<&Quantity> = match list {
        "limits" if known => container
            .resources
            .limits
            .get(name)
            .filter(|q| amount(name, q) > 0)
            .or_else(|| facts.node_allocatable.get(name)),
        "requests" if known => container.resources.requests.get(name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let value = quantity.map_or(0, |q| amount(name, q));
    let divisor = match amount(name, &selector.divisor) {
        // Unset means one core or one byte.
        0 => {
            if name == "cpu" {
                1000
            } else {
                1
            }
        }
        divisor => divisor,
    };
    Ok(value.div_euclid(divisor).saturating_add(i64::from(value.rem_euclid(divisor) != 0)).to_string())
}
