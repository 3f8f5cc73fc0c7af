//! How much a container may have swapped out: nothing, unless the node is told to let Burstable ones, by what they ask for
//! of the node's memory. Pure. Upstream: `configureContainerSwapResources`.

use super::resources::SYSTEM_CRITICAL_PRIORITY;
use api::core::v1::{Container, Pod};
use cri::v1::LinuxContainerResources;
use rules::pod_requests::{limit_of, request_of};
use rules::qos::{QosClass, pod_qos};

const MAX: &str = "memory.swap.max";

/// `memorySwap.swapBehavior`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Behavior {
    #[default]
    NoSwap,
    LimitedSwap,
}

/// What the kernel can limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Accounting {
    #[default]
    None,
    /// Swap and memory together, in cgroup v1.
    Together,
    /// Swap alone, in cgroup v2.
    Alone,
}

/// The node's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Swap {
    pub behavior: Behavior,
    pub accounting: Accounting,
    /// Bytes that the node has of memory, and of swap.
    pub memory: i64,
    pub swap: i64,
}

impl Swap {
    /// Limits a container.
    pub(super) fn limit(&self, out: &mut LinuxContainerResources, pod: &Pod, container: &Container) {
        match self.accounting {
            Accounting::None => {}
            // As much of both as of memory: no swap above it. Without a limit of memory there is none of both.
            Accounting::Together => out.memory_swap_limit_in_bytes = out.memory_limit_in_bytes,
            Accounting::Alone => {
                let most = if self.is_allowed(pod, container) { self.share(container) } else { 0 };
                out.unified.insert(MAX.into(), most.to_string());
            }
        }
    }

    pub(crate) fn is_allowed(&self, pod: &Pod, container: &Container) -> bool {
        let (request, limit) =
            (request_of(&container.resources, "memory"), limit_of(&container.resources, "memory"));
        self.behavior == Behavior::LimitedSwap
            && pod.spec.priority.is_none_or(|priority| priority < SYSTEM_CRITICAL_PRIORITY)
            && !crate::labels::is_static_pod(pod)
            && !crate::labels::is_mirror_pod(pod)
            && pod_qos(pod) == QosClass::Burstable
            && (request > 0 || limit > 0)
            && request != limit
    }

    /// The part of the node's swap that the container's request is of the node's memory.
    fn share(&self, container: &Container) -> i64 {
        let request = request_of(&container.resources, "memory");
        if self.memory <= 0 || request > self.memory {
            return 0;
        }
        let part = i128::from(request) * i128::from(self.swap) / i128::from(self.memory);
        i64::try_from(part).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    #[track_caller]
    fn check(accounting: Accounting, spec: Value, want: &str) {
        let swap = Swap { behavior: Behavior::LimitedSwap, accounting, memory: 4 << 30, swap: 1 << 30 };
        let pod: Pod = apimachinery::value::from_value(json!({ "spec": spec })).unwrap();
        let container = &pod.spec.containers[0];
        let mut out = LinuxContainerResources {
            memory_limit_in_bytes: limit_of(&container.resources, "memory"),
            ..Default::default()
        };
        swap.limit(&mut out, &pod, container);
        let alone = out.unified.get(MAX).map_or("-", String::as_str);
        assert_eq!(format!("{} {alone}", out.memory_swap_limit_in_bytes), want);
        let none = Swap { behavior: Behavior::NoSwap, ..swap };
        none.limit(&mut out, &pod, container);
        if accounting == Accounting::Alone {
            assert_eq!(out.unified[MAX], "0");
        }
    }

    fn asks(request: &str, limit: &str) -> Value {
        let mut resources = json!({ "requests": { "memory": request } });
        if !limit.is_empty() {
            resources["limits"] = json!({ "memory": limit });
        }
        json!({ "containers": [{ "name": "a", "resources": resources }] })
    }

    #[test]
    fn burstable_ones_get_their_share() {
        check(Accounting::Alone, asks("1Gi", "2Gi"), "0 268435456");
        check(Accounting::Alone, asks("1Gi", ""), "0 268435456");
        check(Accounting::Alone, asks("5Gi", ""), "0 0");
        // What is set equal is not to be slower than that, and who asks for nothing gets nothing.
        check(Accounting::Alone, asks("1Gi", "1Gi"), "0 0");
        check(Accounting::Alone, json!({ "containers": [{ "name": "a" }] }), "0 0");
        let mut critical = asks("1Gi", "");
        critical["priority"] = json!(2_000_001_000);
        check(Accounting::Alone, critical, "0 0");
        let mut other = asks("1Gi", "");
        other["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
        check(Accounting::Alone, other, "0 268435456");
        check(Accounting::Together, asks("1Gi", "2Gi"), "2147483648 -");
        check(Accounting::Together, asks("1Gi", ""), "0 -");
        check(Accounting::None, asks("1Gi", "2Gi"), "0 -");
    }
}
