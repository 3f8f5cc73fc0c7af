//! Reading and writing pod conditions; ready, available, terminal. Upstream: `podutil`, `pod.IsPodAvailable`.

use api::core::v1::{Pod, PodCondition, PodStatus};
use apimachinery::time::Time;

pub const POD_SCHEDULED: &str = "PodScheduled";
pub const INITIALIZED: &str = "Initialized";
pub const READY: &str = "Ready";
pub const CONTAINERS_READY: &str = "ContainersReady";
pub const POD_READY_TO_START_CONTAINERS: &str = "PodReadyToStartContainers";
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The condition of this type.
pub fn find<'a>(conditions: &'a [PodCondition], type_: &str) -> Option<&'a PodCondition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether the condition `Ready` is `True`.
pub fn is_ready(status: &PodStatus) -> bool {
    find(&status.conditions, READY).is_some_and(|c| c.status == "True")
}

/// Whether the pod has been ready for `min_ready_seconds` at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Time) -> bool {
    let Some(ready) = find(&pod.status.conditions, READY).filter(|c| c.status == "True") else {
        return false;
    };
    if min_ready_seconds == 0 {
        return true;
    }
    let since = ready.last_transition_time.map(|t| t.unix());
    since.is_some_and(|since| since + i64::from(min_ready_seconds) <= now.unix())
}

/// Whether the phase is `Succeeded` or `Failed`, which a pod never leaves.
pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// Whether the pod still counts: not terminal and not being deleted. Upstream: `IsPodActive`.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(&pod.status.phase) && pod.metadata.deletion_timestamp.is_none()
}

/// Sets a condition, keeping the transition time when the status stays. Says whether anything changed.
pub fn set(conditions: &mut Vec<PodCondition>, mut condition: PodCondition, now: Time) -> bool {
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        None => {
            condition.last_transition_time.get_or_insert(now);
            conditions.push(condition);
            true
        }
        Some(old) => {
            condition.last_transition_time =
                if old.status == condition.status { old.last_transition_time } else { Some(now) };
            let changed = *old != condition;
            *old = condition;
            changed
        }
    }
}
