//! ExtendedResourceToleration: who requests an extended resource tolerates the taint of its name, which keeps others from
//! the nodes that have it.

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::validation::is_qualified_name;
use apimachinery::value::{Key, Value};
use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) struct ExtendedResourceToleration;

fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    // As the name under which quotas count it.
    !native && !name.starts_with("requests.") && is_qualified_name(&format!("requests.{name}")).is_empty()
}

fn requested(pod: &Value) -> BTreeSet<String> {
    let lists = ["containers", "initContainers"].iter().filter_map(|list| pod["spec"][*list].as_array());
    let requests = lists.flatten().filter_map(|container| container["resources"]["requests"].as_object());
    requests
        .flat_map(|requests| requests.keys())
        .filter(|name| is_extended(name))
        .map(Key::to_string)
        .collect()
}

/// Adds a toleration in place of those that differ from it by their seconds alone.
fn tolerate(tolerations: &mut Vec<Value>, toleration: Value) {
    let same = |t: &Value| {
        let text = |key: &str| t[key].as_str().unwrap_or_default().to_owned();
        ["key", "operator", "effect", "value"]
            .iter()
            .all(|key| text(key) == toleration[*key].as_str().unwrap_or_default())
    };
    let mut replaced = false;
    for known in tolerations.iter_mut().filter(|t| same(t)) {
        *known = toleration.clone();
        replaced = true;
    }
    if !replaced {
        tolerations.push(toleration);
    }
}

fn set(pod: &mut Value) {
    let requested = requested(pod);
    if requested.is_empty() {
        return;
    }
    if !pod["spec"]["tolerations"].is_array() {
        pod["spec"]["tolerations"] = json!([]);
    }
    let Some(tolerations) = pod["spec"]["tolerations"].as_array_mut() else { return };
    for name in requested {
        tolerate(tolerations, json!({"key": name, "operator": "Exists", "effect": "NoSchedule"}));
    }
}

impl Immediate for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if let Some(pod) = a.written_mut("", "pods") {
            set(pod);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_toleration_for_each_resource() {
        let mut pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"b.com/y": "1", "cpu": "1", "requests.a.com/x": "1"}}}],
            "initContainers": [
                {"resources": {"requests": {"a.com/x": "1", "b.com/y": "2", "node.kubernetes.io/z": "1"}}}],
            "tolerations": [
                {"key": "b.com/y", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 5},
                {"key": "b.com/y", "operator": "Exists"}],
        }});
        set(&mut pod);
        let tolerated = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        let wanted =
            json!([tolerated("b.com/y"), {"key": "b.com/y", "operator": "Exists"}, tolerated("a.com/x")]);
        assert_eq!(pod["spec"]["tolerations"], wanted);
    }
}
