//! What to do next for a pod: pure. From the pod, what the runtime has of it, probe results, back-off and the time comes
//! an ordered list of actions. Upstream: `computePodActions`.

use super::back_off::BackOff;
use super::init_containers;
use crate::labels::container_hash;
use crate::probes::{Kind, Outcome, Results};
use crate::resize::Resources;
use crate::resize::plan::{Need, need, pod_differs};
use crate::runtime_pod::{RuntimeContainer, RuntimePod, State};
use api::core::v1::{Container, Pod};
use rules::container_status::{is_restartable_init_container, should_restart};
use std::time::Duration;

/// Which of the pod's three lists a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    Ephemeral,
    Init,
    Regular,
}

impl Role {
    /// As metrics call it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Role::Ephemeral => "ephemeral_container",
            Role::Init => "init_container",
            Role::Regular => "container",
        }
    }
}

/// A container of the pod by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub role: Role,
    pub index: usize,
}

/// Why a container is killed, where that decides the grace period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    StartupProbe,
    LivenessProbe,
    Unknown,
    Other,
}

/// One step, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Stop every container and sandbox of the pod.
    KillPod,
    KillContainer {
        id: String,
        name: String,
        message: String,
        reason: KillReason,
    },
    CreateSandbox {
        attempt: u32,
    },
    StartContainer(Place),
    /// Kills it at once if it lives, and leaves nothing of it but its logs.
    RemoveContainer {
        id: String,
        name: String,
    },
    /// Brings the pod and those of its containers that need no restart to what is allocated to them.
    Resize,
    /// The container waits; `until` is in nanoseconds since the epoch.
    BackOff {
        place: Place,
        delay: Duration,
        until: i64,
    },
}

/// What is known when planning.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub pod: &'a Pod,
    pub runtime: &'a RuntimePod,
    pub results: &'a Results,
    pub back_off: &'a BackOff,
    /// What containers have of what is allocated to them.
    pub actuated: &'a Resources,
    /// All containers are to start anew.
    pub restart_all: bool,
    /// Nanoseconds since the epoch.
    pub now: i64,
}

/// The container at a place; ephemeral ones in the common shape.
pub(crate) fn container_at(pod: &Pod, place: Place) -> Option<std::borrow::Cow<'_, Container>> {
    use std::borrow::Cow;
    match place.role {
        Role::Regular => pod.spec.containers.get(place.index).map(Cow::Borrowed),
        Role::Init => pod.spec.init_containers.get(place.index).map(Cow::Borrowed),
        Role::Ephemeral => pod.spec.ephemeral_containers.get(place.index).map(|e| Cow::Owned(common(e))),
    }
}

/// An ephemeral container in the shape of an ordinary one.
pub(crate) fn common(e: &api::core::v1::EphemeralContainer) -> Container {
    Container {
        name: e.name.clone(),
        image: e.image.clone(),
        command: e.command.clone(),
        args: e.args.clone(),
        working_dir: e.working_dir.clone(),
        env_from: e.env_from.clone(),
        env: e.env.clone(),
        resources: e.resources.clone(),
        volume_mounts: e.volume_mounts.clone(),
        volume_devices: e.volume_devices.clone(),
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        tty: e.tty,
        ..Default::default()
    }
}

/// The key of a container's restart back-off: another image starts afresh.
pub(crate) fn back_off_key(container: &Container) -> String {
    format!("{}_{:x}", container.name, container_hash(container))
}

/// Whether a sandbox must be made, and the number of that attempt. Upstream: `PodSandboxChanged`.
pub(crate) fn sandbox_changed(pod: &Pod, runtime: &RuntimePod) -> (bool, u32) {
    let Some(newest) = runtime.sandboxes.first() else { return (true, 0) };
    let ready = runtime.sandboxes.iter().filter(|s| s.ready).count();
    let changed = ready > 1
        || !newest.ready
        || newest.host_network != pod.spec.host_network
        || !pod.spec.host_network && newest.network_known && newest.ips.is_empty();
    (changed, if changed { newest.attempt + 1 } else { newest.attempt })
}

