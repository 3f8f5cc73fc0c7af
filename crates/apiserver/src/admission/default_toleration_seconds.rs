//! DefaultTolerationSeconds: a pod stays on a node that is not ready or not reachable for five minutes.

use super::{Attributes, Operation, Plugin};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use serde_json::{Value, json};

const SECONDS: i64 = 300;

#[derive(Debug)]
pub(super) struct DefaultTolerationSeconds;

fn add(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = pod["spec"]["tolerations"].as_array().into_iter().flatten().any(|t| {
            let same_key = t["key"] == key || t["key"].as_str().unwrap_or_default().is_empty();
            let effect = t["effect"].as_str().unwrap_or_default();
            same_key && (effect.is_empty() || effect == "NoExecute")
        });
        if tolerated {
            continue;
        }
        let toleration =
            json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
        match pod["spec"]["tolerations"].as_array_mut() {
            Some(list) => list.push(toleration),
            None => pod["spec"]["tolerations"] = json!([toleration]),
        }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let applies = matches!(a.operation, Operation::Create | Operation::Update)
            && a.is("", "pods")
            && a.subresource.is_empty();
        if let Some(pod) = a.object.as_deref_mut().filter(|_| applies) {
            add(pod);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}
