//! Requests and limits in the kernel's units. Pure. Upstream: `cm/helpers_linux.go`, `qos/policy.go`.

use super::swap::Swap;
use api::core::v1::{Container, Pod};
use apimachinery::quantity::Quantity;
use cri::v1::{HugepageLimit, LinuxContainerResources};
use rules::pod_requests::{Options, has_pod_level_requests, limit_of, request_of, requests_as};
use rules::qos::{QosClass, pod_qos};

pub(crate) const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Microseconds.
pub(crate) const QUOTA_PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
const GUARANTEED_OOM: i64 = -997;
const BEST_EFFORT_OOM: i64 = 1000;
/// Priority from which a pod is critical to its node.
pub(super) const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// `cpu.shares` of thousandths of a core.
pub(crate) fn shares(milli: i64) -> i64 {
    if milli == 0 { MIN_SHARES } else { (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES) }
}

/// `cpu.cfs_quota_us` of thousandths of a core; zero is unlimited.
pub(crate) fn quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli.saturating_mul(QUOTA_PERIOD) / 1000).max(MIN_QUOTA) }
}

/// What a container is given.
pub(crate) fn container_resources(pod: &Pod, container: &Container, swap: Swap) -> LinuxContainerResources {
    let resources = &container.resources;
    // A container that states none has its pod's.
    let limit_of = |name: &str| match (limit_of(resources, name), &pod.spec.resources) {
        (0, Some(whole)) => limit_of(whole, name),
        (own, _) => own,
    };
    let (request, limit) = (request_of(resources, "cpu"), limit_of("cpu"));
    // A container that names only a limit asks for as much.
    let asked = if resources.requests.contains_key("cpu") { request } else { limit };
    let mut out = LinuxContainerResources {
        cpu_shares: shares(asked),
        memory_limit_in_bytes: limit_of("memory"),
        oom_score_adj: oom_score_adj(pod, container, swap.memory),
        ..Default::default()
    };
    if limit > 0 {
        out.cpu_period = QUOTA_PERIOD;
        out.cpu_quota = quota(limit);
    }
    swap.limit(&mut out, pod, container);
    // A container that states no limit of a size has its pod's.
    let whole = pod.spec.resources.iter().flat_map(|whole| &whole.limits);
    let whole = whole.filter(|(name, _)| !resources.limits.contains_key(*name));
    for (name, quantity) in resources.limits.iter().chain(whole) {
        if let Some(size) = page_size(name) {
            let limit = u64::try_from(quantity.value()).unwrap_or(0);
            out.hugepage_limits.push(HugepageLimit { page_size: page_size_name(size), limit });
        }
    }
    out
}

/// Bytes of the huge pages that a resource is about.
pub(crate) fn page_size(resource: &str) -> Option<i64> {
    let size = resource.strip_prefix("hugepages-")?.parse::<Quantity>().ok()?;
    Some(size.value()).filter(|size| *size > 0)
}

/// As the kernel's files have it: `2MB`.
pub(crate) fn page_size_name(bytes: i64) -> String {
    let mut left = bytes;
    for unit in ["B", "KB", "MB"] {
        if left < 1024 || left % 1024 != 0 {
            return format!("{left}{unit}");
        }
        left /= 1024;
    }
    format!("{left}GB")
}

/// Whom the kernel kills first when memory runs out.
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod.spec.priority.is_some_and(|p| p >= SYSTEM_CRITICAL_PRIORITY) {
        return GUARANTEED_OOM;
    }
    match pod_qos(pod) {
        QosClass::Guaranteed => return GUARANTEED_OOM,
        QosClass::BestEffort => return BEST_EFFORT_OOM,
        QosClass::Burstable => {}
    }
    let capacity = memory_capacity.max(1);
    let spare = if has_pod_level_requests(pod) {
        let total = |options| requests_as::<i64>(pod, options).get("memory").copied().unwrap_or(0);
        let pod_level = total(Options { exclude_overhead: true, ..Default::default() });
        let containers =
            total(Options { exclude_overhead: true, skip_pod_level: true, ..Default::default() });
        let count = pod.spec.containers.len() + pod.spec.init_containers.len();
        (pod_level - containers).max(0) / i64::try_from(count.max(1)).unwrap_or(1)
    } else {
        0
    };
    let score = |request: i64| 1000 - 1000i64.saturating_mul(request.saturating_add(spare)) / capacity;
    let mut adjust = score(request_of(&container.resources, "memory"));
    let sidecar = rules::container_status::is_restartable_init_container(container)
        && pod.spec.init_containers.iter().any(|c| c.name == container.name);
    if sidecar {
        let least = pod.spec.containers.iter().map(|c| request_of(&c.resources, "memory")).min().unwrap_or(0);
        adjust = adjust.min(score(least));
    }
    if adjust < 1000 + GUARANTEED_OOM {
        1000 + GUARANTEED_OOM
    } else if adjust == BEST_EFFORT_OOM {
        adjust - 1
    } else {
        adjust
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    #[track_caller]
    fn check(spec: Value, want: (i64, i64, i64)) {
        let pod: Pod = apimachinery::value::from_value(json!({ "spec": spec })).unwrap();
        let made = container_resources(&pod, &pod.spec.containers[0], Swap::default());
        assert_eq!((made.cpu_shares, made.cpu_quota, made.memory_limit_in_bytes), want);
    }

    #[test]
    fn the_pods_limit_stands_in() {
        let of = |resources: Value, own: Value| json!({ "resources": resources, "containers": [{ "name": "a", "resources": own }] });
        let whole = json!({ "limits": { "cpu": "2", "memory": "1Mi" } });
        check(of(whole.clone(), json!({})), (2048, 200_000, 1 << 20));
        check(of(whole.clone(), json!({ "requests": { "cpu": "1" } })), (1024, 200_000, 1 << 20));
        check(of(whole, json!({ "limits": { "cpu": "1", "memory": "2Ki" } })), (1024, 100_000, 2048));
        let pages = |whole: Value, own: Value| {
            let pod = json!({ "spec": of(json!({ "limits": whole }), json!({ "limits": own })) });
            let pod: Pod = apimachinery::value::from_value(pod).unwrap();
            let made = container_resources(&pod, &pod.spec.containers[0], Swap::default());
            let shown: Vec<String> =
                made.hugepage_limits.iter().map(|one| format!("{} {}", one.page_size, one.limit)).collect();
            shown.join(", ")
        };
        let (small, large) = (json!({ "hugepages-2Mi": "4Mi" }), json!({ "hugepages-1Gi": "1Gi" }));
        assert_eq!(pages(json!({}), small.clone()), "2MB 4194304");
        assert_eq!(pages(small.clone(), large), "1GB 1073741824, 2MB 4194304");
        assert_eq!(pages(small, json!({ "hugepages-2Mi": "2Mi" })), "2MB 2097152");
        assert_eq!(page_size_name(64 << 10), "64KB");
        check(json!({ "containers": [{ "name": "a" }] }), (2, 0, 0));
    }
}
