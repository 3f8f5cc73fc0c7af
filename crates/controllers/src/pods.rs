//! Pods as their controllers see them: what is kept of each, how one is made from a template, claimed and ranked.

use api::Kind;
use api::core::v1::{Pod, PodTemplateSpec};
use apimachinery::labels::Selector;
use apimachinery::meta::OwnerReference;
use apimachinery::time::Time;
use apimachinery::validation::{NameUse, name_is_dns_subdomain};
use client::informer::Index;
use client::{Cached, Client, ObjectKey, Patch, PatchParams, Projection};
use rules::pod_conditions;
use serde_json::json;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Pods by the uid of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Pods without a controller, by namespace.
pub(crate) const ORPHANS: &str = "orphans";

/// How many creations a first batch has; each that succeeds doubles it.
const FIRST_BATCH: usize = 1;

/// Who controls an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

impl Controller {
    pub(crate) fn of(owners: &[OwnerReference]) -> Option<Self> {
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        Some(Controller { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Pending,
    Unknown,
    Running,
    Succeeded,
    Failed,
}

/// What is kept of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodFacts {
    pub controller: Option<Controller>,
    pub labels: BTreeMap<String, String>,
    pub phase: Phase,
    pub deleting: bool,
    pub node: String,
    pub ready: bool,
    pub ready_since: Option<Time>,
    pub created: Time,
    pub restarts: i64,
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let ready = pod_conditions::find(&pod.status.conditions, pod_conditions::READY);
        let ready = ready.filter(|condition| condition.status == "True");
        let statuses = pod.status.container_statuses.iter();
        let cost = pod.metadata.annotations.get("controller.kubernetes.io/pod-deletion-cost");
        PodFacts {
            controller: Controller::of(&pod.metadata.owner_references),
            labels: pod.metadata.labels.clone(),
            phase: match pod.status.phase.as_str() {
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                "Unknown" => Phase::Unknown,
                _ => Phase::Pending,
            },
            deleting: pod.metadata.deletion_timestamp.is_some(),
            node: pod.spec.node_name.clone(),
            ready: ready.is_some(),
            ready_since: ready.and_then(|condition| condition.last_transition_time),
            created: pod.metadata.creation_timestamp,
            restarts: statuses.map(|status| i64::from(status.restart_count)).max().unwrap_or(0),
            deletion_cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CONTROLLER, |pod| pod.controller.iter().map(|c| c.uid.clone()).collect()),
            (ORPHANS, |pod| match pod.controller {
                None => vec![pod.namespace().to_owned()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

impl PodFacts {
    pub(crate) fn terminal(&self) -> bool {
        self.phase >= Phase::Succeeded
    }

    /// Neither ended nor ending.
    pub(crate) fn active(&self) -> bool {
        !self.terminal() && !self.deleting
    }

    /// Whether it has been ready for so long.
    pub(crate) fn available(&self, min_ready_seconds: i32, now: Time) -> bool {
        self.ready && self.available_in(min_ready_seconds, now) == Some(0)
    }

    /// In how many seconds it will be available if it stays ready.
    pub(crate) fn available_in(&self, min_ready_seconds: i32, now: Time) -> Option<i64> {
        if !self.ready {
            return None;
        }
        if min_ready_seconds == 0 {
            return Some(0);
        }
        let since = self.ready_since?;
        Some((since.unix() + i64::from(min_ready_seconds) - now.unix()).max(0))
    }
}

/// Whose pod it becomes or stays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Ours,
    Adopt,
    Release,
    Others,
}

/// What an owner with this selector does about a pod. Upstream: `ClaimObject`.
pub(crate) fn claim(pod: &PodFacts, uid: &str, owner_deleting: bool, selector: &Selector) -> Claim {
    let matches = selector.matches(&pod.labels);
    match &pod.controller {
        Some(controller) if controller.uid != uid => Claim::Others,
        Some(_) if matches => Claim::Ours,
        Some(_) if owner_deleting => Claim::Others,
        Some(_) => Claim::Release,
        None if owner_deleting || !matches || pod.deleting => Claim::Others,
        None => Claim::Adopt,
    }
}

/// The reference by which an owner controls what it made.
pub(crate) fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::api_version(),
        kind: K::KIND.into(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A patch that makes `owner` the controller of the object with this uid.
pub(crate) fn adoption<K: Kind>(owner: &K, uid: &str) -> Patch {
    let reference = controller_reference(owner);
    Patch::Strategic(json!({"metadata": {"ownerReferences": [reference], "uid": uid}}))
}

/// A patch that lets the object with this uid go.
pub(crate) fn release<K: Kind>(owner: &K, uid: &str) -> Patch {
    let gone = json!({"$patch": "delete", "uid": owner.metadata().uid});
    Patch::Strategic(json!({"metadata": {"ownerReferences": [gone], "uid": uid}}))
}

/// A pod as an owner's template says, without a name of its own.
pub(crate) fn from_template<K: Kind>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let mut pod = Pod::new();
    let meta = owner.metadata();
    let prefix = format!("{}-", meta.name);
    // As upstream: a name too odd for pods is used all the same if only the hyphen is.
    let valid = name_is_dns_subdomain(&prefix, NameUse::Prefix).into_iter().next().is_none();
    pod.metadata.generate_name = if valid { prefix } else { meta.name.clone() };
    pod.metadata.namespace = meta.namespace.clone();
    pod.metadata.labels = template.metadata.labels.clone();
    pod.metadata.annotations = template.metadata.annotations.clone();
    pod.metadata.finalizers = template.metadata.finalizers.clone();
    pod.metadata.owner_references = vec![controller_reference(owner)];
    pod.spec = template.spec.clone();
    pod
}

/// Which of two pods goes first when there are too many; `crowd` tells how many ready siblings share the pod's node.
/// Upstream: `ActivePodsWithRanks`.
pub(crate) fn deletion_order(
    a: &Cached<PodFacts>,
    b: &Cached<PodFacts>,
    crowd: impl Fn(&PodFacts) -> usize,
    now: Time,
) -> Ordering {
    // Ages are compared by powers of two, and within one by uid: not only the youngest go.
    let age = |time: Time| now.since(time).seconds_f64().max(1.0).log2() as i64;
    let younger = |x: Time, y: Time| match age(x).cmp(&age(y)) {
        Ordering::Equal if x != y => a.uid.cmp(&b.uid),
        order => order,
    };
    (!a.node.is_empty())
        .cmp(&!b.node.is_empty())
        .then(a.phase.cmp(&b.phase))
        .then(a.ready.cmp(&b.ready))
        .then(a.deletion_cost.cmp(&b.deletion_cost))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| match (a.ready_since, b.ready_since) {
            (Some(x), Some(y)) => younger(x, y),
            _ => Ordering::Equal,
        })
        .then(b.restarts.cmp(&a.restarts))
        .then_with(|| younger(a.created, b.created))
}

/// Runs `count` creations in batches that double as long as all of a batch succeed. Returns how many succeeded, and the
/// first error. Upstream: `slowStartBatch`.
pub(crate) async fn slow_start<F, E>(count: usize, create: impl Fn() -> F) -> (usize, Result<(), E>)
where
    F: Future<Output = Result<(), E>>,
{
    let (mut done, mut batch) = (0, FIRST_BATCH);
    while done < count {
        let results = futures::future::join_all((0..batch.min(count - done)).map(|_| create())).await;
        let asked = results.len();
        let mut error = None;
        for result in results {
            match result {
                Ok(()) => done += 1,
                Err(e) => error = error.or(Some(e)),
            }
        }
        if let Some(error) = error {
            return (done, Err(error));
        }
        debug_assert!(asked > 0);
        batch *= 2;
    }
    (done, Ok(()))
}

/// Patches a pod; an absent one is no error, as it needs nothing any more.
pub(crate) async fn patch_pod(
    client: &Client,
    key: &ObjectKey,
    patch: &Patch,
) -> client::Result<Option<Pod>> {
    match client.namespaced::<Pod>(&key.namespace).patch(&key.name, patch, &PatchParams::default()).await {
        Ok(pod) => Ok(Some(pod)),
        // 422: the name belongs to another pod by now.
        Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
        Err(error) => Err(error),
    }
}
