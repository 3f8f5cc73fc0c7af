//! Decisions over small clusters: which node, or why none.
#![allow(clippy::unwrap_used)]

mod small_clusters;

use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::value::Value;
use client::ObjectKey;
use expect_test::expect;
use scheduler::surroundings::Budget;
use small_clusters::{HOST, ZONE, asks, check, cluster, outcome, pod, with, zones};

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

fn labelled(app: &str) -> Value {
    with(asks("100m"), json!({"labels": {"app": app}}))
}

fn term(app: &str, key: &str) -> Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

#[test]
fn near_and_away_from_other_pods() {
    let near = |app| {
        with(
            labelled("web"),
            json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term(app, ZONE)]}}}),
        )
    };
    let away = |app, key| {
        with(
            labelled("web"),
            json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [term(app, key)]}}}),
        )
    };
    check(&zones(), &[("b1", labelled("db"))], near("db"), expect!["b2"]);
    // The first of its kind may go anywhere; of another kind, nowhere.
    check(&zones(), &[], near("web"), expect!["a1"]);
    check(
        &zones()[..1],
        &[],
        near("db"),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod affinity rules. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
    check(&zones(), &[("a1", labelled("db"))], away("db", ZONE), expect!["b1"]);
    check(&zones()[..2], &[("a1", labelled("db"))], away("db", HOST), expect!["a2"]);
    check(
        &zones()[..1],
        &[("a1", labelled("db"))],
        away("db", HOST),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
    // It is mutual.
    check(
        &zones()[..1],
        &[("a1", away("db", HOST))],
        labelled("db"),
        expect![
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
    // Another namespace is meant only when the term says so.
    let elsewhere = with(labelled("db"), json!({"ns": "elsewhere"}));
    check(&zones()[..1], &[("a1", elsewhere.clone())], away("db", HOST), expect!["a1"]);
    let preferred = with(
        labelled("web"),
        json!({"affinity": {"podAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term("db", HOST)}]}}}),
    );
    check(&zones(), &[("b2", labelled("db"))], preferred, expect!["b2"]);

    let mut selected = term("db", HOST);
    selected["namespaceSelector"] = json!({"matchLabels": {"team": "x"}});
    let by_namespace = with(
        labelled("web"),
        json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [selected]}}}),
    );
    let mut cache = cluster(&zones()[..2], &[("a1", elsewhere), ("a2", asks("2"))]);
    let new = pod("new", by_namespace);
    expect!["a1"].assert_eq(&outcome(&cache, &new));
    cache.surroundings.set_namespace("elsewhere", [("team".into(), "x".into())].into());
    expect!["a2"].assert_eq(&outcome(&cache, &new));
}

#[test]
fn spread_over_topologies() {
    let spread = |key: &str, unsatisfiable: &str, more: Value| {
        let constraint = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": unsatisfiable,
            "labelSelector": {"matchLabels": {"app": "web"}}});
        with(labelled("web"), json!({"topologySpreadConstraints": [with(constraint, more)]}))
    };
    let hard = |more| spread(ZONE, "DoNotSchedule", more);
    let one_in_a = [("a1", labelled("web"))];
    check(&zones(), &one_in_a, hard(json!({})), expect!["b1"]);
    let two_in_b = [("b1", labelled("web")), ("b2", labelled("web")), ("a1", labelled("web"))];
    check(&zones(), &two_in_b, hard(json!({})), expect!["a2"]);
    // Nodes the pod cannot go to count when affinity is ignored.
    let only_a = |policy: &str| {
        with(hard(json!({"nodeAffinityPolicy": policy})), json!({"nodeSelector": {ZONE: "a"}}))
    };
    check(&zones(), &one_in_a, only_a("Honor"), expect!["a2"]);
    check(
        &zones()[..3],
        &one_in_a,
        only_a("Ignore"),
        expect![
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 node(s) didn't match pod topology spread constraints. no new claims to deallocate, preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
        ],
    );
    check(&zones(), &one_in_a, hard(json!({"minDomains": 3})), expect!["b1"]);
    check(
        &[json!({"metadata": {"name": "bare"}})],
        &[],
        hard(json!({})),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label). no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
    check(&zones(), &one_in_a, spread(HOST, "ScheduleAnyway", json!({})), expect!["a2"]);
    // Without constraints of its own, what a Service selects is spread.
    let mut cache = cluster(
        &zones(),
        &[("a1", asks("100m")), ("a2", labelled("web")), ("b1", labelled("web")), ("b2", asks("100m"))],
    );
    cache.surroundings.set_service("ns", "web", [("app".into(), "web".into())].into());
    expect!["a1"].assert_eq(&outcome(&cache, &pod("new", labelled("web"))));
}

