//! Looking up container statuses, and what a container's restart policy says. Upstream: `podutil`.

use api::core::v1::{Container, ContainerStatus, PodSpec};

/// The status with this name.
pub fn find<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|s| s.name == name)
}

/// Whether an init container is a sidecar: `restartPolicy: Always`.
pub fn is_restartable_init_container(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container that exited with this code is started again: its restart rules first, then its own policy, then
/// the pod's. Upstream: `ContainerShouldRestart`.
pub fn should_restart(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    for rule in &container.restart_policy_rules {
        let Some(on) = &rule.exit_codes else { continue };
        let listed = on.values.contains(&exit_code);
        let applies = match on.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if applies && matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or(spec.restart_policy.as_str()) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether the container runs or has run to the point of being `started`.
pub fn has_started(status: &ContainerStatus) -> bool {
    status.started == Some(true)
}

/// How often the containers of the pod were restarted in all.
pub fn total_restarts(statuses: &[ContainerStatus]) -> i64 {
    statuses.iter().map(|s| i64::from(s.restart_count)).sum()
}
