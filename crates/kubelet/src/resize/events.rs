//! The messages of events about resizing: words, and the resources in JSON.

use api::core::v1::{Container, Pod};
use apimachinery::json;
use apimachinery::value::Value;

/// `<what>: {"containers":…,"generation":…,"error":…}`.
pub(crate) fn message(what: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        containers.iter().map(|c| json!({ "name": c.name, "resources": c.resources })).collect()
    };
    // In the order in which upstream writes them.
    let mut parts = Vec::new();
    for (name, containers) in
        [("initContainers", &pod.spec.init_containers), ("containers", &pod.spec.containers)]
    {
        if !containers.is_empty() {
            parts.push(format!("\"{name}\":{}", Value::from(list(containers))));
        }
    }
    parts.push(format!("\"generation\":{generation}"));
    if !error.is_empty() {
        parts.push(format!("\"error\":{}", Value::from(error)));
    }
    format!("{what}: {{{}}}", parts.join(","))
}
