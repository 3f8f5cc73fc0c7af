//! Decisions about pods with claims: where their volumes are, can be had, or can be made.
#![allow(clippy::unwrap_used)]

mod small_clusters;

use apimachinery::decode::Decode as _;
use apimachinery::json;
use apimachinery::value::Value;
use client::{ObjectKey, Projection};
use expect_test::{Expect, expect};
use scheduler::cache::Cache;
use scheduler::decide::place;
use scheduler::framework::Cycle;
use scheduler::stopwatch::Stopwatch;
use scheduler::storage::Storage;
use scheduler::storage::rows::{CapacityRow, ClaimRow, ClassRow, DriverRow, VolumeRow};
use small_clusters::{HOST, ZONE, asks, cluster, outcome, pod, with, zones};

fn row<P: Projection>(object: Value) -> P {
    P::project(&P::Kind::from_value(&object).unwrap())
}

fn storage(cache: &mut Cache) -> &mut Storage {
    &mut cache.surroundings.storage
}

fn set_claim(cache: &mut Cache, name: &str, more: Value) {
    let mut claim = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Pending"}});
    schema::patch::merge(&mut claim, &more);
    storage(cache).set_claim(&ObjectKey::new("ns", name), row::<ClaimRow>(claim), 1);
}

fn set_volume(cache: &mut Cache, name: &str, host: &str, more: Value) {
    let here = json!([{"matchExpressions": [{"key": HOST, "operator": "In", "values": [host]}]}]);
    let mut volume = json!({
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "storageClassName": "near",
            "nodeAffinity": {"required": {"nodeSelectorTerms": here}}},
        "status": {"phase": "Available"}});
    schema::patch::merge(&mut volume, &more);
    storage(cache).set_volume(name, row::<VolumeRow>(volume), 1);
}

fn set_class(cache: &mut Cache, name: &str, more: Value) {
    let mut class = json!({"metadata": {"name": name}, "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer"});
    schema::patch::merge(&mut class, &more);
    storage(cache).set_class(name, row::<ClassRow>(class));
}

/// A pod that uses claims.
fn uses(claims: &[&str]) -> Value {
    let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    with(asks("1"), json!({"volumes": claims.iter().map(volume).collect::<Vec<_>>()}))
}

/// Where the pod goes and what is done about its volumes; or why nowhere.
fn check(cache: &Cache, spec: &Value, expected: Expect) {
    let pod = pod("new", spec.clone());
    let told = match place(Cycle { pod: &pod, cache }, 0, &mut Stopwatch::default()) {
        Err(_) => outcome(cache, &pod),
        Ok(placed) => {
            let reservation = placed.reservation.unwrap_or_default();
            let volumes =
                reservation.volumes.iter().map(|(volume, claim)| format!(" {volume} for {}", claim.name));
            let made = reservation.provisions.iter().map(|claim| format!(" another for {}", claim.name));
            volumes.chain(made).fold(placed.node.to_string(), |all, one| all + &one)
        }
    };
    let rest = ". no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling.";
    expected.assert_eq(told.strip_suffix(rest).unwrap_or(&told));
}

fn bound(volume: &str) -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": volume}, "status": {"phase": "Bound"}})
}

