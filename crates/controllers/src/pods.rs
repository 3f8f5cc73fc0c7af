//! Pods as their controllers see them: what is kept of each, how one is made from a template, claimed and ranked.

use crate::pod_control::{PodControl, Result};
use api::Kind;
use api::core::v1::{Pod, PodTemplateSpec};
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::meta::OwnerReference;
use apimachinery::time::{Duration, Time};
use apimachinery::validation::{NameUse, name_is_dns_subdomain};
use client::informer::Index;
use client::{Cached, ObjectKey, Patch, Projection};
use rules::pod_conditions;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pods by the uid of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// Pods without a controller, by namespace.
pub(crate) const ORPHANS: &str = "orphans";

/// Objects by namespace.
pub(crate) const BY_NAMESPACE: &str = "namespace";

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
    /// The node that a pod without one may go to only.
    pub bound_for: Option<Box<str>>,
    pub ready: bool,
    pub ready_since: Option<Time>,
    pub created: Time,
    /// Since when it says that it goes (`DisruptionTarget`), unless the kubelet ended it.
    pub disrupted: Option<Time>,
    /// Of the container that restarted most often, and the same of its sidecars.
    pub restarts: (i32, i32),
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let ready = pod_conditions::find(&pod.status.conditions, pod_conditions::READY);
        let ready = ready.filter(|condition| condition.status == "True");
        let statuses = pod.status.container_statuses.iter();
        let sidecars = pod.status.init_container_statuses.iter().filter(|status| {
            let mut containers = pod.spec.init_containers.iter();
            containers.any(|c| c.name == status.name && c.restart_policy.as_deref() == Some("Always"))
        });
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
            bound_for: if pod.spec.node_name.is_empty() { bound_for(pod) } else { None },
            ready: ready.is_some(),
            ready_since: ready.and_then(|condition| condition.last_transition_time),
            created: pod.metadata.creation_timestamp,
            disrupted: pod_conditions::find(&pod.status.conditions, pod_conditions::DISRUPTION_TARGET)
                .filter(|condition| condition.status == "True" && condition.reason != "TerminationByKubelet")
                .and_then(|condition| condition.last_transition_time),
            restarts: (
                statuses.map(|status| status.restart_count).max().unwrap_or(0),
                sidecars.map(|status| status.restart_count).max().unwrap_or(0),
            ),
            deletion_cost: cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CONTROLLER, |pod| pod.controller.iter().map(|c| c.uid.clone()).collect()),
            (BY_NAMESPACE, |pod| vec![pod.namespace().to_owned()]),
            (ORPHANS, |pod| match pod.controller {
                None => vec![pod.namespace().to_owned()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

/// The node that a pod's affinity names, as pods of DaemonSets do. Upstream: `GetTargetNodeName`.
fn bound_for(pod: &Pod) -> Option<Box<str>> {
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| &term.match_fields);
    let field = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match field.values.as_slice() {
        [node] => Some(node.as_str().into()),
        _ => None,
    }
}

impl PodFacts {
    /// The node that a pod is on or meant for.
    pub(crate) fn target_node(&self) -> Option<&str> {
        if self.node.is_empty() { self.bound_for.as_deref() } else { Some(&self.node) }
    }

    pub(crate) fn terminal(&self) -> bool {
        self.phase >= Phase::Succeeded
    }

    /// Neither ended nor ending.
    pub(crate) fn active(&self) -> bool {
        !self.terminal() && !self.deleting
    }

    /// Whether it has been ready for so long.
    pub(crate) fn available(&self, min_ready_seconds: i32, now: Time) -> bool {
        self.ready
            && (min_ready_seconds == 0
                || self.available_from(min_ready_seconds).is_some_and(|then| then <= now))
    }

    /// When it will be available if it stays ready.
    pub(crate) fn available_from(&self, min_ready_seconds: i32) -> Option<Time> {
        let since = self.ready_since.filter(|_| self.ready)?;
        Some(since.plus(Duration::from_seconds(i64::from(min_ready_seconds))))
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

/// Which of two pods goes first when there are too many; `crowd` tells how many active siblings share the pod's node.
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
pub(crate) async fn slow_start<F, E>(
    count: usize,
    create: impl Fn() -> F,
) -> (usize, std::result::Result<(), E>)
where
    F: Future<Output = std::result::Result<(), E>>,
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

/// Pods by what an owner does about whose they are.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub ours: Vec<Arc<Cached<PodFacts>>>,
    pub adopt: Vec<Arc<Cached<PodFacts>>>,
    pub release: Vec<Arc<Cached<PodFacts>>>,
}

/// Sorts pods by whose they are.
pub(crate) fn claims(
    seen: Vec<Arc<Cached<PodFacts>>>,
    uid: &str,
    owner_deleting: bool,
    selector: &Selector,
) -> Claims {
    let mut claims = Claims::default();
    for pod in seen {
        match claim(&pod, uid, owner_deleting, selector) {
            Claim::Ours => claims.ours.push(pod),
            Claim::Adopt => claims.adopt.push(pod),
            Claim::Release => claims.release.push(pod),
            Claim::Others => {}
        }
    }
    claims
}

/// Releases and adopts; returns the owner's pods.
pub(crate) async fn settle<K: Kind>(
    control: &PodControl<PodFacts>,
    key: &ObjectKey,
    owner: &K,
    claims: Claims,
) -> Result<Vec<Arc<Cached<PodFacts>>>> {
    let Claims { mut ours, adopt, release: released } = claims;
    for pod in released {
        control.patch(key, pod.key(), &release(owner, &pod.uid)).await?;
    }
    if adopt.is_empty() {
        return Ok(ours);
    }
    // An owner that is being deleted adopts nothing: ask the server, for the cache may not know yet.
    let fresh = control.client.namespaced::<K>(&key.namespace).get(&key.name).await?;
    if fresh.metadata().uid != owner.metadata().uid || fresh.metadata().deletion_timestamp.is_some() {
        return Ok(ours);
    }
    for pod in adopt {
        if control.patch(key, pod.key(), &adoption(owner, &pod.uid)).await?.is_some() {
            ours.push(pod);
        }
    }
    Ok(ours)
}
