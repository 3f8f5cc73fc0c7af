//! Who has to go first, and in which words: pure. Upstream: the rankers and messages of `eviction/helpers.go`.

use super::judge::Observations;
use super::thresholds::{Resource, Threshold};
use crate::usage::PodUsage;
use api::core::v1::Pod;
use apimachinery::quantity::{Format, Quantity};
use rules::pod_requests::{Options, requests_as};
use std::cmp::Reverse;
use std::sync::Arc;

/// A pod and what it uses.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub pod: Arc<Pod>,
    pub usage: PodUsage,
}

fn used(usage: &PodUsage, resource: Resource) -> u64 {
    match resource {
        Resource::Memory => usage.memory(),
        Resource::EphemeralStorage => usage.disk().bytes,
        Resource::Inodes => usage.disk().inodes,
        Resource::Pids => usage.processes,
    }
}

fn requested(pod: &Pod, name: &str) -> u64 {
    let requests = requests_as::<i64>(pod, Options::default());
    u64::try_from(requests.get(name).copied().unwrap_or(0)).unwrap_or(0)
}

/// The first to go first: those that use more than they asked for, by priority, by how much more.
pub(crate) fn rank(candidates: &mut [Candidate], resource: Resource) {
    candidates.sort_by_key(|one| {
        let (used, asked) = (used(&one.usage, resource), requested(&one.pod, resource.name()));
        let exceeds = resource != Resource::Pids && used > asked;
        let more = i128::from(used) - if resource == Resource::Pids { 0 } else { i128::from(asked) };
        (Reverse(exceeds), one.pod.spec.priority.unwrap_or(0), Reverse(more))
    });
}

/// Bytes or numbers as upstream prints them.
fn binary(amount: i64) -> String {
    let quantity: Quantity = amount.to_string().parse().unwrap_or_default();
    quantity.with_format(Format::BinarySI).to_string()
}

/// Why the pod is evicted.
pub(crate) fn message(one: &Candidate, due: &[Threshold], observations: &Observations) -> String {
    let Some(resource) = due.first().map(|threshold| threshold.signal.resource()) else {
        return String::new();
    };
    let name = resource.name();
    let mut out = format!("The node was low on resource: {name}. ");
    let threshold =
        due.iter().find(|t| t.signal.resource() == resource && observations.contains_key(&t.signal));
    if let Some((threshold, reading)) = threshold.and_then(|t| Some((t, observations.get(&t.signal)?))) {
        let quantity = binary(threshold.least.of(reading.capacity));
        out += &format!("Threshold quantity: {quantity}, available: {}. ", binary(reading.available));
    }
    let own = one.pod.spec.resources.as_ref().and_then(|resources| resources.requests.get(name));
    if let (Resource::Memory, Some(request)) = (resource, own) {
        let usage = binary(i64::try_from(one.usage.memory()).unwrap_or(i64::MAX));
        let pod = &one.pod.metadata.name;
        out +=
            &format!("Pod {pod} was using {usage}, request is {request}, has larger consumption of {name}. ");
    }
    for container in &one.usage.containers {
        let usage = match resource {
            Resource::Memory => container.memory,
            Resource::EphemeralStorage => (container.root_fs + container.logs).bytes,
            Resource::Inodes | Resource::Pids => continue,
        };
        let mut all = one.pod.spec.containers.iter().chain(&one.pod.spec.init_containers);
        let Some(spec) = all.find(|spec| spec.name == container.name) else { continue };
        let request = spec.resources.requests.get(name).cloned().unwrap_or_default();
        let usage = i64::try_from(usage).unwrap_or(i64::MAX);
        if usage > request.value() {
            out += &format!(
                "Container {} was using {}, request is {request}, has larger consumption of {name}. ",
                container.name,
                binary(usage)
            );
        }
    }
    out
}

/// Why a pod has outgrown the limits on its own storage, if it has.
pub(crate) fn over_limit(one: &Candidate, images_apart: bool) -> Option<(&'static str, String)> {
    let spec = &one.pod.spec;
    for volume in &spec.volumes {
        let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
        let Some(limit) = limit.filter(|limit| limit.value() > 0) else { continue };
        let used =
            one.usage.volumes.iter().find(|(name, _)| *name == volume.name).map_or(0, |(_, d)| d.bytes);
        if used > u64::try_from(limit.value()).unwrap_or(0) {
            let name = &volume.name;
            let message =
                format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", limit.to_string());
            return Some(("emptydirfs.limit", message));
        }
    }
    const STORAGE: &str = "ephemeral-storage";
    let limits = rules::pod_requests::limits_as::<Quantity>(&one.pod, Options::default());
    if let Some(limit) = limits.get(STORAGE)
        && one.usage.disk().bytes > u64::try_from(limit.value()).unwrap_or(0)
    {
        let message =
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        return Some(("ephemeralpodfs.limit", message));
    }
    for container in &one.usage.containers {
        let found = spec.containers.iter().find(|c| c.name == container.name);
        let limit = found.and_then(|c| c.resources.limits.get(STORAGE)).filter(|limit| limit.value() != 0);
        let Some(limit) = limit else { continue };
        let root_fs = if images_apart { 0 } else { container.root_fs.bytes };
        if container.logs.bytes + root_fs > u64::try_from(limit.value()).unwrap_or(0) {
            let name = &container.name;
            let message = format!(
                "Container {name} exceeded its local ephemeral storage limit {:?}. ",
                limit.to_string()
            );
            return Some(("ephemeralcontainerfs.limit", message));
        }
    }
    None
}

