//! What a Deployment's sets should become. Pure: what was observed in, writes and the status out.
//!
//! One look makes one kind of move, as upstream: annotate the newest set, scale, grow the newest or shrink the old.

use super::rollback::{self, Rollback};
use super::sets::*;
use super::status::{self, Progress};
use api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use apimachinery::time::Time;
use rules::template_hash::template_hash;
use std::cmp::Reverse;

/// What a look sees.
pub(super) struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// All sets of the Deployment.
    pub sets: &'a [ReplicaSet],
    /// Whether pods of sets other than the one with this uid are still there.
    pub old_pods_run: &'a dyn Fn(Option<&str>) -> bool,
    pub now: Time,
}

/// What to write, in this order; after a failure the rest waits for the next look.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// A set to create.
    pub create: Option<ReplicaSet>,
    /// Sets as they should be.
    pub update: Vec<ReplicaSet>,
    /// Names of sets that fell out of the history.
    pub delete: Vec<String>,
    /// A rollback, instead of all else.
    pub rollback: Option<Rollback>,
    pub status: DeploymentStatus,
    /// The revision that the Deployment should show.
    pub revision: Option<i64>,
    /// When to look again though nothing changed.
    pub again: Option<Time>,
}

/// The sets by their roles.
struct Roles<'a> {
    newest: Option<&'a ReplicaSet>,
    /// By age, oldest first.
    old: Vec<&'a ReplicaSet>,
}

fn roles<'a>(deployment: &Deployment, sets: &'a [ReplicaSet]) -> Roles<'a> {
    let mut sorted: Vec<&ReplicaSet> = sets.iter().collect();
    sorted.sort_by(|a, b| age(a).cmp(&age(b)));
    let newest =
        sorted.iter().copied().find(|set| same_template(&set.spec.template, &deployment.spec.template));
    let old = sorted.into_iter().filter(|set| newest.is_none_or(|new| new.metadata.uid != set.metadata.uid));
    Roles { newest, old: old.collect() }
}

fn age(set: &ReplicaSet) -> (Time, &str) {
    (set.metadata.creation_timestamp, &set.metadata.name)
}

fn total<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(size).sum()
}

fn available<'a>(sets: impl IntoIterator<Item = &'a ReplicaSet>) -> i32 {
    sets.into_iter().map(|set| set.status.available_replicas).sum()
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let Observed { deployment, sets, now, .. } = *observed;
    let roles = roles(deployment, sets);
    let mut progress = Progress::new(deployment, now);
    let mut plan = Plan::default();
    if deployment.metadata.deletion_timestamp.is_some() {
        plan.status = status::calculate(deployment, sets, roles.newest, now);
        return plan;
    }
    progress.pause_or_resume();
    let next_revision = roles.old.iter().map(|set| revision(set)).max().unwrap_or(0) + 1;
    if let Some(newest) = roles.newest {
        let mut annotated = newest.clone();
        annotate_newest(&mut annotated, deployment, next_revision);
        annotated.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
        if annotated != *newest {
            // The next look goes on from what is written here. The status waits for it: who sees this
            // generation observed shall see a judgement of it beside.
            plan.update.push(annotated);
            plan.status = deployment.status.clone();
            return plan;
        }
        plan.revision = Some(revision(newest));
        progress.found(newest);
    }
    if let Some(asked) = rollback::asked(deployment).filter(|_| !deployment.spec.paused) {
        match roles.newest {
            Some(_) => plan.rollback = Some(rollback::rollback(deployment, sets, asked)),
            None => plan.create = Some(new_set(deployment, sets, next_revision)),
        }
        plan.status = progress.keep(sets, roles.newest);
        return plan;
    }
    let rescaled =
        sets.iter().any(|set| size(set) > 0 && desired(set).is_some_and(|d| d != wanted(deployment)));
    if deployment.spec.paused || rescaled {
        plan.update = scale(deployment, &roles);
        if deployment.spec.paused {
            plan.delete = outdated(deployment, &roles);
        }
        plan.status = progress.keep(sets, roles.newest);
        return plan;
    }
    if is_rolling(deployment) {
        roll(observed, &roles, next_revision, &mut plan);
    } else {
        recreate(observed, &roles, next_revision, &mut plan);
    }
    let scales = plan.create.is_some() || !plan.update.is_empty();
    if let Some(new) = &plan.create {
        plan.revision = Some(next_revision);
        progress.created(new);
    }
    if !scales && status::is_complete(deployment, &deployment.status) {
        plan.delete = outdated(deployment, &roles);
    }
    (plan.status, plan.again) = progress.judge(sets, roles.newest);
    plan
}

