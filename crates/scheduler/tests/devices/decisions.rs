//! Where pods with claims to devices go, and what is said when they go nowhere.

use crate::small_clusters::{asks, cluster, outcome, pod, with, zones};
use crate::{claim_of, devices};
use apimachinery::json;
use apimachinery::value::Value;
use client::ObjectKey;
use expect_test::{Expect, expect};
use scheduler::cache::Cache;
use scheduler::decide::{decide, place};
use scheduler::framework::Cycle;
use scheduler::stopwatch::Stopwatch;
use std::sync::Arc;

/// One device on each of two hosts, and a class of them that also gives an extended resource.
fn world() -> Value {
    let slice = |node: &str| {
        json!({"metadata": {"name": node}, "spec": {"driver": "gpu.example", "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu", "attributes": {"fast": {"bool": node == "b2"}}}]}})
    };
    json!({"slices": [slice("a1"), slice("b2")], "classes": [
        {"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}]})
}

fn zoned() -> Cache {
    let mut cache = cluster(&zones(), &[]);
    cache.surroundings.devices = devices(&world());
    cache
}

fn set_claim(cache: &mut Cache, name: &str, more: Value) {
    let mut claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"devices": {"requests": [one("gpu", json!({}))]}}});
    schema::patch::merge(&mut claim, &more);
    cache.surroundings.devices.set_claim(&ObjectKey::new("ns", name), Arc::new(claim_of(&claim)), 1);
}

fn one(name: &str, more: Value) -> Value {
    let mut exact = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    schema::patch::merge(&mut exact, &more);
    json!({"name": name, "exactly": exact})
}

fn requests(requests: Value) -> Value {
    json!({"spec": {"devices": {"requests": requests}}})
}

fn given(node: &str, more: Value) -> Value {
    let mut result = json!({"request": "gpu", "driver": "gpu.example", "pool": node, "device": "gpu"});
    schema::patch::merge(&mut result, &more);
    let there = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    json!({"status": {"allocation": {"devices": {"results": [result]},
        "nodeSelector": {"nodeSelectorTerms": there}}}})
}

/// A pod that uses claims.
fn uses(claims: &[&str]) -> Value {
    let claim = |name: &&str| json!({"name": name, "resourceClaimName": name});
    with(asks("1"), json!({"resourceClaims": claims.iter().map(claim).collect::<Vec<_>>()}))
}

/// Where the pod goes, and what its claims get; or why nowhere, and what is given back.
fn check(cache: &Cache, spec: &Value, expected: Expect) {
    let pod = pod("new", spec.clone());
    let cycle = Cycle { pod: &pod, cache };
    let told = match place(cycle, 0, &mut Stopwatch::default()) {
        Err(failure) => {
            let released = failure.release.map(|key| format!("\nrelease {}", key.name));
            outcome(cache, &pod) + &released.unwrap_or_default()
        }
        Ok(placed) => {
            let claims = placed.reservation.unwrap_or_default().claims;
            let claims = claims.iter().map(|claim| {
                let results = claim.allocation.iter().flat_map(|given| &given.devices.results);
                let got: Vec<_> = results.map(|r| format!("{}={}/{}", r.request, r.pool, r.device)).collect();
                let mappings = claim.extended.iter().flat_map(|extended| &extended.mappings);
                let mappings = mappings.map(|m| format!(" {}:{}", m.container_name, m.request_name));
                format!(" [{} {}{}]", claim.key.name, got.join(" "), mappings.collect::<String>())
            });
            claims.fold(placed.node.to_string(), |all, one| all + &one)
        }
    };
    expected.assert_eq(&told);
}

