//! Looking up container statuses, and what a container's restart policy says. Upstream: `podutil`.

use api::core::v1::{Container, ContainerRestartRule, ContainerStatus, PodSpec};

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
    if rule_for(container, exit_code).is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | ALL)) {
        return true;
    }
    match container.restart_policy.as_deref().unwrap_or(spec.restart_policy.as_str()) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

const ALL: &str = "RestartAllContainers";

/// The first of its restart rules that speaks of this exit code.
fn rule_for(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy_rules.iter().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|on| {
            let listed = on.values.contains(&exit_code);
            match on.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })
}

/// Whether a container's exit with this code makes all containers of its pod start anew, in place.
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    rule_for(container, exit_code).is_some_and(|rule| rule.action == ALL)
}

/// Whether any container of the pod can make all of them start anew. Upstream: `AllContainersCouldRestart`.
pub fn may_restart_all(spec: &PodSpec) -> bool {
    let mut all = spec.init_containers.iter().chain(&spec.containers);
    all.any(|container| container.restart_policy_rules.iter().any(|rule| rule.action == ALL))
}

/// Whether the container runs or has run to the point of being `started`.
pub fn has_started(status: &ContainerStatus) -> bool {
    status.started == Some(true)
}

/// How often the containers of the pod were restarted in all.
pub fn total_restarts(statuses: &[ContainerStatus]) -> i64 {
    statuses.iter().map(|s| i64::from(s.restart_count)).sum()
}
