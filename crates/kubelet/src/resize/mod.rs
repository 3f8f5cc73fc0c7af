//! Resizing pods in place. A pod's spec says what is desired; the kubelet allocates it when it fits (`pending`), then
//! brings cgroups and containers there (`plan`, `act`); the status tells what is in force (`status`). What was allocated
//! and actuated outlives a restart of the kubelet (`record`). Upstream: `pkg/kubelet/allocation` and
//! `kuberuntime_manager.go`.

pub(crate) mod act;
mod events;
mod infeasible;
pub(crate) mod pending;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod status;

pub(crate) use events::message as event_message;
pub(crate) use pending::Trigger;

use api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The resources of a pod that can change while it runs: those of its containers and sidecars, and its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    pub containers: BTreeMap<String, ResourceRequirements>,
    pub pod: Option<ResourceRequirements>,
}

/// The containers whose resources may change.
pub(crate) fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

impl Resources {
    /// What the spec asks for.
    pub(crate) fn of(pod: &Pod) -> Self {
        let containers = resizable(pod).map(|c| (c.name.clone(), c.resources.clone())).collect();
        Resources { containers, pod: pod.spec.resources.clone() }
    }

    /// The pod with these resources in place of those it asks for.
    pub(crate) fn apply(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if Resources::of(pod) == *self {
            return pod.clone();
        }
        let mut pod = Pod::clone(pod);
        pod.spec.resources.clone_from(&self.pod);
        for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
            if let Some(resources) = self.containers.get(&container.name) {
                container.resources = resources.clone();
            }
        }
        Arc::new(pod)
    }
}

/// How far a pod's resizing has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resizing {
    /// None before the pod was admitted.
    pub allocated: Option<Resources>,
    /// What containers were last started with or updated to.
    pub actuated: Resources,
    /// The condition `PodResizePending`.
    pub pending: Option<PodCondition>,
    /// The condition `PodResizeInProgress`.
    pub in_progress: Option<PodCondition>,
}

pub(crate) const PENDING: &str = "PodResizePending";
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";
/// Reasons of a resize that waits: for room, or for ever.
pub(crate) const DEFERRED: &str = "Deferred";
pub(crate) const INFEASIBLE: &str = "Infeasible";

/// Whether the type is one of the conditions that come and go with resizing.
pub(crate) fn is_condition(type_: &str) -> bool {
    matches!(type_, PENDING | IN_PROGRESS)
}

impl Resizing {
    /// As the pod's status tells it, after a restart of the kubelet.
    pub(crate) fn of(pod: &Pod) -> Self {
        let find = |type_: &str| pod.status.conditions.iter().find(|c| c.type_ == type_).cloned();
        Resizing { pending: find(PENDING), in_progress: find(IN_PROGRESS), ..Default::default() }
    }

    /// The pod with what was allocated to it.
    pub(crate) fn allocated_pod(&self, desired: &Arc<Pod>) -> Arc<Pod> {
        self.allocated.as_ref().map_or_else(|| desired.clone(), |allocated| allocated.apply(desired))
    }

    /// Sets the condition `PodResizePending`; whether its reason or generation changed.
    pub(crate) fn set_pending(&mut self, reason: &str, message: &str, generation: i64) -> bool {
        let before = self.pending.take();
        let changed =
            before.as_ref().is_none_or(|c| c.reason != reason || c.observed_generation != generation);
        self.pending = Some(condition(PENDING, before.as_ref(), reason, message, generation));
        changed
    }

    /// Sets the condition `PodResizeInProgress`. Its generation stays until it is cleared; a reason without words keeps
    /// what was said before. Returns the generation, and whether anything changed.
    pub(crate) fn set_in_progress(&mut self, reason: &str, message: &str, generation: i64) -> (i64, bool) {
        let before = self.in_progress.take();
        let (mut reason, mut message) = (reason.to_owned(), message.to_owned());
        let mut generation = generation;
        if let Some(before) = &before {
            if reason.is_empty() && message.is_empty() {
                (reason, message) = (before.reason.clone(), before.message.clone());
            }
            generation = before.observed_generation;
        }
        let changed = before.as_ref().is_none_or(|c| c.reason != reason || c.message != message);
        self.in_progress = if changed {
            Some(condition(IN_PROGRESS, before.as_ref(), &reason, &message, generation))
        } else {
            before
        };
        (generation, changed)
    }

    /// Clears the condition `PodResizeInProgress`, once `reached` is in force, and returns what it was. It stays if
    /// something else has been allocated since: that has yet to begin.
    pub(crate) fn end(&mut self, reached: &Resources) -> Option<PodCondition> {
        let current = self.allocated.as_ref().is_none_or(|allocated| allocated == reached);
        if current { self.in_progress.take() } else { None }
    }
}

fn condition(
    type_: &str,
    before: Option<&PodCondition>,
    reason: &str,
    message: &str,
    generation: i64,
) -> PodCondition {
    let now = Some(crate::clock::time());
    let since = before.filter(|before| before.reason == reason).map_or(now, |c| c.last_transition_time);
    PodCondition {
        type_: type_.into(),
        status: "True".into(),
        last_probe_time: now,
        last_transition_time: since,
        reason: reason.into(),
        message: message.into(),
        observed_generation: generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reached_does_not_end_what_was_allocated_since() {
        let cpu = |cpu: &str| ResourceRequirements {
            requests: BTreeMap::from([("cpu".to_owned(), cpu.parse().unwrap())]),
            ..Default::default()
        };
        let resources =
            |text: &str| Resources { containers: BTreeMap::from([("a".to_owned(), cpu(text))]), pod: None };
        let mut resizing = Resizing { allocated: Some(resources("200m")), ..Default::default() };
        resizing.set_in_progress("", "", 2);
        assert_eq!(resizing.end(&resources("100m")), None);
        let ended = resizing.end(&resources("200m")).unwrap();
        assert_eq!(ended.observed_generation, 2);
        assert_eq!(resizing.end(&resources("200m")), None);
    }
}