/// A set of a new size.
fn resized(set: &ReplicaSet, deployment: &Deployment, size: i32) -> ReplicaSet {
    let mut set = set.clone();
    set.spec.replicas = Some(size);
    annotate_sizes(&mut set, deployment);
    set
}

fn new_set(deployment: &Deployment, sets: &[ReplicaSet], revision: i64) -> ReplicaSet {
    let hash = template_hash(&deployment.spec.template, deployment.status.collision_count);
    let mut set = ReplicaSet { spec: Default::default(), ..api::Kind::new() };
    let longest = 253 - 1 - hash.len();
    let name = &deployment.metadata.name;
    set.metadata.name = format!("{}-{hash}", &name[..name.len().min(longest)]);
    set.metadata.namespace = deployment.metadata.namespace.clone();
    set.metadata.owner_references = vec![crate::pods::controller_reference(deployment)];
    set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    set.spec.template = deployment.spec.template.clone();
    set.spec.template.metadata.labels.insert(HASH.into(), hash.clone());
    set.metadata.labels = set.spec.template.metadata.labels.clone();
    let mut selector = deployment.spec.selector.clone().unwrap_or_default();
    selector.match_labels.insert(HASH.into(), hash);
    set.spec.selector = Some(selector);
    let size = match is_rolling(deployment) {
        true => newest_size(deployment, total(sets), 0),
        false => wanted(deployment),
    };
    set.spec.replicas = Some(size);
    annotate_newest(&mut set, deployment, revision);
    annotate_sizes(&mut set, deployment);
    set
}

/// How far the newest set, of size `size`, may grow when all sets together have `all`.
fn newest_size(deployment: &Deployment, all: i32, size: i32) -> i32 {
    let room = wanted(deployment) + max_surge(deployment) - all;
    if room <= 0 { size } else { size + room.min(wanted(deployment) - size) }
}

fn roll(observed: &Observed, roles: &Roles, revision: i64, plan: &mut Plan) {
    let Observed { deployment, sets, .. } = *observed;
    let Some(newest) = roles.newest else {
        plan.create = Some(new_set(deployment, sets, revision));
        return;
    };
    let target = match size(newest) {
        size if size == wanted(deployment) => size,
        size if size > wanted(deployment) => wanted(deployment),
        size => newest_size(deployment, total(sets), size),
    };
    if target != size(newest) {
        plan.update.push(resized(newest, deployment, target));
        return;
    }
    plan.update = shrink_old(deployment, roles, newest);
}

/// Shrinks old sets: first by pods that are not available anyway, then by as many as are available beyond what must be.
fn shrink_old(deployment: &Deployment, roles: &Roles, newest: &ReplicaSet) -> Vec<ReplicaSet> {
    let mut old: Vec<(&ReplicaSet, i32)> =
        roles.old.iter().filter(|set| size(set) > 0).map(|set| (*set, size(set))).collect();
    let must = wanted(deployment) - max_unavailable(deployment);
    let all: i32 = old.iter().map(|(_, size)| size).sum::<i32>() + size(newest);
    // Pods of the newest set that are not available yet must not cost available ones elsewhere.
    let mut room = all - must - (size(newest) - newest.status.available_replicas);
    if room <= 0 {
        return Vec::new();
    }
    for (set, size) in &mut old {
        let unhealthy = (*size - set.status.available_replicas).clamp(0, room.max(0));
        *size -= unhealthy;
        room -= unhealthy;
    }
    let here = available(old.iter().map(|(set, _)| *set)) + newest.status.available_replicas;
    let mut spare = here - must;
    for (_, size) in &mut old {
        let less = (*size).min(spare.max(0));
        *size -= less;
        spare -= less;
    }
    let changed = old.into_iter().filter(|(set, new)| size(set) != *new);
    changed.map(|(set, new)| resized(set, deployment, new)).collect()
}

