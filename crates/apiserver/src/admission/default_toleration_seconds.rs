//! DefaultTolerationSeconds: a pod stays on a node that is not ready or not reachable for a while; five minutes unless flags
//! say otherwise.

use super::immediate::Immediate;
use super::{Attributes, Operation, Options, When};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;

/// How long for each taint.
#[derive(Debug)]
pub(super) struct DefaultTolerationSeconds([(&'static str, i64); 2]);

pub(super) fn of(options: &Options) -> DefaultTolerationSeconds {
    DefaultTolerationSeconds([
        ("node.kubernetes.io/not-ready", options.not_ready_seconds),
        ("node.kubernetes.io/unreachable", options.unreachable_seconds),
    ])
}

fn add(pod: &mut Value, taints: &[(&str, i64)]) {
    for &(key, seconds) in taints {
        let tolerated = pod["spec"]["tolerations"].as_array().into_iter().flatten().any(|t| {
            let same_key = t["key"] == key || t["key"].as_str().unwrap_or_default().is_empty();
            let effect = t["effect"].as_str().unwrap_or_default();
            same_key && (effect.is_empty() || effect == "NoExecute")
        });
        if tolerated {
            continue;
        }
        let toleration =
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(list) => list.push(toleration),
            None => pod["spec"]["tolerations"] = Value::Array(vec![toleration]),
        }
    }
}

impl Immediate for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if let Some(pod) = a.written_mut("", "pods") {
            add(pod, &self.0);
        }
        Ok(())
    }
}
