//! Decisions over small clusters: which node, or why none.
#![allow(clippy::unwrap_used)]

use api::core::v1::{Node, Pod};
use client::source::Raw;
use client::{Cached, ObjectKey, Projection};
use expect_test::{Expect, expect};
use scheduler::cache::Cache;
use scheduler::decide::decide;
use scheduler::facts::{NodeFacts, PodFacts, PodInfo};
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(name: &str, spec: Value) -> PodInfo {
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).unwrap();
    let raw =
        Raw { key: ObjectKey::new("ns", name), revision: 1, bytes: serde_json::to_vec(&pod).unwrap().into() };
    let facts = Arc::new(Cached { raw, uid: name.into(), projection: PodFacts::project(&pod) });
    PodInfo { pod, facts }
}

fn check(nodes: &[Value], running: &[(&str, Value)], spec: Value, expected: Expect) {
    let mut cache = Cache::default();
    for node in nodes {
        let mut node = node.clone();
        if node["status"].is_null() {
            node["status"] = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}});
        }
        let node: Node = serde_json::from_value(node).unwrap();
        cache.set_node(&node.metadata.name, &NodeFacts::project(&node));
    }
    for (i, (node, spec)) in running.iter().enumerate() {
        let running = pod(&format!("running-{i}"), spec.clone());
        cache.assume(&running.facts, node);
    }
    let got = match decide(&pod("new", spec), &cache.snapshot(), 0) {
        Ok(node) => node.to_string(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&got);
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

#[test]
fn where_a_pod_goes() {
    let a = json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}}});
    let b = json!({"metadata": {"name": "b"}});
    let two = [a.clone(), b.clone()];
    check(&[], &[], asks("1"), expect!["no nodes available to schedule pods"]);
    // The emptier one.
    check(&two, &[("a", asks("2"))], asks("1"), expect!["b"]);
    check(
        &two,
        &[],
        asks("8"),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    check(
        &two,
        &[("a", asks("4")), ("b", asks("4"))],
        asks("1"),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        ],
    );
    let mut ssd = asks("1");
    ssd["nodeSelector"] = json!({"disk": "ssd"});
    check(&two, &[("a", asks("3"))], ssd.clone(), expect!["a"]);
    check(
        &[b],
        &[],
        ssd,
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
    let tainted = json!({"metadata": {"name": "t"}, "spec": {"unschedulable": false, "taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let cordoned = json!({"metadata": {"name": "u"}, "spec": {"unschedulable": true}});
    check(
        &[tainted.clone(), cordoned],
        &[],
        asks("1"),
        expect![
            "0/2 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    let mut tolerant = asks("1");
    tolerant["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    check(&[tainted], &[], tolerant, expect!["t"]);
    let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    check(
        &[a],
        &[("a", port.clone())],
        port,
        expect![
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
}