/// Whether anything limits the pod's own storage: walking its directories costs.
pub(crate) fn is_limited(pod: &Pod) -> bool {
    let empty_dirs = pod.spec.volumes.iter().filter_map(|v| v.empty_dir.as_ref());
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    empty_dirs.into_iter().any(|e| e.size_limit.is_some() && e.medium != "Memory")
        || containers.into_iter().any(|c| c.resources.limits.contains_key("ephemeral-storage"))
}

#[cfg(test)]
mod tests {
    use super::super::judge::Reading;
    use super::super::thresholds::{Amount, Signal};
    use super::*;
    use crate::usage::{ContainerUsage, Disk};
    use expect_test::{Expect, expect};

    fn candidate(name: &str, priority: i32, request: &str, memory: u64) -> Candidate {
        let mut pod = Pod::default();
        pod.metadata.name = name.into();
        let spec = apimachinery::json!({ "priority": priority, "containers": [{ "name": "c", "resources": { "requests": { "memory": request } } }] });
        pod.spec = apimachinery::value::from_value(spec).unwrap();
        let root_fs = Disk { bytes: 3 << 20, inodes: 7 };
        let container = ContainerUsage { name: "c".into(), memory, root_fs, ..Default::default() };
        let usage = PodUsage { containers: vec![container], ..Default::default() };
        Candidate { pod: Arc::new(pod), usage }
    }

    #[test]
    fn who_exceeds_goes_first() {
        let mut all = vec![
            candidate("within", 0, "1Gi", 1 << 20),
            candidate("important", 10, "0", 900 << 20),
            candidate("little", 0, "1Mi", 2 << 20),
            candidate("much", 0, "1Mi", 600 << 20),
        ];
        rank(&mut all, Resource::Memory);
        let names: Vec<&str> = all.iter().map(|one| one.pod.metadata.name.as_str()).collect();
        assert_eq!(names, ["much", "little", "important", "within"]);
    }

    #[test]
    fn reasons() {
        let check = |signal, reading, want: Expect| {
            let due = [Threshold { signal, least: Amount::Percent(10.0), grace: None, reclaim: None }];
            let observations = Observations::from([(signal, reading)]);
            want.assert_eq(&message(&candidate("p", 0, "1Mi", 600 << 20), &due, &observations));
        };
        check(
            Signal::MemoryAvailable,
            Reading { available: 90 << 20, capacity: 1000 << 20 },
            expect![
                "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container c was using 600Mi, request is 1Mi, has larger consumption of memory. "
            ],
        );
        check(
            Signal::NodeFsAvailable,
            Reading { available: 5, capacity: 100 },
            expect![
                "The node was low on resource: ephemeral-storage. Threshold quantity: 10, available: 5. Container c was using 3Mi, request is 0, has larger consumption of ephemeral-storage. "
            ],
        );
        check(
            Signal::PidAvailable,
            Reading { available: 5, capacity: 100 },
            expect!["The node was low on resource: pids. Threshold quantity: 10, available: 5. "],
        );
    }

    #[test]
    fn own_limits() {
        let check = |spec: apimachinery::value::Value, volume: u64, want: Expect| {
            let mut one = candidate("p", 0, "1Mi", 0);
            let mut pod = Pod::clone(&one.pod);
            pod.spec = apimachinery::value::from_value(spec).unwrap();
            one.pod = Arc::new(pod);
            one.usage.volumes = vec![("v".into(), Disk { bytes: volume, inodes: 1 })];
            want.assert_eq(&over_limit(&one, false).unwrap_or_default().1);
        };
        let volume =
            apimachinery::json!({ "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }] });
        check(volume.clone(), 1 << 20, expect![""]);
        check(volume, 2 << 20, expect![[r#"Usage of EmptyDir volume "v" exceeds the limit "1Mi". "#]]);
        let container = |limit: &str| apimachinery::json!({ "containers": [{ "name": "c", "resources": { "limits": { "ephemeral-storage": limit } } }, { "name": "d", "resources": { "limits": { "ephemeral-storage": "2Mi" } } }] });
        check(
            container("2Mi"),
            0,
            expect![[r#"Container c exceeded its local ephemeral storage limit "2Mi". "#]],
        );
        check(
            container("2Mi"),
            2 << 20,
            expect!["Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "],
        );
        check(container("4Mi"), 0, expect![""]);
    }
}
