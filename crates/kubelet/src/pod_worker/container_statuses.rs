//! The API's container statuses from the runtime's containers, the statuses before and the reasons why starts failed:
//! pure. Upstream: `convertToAPIContainerStatuses`.

use super::plan::{any_regular_container_created, should_container_be_restarted};
use super::restart_all;
use crate::resize::Resources;
use crate::runtime_pod::{RuntimeContainer, RuntimePod, State};
use api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, LinuxContainerUser, Pod, VolumeMountStatus,
};
use apimachinery::time::Time;
use std::collections::HashMap;

/// Why containers could not be started, by name: reason and message.
pub(crate) type Reasons = HashMap<String, (String, String)>;

/// Which list of the status is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Regular,
    Init,
    Ephemeral,
}

/// What all lists of one status share.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub runtime_name: &'a str,
    pub reasons: &'a Reasons,
    /// What containers have of what is allocated to them.
    pub actuated: &'a Resources,
    /// All containers start anew.
    pub restarting_all: bool,
    /// Whether the runtime can make mounts read-only recursively.
    pub recursive_read_only: bool,
}

pub(super) fn time(nanos: i64) -> Option<Time> {
    // The runtime's zero is "not yet".
    (nanos > 0).then(|| Time::from_unix(nanos.div_euclid(1_000_000_000)))
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: reason.into(), message: message.into() }),
        ..Default::default()
    }
}

/// The statuses of one list, in the order upstream gives them.
pub(crate) fn container_statuses(
    sources: &Sources,
    list: List,
    containers: &[Container],
    previous: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let Sources { pod, runtime, .. } = sources;
    let default_reason =
        if pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let mut out = Vec::with_capacity(containers.len());
    for container in containers {
        let old = previous.iter().find(|s| s.name == container.name);
        let mut status = match old {
            Some(old) if old.state.terminated.is_some() => old.clone(),
            _ => ContainerStatus {
                name: container.name.clone(),
                image: container.image.clone(),
                state: waiting(default_reason, ""),
                volume_mounts: volume_mounts(container, sources.recursive_read_only),
                restart_count: old.map_or(0, |o| o.restart_count),
                last_state: old.map_or_else(Default::default, |o| o.last_state.clone()),
                ..Default::default()
            },
        };
        let mut found = runtime.containers.iter().filter(|c| c.name == container.name);
        match found.next() {
            Some(newest) => {
                let mounts = std::mem::take(&mut status.volume_mounts);
                status = convert(sources, container, newest, old);
                status.volume_mounts = mounts;
                if newest.state == State::Created {
                    // Upstream does not look between creation and start: to its clients there is no such moment.
                    status.state = waiting(default_reason, "");
                }
                if let Some(before) = found.next() {
                    status.last_state = convert(sources, container, before, old).state;
                }
            }
            None if sources.restarting_all
                && list != List::Ephemeral
                && restart_all::gone(old, &mut status) => {}
            None => lost(pod, old, default_reason, &mut status),
        }
        explain_waiting(sources, list, container, &mut status);
        out.push(status);
    }
    if list != List::Init {
        out.sort_by(|a, b| a.name.cmp(&b.name));
    }
    out
}

fn volume_mounts(container: &Container, recursive: bool) -> Vec<VolumeMountStatus> {
    let mounts = container.volume_mounts.iter().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.then(|| {
            let wanted = match m.recursive_read_only.as_deref() {
                Some("Enabled") => true,
                Some("IfPossible") => recursive,
                _ => false,
            };
            if wanted { "Enabled" } else { "Disabled" }.to_owned()
        }),
        ..Default::default()
    });
    mounts.collect()
}

