//! DefaultTolerationSeconds: a pod stays on a node that is not ready or not reachable for a while; five minutes unless flags
//! say otherwise.

use super::{Attributes, Operation, Options, Plugin, When};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use serde_json::{Value, json};

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

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let applies = matches!(a.operation, Operation::Create | Operation::Update)
            && a.is("", "pods")
            && a.subresource.is_empty();
        if let Some(pod) = a.object.as_deref_mut().filter(|_| applies) {
            add(pod, &self.0);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
