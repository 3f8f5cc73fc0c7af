//! The status of a pod: pure. Phase, conditions, container statuses and addresses, from the pod, the status before, the
//! runtime, the probes and the reasons of failed starts. Upstream: `generateAPIPodStatus` and the status manager's merge.

use super::conditions;
use super::container_statuses::{List, Reasons, Sources, container_statuses};
use super::phase::{Finality, phase};
use super::plan::{common, sandbox_changed};
use super::restart_all;
use crate::probes::{Kind, Outcome, Results};
use crate::resize::Resizing;
use crate::runtime_pod::RuntimePod;
use api::core::v1::{Container, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus};
use apimachinery::time::Time;
use rules::container_status::is_restartable_init_container;
use rules::pod_conditions::is_terminal;

/// What a status is made from.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub pod: &'a Pod,
    /// The status written last, or the pod's own after a restart of the kubelet.
    pub old: &'a PodStatus,
    pub runtime: &'a RuntimePod,
    pub runtime_name: &'a str,
    pub results: &'a Results,
    pub reasons: &'a Reasons,
    pub resizing: &'a Resizing,
    pub host_ips: &'a [String],
    pub finality: Finality,
    /// A phase, reason and message that something else decided (eviction, deadline, refused admission).
    pub forced: Option<&'a Forced>,
    pub recursive_read_only: bool,
    pub now: Time,
}

/// A failure decided outside the containers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Forced {
    pub reason: String,
    pub message: String,
    /// Seconds that the pod gets to end, in place of its own grace period.
    pub grace: Option<i64>,
    /// What the conditions say of it.
    pub condition: Option<Box<PodCondition>>,
    /// A pod that comes to a good end all the same has succeeded.
    pub spares_success: bool,
}

/// Makes the status.
pub(crate) fn status(inputs: &Inputs) -> PodStatus {
    let Inputs { pod, old, runtime, .. } = inputs;
    let sources = Sources {
        pod,
        runtime,
        runtime_name: inputs.runtime_name,
        reasons: inputs.reasons,
        actuated: &inputs.resizing.actuated,
        restarting_all: restart_all::wanted(pod, runtime, old),
        recursive_read_only: inputs.recursive_read_only,
    };
    let ephemeral: Vec<Container> = pod.spec.ephemeral_containers.iter().map(common).collect();
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        qos_class: rules::qos::pod_qos(pod).as_str().into(),
        start_time: old.start_time.or(pod.status.start_time).or(Some(inputs.now)),
        container_statuses: container_statuses(
            &sources,
            List::Regular,
            &pod.spec.containers,
            &old.container_statuses,
        ),
        init_container_statuses: container_statuses(
            &sources,
            List::Init,
            &pod.spec.init_containers,
            &old.init_container_statuses,
        ),
        ephemeral_container_statuses: container_statuses(
            &sources,
            List::Ephemeral,
            &ephemeral,
            &old.ephemeral_container_statuses,
        ),
        nominated_node_name: pod.status.nominated_node_name.clone(),
        resource_claim_statuses: pod.status.resource_claim_statuses.clone(),
        extended_resource_claim_status: pod.status.extended_resource_claim_status.clone(),
        resources: pod
            .spec
            .resources
            .as_ref()
            .map(|now| inputs.resizing.actuated.pod.as_ref().unwrap_or(now).clone()),
        allocated_resources: pod.spec.resources.as_ref().map(|r| r.requests.clone()).unwrap_or_default(),
        ..Default::default()
    };
    mark_started_and_ready(inputs, &mut status);
    decide_phase(inputs, &mut status);
    let (changed, _) = sandbox_changed(pod, runtime);
    status.conditions = conditions::conditions(pod, old, &status, !changed);
    status.conditions.extend(restart_all::condition(pod, runtime, old, &status.phase));
    if let Some(condition) = inputs.forced.and_then(|forced| forced.condition.as_deref().cloned()) {
        status.conditions.retain(|c| c.type_ != condition.type_);
        status.conditions.insert(0, condition);
    }
    if !is_terminal(&status.phase) {
        let resizing = [&inputs.resizing.pending, &inputs.resizing.in_progress];
        status.conditions.extend(resizing.into_iter().flatten().cloned());
    }
    for condition in &mut status.conditions {
        if !conditions::is_owned(&condition.type_) {
            continue;
        }
        let before = old.conditions.iter().find(|c| c.type_ == condition.type_);
        condition.last_transition_time = match before {
            Some(before) if before.status == condition.status => before.last_transition_time,
            _ => Some(inputs.now),
        };
    }
    set_addresses(inputs, &mut status);
    status
}

fn decide_phase(inputs: &Inputs, status: &mut PodStatus) {
    let Inputs { pod, old, runtime, .. } = inputs;
    let all: Vec<ContainerStatus> =
        status.container_statuses.iter().chain(&status.init_container_statuses).cloned().collect();
    let initialized = pod.spec.containers.iter().any(|c| runtime.active_container(&c.name).is_some());
    let mut phase = phase(pod, &all, inputs.finality, initialized);
    for known in [&old.phase, &pod.status.phase] {
        // Nothing leaves a terminal phase.
        if is_terminal(known) && !is_terminal(phase) {
            phase = if known == "Failed" { "Failed" } else { "Succeeded" };
        }
    }
    status.phase = phase.into();
    if status.phase == old.phase {
        status.reason = first_of(&old.reason, &pod.status.reason);
        status.message = first_of(&old.message, &pod.status.message);
    }
    if let Some(forced) = inputs.forced {
        if !(forced.spares_success && status.phase == "Succeeded") {
            status.phase = "Failed".into();
        }
        status.reason = forced.reason.clone();
        status.message = forced.message.clone();
    }
    if is_terminal(&pod.status.phase) {
        status.phase = pod.status.phase.clone();
    }
}