fn recreate(observed: &Observed, roles: &Roles, revision: i64, plan: &mut Plan) {
    let Observed { deployment, sets, .. } = *observed;
    plan.update =
        roles.old.iter().filter(|set| size(set) > 0).map(|set| resized(set, deployment, 0)).collect();
    let remaining = roles.old.iter().any(|set| set.status.replicas > 0);
    let uid = roles.newest.map(|set| set.metadata.uid.as_str());
    if !plan.update.is_empty() || remaining || (observed.old_pods_run)(uid) {
        return;
    }
    match roles.newest {
        None => plan.create = Some(new_set(deployment, sets, revision)),
        Some(newest) if size(newest) != wanted(deployment) => {
            plan.update.push(resized(newest, deployment, wanted(deployment)));
        }
        Some(_) => {}
    }
}

/// Sizes when the Deployment itself was scaled, or is paused: in proportion in the middle of a rollout.
fn scale(deployment: &Deployment, roles: &Roles) -> Vec<ReplicaSet> {
    let all: Vec<&ReplicaSet> = roles.old.iter().copied().chain(roles.newest).collect();
    let mut active: Vec<&ReplicaSet> = all.into_iter().filter(|set| size(set) > 0).collect();
    let only = match active.as_slice() {
        [] => roles.newest.or(roles.old.last().copied()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(only) = only {
        let differs =
            size(only) != wanted(deployment) || desired(only).is_some_and(|d| d != wanted(deployment));
        return differs.then(|| resized(only, deployment, wanted(deployment))).into_iter().collect();
    }
    if roles.newest.is_some_and(|newest| is_saturated(newest, deployment)) {
        let old = roles.old.iter().filter(|set| size(set) > 0);
        return old.map(|set| resized(set, deployment, 0)).collect();
    }
    if !is_rolling(deployment) {
        return Vec::new();
    }
    let allowed = if wanted(deployment) > 0 { wanted(deployment) + max_surge(deployment) } else { 0 };
    let to_add = allowed - total(active.iter().copied());
    // The largest first; of equal ones, the newer gain first and the older lose first.
    if to_add > 0 {
        active.sort_by_key(|set| (Reverse(size(set)), Reverse(set.metadata.creation_timestamp)));
    } else {
        active.sort_by_key(|set| (Reverse(size(set)), set.metadata.creation_timestamp));
    }
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::new();
    for set in &active {
        let part = proportion(set, deployment, to_add, added);
        added += part;
        sizes.push(size(set) + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    let resized = active.iter().zip(sizes).map(|(set, new)| (*set, resized(set, deployment, new)));
    resized.filter(|(old, new)| *old != new).map(|(_, new)| new).collect()
}

/// Old, empty sets beyond the limit of the history, the oldest revisions first.
fn outdated(deployment: &Deployment, roles: &Roles) -> Vec<String> {
    let Some(limit) = deployment.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else {
        return Vec::new();
    };
    let mut alive: Vec<&ReplicaSet> =
        roles.old.iter().copied().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
    alive.sort_by_key(|set| revision(set));
    let surplus = alive.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let surplus = alive[..surplus].iter().filter(|set| {
        size(set) == 0
            && set.status.replicas == 0
            && set.metadata.generation <= set.status.observed_generation
    });
    surplus.map(|set| set.metadata.name.clone()).collect()
}