#[test]
fn claims_must_be_there_and_usable() {
    let owned = |owner: &str, mut more: Value| {
        more["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Pod", "name": owner, "uid": owner, "controller": true}]);
        more
    };
    let ephemeral = with(
        asks("1"),
        json!({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}),
    );
    let mut cache = cluster(&zones(), &[]);
    check(
        &cache,
        &ephemeral,
        expect![[
            r#"0/4 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "new-v""#
        ]],
    );
    check(
        &cache,
        &uses(&["data"]),
        expect![[r#"0/4 nodes are available: persistentvolumeclaim "data" not found"#]],
    );
    set_claim(&mut cache, "new-v", owned("other", bound("pv")));
    check(
        &cache,
        &ephemeral,
        expect!["0/4 nodes are available: PVC ns/new-v was not created for pod ns/new (pod is not owner)"],
    );
    set_claim(&mut cache, "new-v", owned("new", json!({})));
    check(
        &cache,
        &ephemeral,
        expect!["0/4 nodes are available: pod has unbound immediate PersistentVolumeClaims"],
    );
    set_claim(&mut cache, "new-v", owned("new", bound("pv")));
    check(
        &cache,
        &ephemeral,
        expect![
            "0/4 nodes are available: 4 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
        ],
    );
    set_volume(&mut cache, "pv", "b2", json!({}));
    check(&cache, &ephemeral, expect!["b2"]);
    set_volume(&mut cache, "pv", "nowhere", json!({}));
    check(
        &cache,
        &ephemeral,
        expect!["0/4 nodes are available: 4 node(s) didn't match PersistentVolume's node affinity"],
    );
    set_claim(&mut cache, "data", bound("gone"));
    check(
        &cache,
        &uses(&["data"]),
        expect![[r#"0/4 nodes are available: persistentvolume "gone" not found"#]],
    );
    set_claim(&mut cache, "data", json!({"spec": {"volumeName": "gone"}, "status": {"phase": "Lost"}}));
    check(
        &cache,
        &uses(&["data"]),
        expect![[
            r#"0/4 nodes are available: persistentvolumeclaim "data" bound to non-existent persistentvolume "gone""#
        ]],
    );
    set_claim(&mut cache, "data", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(
        &cache,
        &uses(&["data"]),
        expect![[r#"0/4 nodes are available: persistentvolumeclaim "data" is being deleted"#]],
    );
}

#[test]
fn volumes_are_chosen_with_the_node() {
    let near = |more: Value| {
        let mut claim = json!({"spec": {"storageClassName": "near"}});
        schema::patch::merge(&mut claim, &more);
        claim
    };
    let mut cache = cluster(&zones(), &[]);
    set_class(&mut cache, "near", json!({}));
    set_claim(&mut cache, "a", near(json!({})));
    set_claim(&mut cache, "b", near(json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})));
    check(
        &cache,
        &uses(&["a"]),
        expect!["0/4 nodes are available: 4 node(s) didn't find available persistent volumes to bind"],
    );
    set_volume(&mut cache, "v1", "a2", json!({}));
    set_volume(&mut cache, "v2", "b1", json!({}));
    set_volume(&mut cache, "v3", "b1", json!({"spec": {"capacity": {"storage": "5Gi"}}}));
    check(&cache, &uses(&["a"]), expect!["a2 v1 for a"]);
    // One for each, where there are two.
    check(&cache, &uses(&["b", "a"]), expect!["b1 v2 for a v3 for b"]);

    // What is decided, counts before anybody has seen it, and only until then.
    let pod = pod("first", uses(&["b", "a"]));
    let placed = place(Cycle { pod: &pod, cache: &cache }, 0, &mut Stopwatch::default()).unwrap();
    storage(&mut cache).assume(&placed.reservation.clone().unwrap(), &placed.node);
    set_claim(&mut cache, "c", near(json!({})));
    check(&cache, &uses(&["c"]), expect!["a2 v1 for c"]);
    check(&cache, &uses(&["a"]), expect!["b1 v2 for a"]);
    storage(&mut cache).forget(&placed.reservation.unwrap());
    check(&cache, &uses(&["c", "b"]), expect!["b1 v2 for c v3 for b"]);

    // A claim that waits for a volume of one node, and one whose volume is kept for it.
    set_claim(
        &mut cache,
        "c",
        near(json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a1"}}})),
    );
    check(
        &cache,
        &uses(&["c"]),
        expect!["0/4 nodes are available: 4 node(s) didn't find available persistent volumes to bind"],
    );
    let kept =
        json!({"spec": {"claimRef": {"namespace": "ns", "name": "a"}, "capacity": {"storage": "9Gi"}}});
    set_volume(&mut cache, "kept", "b2", kept);
    check(&cache, &uses(&["a"]), expect!["b2 kept for a"]);
}

#[test]
fn volumes_are_made_where_they_can_be() {
    let mut cache = cluster(&zones(), &[]);
    let class = |more: Value| {
        let mut class = json!({"provisioner": "csi.example.com"});
        schema::patch::merge(&mut class, &more);
        class
    };
    set_class(&mut cache, "near", class(json!({})));
    set_claim(&mut cache, "a", json!({"spec": {"storageClassName": "near"}}));
    check(&cache, &uses(&["a"]), expect!["a1 another for a"]);
    let zone_b = json!([{"matchLabelExpressions": [{"key": ZONE, "values": ["b", "c"]}]}]);
    set_class(&mut cache, "near", class(json!({"allowedTopologies": zone_b})));
    check(&cache, &uses(&["a"]), expect!["b1 another for a"]);

    // A driver that says what it has, has no more than that.
    let driver = json!({"metadata": {"name": "csi.example.com"}, "spec": {"storageCapacity": true}});
    storage(&mut cache).set_driver("csi.example.com", row::<DriverRow>(driver));
    check(
        &cache,
        &uses(&["a"]),
        expect![
            "0/4 nodes are available: 2 node(s) did not have enough free storage, 2 node(s) didn't find available persistent volumes to bind"
        ],
    );
    let capacity = |size: &str| {
        row::<CapacityRow>(json!({"metadata": {"name": "c"}, "storageClassName": "near", "capacity": size,
            "nodeTopology": {"matchLabels": {HOST: "b2"}}}))
    };
    let key = ObjectKey::new("kube-system", "c");
    storage(&mut cache).set_capacity(&key, capacity("512Mi"));
    check(
        &cache,
        &uses(&["a"]),
        expect![
            "0/4 nodes are available: 2 node(s) did not have enough free storage, 2 node(s) didn't find available persistent volumes to bind"
        ],
    );
    storage(&mut cache).set_capacity(&key, capacity("1Gi"));
    check(&cache, &uses(&["a"]), expect!["b2 another for a"]);
}

#[test]
fn a_claim_for_one_pod_is_used_by_one() {
    let running = [("a1", with(uses(&["data"]), json!({"priority": 1})))];
    let mut cache = cluster(&zones(), &running);
    set_volume(&mut cache, "pv", "b2", json!({"spec": {"nodeAffinity": null}}));
    let mut claim = bound("pv");
    set_claim(&mut cache, "data", claim.clone());
    check(&cache, &uses(&["data"]), expect!["a2"]);
    claim["spec"]["accessModes"] = json!(["ReadWriteOncePod"]);
    set_claim(&mut cache, "data", claim);
    check(
        &cache,
        &uses(&["data"]),
        expect![
            "0/4 nodes are available: 4 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. no new claims to deallocate, preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod."
        ],
    );
    // Whoever is worth more takes it over.
    check(&cache, &with(uses(&["data"]), json!({"priority": 9})), expect!["a1 without running-0"]);
    cache.remove_pod("running-0");
    check(&cache, &uses(&["data"]), expect!["a1"]);
}

#[test]
fn disks_and_zones_of_old() {
    let disk = |read_only: bool| {
        with(
            asks("1"),
            json!({"volumes": [{"name": "d", "gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]}),
        )
    };
    let cache = cluster(&zones()[..1], &[("a1", disk(true))]);
    check(&cache, &disk(true), expect!["a1"]);
    check(
        &cache,
        &disk(false),
        expect![
            "0/1 nodes are available: 1 node(s) had no available disk. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        ],
    );
    let mut cache = cluster(&zones(), &[]);
    let zone = |value: &str| json!({"metadata": {"labels": {"failure-domain.beta.kubernetes.io/zone": value}}, "spec": {"nodeAffinity": null}});
    set_claim(&mut cache, "data", bound("pv"));
    set_volume(&mut cache, "pv", "", zone("b__c"));
    check(&cache, &uses(&["data"]), expect!["b1"]);
    set_volume(&mut cache, "pv", "", zone("c"));
    check(
        &cache,
        &uses(&["data"]),
        expect!["0/4 nodes are available: 4 node(s) had no available volume zone"],
    );
}

#[test]
fn a_node_has_as_many_volumes_as_its_driver_allows() {
    let mut cache = cluster(&zones()[..2], &[("a1", uses(&["one"]))]);
    for name in ["one", "two"] {
        let csi = json!({"spec": {"nodeAffinity": null, "csi": {"driver": "d", "volumeHandle": name}}});
        set_volume(&mut cache, name, "", csi);
        set_claim(&mut cache, name, bound(name));
    }
    let limit = |count: i64| [("d".to_owned(), count)].into();
    storage(&mut cache).set_limits("a2", limit(0));
    check(&cache, &uses(&["two"]), expect!["a1"]);
    storage(&mut cache).set_limits("a1", limit(1));
    // What is there counts once, however many use it.
    check(&cache, &uses(&["one"]), expect!["a1"]);
    storage(&mut cache).set_limits("a2", limit(1));
    storage(&mut cache).set_attachment("x", "a2", "d", "one");
    check(
        &cache,
        &uses(&["two"]),
        expect![
            "0/2 nodes are available: 2 node(s) exceed max volume count. no new claims to deallocate, preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        ],
    );
    storage(&mut cache).set_limits("a2", limit(2));
    check(&cache, &uses(&["two"]), expect!["a2"]);
}