fn first_of(a: &str, b: &str) -> String {
    if a.is_empty() { b.to_owned() } else { a.to_owned() }
}

/// `started` and `ready` of every container, from probe results. Upstream: the probe manager's `UpdatePodStatus`.
fn mark_started_and_ready(inputs: &Inputs, status: &mut PodStatus) {
    let find = |containers: &[Container], name: &str| containers.iter().find(|c| c.name == name).cloned();
    for one in &mut status.container_statuses {
        let Some(container) = find(&inputs.pod.spec.containers, &one.name) else { continue };
        let started = is_started(inputs.results, &container, one);
        one.started = Some(started);
        one.ready = started && is_ready(inputs.results, &container, one);
    }
    for one in &mut status.init_container_statuses {
        let Some(container) = find(&inputs.pod.spec.init_containers, &one.name) else { continue };
        let started = is_started(inputs.results, &container, one);
        one.started = Some(started);
        one.ready = if is_restartable_init_container(&container) {
            started && is_ready(inputs.results, &container, one)
        } else {
            one.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0)
        };
    }
}

fn bare_id(status: &ContainerStatus) -> &str {
    status.container_id.split_once("://").map_or("", |(_, id)| id)
}

fn is_started(results: &Results, container: &Container, status: &ContainerStatus) -> bool {
    status.state.running.is_some()
        && (container.startup_probe.is_none()
            || results.get(Kind::Startup, bare_id(status)) == Some(Outcome::Success))
}

fn is_ready(results: &Results, container: &Container, status: &ContainerStatus) -> bool {
    status.state.running.is_some()
        && (container.readiness_probe.is_none()
            || results.get(Kind::Readiness, bare_id(status)) == Some(Outcome::Success))
}

fn set_addresses(inputs: &Inputs, status: &mut PodStatus) {
    let Inputs { pod, old, runtime, host_ips, .. } = inputs;
    status.host_ip = host_ips.first().cloned().unwrap_or_default();
    status.host_ips = host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect();
    let mut ips: Vec<String> = if pod.spec.host_network { host_ips.to_vec() } else { runtime.ips().to_vec() };
    if ips.is_empty() && (is_terminal(&status.phase) || pod.metadata.deletion_timestamp.is_some()) {
        // The sandbox is gone; what its address was stays to be read.
        ips = old.pod_ips.iter().map(|p| p.ip.clone()).collect();
    }
    status.pod_ip = ips.first().cloned().unwrap_or_default();
    status.pod_ips = ips.into_iter().map(|ip| PodIP { ip }).collect();
}

/// The last status of a pod that has ended: no container is left in doubt, and the phase is terminal. A refused pod keeps
/// its containers waiting: they never were. Upstream: the status manager's `TerminatePod`.
pub(crate) fn finish(pod: &Pod, status: &mut PodStatus, refused: bool) {
    if !refused {
        let unknown = |one: &mut ContainerStatus| {
            if one.state.terminated.is_some() {
                return;
            }
            one.state = api::core::v1::ContainerState {
                terminated: Some(api::core::v1::ContainerStateTerminated {
                    reason: "ContainerStatusUnknown".into(),
                    message: "The container could not be located when the pod was terminated".into(),
                    exit_code: 137,
                    ..Default::default()
                }),
                ..Default::default()
            };
        };
        let init = &pod.spec.init_containers;
        let initialized = |s: &ContainerStatus| {
            s.ready
                || s.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0)
                || s.started == Some(true)
        };
        let all = init
            .iter()
            .all(|c| status.init_container_statuses.iter().any(|s| s.name == c.name && initialized(s)));
        if all {
            status.container_statuses.iter_mut().for_each(unknown);
        }
        for i in 0..status.init_container_statuses.len() {
            // Those after the first that did not come through were never started.
            let through = status.init_container_statuses[..i].iter().all(initialized);
            if through {
                unknown(&mut status.init_container_statuses[i]);
            }
        }
        status.ephemeral_container_statuses.iter_mut().for_each(unknown);
    }
    if !is_terminal(&status.phase) {
        status.phase = "Failed".into();
    }
    for one in status.container_statuses.iter_mut().chain(&mut status.init_container_statuses) {
        let completed_init = init_completed(pod, one);
        one.ready = completed_init;
        one.started = Some(false);
    }
    let reason = if status.phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
    for condition in &mut status.conditions {
        if condition.type_ == rules::pod_conditions::READY
            || condition.type_ == rules::pod_conditions::CONTAINERS_READY
        {
            if condition.status != "False" {
                condition.last_transition_time = Some(crate::clock::time());
            }
            condition.status = "False".into();
            condition.reason = reason.into();
            condition.message = String::new();
        }
    }
}

fn init_completed(pod: &Pod, status: &ContainerStatus) -> bool {
    let ordinary =
        pod.spec.init_containers.iter().any(|c| c.name == status.name && !is_restartable_init_container(c));
    ordinary && status.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0)
}
