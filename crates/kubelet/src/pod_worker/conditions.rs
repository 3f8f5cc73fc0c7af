//! The conditions that the kubelet owns: pure. Upstream: `pkg/kubelet/status/generate.go`.

use api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};
use rules::container_status::{find, is_restartable_init_container};
use rules::pod_conditions::{
    CONTAINERS_READY, INITIALIZED, POD_READY_TO_START_CONTAINERS, POD_SCHEDULED, READY,
};

/// Condition types that the kubelet writes; all others on a pod are kept as they are.
pub(crate) fn is_owned(type_: &str) -> bool {
    matches!(
        type_,
        POD_SCHEDULED
            | READY
            | INITIALIZED
            | CONTAINERS_READY
            | POD_READY_TO_START_CONTAINERS
            | super::restart_all::CONDITION
    )
}

fn condition(pod: &Pod, type_: &str, truth: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        observed_generation: pod.metadata.generation,
        status: if truth { "True" } else { "False" }.into(),
        reason: reason.into(),
        message,
        ..Default::default()
    }
}

/// All conditions of the pod: foreign ones first, in their order, then the kubelet's.
pub(crate) fn conditions(
    pod: &Pod,
    old: &PodStatus,
    status: &PodStatus,
    sandbox_ready: bool,
) -> Vec<PodCondition> {
    let mut out: Vec<PodCondition> = pod
        .status
        .conditions
        .iter()
        .filter(|c| !is_owned(&c.type_) && !crate::resize::is_condition(&c.type_))
        .cloned()
        .collect();
    if let Some(disrupted) =
        old.conditions.iter().find(|c| c.type_ == rules::pod_conditions::DISRUPTION_TARGET)
    {
        out.retain(|c| c.type_ != disrupted.type_);
        out.push(disrupted.clone());
    }
    let statuses: Vec<ContainerStatus> =
        status.init_container_statuses.iter().chain(&status.container_statuses).cloned().collect();
    out.push(condition(pod, POD_READY_TO_START_CONTAINERS, sandbox_ready, "", String::new()));
    out.push(initialized(pod, old, &statuses, &status.phase));
    let containers_ready = containers_ready(pod, &statuses, &status.phase);
    out.push(ready(pod, &out, &containers_ready));
    out.push(containers_ready);
    out.push(condition(pod, POD_SCHEDULED, true, "", String::new()));
    out
}

/// Go's `%s` of a string slice.
fn bracketed(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    if statuses.is_empty() {
        return condition(pod, CONTAINERS_READY, false, "UnknownContainerStatuses", String::new());
    }
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = pod.spec.init_containers.iter().filter(|c| is_restartable_init_container(c));
    for container in sidecars.chain(&pod.spec.containers) {
        match find(statuses, &container.name) {
            Some(status) if !status.ready => unready.push(container.name.as_str()),
            Some(_) => {}
            None => unknown.push(container.name.as_str()),
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, CONTAINERS_READY, false, "PodCompleted", String::new());
    }
    if phase == "Failed" {
        return condition(pod, CONTAINERS_READY, false, "PodFailed", String::new());
    }
    let message = told(&unknown, "unready", &unready);
    match message.is_empty() {
        true => condition(pod, CONTAINERS_READY, true, "", message),
        false => condition(pod, CONTAINERS_READY, false, "ContainersNotReady", message),
    }
}

fn told(unknown: &[&str], what: &str, others: &[&str]) -> String {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: {}", bracketed(unknown)));
    }
    if !others.is_empty() {
        parts.push(format!("containers with {what} status: {}", bracketed(others)));
    }
    parts.join(", ")
}

fn ready(pod: &Pod, conditions: &[PodCondition], containers_ready: &PodCondition) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: READY.into(), ..containers_ready.clone() };
    }
    let mut parts = Vec::new();
    for gate in &pod.spec.readiness_gates {
        let name = &gate.condition_type;
        match conditions.iter().find(|c| &c.type_ == name) {
            None => {
                parts.push(format!("corresponding condition of pod readiness gate {name:?} does not exist."))
            }
            Some(c) if c.status != "True" => {
                parts.push(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {}",
                    c.status
                ));
            }
            Some(_) => {}
        }
    }
    match parts.is_empty() {
        true => condition(pod, READY, true, "", String::new()),
        false => condition(pod, READY, false, "ReadinessGatesNotReady", parts.join(", ")),
    }
}

fn initialized(pod: &Pod, old: &PodStatus, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    if statuses.is_empty() && !pod.spec.init_containers.is_empty() {
        return condition(pod, INITIALIZED, false, "UnknownContainerStatuses", String::new());
    }
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in &pod.spec.init_containers {
        match find(statuses, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !is_complete(container, status) => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return condition(pod, INITIALIZED, true, "PodCompleted", String::new());
    }
    if any_regular_container_started(pod, statuses) {
        return condition(pod, INITIALIZED, true, "", String::new());
    }
    let message = told(&unknown, "incomplete", &incomplete);
    // What was initialized once stays so.
    let before = old.conditions.iter().any(|c| c.type_ == INITIALIZED && c.status == "True");
    match message.is_empty() || before && !pod.spec.init_containers.is_empty() {
        true => condition(pod, INITIALIZED, true, "", String::new()),
        false => condition(pod, INITIALIZED, false, "ContainersNotInitialized", message),
    }
}

fn is_complete(container: &Container, status: &ContainerStatus) -> bool {
    if is_restartable_init_container(container) { status.started == Some(true) } else { status.ready }
}

/// Whether a regular container has ever run, as far as statuses tell.
pub(crate) fn any_regular_container_started(pod: &Pod, statuses: &[ContainerStatus]) -> bool {
    let regular = pod.spec.containers.iter().filter_map(|c| find(statuses, &c.name));
    regular.into_iter().any(|s| s.state.running.is_some() || s.state.terminated.is_some())
}
