//! Binding a pod's volumes before the pod, when whoever is to bring them about does so late, otherwise, or not at all; on
//! virtual time.
#![allow(clippy::unwrap_used)]

mod api;

use api::Api;
use apimachinery::json;
use apimachinery::value::Value;
use client::Client;
use component::gates::FeatureGates;
use component::metrics::Registry;
use expect_test::{Expect, expect};
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

const POD: &str = "/api/v1/namespaces/ns/pods/web";
const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/data";
const SELECTED: &str = "volume.kubernetes.io/selected-node";

/// Nodes a and b, a class whose volumes are made or found when a pod comes, a claim and a pod that uses it.
struct Cluster {
    api: Api,
    _running: DropGuard,
}

/// What a class says of who makes its volumes.
const NOBODY: &str = "kubernetes.io/no-provisioner";
const SOMEBODY: &str = "csi.example.com";

impl Cluster {
    fn start(provisioner: &str, volumes: &[&str]) -> Cluster {
        let api = Api::new();
        for name in ["a", "b"] {
            api.put(
                &format!("/api/v1/nodes/{name}"),
                json!({
                    "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
                    "status": { "allocatable": { "cpu": "4", "memory": "4Gi", "pods": "10" } },
                }),
            );
        }
        api.put(
            "/apis/storage.k8s.io/v1/storageclasses/near",
            json!({
                "metadata": { "name": "near" }, "provisioner": provisioner,
                "volumeBindingMode": "WaitForFirstConsumer",
            }),
        );
        api.put(
            CLAIM,
            json!({
                "metadata": { "name": "data", "namespace": "ns", "annotations": { "kept": "yes" } },
                "spec": {
                    "storageClassName": "near", "accessModes": ["ReadWriteOnce"],
                    "resources": { "requests": { "storage": "1Gi" } },
                },
                "status": { "phase": "Pending" },
            }),
        );
        for volume in volumes {
            let (name, node) = volume.split_once('@').unwrap();
            api.put(&volume_path(name), volume_on(name, node));
        }
        api.put(
            POD,
            json!({
                "metadata": { "name": "web", "namespace": "ns" },
                "spec": {
                    "schedulerName": "default-scheduler",
                    "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }],
                    "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "data" } }],
                },
                "status": { "phase": "Pending" },
            }),
        );
        let stop = CancellationToken::new();
        let (client, ended) = (Client::new(Arc::new(api.clone()), "test"), stop.clone());
        tokio::spawn(async move {
            scheduler::run(client, &FeatureGates::new(&[]), &Registry::new(), ended).await
        });
        Cluster { api, _running: stop.drop_guard() }
    }

    /// The node that was chosen for the claim.
    fn selected(&self) -> Option<String> {
        selected(&self.api)
    }

    /// As who makes volumes and the binder do: the claim has its volume.
    fn provide(&self, name: &str, node: &str) {
        let mut volume = volume_on(name, node);
        volume["spec"]["claimRef"] = json!({ "namespace": "ns", "name": "data", "uid": "data" });
        self.api.put(&volume_path(name), volume);
        self.bind(name);
    }

    /// The binder has bound the claim.
    fn bind(&self, volume: &str) {
        self.api.edit(
            CLAIM,
            json!({
                "metadata": { "annotations": { "pv.kubernetes.io/bind-completed": "yes" } },
                "spec": { "volumeName": volume }, "status": { "phase": "Bound" },
            }),
        );
    }

    /// Waits until this is told, and shows it.
    async fn told(&self, expected: Expect) {
        let about = std::cell::RefCell::new(Vec::new());
        let heard = |api: &Api| {
            let mut about = about.borrow_mut();
            about.extend(api.told().into_iter().filter(|event| !event.starts_with("Scheduled")));
            !about.is_empty()
        };
        self.api.until("something is told", heard).await;
        expected.assert_eq(&about.take().join("\n"));
    }

    async fn bound_to(&self, node: &str) {
        let on = |api: &Api| api.get(POD).is_some_and(|pod| pod["spec"]["nodeName"] == node);
        self.api.until("the pod is bound", on).await;
    }
}

fn selected(api: &Api) -> Option<String> {
    Some(api.get(CLAIM)?["metadata"]["annotations"][SELECTED].as_str()?.to_owned())
}

fn volume_path(name: &str) -> String {
    format!("/api/v1/persistentvolumes/{name}")
}