/// Whether a container that does not run shall be started again. Upstream: `ShouldContainerBeRestarted`.
pub(crate) fn should_container_be_restarted(container: &Container, pod: &Pod, runtime: &RuntimePod) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    match runtime.container(&container.name) {
        None => true,
        Some(status) => match status.state {
            State::Running => false,
            State::Created | State::Unknown => true,
            State::Exited => should_restart(container, &pod.spec, status.exit_code),
        },
    }
}

/// Whether a regular container exists, in whatever state.
pub(crate) fn any_regular_container_created(pod: &Pod, runtime: &RuntimePod) -> bool {
    pod.spec.containers.iter().any(|c| runtime.container(&c.name).is_some())
}

/// Plans the next steps. An empty plan means that all is as it should be until something happens.
pub(crate) fn plan(inputs: &Inputs) -> Vec<Action> {
    let Inputs { pod, runtime, .. } = inputs;
    if inputs.restart_all {
        let removals = super::restart_all::plan(pod, runtime);
        if !removals.is_empty() {
            return removals;
        }
    }
    let (create, attempt) = sandbox_changed(pod, runtime);
    let mut actions = Vec::new();
    if create {
        if !runtime.sandboxes.is_empty() {
            actions.push(Action::KillPod);
        }
        if pod.spec.restart_policy == "Never" && attempt != 0 && !runtime.containers.is_empty() {
            return actions;
        }
        let start: Vec<usize> = (0..pod.spec.containers.len())
            .filter(|i| {
                let container = &pod.spec.containers[*i];
                let policy = container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy);
                policy != "OnFailure" || !succeeded(runtime.container(&container.name))
            })
            .collect();
        if start.is_empty() && any_regular_container_created(pod, runtime) {
            return actions;
        }
        actions.push(Action::CreateSandbox { attempt });
        if pod.spec.init_containers.is_empty() {
            actions.extend(
                start.into_iter().map(|index| Action::StartContainer(Place { role: Role::Regular, index })),
            );
        } else {
            actions.push(Action::StartContainer(Place { role: Role::Init, index: 0 }));
        }
        return with_back_off(inputs, actions);
    }

    let ephemeral = pod.spec.ephemeral_containers.iter().enumerate();
    let mut starts: Vec<Place> = ephemeral
        .filter(|(_, e)| runtime.container(&e.name).is_none())
        .map(|(index, _)| Place { role: Role::Ephemeral, index })
        .collect();

    let init = init_containers::plan(inputs);
    if init.kill_pod {
        return vec![Action::KillPod];
    }
    let mut resize = init.resize || pod_differs(pod, inputs.actuated);
    actions.extend(init.kills);
    let init_starts = init.starts.into_iter().map(|index| Place { role: Role::Init, index });
    if !init.initialized {
        actions.extend(init.resize.then_some(Action::Resize));
        starts.extend(init_starts);
        actions.extend(starts.into_iter().map(Action::StartContainer));
        return with_back_off(inputs, actions);
    }

    let mut regular = Vec::new();
    let mut keep = 0;
    for (index, container) in pod.spec.containers.iter().enumerate() {
        let place = Place { role: Role::Regular, index };
        let status = match runtime.container(&container.name) {
            Some(status) if status.state == State::Running => status,
            other => {
                if should_container_be_restarted(container, pod, runtime) {
                    regular.push(place);
                    // Whether it runs is unknown: make sure that there are never two of it.
                    if let Some(unknown) = other.filter(|s| s.state == State::Unknown) {
                        let message =
                            "Container is in \"unknown\" state, try killing it before restart".to_owned();
                        actions.push(kill(unknown, message, KillReason::Unknown));
                    }
                }
                continue;
            }
        };
        let mut restart = container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy) != "Never";
        let (message, reason) = if status.hash != container_hash(container) {
            restart = true;
            (format!("Container {} definition changed", container.name), KillReason::Other)
        } else if inputs.results.get(Kind::Liveness, &status.id) == Some(Outcome::Failure) {
            (format!("Container {} failed liveness probe", container.name), KillReason::LivenessProbe)
        } else if inputs.results.get(Kind::Startup, &status.id) == Some(Outcome::Failure) {
            (format!("Container {} failed startup probe", container.name), KillReason::StartupProbe)
        } else {
            match need(container, status, inputs.actuated) {
                Need::Restart => {
                    regular.push(place);
                    resize = true;
                    let message = format!("Container {} resize requires restart", container.name);
                    actions.push(kill(status, message, KillReason::Other));
                }
                Need::Update => {
                    keep += 1;
                    resize = true;
                }
                Need::Nothing => keep += 1,
            }
            continue;
        };
        if restart {
            regular.push(place);
            actions.push(kill(status, format!("{message}, will be restarted"), reason));
        } else {
            actions.push(kill(status, message, reason));
        }
    }
    if keep == 0 && regular.is_empty() {
        // Sidecars must not keep a finished pod alive.
        return vec![Action::KillPod];
    }
    actions.extend(resize.then_some(Action::Resize));
    starts.extend(init_starts);
    starts.extend(regular);
    actions.extend(starts.into_iter().map(Action::StartContainer));
    with_back_off(inputs, actions)
}