#[test]
fn claims_must_be_there() {
    let mut cache = zoned();
    let preempted = |told: &str| {
        format!(
            "0/4 nodes are available: {told}. still not schedulable, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        )
    };
    let check = |cache: &Cache, spec: &Value, told: &str| {
        assert_eq!(outcome(cache, &pod("new", spec.clone())), preempted(told));
    };
    check(&cache, &uses(&["mine"]), "could not find ResourceClaim \"ns/mine\"");
    let made = with(asks("1"), json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]}));
    check(&cache, &made, "pod \"ns/new\": ResourceClaim not created yet");
    set_claim(&mut cache, "mine", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(&cache, &uses(&["mine"]), "resourceclaim \"mine\" is being deleted");
    let classless = requests(json!([one("gpu", json!({"deviceClassName": "tpu"}))]));
    let mut cache = zoned();
    set_claim(&mut cache, "mine", classless);
    check(&cache, &uses(&["mine"]), "request gpu: device class tpu does not exist");
    let choice = json!([{"name": "r", "firstAvailable": [
        {"name": "a", "deviceClassName": "tpu", "allocationMode": "ExactCount", "count": 1}]}]);
    let mut cache = zoned();
    set_claim(&mut cache, "mine", requests(choice));
    check(&cache, &uses(&["mine"]), "request r/a: device class tpu does not exist");
}

