//! Arithmetic and annotations of ReplicaSets under a Deployment. Pure. Upstream: `deployment/util`.

use api::apps::v1::{Deployment, ReplicaSet};
use api::core::v1::PodTemplateSpec;
use apimachinery::int_or_string::{IntOrString, Rounding};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const ROLLBACK: &str = "deprecated.deployment.rollback.to";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const HASH: &str = "pod-template-hash";
/// Annotations that are about the Deployment itself.
pub(super) const NOT_COPIED: [&str; 6] =
    ["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, ROLLBACK];
/// How long the list of a set's former revisions may get, in bytes.
const MAX_HISTORY: usize = 2000;

pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    deployment.spec.strategy.type_ == "RollingUpdate"
}

/// How many pods more, and how many fewer, than wanted a rollout may have.
fn fences(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    let scaled = |value: Option<&IntOrString>, rounding| {
        // Validation lets nothing else through.
        value.and_then(|v| v.scaled_value(wanted(deployment), rounding).ok()).unwrap_or(0)
    };
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), Rounding::Up);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), Rounding::Down);
    // Percentages may both come to nothing; then one pod may be missing, as surge may not be possible under a quota.
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fences(deployment).0 } else { 0 }
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fences(deployment).1.min(wanted(deployment)) } else { 0 }
}

/// Whether two templates make the same pods; the hash that tells sets apart is not part of them.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let mut labels = (a.metadata.labels.clone(), b.metadata.labels.clone());
    labels.0.remove(HASH);
    labels.1.remove(HASH);
    labels.0 == labels.1
        && a.metadata.annotations == b.metadata.annotations
        && a.metadata.finalizers == b.metadata.finalizers
        && a.spec == b.spec
}

pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.get(DESIRED)?.parse().ok().filter(|desired| *desired >= 0)
}

fn max_replicas(set: &ReplicaSet) -> Option<i32> {
    set.metadata.annotations.get(MAX)?.parse().ok().filter(|max| *max > 0)
}

/// Notes on a set for how many replicas it is sized, so that scaling can be told from rolling out.
pub(super) fn annotate_sizes(set: &mut ReplicaSet, deployment: &Deployment) {
    let (wanted, max) = (wanted(deployment), wanted(deployment) + max_surge(deployment));
    set.metadata.annotations.insert(DESIRED.into(), wanted.to_string());
    set.metadata.annotations.insert(MAX.into(), max.to_string());
}

/// Gives the newest set the Deployment's annotations, and its number in the history of revisions.
pub(super) fn annotate_newest(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) {
    for (key, value) in &deployment.metadata.annotations {
        if !NOT_COPIED.contains(&key.as_str()) {
            set.metadata.annotations.insert(key.clone(), value.clone());
        }
    }
    let annotations = &mut set.metadata.annotations;
    let old = annotations.get(REVISION).cloned();
    let number = match old.as_deref().map(str::parse::<i64>) {
        None => 0,
        Some(Ok(number)) => number,
        Some(Err(_)) => return,
    };
    if number >= revision {
        return;
    }
    annotations.insert(REVISION.into(), revision.to_string());
    let Some(old) = old else { return };
    // The set comes back: what it was before is kept for `kubectl rollout history`.
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(&old);
    let length = |all: &[&str]| all.iter().map(|text| text.len() + 1).sum::<usize>().saturating_sub(1);
    while revisions.len() > 1 && length(&revisions) > MAX_HISTORY {
        revisions.remove(0);
    }
    let history = revisions.join(",");
    annotations.insert(HISTORY.into(), history);
}

/// How many of `to_add` replicas (fewer than none to remove) are this set's part, `added` being given already.
pub(super) fn proportion(set: &ReplicaSet, deployment: &Deployment, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let allowed = to_add - added;
    let part = fraction(set, deployment);
    if to_add > 0 { part.min(allowed) } else { part.max(allowed) }
}

fn fraction(set: &ReplicaSet, deployment: &Deployment) -> i32 {
    if wanted(deployment) == 0 {
        return -size(set);
    }
    let max = f64::from(wanted(deployment) + max_surge(deployment));
    let before = max_replicas(set).unwrap_or(deployment.status.replicas);
    if before == 0 {
        return 0;
    }
    (f64::from(size(set)) * max / f64::from(before)).round() as i32 - size(set)
}

/// Whether the newest set has all pods that are wanted, and knows it.
pub(super) fn is_saturated(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let wanted = wanted(deployment);
    size(set) == wanted && desired(set) == Some(wanted) && set.status.available_replicas == wanted
}
