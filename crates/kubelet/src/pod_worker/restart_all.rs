//! A container's exit may make all containers of its pod start anew, in the sandbox that is there: everything that is left
//! of them goes first, then they come as in a new pod. Pure. Upstream: `RestartAllContainersOnContainerExits`.

use super::plan::Action;
use crate::runtime_pod::{RuntimePod, State};
use api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};
use rules::container_status::{find, may_restart_all, restarts_all};

pub(crate) const CONDITION: &str = "AllContainersRestarting";
/// Of containers that had to go.
pub(crate) const REASON: &str = "RestartingAllContainers";
pub(crate) const MESSAGE: &str = "The container is removed because RestartAllContainers in place";

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

/// Whether it has begun, by the status before, or begins now. Upstream: `ShouldAllContainersRestart`.
pub(crate) fn wanted(pod: &Pod, runtime: &RuntimePod, old: &PodStatus) -> bool {
    if is_set(old) {
        return true;
    }
    let statuses: Vec<&ContainerStatus> =
        old.init_container_statuses.iter().chain(&old.container_statuses).collect();
    containers(pod).any(|container| {
        let Some(last) = runtime.container(&container.name).filter(|c| c.state == State::Exited) else {
            return false;
        };
        let told = statuses.iter().find(|status| status.name == container.name);
        let told = told.and_then(|status| status.state.terminated.as_ref());
        restarts_all(container, last.exit_code)
            || told.is_some_and(|terminated| restarts_all(container, terminated.exit_code))
    })
}

/// Whether a status says that it goes on.
pub(crate) fn is_set(status: &PodStatus) -> bool {
    status.conditions.iter().any(|c| c.type_ == CONDITION && c.status == "True")
}

/// What a pod that can do so says of it. Upstream: `GenerateAllContainersRestartingCondition`.
pub(crate) fn condition(
    pod: &Pod,
    runtime: &RuntimePod,
    old: &PodStatus,
    phase: &str,
) -> Option<PodCondition> {
    if !may_restart_all(&pod.spec) {
        return None;
    }
    let gone = containers(pod).all(|container| runtime.container(&container.name).is_none());
    let (status, reason, message) = match phase {
        "Succeeded" => ("False", "PodCompleted", ""),
        "Failed" => ("False", "PodFailed", ""),
        _ if gone || !wanted(pod, runtime, old) => ("False", "", ""),
        _ => ("True", "RestartAllContainersStarted", "container exited with restart policy rule"),
    };
    Some(PodCondition {
        type_: CONDITION.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        ..Default::default()
    })
}

/// Takes away all that the runtime has of the pod's containers; those that began it go last.
pub(super) fn plan(pod: &Pod, runtime: &RuntimePod) -> Vec<Action> {
    let (mut sources, mut targets) = (Vec::new(), Vec::new());
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        for found in runtime.containers.iter().filter(|found| found.name == container.name) {
            let ended = found.state == State::Exited;
            let list =
                if ended && restarts_all(container, found.exit_code) { &mut sources } else { &mut targets };
            list.push(Action::RemoveContainer { id: found.id.clone(), name: found.name.clone() });
        }
    }
    targets.append(&mut sources);
    targets
}

/// A container that is gone with the others: what it was is told once. Whether this is such a one.
pub(super) fn gone(old: Option<&ContainerStatus>, status: &mut ContainerStatus) -> bool {
    let Some(old) = old.filter(|old| old.state.waiting.is_none()) else { return false };
    status.state = Default::default();
    status.state.waiting =
        Some(api::core::v1::ContainerStateWaiting { reason: REASON.into(), message: MESSAGE.into() });
    status.last_state = Default::default();
    status.last_state.terminated = Some(api::core::v1::ContainerStateTerminated {
        reason: REASON.into(),
        message: MESSAGE.into(),
        exit_code: 137,
        ..Default::default()
    });
    status.restart_count = old.restart_count + 1;
    true
}

/// Whether the statuses say that a container ended only because all start anew.
pub(super) fn ended_for_it(statuses: &[ContainerStatus], name: &str) -> bool {
    find(statuses, name).is_some_and(|status| {
        let state = if status.state.waiting.is_some() { &status.last_state } else { &status.state };
        state.terminated.as_ref().is_some_and(|terminated| terminated.reason == REASON)
    })
}
