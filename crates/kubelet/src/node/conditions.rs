//! The node's conditions: pure. Upstream: `pkg/kubelet/nodestatus/setters.go`.

use crate::eviction::thresholds::Pressure;
use api::core::v1::NodeCondition;
use apimachinery::time::Time;
use cri::v1::RuntimeStatus;

fn condition(type_: &str, truth: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: type_.into(),
        status: if truth { "True" } else { "False" }.into(),
        reason: reason.into(),
        message: message.into(),
        ..Default::default()
    }
}

/// All conditions, with the times of those before that did not change.
pub(crate) fn conditions(
    runtime: Result<RuntimeStatus, String>,
    pressures: &[Pressure],
    shutting_down: bool,
    old: &[NodeCondition],
    now: Time,
) -> Vec<NodeCondition> {
    let pressure = |pressure: Pressure, truly: (&str, &str), falsely: (&str, &str)| {
        let truth = pressures.contains(&pressure);
        let (reason, message) = if truth { truly } else { falsely };
        condition(pressure.condition(), truth, reason, message)
    };
    let mut out = vec![
        pressure(
            Pressure::Memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            Pressure::Disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            Pressure::Pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready(runtime, shutting_down),
    ];
    for one in &mut out {
        let before = old.iter().find(|o| o.type_ == one.type_);
        one.last_heartbeat_time = Some(now);
        one.last_transition_time = match before {
            Some(before) if before.status == one.status => before.last_transition_time,
            _ => Some(now),
        };
    }
    out
}

fn ready(runtime: Result<RuntimeStatus, String>, shutting_down: bool) -> NodeCondition {
    let mut problems = Vec::new();
    match runtime {
        Err(error) => problems.push(format!("container runtime is down: {error}")),
        Ok(status) => {
            let find = |name: &str| status.conditions.iter().find(|c| c.r#type == name);
            for (name, what) in [
                ("RuntimeReady", "container runtime not ready: RuntimeReady"),
                ("NetworkReady", "container runtime network not ready: NetworkReady"),
            ] {
                match find(name) {
                    Some(c) if c.status => {}
                    Some(c) => {
                        problems.push(format!("{what}=false reason:{} message:{}", c.reason, c.message))
                    }
                    None => problems.push(format!("{what} condition not set")),
                }
            }
        }
    }
    if shutting_down {
        problems.push(crate::node_shutdown::SHUTTING_DOWN.into());
    }
    match problems.len() {
        0 => condition("Ready", true, "KubeletReady", "kubelet is posting ready status"),
        1 => condition("Ready", false, "KubeletNotReady", &problems[0]),
        _ => condition("Ready", false, "KubeletNotReady", &format!("[{}]", problems.join(", "))),
    }
}

/// Whether the runtime can make pods. That its network is not ready yet hinders none that have the node's.
pub(crate) fn is_well(runtime: Option<&RuntimeStatus>) -> bool {
    runtime.is_some_and(|status| status.conditions.iter().any(|c| c.r#type == "RuntimeReady" && c.status))
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(conditions: &[NodeCondition]) -> bool {
    conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
}