/// A container that ran and is gone from the runtime must not look as if it had never run.
fn lost(pod: &Pod, old: Option<&ContainerStatus>, default_reason: &str, status: &mut ContainerStatus) {
    let ran = old.is_some_and(|o| o.state.terminated.is_none() && o.state.running.is_some());
    let default = status.state.waiting.as_ref().is_some_and(|w| w.reason == default_reason);
    if !ran || !default || status.last_state.terminated.is_some() {
        return;
    }
    status.last_state.terminated = Some(ContainerStateTerminated {
        reason: "ContainerStatusUnknown".into(),
        message:
            "The container could not be located when the pod was deleted.  The container used to be Running"
                .into(),
        exit_code: 137,
        ..Default::default()
    });
    if pod.metadata.deletion_timestamp.is_none() {
        status.restart_count += 1;
    }
}

fn convert(
    sources: &Sources,
    container: &Container,
    from: &RuntimeContainer,
    old: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = format!("{}://{}", sources.runtime_name, from.id);
    let mut status = ContainerStatus {
        name: from.name.clone(),
        restart_count: from.restart_count.max(old.map_or(0, |o| o.restart_count)),
        image: from.image.clone(),
        image_id: from.image_ref.clone(),
        container_id: id.clone(),
        ..Default::default()
    };
    if let Some(old) = old {
        // A runtime that lost the container before this one cannot tell how it ended; the status before can.
        if old.container_id != id && old.state.terminated.is_some() {
            status.last_state.terminated = old.state.terminated.clone();
        } else {
            status.last_state.terminated = old.last_state.terminated.clone();
        }
    }
    let old_running = old.is_some_and(|o| o.state.running.is_some());
    match from.state {
        State::Running => {
            status.state.running = Some(ContainerStateRunning { started_at: time(from.started_at) });
            // The runtime cannot count runs of which nothing was left.
            if let Some(old) = old.filter(|o| o.container_id != id && o.state.terminated.is_some())
                && old.restart_count >= from.restart_count
            {
                status.restart_count = old.restart_count + 1;
            }
        }
        State::Created => status.state = waiting("", ""),
        State::Exited => {
            status.state.terminated = Some(ContainerStateTerminated {
                exit_code: from.exit_code,
                reason: from.reason.clone(),
                message: from.message.clone(),
                started_at: time(from.started_at),
                finished_at: time(from.finished_at),
                container_id: id,
                ..Default::default()
            });
        }
        State::Unknown if old_running => {
            let reason = if sources.restarting_all { restart_all::REASON } else { "ContainerStatusUnknown" };
            status.state.terminated = Some(ContainerStateTerminated {
                reason: reason.into(),
                message: "The container could not be located when the pod was terminated".into(),
                exit_code: 137,
                ..Default::default()
            });
            status.restart_count = old.map_or(0, |o| o.restart_count) + 1;
        }
        State::Unknown => status.state = waiting("", ""),
    }
    status.resources = Some(crate::resize::status::resources(container, from, sources.actuated));
    status.allocated_resources = container.resources.requests.clone();
    status.user = from.user.as_ref().map(|u| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: u.uid,
            gid: u.gid,
            supplemental_groups: u.supplemental_groups.clone(),
        }),
    });
    status
}

/// A container that will be started says why it is not yet.
fn explain_waiting(sources: &Sources, list: List, container: &Container, status: &mut ContainerStatus) {
    let Sources { pod, runtime, reasons, .. } = sources;
    if list == List::Init {
        let known = runtime.container(&container.name);
        if known.is_some_and(|s| s.state == State::Exited && s.exit_code == 0) {
            return;
        }
        let sidecar = rules::container_status::is_restartable_init_container(container);
        if known.is_none()
            && !sidecar
            && status.state.waiting.is_some()
            && !sources.restarting_all
            && any_regular_container_created(pod, runtime)
        {
            status.state = ContainerState {
                terminated: Some(ContainerStateTerminated {
                    reason: "Completed".into(),
                    message: "Unable to get init container status from container runtime and pod has been initialized, \
                              treat it as exited normally"
                        .into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            return;
        }
    }
    if !should_container_be_restarted(container, pod, runtime) {
        return;
    }
    let Some((reason, message)) = reasons.get(&container.name) else { return };
    if status.state.terminated.is_some() {
        status.last_state = std::mem::take(&mut status.state);
    }
    status.state = waiting(reason, message);
}
