//! Small clusters to decide over, and what comes of it.
#![allow(clippy::unwrap_used, dead_code, reason = "each test binary uses a part")]

use api::core::v1::{Node, Pod};
use apimachinery::json;
use apimachinery::value::Value;
use client::source::Raw;
use client::{Cached, ObjectKey, Projection};
use expect_test::Expect;
use scheduler::cache::Cache;
use scheduler::decide::decide;
use scheduler::facts::{NodeFacts, PodFacts, PodInfo};
use scheduler::framework::Cycle;
use scheduler::preempt::Preemption;
use scheduler::stopwatch::Stopwatch;
use std::sync::Arc;

pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
pub(crate) const HOST: &str = "kubernetes.io/hostname";

/// A pod: its spec, and beside it `labels`, `ns`, `started`.
pub(crate) fn pod(name: &str, mut spec: Value) -> PodInfo {
    let spec = spec.as_object_mut().unwrap();
    let labels = spec.remove("labels").unwrap_or_default();
    let namespace = spec.remove("ns").map_or("ns".into(), |ns| ns.as_str().unwrap().to_owned());
    let status = json!({"startTime": spec.remove("started")});
    let metadata = json!({"name": name, "namespace": namespace, "uid": name, "labels": labels});
    let pod: Pod =
        apimachinery::value::from_value(json!({"metadata": metadata, "spec": spec, "status": status}))
            .unwrap();
    let key = ObjectKey::new(&namespace, name);
    let raw = Raw { key, revision: 1, bytes: serde_json::to_vec(&pod).unwrap().into() };
    let facts = Arc::new(Cached { raw, uid: name.into(), projection: PodFacts::project(&pod) });
    PodInfo { pod, facts }
}

pub(crate) fn cluster(nodes: &[Value], running: &[(&str, Value)]) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        let mut node = node.clone();
        if node["status"]["allocatable"].is_null() {
            node["status"]["allocatable"] = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        }
        let node: Node = apimachinery::value::from_value(node).unwrap();
        cache.set_node(&node.metadata.name, &NodeFacts::project(&node));
    }
    for (i, (node, spec)) in running.iter().enumerate() {
        cache.assume(&pod(&format!("running-{i}"), spec.clone()).facts, node);
    }
    cache
}

/// Where the pod goes; or why nowhere, and who would have to go.
pub(crate) fn outcome(cache: &Cache, pod: &PodInfo) -> String {
    match decide(Cycle { pod, cache }, 0, &mut Stopwatch::default()) {
        Ok(node) => node.to_string(),
        Err(failure) => match failure.preemption {
            Preemption::Room { node, victims } => {
                let victims: Vec<&str> = victims.iter().map(|v| v.name()).collect();
                format!("{node} without {}", victims.join(", "))
            }
            _ => failure.error.to_string(),
        },
    }
}

pub(crate) fn check(nodes: &[Value], running: &[(&str, Value)], spec: Value, expected: Expect) {
    expected.assert_eq(&outcome(&cluster(nodes, running), &pod("new", spec)));
}

/// A spec with more fields.
pub(crate) fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

pub(crate) fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

/// Two zones of two hosts each.
pub(crate) fn zones() -> Vec<Value> {
    let node = |name: &str, zone: &str| {
        let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
        json!({"metadata": {"name": name, "labels": labels}})
    };
    vec![node("a1", "a"), node("a2", "a"), node("b1", "b"), node("b2", "b")]
}