/// Whether the plan kills a container and starts it again.
pub(super) fn replaces(pod: &Pod, actions: &[Action]) -> bool {
    let starts = |killed: &str| {
        actions.iter().any(|action| match action {
            Action::StartContainer(place) => container_at(pod, *place).is_some_and(|c| c.name == killed),
            _ => false,
        })
    };
    actions.iter().any(|action| matches!(action, Action::KillContainer { name, .. } if starts(name)))
}

/// Replaces the starts of containers that failed too recently.
fn with_back_off(inputs: &Inputs, actions: Vec<Action>) -> Vec<Action> {
    actions
        .into_iter()
        .map(|action| {
            let Action::StartContainer(place) = action else { return action };
            let Some(container) = container_at(inputs.pod, place) else { return action };
            let exited = inputs
                .runtime
                .containers
                .iter()
                .find(|c| c.name == container.name && c.state == State::Exited);
            let Some(exited) = exited else { return action };
            let key = back_off_key(&container);
            match inputs.back_off.until(&key, exited.finished_at, inputs.now) {
                Some(until) => Action::BackOff { place, delay: inputs.back_off.get(&key), until },
                None => action,
            }
        })
        .collect()
}

pub(super) fn kill(status: &RuntimeContainer, message: String, reason: KillReason) -> Action {
    Action::KillContainer { id: status.id.clone(), name: status.name.clone(), message, reason }
}

fn succeeded(status: Option<&RuntimeContainer>) -> bool {
    status.is_some_and(|s| s.state == State::Exited && s.exit_code == 0)
}

/// The order in which containers are told to stop: all but sidecars together, then sidecars, last started first.
pub(crate) fn termination_order(pod: &Pod, running: &[&RuntimeContainer]) -> Vec<Vec<usize>> {
    let sidecar = |c: &&RuntimeContainer| {
        pod.spec.init_containers.iter().position(|i| is_restartable_init_container(i) && i.name == c.name)
    };
    let mut first = Vec::new();
    let mut later: Vec<(usize, usize)> = Vec::new();
    for (i, container) in running.iter().enumerate() {
        match sidecar(container) {
            Some(position) => later.push((position, i)),
            None => first.push(i),
        }
    }
    later.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    std::iter::once(first)
        .chain(later.into_iter().map(|(_, i)| vec![i]))
        .filter(|stage| !stage.is_empty())
        .collect()
}
