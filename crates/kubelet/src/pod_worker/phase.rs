//! The phase of a pod from the states of its containers: pure. Upstream: `getPhase`.

use super::restart_all::ended_for_it;
use api::core::v1::{Container, ContainerStatus, Pod};
use rules::container_status::{find, is_restartable_init_container, should_restart};

/// Whether the worker has stopped the pod for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finality {
    Going,
    Terminal,
}

/// `statuses` are those of regular and init containers; `initialized` says that a regular container has run in the
/// present sandbox.
pub(crate) fn phase(
    pod: &Pod,
    statuses: &[ContainerStatus],
    finality: Finality,
    initialized: bool,
) -> &'static str {
    let spec = &pod.spec;
    let should_restart = |container: &Container, code: i32| {
        should_restart(container, spec, code) || ended_for_it(statuses, &container.name)
    };
    let (mut pending_init, mut failed_init) = (0, 0);
    for container in spec.init_containers.iter().filter(|c| !is_restartable_init_container(c)) {
        let Some(status) = find(statuses, &container.name) else {
            pending_init += 1;
            continue;
        };
        let ended = match (&status.state.terminated, &status.state.waiting) {
            (Some(terminated), _) => Some(terminated),
            (None, Some(_)) => status.last_state.terminated.as_ref(),
            _ => None,
        };
        match ended {
            None => pending_init += 1,
            Some(t) if t.exit_code != 0 && !should_restart(container, t.exit_code) => failed_init += 1,
            Some(_) => {}
        }
    }

    let (mut unknown, mut running, mut waiting, mut pending_sidecars) = (0, 0, 0, 0);
    for container in spec.init_containers.iter().filter(|c| is_restartable_init_container(c)) {
        let Some(status) = find(statuses, &container.name) else {
            unknown += 1;
            continue;
        };
        if status.state.running.is_some() {
            if status.started != Some(true) {
                pending_sidecars += 1;
            }
            running += 1;
        } else if status.state.terminated.is_some() {
            // Sidecars that ended do not count.
        } else if status.state.waiting.is_some() {
            if status.last_state.terminated.is_none() {
                pending_sidecars += 1;
                waiting += 1;
            }
        } else {
            pending_sidecars += 1;
            unknown += 1;
        }
    }

    let (mut stopped, mut stopped_for_good, mut succeeded) = (0, 0, 0);
    for container in &spec.containers {
        let Some(status) = find(statuses, &container.name) else {
            unknown += 1;
            continue;
        };
        if status.state.running.is_some() {
            running += 1;
            continue;
        }
        let ended = match &status.state.terminated {
            Some(t) => {
                if t.exit_code == 0 {
                    succeeded += 1;
                }
                Some(t)
            }
            None if status.state.waiting.is_some() => match &status.last_state.terminated {
                Some(t) => Some(t),
                None => {
                    waiting += 1;
                    continue;
                }
            },
            None => None,
        };
        match ended {
            Some(t) => {
                stopped += 1;
                if !should_restart(container, t.exit_code) {
                    stopped_for_good += 1;
                }
            }
            None => unknown += 1,
        }
    }

    if failed_init > 0 {
        return "Failed";
    }
    if pending_init > 0 || pending_sidecars > 0 && !initialized || waiting > 0 {
        return "Pending";
    }
    if running > 0 && unknown == 0 {
        return "Running";
    }
    if running == 0 && stopped > 0 && unknown == 0 {
        let terminal = finality == Finality::Terminal && !crate::labels::is_static_pod(pod);
        return match (stopped == succeeded, terminal || stopped == stopped_for_good) {
            (_, false) => "Running",
            (true, true) => "Succeeded",
            (false, true) => "Failed",
        };
    }
    "Pending"
}
