//! What gates turn off: devices that need what is off are not given, and claims that ask for it are refused.

use crate::small_clusters::{asks, cluster, outcome, pod, with, zones};
use crate::{answer_of, answer_with, claim_of, devices_with};
use apimachinery::json;
use apimachinery::value::{Value, from_value};
use client::{ObjectKey, Projection as _};
use scheduler::devices::Features;
use scheduler::devices::taint_rules::RuleRow;
use std::sync::Arc;

fn merged(mut object: Value, more: &Value) -> Value {
    schema::patch::merge(&mut object, more);
    object
}

fn slice(name: &str, more: Value, devices: Value) -> Value {
    let mut slice = json!({"metadata": {"name": name}, "spec": {"driver": "gpu.example", "nodeName": "node",
        "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}, "devices": devices}});
    schema::patch::merge(&mut slice["spec"], &more);
    slice
}

fn world(slices: Value, request: Value) -> Value {
    let exact = json!({"name": "r", "exactly": {"deviceClassName": "any", "allocationMode": "ExactCount", "count": 1}});
    let mut request = merged(exact, &request);
    if !request["firstAvailable"].is_null() {
        request["exactly"] = Value::Null;
    }
    json!({"slices": slices, "classes": [{"metadata": {"name": "any"}}],
        "claims": [{"metadata": {"name": "c", "namespace": "ns", "uid": "c"},
            "spec": {"devices": {"requests": [request]}}}]})
}

/// The first device that has nothing special about it, where the one before it is not to be had.
const PLAIN: &str = "c: r=gpu.example/pool/plain at metadata.name=node";

/// What a claim gets as gates are by default, and with this feature turned about.
fn check(world: &Value, turn: fn(&mut Features), usual: &str, turned: &str) {
    assert_eq!(answer_with(world, Features::default()), usual, "{world}");
    let mut features = Features::default();
    turn(&mut features);
    assert_eq!(answer_with(world, features), turned, "{world}");
}

fn special(device: Value) -> Value {
    let special = merged(json!({"name": "special"}), &device);
    json!([slice("pool", json!({}), json!([special, {"name": "plain"}]))])
}

#[test]
fn devices_are_left_out() {
    let first = "c: r=gpu.example/pool/special at metadata.name=node";
    let waits = special(json!({"bindingConditions": ["ready"], "bindingFailureConditions": ["failed"]}));
    let waiting = "c: r=gpu.example/pool/special?ready at metadata.name=node";
    check(&world(waits, json!({})), |f| f.binding_conditions = false, waiting, PLAIN);
    let tainted = special(json!({"taints": [{"key": "sick", "effect": "NoSchedule"}]}));
    check(&world(tainted, json!({})), |f| f.taints = false, PLAIN, first);
    let counters = json!([{"counterSet": "set", "counters": {"slots": {"value": "1"}}}]);
    let sets = json!([{"name": "set", "counters": {"slots": {"value": "1"}}}]);
    let shared = slice(
        "counters",
        json!({"sharedCounters": sets, "pool": {"name": "pool", "resourceSliceCount": 2}}),
        json!([]),
    );
    let mut counted = special(json!({"consumesCounters": counters}));
    counted[0]["spec"]["pool"]["resourceSliceCount"] = json!(2);
    counted.as_array_mut().unwrap().push(shared);
    check(&world(counted, json!({})), |f| f.partitionable_devices = false, first, PLAIN);
    let here = json!([{"name": "special", "nodeName": "node"}]);
    let by_device = slice("pool", json!({"nodeName": null, "perDeviceNodeSelection": true}), here);
    check(&world(json!([by_device]), json!({})), |f| f.partitionable_devices = false, first, "none");
}

#[test]
fn rules_taint_devices() {
    let first = "c: r=gpu.example/pool/special at metadata.name=node";
    let world = world(special(json!({})), json!({}));
    let check = |selector: Value, effect: &str, want: &str| {
        let mut devices = devices_with(&world, Features { taint_rules: true, ..Features::default() });
        let rule = json!({"spec": {"deviceSelector": selector, "taint": {"key": "sick", "effect": effect}}});
        devices.set_rule("rule", RuleRow::project(&from_value(rule).unwrap()));
        assert_eq!(answer_of(&devices, &world), want, "{selector} {effect}");
        devices.remove_rule("rule");
        assert_eq!(answer_of(&devices, &world), first);
    };
    check(json!({"driver": "gpu.example", "device": "special"}), "NoSchedule", PLAIN);
    check(json!({"pool": "pool", "device": "special"}), "NoExecute", PLAIN);
    check(json!({"pool": "other", "device": "special"}), "NoExecute", first);
    check(json!({"device": "special"}), "None", first);
    check(Value::Null, "NoSchedule", "none");
}

#[test]
fn devices_are_not_shared() {
    let shared = special(json!({"allowMultipleAllocations": true, "capacity": {"memory": {"value": "8"}}}));
    let share = "c: r=gpu.example/pool/special*+memory:8 at metadata.name=node";
    let whole = "c: r=gpu.example/pool/special at metadata.name=node";
    check(&world(shared.clone(), json!({})), |f| f.consumable_capacity = false, share, whole);
    // Whoever had a share of it before has it all.
    let mut taken = world(shared.clone(), json!({}));
    taken["allocated"] = json!([{"request": "r", "driver": "gpu.example", "pool": "pool", "device": "special",
        "shareID": "s", "consumedCapacity": {"memory": "1"}}]);
    check(&taken, |f| f.consumable_capacity = false, PLAIN, PLAIN);
    let asking = world(shared, json!({"exactly": {"capacity": {"requests": {"memory": "2"}}}}));
    let part = "c: r=gpu.example/pool/special*+memory:2 at metadata.name=node";
    let refused = "error: claim ns/c, request r: has capacity requests, but the DRAConsumableCapacity feature is disabled";
    check(&asking, |f| f.consumable_capacity = false, part, refused);
}

#[test]
fn attributes_are_lists() {
    let several = special(json!({"attributes": {"links": {"strings": ["a", "b"]}}}));
    let selects = json!([{"cel": {"expression": "device.attributes['gpu.example'].links.includes('b')"}}]);
    let claim = world(several, json!({"exactly": {"selectors": selects}}));
    let unknown =
        "error: claim ns/c: selector #0: CEL runtime error: attribute links: unsupported attribute value";
    let first = "c: r=gpu.example/pool/special at metadata.name=node";
    check(&claim, |f| f.list_attributes = true, unknown, first);
}

#[test]
fn requests_have_no_alternatives() {
    let sub = json!({"name": "s", "deviceClassName": "any", "allocationMode": "ExactCount", "count": 1});
    let choosing = world(special(json!({})), json!({"firstAvailable": [sub]}));
    let refused =
        "error: claim ns/c, request r: has subrequests, but the DRAPrioritizedList feature is disabled";
    let first = "c: r/s=gpu.example/pool/special at metadata.name=node";
    check(&choosing, |f| f.prioritized_list = false, first, refused);
    // A pod is told so before any node is looked at.
    let mut cache = cluster(&zones(), &[]);
    cache.surroundings.devices =
        devices_with(&choosing, Features { prioritized_list: false, ..Features::default() });
    let claim = Arc::new(claim_of(&choosing["claims"][0]));
    cache.surroundings.devices.set_claim(&ObjectKey::new("ns", "c"), claim, 1);
    let pod =
        pod("new", with(asks("1"), json!({"resourceClaims": [{"name": "c", "resourceClaimName": "c"}]})));
    let told = outcome(&cache, &pod);
    let want = "0/4 nodes are available: resource claim ns/c, request r: has subrequests, but the DRAPrioritizedList feature is disabled.";
    assert!(told.starts_with(want), "{told}");
}

#[test]
fn devices_give_no_extended_resources() {
    let world = json!({"classes": [{"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}]});
    let gives = |features| devices_with(&world, features).gives("example.com/gpu");
    assert!(gives(Features::default()));
    assert!(!gives(Features { extended_resources: false, ..Features::default() }));
}