#[test]
fn images_and_names() {
    let image = |name: &str, images: Value| json!({"metadata": {"name": name}, "status": {"images": images}});
    let has = json!([{"names": ["registry.example/app:1"], "sizeBytes": 2_000_000_000_i64}]);
    let spec = json!({"containers": [{"name": "c", "image": "registry.example/app:1"}]});
    check(&[image("a", json!([])), image("b", has)], &[], spec, expect!["b"]);
    let by_name = with(
        asks("8"),
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b2"]}]}]}}}}),
    );
    check(
        &zones(),
        &[],
        by_name,
        expect![
            "0/4 nodes are available: 1 Insufficient cpu, 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn who_must_make_room() {
    let of = |priority: i32, cpu: &str| {
        with(asks(cpu), json!({"priority": priority, "labels": {"app": format!("p{priority}")}}))
    };
    let nodes = &zones()[..2];
    // The fewest, of the lowest priority.
    let running = [("a1", of(1, "2")), ("a1", of(2, "2")), ("a2", of(2, "2")), ("a2", of(2, "2"))];
    check(nodes, &running, of(10, "2"), expect!["a1 without running-0"]);
    check(nodes, &running, of(10, "3"), expect!["a1 without running-1, running-0"]);
    // Of equals, those that started last.
    let at = |priority, time: &str| with(of(priority, "2"), json!({"started": time}));
    let aged = [("a1", at(1, "2026-01-01T00:00:00Z")), ("a1", at(1, "2026-01-02T00:00:00Z"))];
    check(&nodes[..1], &aged, of(10, "2"), expect!["a1 without running-1"]);
    // A pod may refuse to push others out.
    let meek = with(of(10, "2"), json!({"preemptionPolicy": "Never"}));
    check(
        nodes,
        &running,
        meek,
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, preemption: not eligible due to preemptionPolicy=Never."
        ],
    );
    // A budget protects.
    let mut cache = cluster(nodes, &running);
    let selector = Selector::parse("app=p1").unwrap();
    let budget = Budget { selector, allowed: 0, disrupted: Default::default() };
    cache.surroundings.set_budget(ObjectKey::new("ns", "budget"), budget);
    expect!["a1 without running-1"].assert_eq(&outcome(&cache, &pod("new", of(10, "2"))));

    // Room that was made is kept for the pod it was made for.
    let mut cache = cluster(&nodes[..1], &[("a1", of(2, "2"))]);
    let first = pod("first", of(10, "2"));
    cache.nominate(&first.facts, "a1");
    expect!["0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."]
        .assert_eq(&outcome(&cache, &pod("second", of(1, "2"))));
    expect!["a1"].assert_eq(&outcome(&cache, &first));
}

#[test]
fn what_nodes_declare() {
    let node = |name: &str, declared: Value| json!({"metadata": {"name": name}, "status": {"declaredFeatures": declared}});
    let rules = json!([{"action": "RestartAllContainers"}]);
    let spec = json!({"containers": [{"name": "c", "restartPolicyRules": rules}]});
    let old = node("a", json!([]));
    let new = node("b", json!(["RestartAllContainersOnContainerExits"]));
    check(&[old.clone(), new], &[], spec.clone(), expect!["b"]);
    check(
        &[old],
        &[],
        spec,
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's required features. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
}