fn volume_on(name: &str, node: &str) -> Value {
    let here = json!([{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }]);
    json!({
        "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "storageClassName": "near",
            "nodeAffinity": { "required": { "nodeSelectorTerms": here } },
        },
        "status": { "phase": "Available" },
    })
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_waited_for_until_it_is_late() {
    let cluster = Cluster::start(SOMEBODY, &[]);
    let began = tokio::time::Instant::now();
    cluster.api.until("a node is chosen", |api| selected(api).is_some()).await;
    let node = cluster.selected().unwrap();
    // Nobody makes one.
    cluster
        .told(expect![[r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded"#]])
        .await;
    assert_eq!(began.elapsed().as_secs(), 600);
    let status = cluster.api.get(POD).unwrap()["status"].clone();
    assert_eq!(status["conditions"][0]["reason"], "SchedulerError");
    // It is tried again, and the volume that comes at last is good.
    cluster.provide("made", &node);
    cluster.bound_to(&node).await;
    assert!(began.elapsed().as_secs() < 700);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_goes_is_not_waited_for() {
    let cluster = Cluster::start(SOMEBODY, &[]);
    cluster.api.until("a node is chosen", |api| selected(api).is_some()).await;
    cluster.api.remove(CLAIM);
    cluster
        .told(expect![[r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: failed to check provisioning pvc: could not find v1.PersistentVolumeClaim "ns/data""#]])
        .await;
    cluster
        .told(expect![[r#"FailedScheduling: 0/2 nodes are available: persistentvolumeclaim "data" not found. no new claims to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."#]])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_is_not_told_of() {
    let cluster = Cluster::start(SOMEBODY, &[]);
    cluster.api.until("a node is chosen", |api| selected(api).is_some()).await;
    cluster.api.remove(POD);
    tokio::time::sleep(std::time::Duration::from_secs(1200)).await;
    assert_eq!(cluster.api.told(), [""; 0]);
    assert!(cluster.api.get(POD).is_none());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_make_a_volume_here_is_asked_elsewhere() {
    let cluster = Cluster::start(SOMEBODY, &[]);
    cluster.api.until("a node is chosen", |api| selected(api).is_some()).await;
    let first = cluster.selected().unwrap();
    let other = if first == "a" { "b" } else { "a" };
    // There is no room for it on the first.
    cluster.api.edit(&format!("/api/v1/nodes/{first}"), json!({ "spec": { "unschedulable": true } }));
    cluster.api.edit(CLAIM, json!({ "metadata": { "annotations": { SELECTED: null } } }));
    cluster
        .told(expect![[r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "data""#]])
        .await;
    cluster.api.until("the other is chosen", |api| selected(api).as_deref() == Some(other)).await;
    // What is made there, but not to be reached from there, is of no use.
    cluster.provide("made", &first);
    let told = cluster.api.clone();
    cluster
        .api
        .until("it is not taken", |api| {
            api.get(POD).unwrap()["status"]["conditions"][0]["message"]
                .as_str()
                .is_some_and(|message| message.contains("node affinity"))
        })
        .await;
    let expected = format!(
        r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: pv "made" node affinity doesn't match node {other:?}: no matching NodeSelectorTerms"#
    );
    assert!(told.told().contains(&expected));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_another_takes_is_given_up() {
    let cluster = Cluster::start(NOBODY, &["one@a"]);
    let given = |api: &Api, name: &str| {
        api.get(&volume_path(name)).is_some_and(|volume| volume["spec"]["claimRef"]["uid"] == "data")
    };
    cluster.api.until("it is given", |api| given(api, "one")).await;
    // The binder gave the claim another volume, and frees this one.
    cluster.api.edit(&volume_path("one"), json!({ "spec": { "claimRef": null } }));
    cluster
        .told(expect![[r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: ClaimRef got reset for pv "one""#]])
        .await;
    // It is tried again: by now the volume is somebody's, and another there.
    cluster.api.edit(
        &volume_path("one"),
        json!({ "spec": { "claimRef": { "namespace": "ns", "name": "other", "uid": "other" } } }),
    );
    cluster.api.put(&volume_path("two"), volume_on("two", "b"));
    cluster.api.until("the other is given", |api| given(api, "two")).await;
    cluster.bind("two");
    cluster.bound_to("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_goes_is_given_up() {
    let cluster = Cluster::start(NOBODY, &["one@a"]);
    let given = |api: &Api| {
        api.get(&volume_path("one")).is_some_and(|volume| volume["spec"]["claimRef"]["uid"] == "data")
    };
    cluster.api.until("it is given", given).await;
    cluster.api.remove(&volume_path("one"));
    cluster
        .told(expect![[r#"FailedScheduling: running PreBind plugin "VolumeBinding": binding volumes: failed to check binding: could not find v1.PersistentVolume "one""#]])
        .await;
}