#[test]
fn a_pod_goes_where_its_devices_are() {
    let mut cache = zoned();
    set_claim(&mut cache, "mine", json!({}));
    check(&cache, &uses(&["mine"]), expect!["a1 [mine gpu=a1/gpu]"]);
    let fast = json!({"selectors": [{"cel": {"expression": "device.attributes['gpu.example'].fast"}}]});
    set_claim(&mut cache, "fast", requests(json!([one("gpu", fast)])));
    check(&cache, &uses(&["fast"]), expect!["b2 [fast gpu=b2/gpu]"]);
    check(
        &cache,
        &uses(&["mine", "fast"]),
        expect![
            "0/4 nodes are available: 4 cannot allocate all claims. still not schedulable, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
    // What was decided counts before it is written.
    let decided =
        place(Cycle { pod: &pod("new", uses(&["mine"])), cache: &cache }, 0, &mut Stopwatch::default());
    let decided = decided.unwrap().reservation.unwrap();
    decided.assume(&mut cache.surroundings, "a1");
    check(
        &cache,
        &uses(&["mine"]),
        expect![
            "0/4 nodes are available: resource claim ns/mine is in the process of being allocated. still not schedulable, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
    set_claim(&mut cache, "other", json!({}));
    check(&cache, &uses(&["other"]), expect!["b2 [other gpu=b2/gpu]"]);
    decided.forget(&mut cache.surroundings);
    check(&cache, &uses(&["other"]), expect!["a1 [other gpu=a1/gpu]"]);
}

#[test]
fn a_claim_that_is_given_says_where() {
    let mut cache = zoned();
    set_claim(&mut cache, "mine", given("b2", json!({})));
    check(&cache, &uses(&["mine"]), expect!["b2 [mine ]"]);
    // Somebody else uses it where the pod cannot go: that is how it stays.
    let elsewhere = with(uses(&["mine"]), json!({"nodeSelector": {"kubernetes.io/hostname": "a1"}}));
    let used = json!({"status": {"reservedFor": [{"resource": "pods", "name": "other", "uid": "other"}]}});
    let mut shared = given("b2", json!({}));
    schema::patch::merge(&mut shared, &used);
    let mut cache = zoned();
    set_claim(&mut cache, "mine", shared);
    check(
        &cache,
        &elsewhere,
        expect![
            "0/4 nodes are available: 1 resourceclaim not available on the node, 3 node(s) didn't match Pod's node affinity/selector. still not schedulable, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
    // Nobody does: its devices are given back.
    let mut cache = zoned();
    set_claim(&mut cache, "mine", given("b2", json!({})));
    check(
        &cache,
        &elsewhere,
        expect![[r#"
        0/4 nodes are available: 1 resourceclaim not available on the node, 3 node(s) didn't match Pod's node affinity/selector. deallocation of ResourceClaim completed, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
        release mine"#]],
    );
}

#[test]
fn devices_that_could_not_be_bound_are_given_back() {
    let waits = json!({"bindingConditions": ["ready"], "bindingFailureConditions": ["broken"]});
    let told = |condition: &str| {
        let condition = json!({"type": condition, "status": "True", "reason": "R", "message": "m"});
        let mut claim = given("b2", waits.clone());
        let device =
            json!({"driver": "gpu.example", "pool": "b2", "device": "gpu", "conditions": [condition]});
        schema::patch::merge(&mut claim, &json!({"status": {"devices": [device]}}));
        claim
    };
    let mine = |claim: Value| {
        let mut cache = zoned();
        set_claim(&mut cache, "mine", claim);
        cache
    };
    let useful = |claim: Value| check(&mine(claim), &uses(&["mine"]), expect!["b2 [mine ]"]);
    let lost = |claim: Value| {
        check(
            &mine(claim),
            &uses(&["mine"]),
            expect![[r#"
                0/4 nodes are available: 4 resourceclaim not available on the node. deallocation of ResourceClaim completed, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
                release mine"#]],
        );
    };
    useful(told("ready"));
    lost(told("broken"));
    // They wait still; but not for ever.
    let since = |time: &str| {
        let mut claim = given("b2", waits.clone());
        let at = json!({"status": {"allocation": {"allocationTimestamp": time}}});
        schema::patch::merge(&mut claim, &at);
        claim
    };
    useful(since("2999-01-01T00:00:00Z"));
    lost(since("2026-01-01T00:00:00Z"));
}

#[test]
fn the_first_alternative_is_preferred() {
    let sub = |name: &str, fast: &str| {
        let expression = format!("device.attributes['gpu.example'].fast == {fast}");
        json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
            "selectors": [{"cel": {"expression": expression}}]})
    };
    for (first, second, node) in [("true", "false", "b2"), ("false", "true", "a1")] {
        let mut cache = zoned();
        let choice = json!([{"name": "r", "firstAvailable": [sub("x", first), sub("y", second)]}]);
        set_claim(&mut cache, "mine", requests(choice));
        let pod = pod("new", uses(&["mine"]));
        for turn in 0..4 {
            let cycle = Cycle { pod: &pod, cache: &cache };
            assert_eq!(&*decide(cycle, turn, &mut Stopwatch::default()).unwrap(), node);
        }
    }
}

#[test]
fn a_selector_that_fails_ends_the_search() {
    let mut cache = zoned();
    let wrong = json!({"selectors": [{"cel": {"expression": "device.attributes['gpu.example'].slow"}}]});
    set_claim(&mut cache, "mine", requests(json!([one("gpu", wrong)])));
    let pod = pod("new", uses(&["mine"]));
    let failure = decide(Cycle { pod: &pod, cache: &cache }, 0, &mut Stopwatch::default()).unwrap_err();
    assert!(failure.is_broken());
    expect![[r#"running "DynamicResources" filter plugin: claim ns/mine: selector #0: CEL runtime error: no such key: slow"#]]
        .assert_eq(&failure.error.to_string());
}

#[test]
fn extended_resources_may_be_given_by_devices() {
    let asks = |init: &[(&str, &str)], main: &str| {
        let container = |name: &str, count: &str| json!({"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": count}}});
        let init: Vec<_> = init.iter().map(|(name, count)| container(name, count)).collect();
        json!({"containers": [container("main", main)], "initContainers": init})
    };
    let mut cache = zoned();
    check(&cache, &asks(&[], "1"), expect!["a1 [ container-0-request-1=a1/gpu main:container-0-request-1]"]);
    check(
        &cache,
        &asks(&[], "2"),
        expect![
            "0/4 nodes are available: 4 cannot allocate all claims. no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
    // What ends before uses what the others have.
    check(
        &cache,
        &asks(&[("init", "1")], "1"),
        expect!["a1 [ container-1-request-1=a1/gpu main:container-1-request-1 init:container-1-request-1]"],
    );
    // A node that has them itself gives them itself.
    let mut nodes = zones();
    nodes[1]["status"]["allocatable"] =
        json!({"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/gpu": "2"});
    let mut mixed = cluster(&nodes, &[]);
    mixed.surroundings.devices = devices(&world());
    check(&mixed, &asks(&[], "2"), expect!["a2"]);
    // That of an earlier try is in the way.
    let stale = json!({"metadata": {"name": "stale", "namespace": "ns", "uid": "stale",
        "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "new", "uid": "new", "controller": true}]}});
    let key = ObjectKey::new("ns", "stale");
    cache.surroundings.devices.set_claim(&key, Arc::new(claim_of(&stale)), 1);
    check(
        &cache,
        &asks(&[], "1"),
        expect![[r#"
        0/4 nodes are available: 4 cannot schedule extended resource claim. deletion of ResourceClaim completed, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.
        release stale"#]],
    );
}

/// An answer to a write comes late: the claim is gone already, and its device anybody's.
#[test]
fn a_claim_that_is_gone_stays_gone() {
    let mut cache = zoned();
    let key = ObjectKey::new("ns", "mine");
    let mut has = requests(json!([one("gpu", json!({}))]));
    has["metadata"] = json!({"name": "mine", "namespace": "ns", "uid": "mine"});
    schema::patch::merge(&mut has, &given("a1", json!({})));
    let has = Arc::new(claim_of(&has));
    set_claim(&mut cache, "other", json!({}));
    let devices = &mut cache.surroundings.devices;
    devices.written(&key, has.clone(), 6);
    check(&cache, &uses(&["other"]), expect!["b2 [other gpu=b2/gpu]"]);
    let devices = &mut cache.surroundings.devices;
    devices.remove_claim(&key, 7);
    devices.written(&key, has, 6);
    check(&cache, &uses(&["other"]), expect!["a1 [other gpu=a1/gpu]"]);
}

/// What a device consumes is given back when a constraint is against it.
#[test]
fn counters_are_given_back() {
    let device = |name: &str, model: &str| {
        json!({"name": name, "attributes": {"model": {"string": model}},
            "consumesCounters": [{"counterSet": "set", "counters": {"slots": {"value": "1"}}}]})
    };
    let slice = |name: &str, more: Value| {
        let mut slice = json!({"metadata": {"name": name}, "spec": {"driver": "gpu.example", "nodeName": "a1",
            "pool": {"name": "a1", "generation": 1, "resourceSliceCount": 2}}});
        schema::patch::merge(&mut slice, &json!({"spec": more}));
        slice
    };
    let counters = json!([{"name": "set", "counters": {"slots": {"value": "2"}}}]);
    let parts = json!([device("p0", "a"), device("p1", "b"), device("p2", "b"), device("p3", "a")]);
    let world = json!({"classes": world()["classes"], "slices": [
        slice("counters", json!({"sharedCounters": counters})), slice("parts", json!({"devices": parts}))]});
    let mut cache = cluster(&zones(), &[]);
    cache.surroundings.devices = devices(&world);
    let mut two = requests(json!([one("gpu", json!({"count": 2}))]));
    two["spec"]["devices"]["constraints"] = json!([{"matchAttribute": "gpu.example/model"}]);
    set_claim(&mut cache, "mine", two);
    check(&cache, &uses(&["mine"]), expect!["a1 [mine gpu=a1/p0 gpu=a1/p3]"]);
    let mut distinct = requests(json!([one("gpu", json!({"count": 2}))]));
    distinct["spec"]["devices"]["constraints"] = json!([{"distinctAttribute": "gpu.example/model"}]);
    set_claim(&mut cache, "other", distinct);
    check(&cache, &uses(&["other"]), expect!["a1 [other gpu=a1/p0 gpu=a1/p1]"]);
    let mut three = requests(json!([one("gpu", json!({"count": 3}))]));
    three["spec"]["devices"]["constraints"] = json!([]);
    set_claim(&mut cache, "many", three);
    check(
        &cache,
        &uses(&["many"]),
        expect![
            "0/4 nodes are available: 4 cannot allocate all claims. still not schedulable, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
        ],
    );
}
