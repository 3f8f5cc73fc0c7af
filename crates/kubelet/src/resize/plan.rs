//! Which running containers differ from what is allocated to them, and how they get there: pure. Upstream:
//! `computePodResizeAction`.

use super::Resources;
use crate::runtime_pod::{RuntimeContainer, RuntimePod, State};
use api::core::v1::{Container, Pod, ResourceRequirements};
use rules::pod_requests::{limit_of, request_of};

/// The resources that can change in place.
pub(crate) const NAMES: [&str; 2] = ["memory", "cpu"];

/// What must be done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Nothing,
    Update,
    Restart,
}

/// Whether two requirements differ in a resource. A limit that the pod as a whole sets does not count here.
pub(crate) fn differs(a: &ResourceRequirements, b: &ResourceRequirements, name: &str) -> bool {
    limit_of(a, name) != limit_of(b, name) || request_of(a, name) != request_of(b, name)
}

/// What a running container needs.
pub(crate) fn need(container: &Container, status: &RuntimeContainer, actuated: &Resources) -> Need {
    // Without a record nothing is known to differ.
    let Some(now) = actuated.containers.get(&container.name) else { return Need::Nothing };
    if status.state != State::Running {
        return Need::Nothing;
    }
    let restarts = |name: &str| {
        let policy = container.resize_policy.iter().find(|policy| policy.resource_name == name);
        policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
    };
    let mut changed = NAMES.into_iter().filter(|name| differs(&container.resources, now, name)).peekable();
    if changed.peek().is_none() {
        return Need::Nothing;
    }
    if changed.any(restarts) { Need::Restart } else { Need::Update }
}

/// Whether anything that runs has not yet what is allocated to it. Upstream: `IsPodResizeInProgress`.
pub(crate) fn in_progress(pod: &Pod, runtime: &RuntimePod, actuated: &Resources) -> bool {
    let containers = super::resizable(pod).any(|container| {
        runtime
            .container(&container.name)
            .is_some_and(|status| need(container, status, actuated) != Need::Nothing)
    });
    containers || pod_differs(pod, actuated)
}

/// Whether the pod's own resources differ from what is in force.
pub(crate) fn pod_differs(pod: &Pod, actuated: &Resources) -> bool {
    match (&pod.spec.resources, &actuated.pod) {
        (Some(wanted), Some(now)) => NAMES.iter().any(|name| differs(wanted, now, name)),
        _ => false,
    }
}
