//! How far initialization has come, and which init containers to start next: pure. Walks backwards from the last one,
//! because containers that completed may be gone from the runtime. Upstream: `computeInitContainerActions`.

use super::plan::{Action, Inputs, KillReason, kill, should_container_be_restarted};
use crate::labels::container_hash;
use crate::probes::{Kind, Outcome};
use crate::resize::plan::{Need, need};
use crate::runtime_pod::State;
use rules::container_status::is_restartable_init_container;

/// What initialization needs.
#[derive(Debug, Default)]
pub(crate) struct InitPlan {
    /// An init container failed for good.
    pub kill_pod: bool,
    pub kills: Vec<Action>,
    /// Init containers to start, in the order of the spec.
    pub starts: Vec<usize>,
    /// One that runs is to be resized where it is.
    pub resize: bool,
    /// Whether regular containers may run.
    pub initialized: bool,
}

/// Plans initialization.
pub(crate) fn plan(inputs: &Inputs) -> InitPlan {
    let (pod, runtime) = (inputs.pod, inputs.runtime);
    let init = &pod.spec.init_containers;
    let mut out = InitPlan::default();
    if init.is_empty() {
        out.initialized = true;
        return out;
    }
    // An exited regular container proves nothing: it may be of the sandbox before a reboot.
    out.initialized = pod
        .spec
        .containers
        .iter()
        .filter_map(|c| runtime.container(&c.name))
        .any(|s| matches!(s.state, State::Created | State::Running));
    let mut previously = out.initialized;
    for (i, container) in init.iter().enumerate().rev() {
        let restartable = is_restartable_init_container(container);
        let Some(status) = runtime.container(&container.name) else {
            if previously && restartable {
                out.starts.push(i);
            }
            continue;
        };
        if previously && !restartable {
            continue;
        }
        match status.state {
            State::Created => out.starts.push(i),
            State::Running if !restartable => resize(inputs, i, &mut out),
            State::Running => running_sidecar(inputs, i, previously, &mut out),
            State::Exited if restartable => out.starts.push(i),
            State::Exited if status.exit_code != 0 => {
                if !should_container_be_restarted(container, pod, runtime) {
                    return InitPlan { kill_pod: true, ..Default::default() };
                }
                out.starts.push(i);
            }
            State::Exited if i + 1 == init.len() => out.initialized = true,
            State::Exited => out.starts.push(i + 1),
            State::Unknown => {
                let policy = container.restart_policy.as_deref().unwrap_or(&pod.spec.restart_policy);
                if !restartable && policy == "Never" {
                    return InitPlan { kill_pod: true, ..Default::default() };
                }
                let message =
                    "Init container is in \"unknown\" state, try killing it before restart".to_owned();
                out.kills.push(kill(status, message, KillReason::Unknown));
                out.starts.push(i);
            }
        }
        previously = true;
    }
    if !previously {
        out.starts.push(0);
    }
    out.starts.reverse();
    out
}

/// A sidecar that runs: has it started up, is it still wanted as it is, is it alive?
fn running_sidecar(inputs: &Inputs, i: usize, previously: bool, out: &mut InitPlan) {
    let container = &inputs.pod.spec.init_containers[i];
    let Some(status) = inputs.runtime.container(&container.name) else { return };
    if container.startup_probe.is_some() {
        match inputs.results.get(Kind::Startup, &status.id) {
            Some(Outcome::Success) => {}
            Some(Outcome::Failure) => {
                let message = format!("Init container {} failed startup probe", container.name);
                out.kills.push(kill(status, message, KillReason::StartupProbe));
                out.starts.push(i);
                return;
            }
            _ => return,
        }
    }
    if i + 1 == inputs.pod.spec.init_containers.len() {
        out.initialized = true;
    } else if !previously {
        out.starts.push(i + 1);
    }
    if status.hash != container_hash(container) {
        let message = format!("Init container {} definition changed", container.name);
        out.kills.push(kill(status, message, KillReason::Other));
        out.starts.push(i);
        return;
    }
    // The next init container does not wait for this one's liveness.
    if container.liveness_probe.is_some()
        && inputs.results.get(Kind::Liveness, &status.id) == Some(Outcome::Failure)
    {
        let message = format!("Init container {} failed liveness probe", container.name);
        out.kills.push(kill(status, message, KillReason::LivenessProbe));
        out.starts.push(i);
        return;
    }
    resize(inputs, i, out);
}

/// What runs is brought to what is allocated to it.
fn resize(inputs: &Inputs, i: usize, out: &mut InitPlan) {
    let container = &inputs.pod.spec.init_containers[i];
    let Some(status) = inputs.runtime.container(&container.name) else { return };
    match need(container, status, inputs.actuated) {
        Need::Restart => {
            let message = format!("Container {} resize requires restart", container.name);
            out.kills.push(kill(status, message, KillReason::Other));
            out.starts.push(i);
            out.resize = true;
        }
        Need::Update => out.resize = true,
        Need::Nothing => {}
    }
}
