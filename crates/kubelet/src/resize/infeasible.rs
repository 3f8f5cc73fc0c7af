//! Resizes that this node will never do: memory of containers that may swap, and what a Guaranteed pod has for itself alone.
//! Pure but for the node's settings. Upstream: `podResizesAdmitHandler`.

use super::{Resources, resizable};
use crate::container_config::swap::Swap;
use crate::context::Context;
use api::core::v1::{Pod, ResourceRequirements};
use rules::pod_requests::request_of;
use rules::qos::{QosClass, pod_qos};
use std::sync::Arc;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Never {
    /// As metrics call it.
    pub detail: &'static str,
    pub message: String,
}

/// What of the node's settings counts here.
struct Node {
    swap: Swap,
    static_cpus: bool,
    static_memory: bool,
}

/// Why a pod that was allocated this can never be what it asks to be; nothing when it can.
pub(super) fn why(context: &Context, allocated: &Resources, desired: &Arc<Pod>) -> Option<Never> {
    let node = Node {
        swap: context.swap(),
        static_cpus: context.cpus.is_some(),
        static_memory: context.memory.is_some(),
    };
    judge(&node, allocated, desired)
}

fn judge(node: &Node, allocated: &Resources, desired: &Arc<Pod>) -> Option<Never> {
    let none = ResourceRequirements::default();
    let differs = |name: &str| {
        resizable(desired).any(|container| {
            let had = allocated.containers.get(&container.name).unwrap_or(&none);
            request_of(&container.resources, name) != request_of(had, name)
        })
    };
    let before = allocated.apply(desired);
    let swaps = resizable(desired).zip(resizable(&before)).any(|(wanted, had)| {
        let restarts = had
            .resize_policy
            .iter()
            .any(|policy| policy.resource_name == "memory" && policy.restart_policy == "RestartContainer");
        let changes = request_of(&wanted.resources, "memory") != request_of(&had.resources, "memory");
        changes && !restarts && (node.swap.is_allowed(desired, wanted) || node.swap.is_allowed(&before, had))
    });
    if swaps {
        let message = "In-place resize of containers with swap is not supported.".into();
        return Some(Never { detail: "swap_limitation", message });
    }
    if pod_qos(desired) != QosClass::Guaranteed {
        return None;
    }
    if node.static_cpus && differs("cpu") {
        let message =
            "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"".into();
        return Some(Never { detail: "guaranteed_pod_cpu_manager_static_policy", message });
    }
    if node.static_memory && differs("memory") {
        let message =
            "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"".into();
        return Some(Never { detail: "guaranteed_pod_memory_manager_static_policy", message });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SwapBehavior;
    use apimachinery::json;

    /// `cpu memory`, or `request/limit` of memory.
    fn pod(text: &str) -> Pod {
        let (cpu, memory) = text.split_once(' ').unwrap();
        let (request, limit) = memory.split_once('/').unwrap_or((memory, memory));
        let resources = json!({ "requests": { "cpu": cpu, "memory": request }, "limits": { "cpu": cpu, "memory": limit } });
        let spec = json!({ "containers": [{ "name": "a", "resources": resources }] });
        apimachinery::value::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    #[test]
    fn what_is_never_done() {
        let swap = |behavior| Swap { behavior, ..Default::default() };
        let plain = Node { swap: swap(SwapBehavior::NoSwap), static_cpus: false, static_memory: false };
        let swapping = Node { swap: swap(SwapBehavior::LimitedSwap), ..plain };
        let fixed = Node { static_cpus: true, static_memory: true, ..plain };
        for (node, had, wanted, detail) in [
            (&plain, "1 64Mi", "2 128Mi", ""),
            (&fixed, "1 64Mi", "2 64Mi", "guaranteed_pod_cpu_manager_static_policy"),
            (&fixed, "1 64Mi", "1 128Mi", "guaranteed_pod_memory_manager_static_policy"),
            (&fixed, "1 64Mi/128Mi", "2 96Mi/128Mi", ""),
            (&swapping, "1 64Mi", "1 128Mi", ""),
            (&swapping, "1 64Mi/128Mi", "1 96Mi/128Mi", "swap_limitation"),
            (&swapping, "1 64Mi/128Mi", "2 64Mi/128Mi", ""),
        ] {
            let never = judge(node, &Resources::of(&pod(had)), &Arc::new(pod(wanted)));
            assert_eq!(never.map_or("", |never| never.detail), detail, "{had} to {wanted}");
        }
    }
}
