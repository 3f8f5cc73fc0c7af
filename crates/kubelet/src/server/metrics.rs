//! `/metrics` and its siblings, under upstream's names: the kubelet's own, and what pods and containers use.

use super::answer::{Response, text, with_type};
use super::{Inner, stats};
use crate::labels;
use crate::pod_worker::Mailbox;
use crate::volumes::claimed::Filled;
use component::metrics::{CONTENT_TYPE, Encoder, Registry};
use cri::v1::{ContainerStats, UInt64Value};
use http::StatusCode;
use rules::pod_conditions::is_terminal;
use std::collections::BTreeMap;
use std::sync::Arc;

fn rendered(collect: impl Fn(&mut Encoder) + Send + Sync + 'static) -> Response {
    with_type(StatusCode::OK, CONTENT_TYPE, shown(collect))
}

fn shown(collect: impl Fn(&mut Encoder) + Send + Sync + 'static) -> String {
    let registry = Registry::new();
    registry.collector(collect);
    registry.render()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

type Pick = fn(&Filled) -> u64;

/// Of each volume of a claim.
const VOLUME_STATS: [(&str, &str, Pick); 6] = [
    ("kubelet_volume_stats_available_bytes", "[ALPHA] Number of available bytes in the volume", |f| {
        f.available
    }),
    ("kubelet_volume_stats_capacity_bytes", "[ALPHA] Capacity in bytes of the volume", |f| f.capacity),
    ("kubelet_volume_stats_inodes", "[ALPHA] Maximum number of inodes in the volume", |f| f.inodes),
    ("kubelet_volume_stats_inodes_free", "[ALPHA] Number of free inodes in the volume", |f| f.inodes_free),
    ("kubelet_volume_stats_inodes_used", "[ALPHA] Number of used inodes in the volume", |f| {
        f.inodes - f.inodes_free
    }),
    ("kubelet_volume_stats_used_bytes", "[ALPHA] Number of used bytes in the volume", |f| f.used),
];

/// The kubelet's own.
pub(super) fn kubelet(inner: &Inner) -> Response {
    let mailboxes = inner.pods.list();
    let running = mailboxes.iter().filter(|m| m.status().phase == "Running").count() as f64;
    let mut containers: BTreeMap<&'static str, f64> = BTreeMap::new();
    for mailbox in &mailboxes {
        for status in &mailbox.status().container_statuses {
            let state = match (&status.state.running, &status.state.terminated) {
                (Some(_), _) => "running",
                (None, Some(_)) => "exited",
                _ => "created",
            };
            *containers.entry(state).or_default() += 1.0;
        }
    }
    let is_static = |mailbox: &Arc<Mailbox>| labels::is_static_pod(&mailbox.letter().pod);
    let is_active = |mailbox: &Arc<Mailbox>| !is_terminal(&mailbox.status().phase);
    let (fixed, usual): (Vec<_>, Vec<_>) = mailboxes.iter().partition(|mailbox| is_static(mailbox));
    let count = |of: &[&Arc<Mailbox>]| of.iter().filter(|mailbox| is_active(mailbox)).count() as f64;
    let desired = [("", usual.len() as f64), ("true", fixed.len() as f64)];
    let active = [("", count(&usual)), ("true", count(&fixed))];
    let ephemeral: usize =
        mailboxes.iter().map(|mailbox| mailbox.letter().pod.spec.ephemeral_containers.len()).sum();
    let mut working: BTreeMap<(&str, &str, &str), f64> = BTreeMap::new();
    for lifecycle in ["sync", "terminated", "terminating"] {
        for config in ["desired", "orphan"] {
            for fixed in ["", "true"] {
                working.insert((lifecycle, config, fixed), 0.0);
            }
        }
    }
    for mailbox in &mailboxes {
        let letter = mailbox.letter();
        let lifecycle = match (is_active(mailbox), letter.ends()) {
            (false, _) => "terminated",
            (true, true) => "terminating",
            (true, false) => "sync",
        };
        let config = if letter.gone { "orphan" } else { "desired" };
        let fixed = if is_static(mailbox) { "true" } else { "" };
        *working.entry((lifecycle, config, fixed)).or_default() += 1.0;
    }
    let shared = inner.context.cpus.as_ref().map(|cpus| cpus.counts());
    let filled = inner.context.volumes.claims.filled();
    let version = if inner.context.cgroups.is_v2() { 2.0 } else { 1.0 };
    let node = inner.context.config.node_name.clone();
    let shown = shown(move |encoder| {
        let none: [&str; 0] = [];
        encoder
            .family(
                "kubelet_node_name",
                "[ALPHA] The node's name. The count is always 1.",
                "gauge",
                &names(&["node"]),
            )
            .value(&[&node], 1.0);
        encoder
            .family(
                "kubelet_running_pods",
                "[ALPHA] Number of pods that have a running pod sandbox",
                "gauge",
                &[],
            )
            .value(&none, running);
        let by_static = names(&["static"]);
        let help = "[ALPHA] The number of pods the kubelet is being instructed to run. static is true if the pod is not from the apiserver.";
        let mut family = encoder.family("kubelet_desired_pods", help, "gauge", &by_static);
        desired.iter().for_each(|(from, count)| family.value(&[*from], *count));
        let help = "[ALPHA] The number of pods the kubelet considers active and which are being considered when admitting new pods. static is true if the pod is not from the apiserver.";
        let mut family = encoder.family("kubelet_active_pods", help, "gauge", &by_static);
        active.iter().for_each(|(from, count)| family.value(&[*from], *count));
        let help =
            "[ALPHA] The number of mirror pods the kubelet will try to create (one per admitted static pod)";
        encoder.family("kubelet_mirror_pods", help, "gauge", &[]).value(&none, desired[1].1);
        let help = "[ALPHA] cgroup version on the hosts.";
        encoder.family("kubelet_cgroup_version", help, "gauge", &[]).value(&none, version);
        let help = "[ALPHA] Current number of ephemeral containers in pods managed by this kubelet.";
        encoder
            .family("kubelet_managed_ephemeral_containers", help, "gauge", &[])
            .value(&none, ephemeral as f64);
        let help = "[ALPHA] Number of pods the kubelet is actually running, broken down by lifecycle phase, whether the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is static. An orphaned pod has been removed from local configuration or force deleted in the API and consumes resources that are not otherwise visible.";
        let mut family =
            encoder.family("kubelet_working_pods", help, "gauge", &names(&["lifecycle", "config", "static"]));
        for ((lifecycle, config, fixed), count) in &working {
            family.value(&[*lifecycle, *config, *fixed], *count);
        }
        if let Some(counts) = shared {
            for (name, kind, help, value) in [
                (
                    "kubelet_cpu_manager_pinning_requests_total",
                    "counter",
                    "[ALPHA] The number of cpu core allocations which required pinning.",
                    counts.requests as f64,
                ),
                (
                    "kubelet_cpu_manager_pinning_errors_total",
                    "counter",
                    "[ALPHA] The number of cpu core allocations which required pinning failed.",
                    counts.errors as f64,
                ),
                (
                    "kubelet_cpu_manager_shared_pool_size_millicores",
                    "gauge",
                    "[ALPHA] The size of the shared CPU pool for non-guaranteed QoS pods, in millicores.",
                    counts.shared as f64 * 1000.0,
                ),
                (
                    "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                    "gauge",
                    "[ALPHA] The total number of CPUs exclusively allocated to containers running on this node",
                    counts.exclusive as f64,
                ),
            ] {
                encoder.family(name, help, kind, &[]).value(&none, value);
            }
        }
        let of_claim = names(&["namespace", "persistentvolumeclaim"]);
        for (name, help, pick) in VOLUME_STATS {
            let mut family = encoder.family(name, help, "gauge", &of_claim);
            for (claimed, filled) in &filled {
                family.value(&[&claimed.namespace, &claimed.claim], pick(filled) as f64);
            }
        }
        let help = "[ALPHA] Number of containers currently running";
        let mut family =
            encoder.family("kubelet_running_containers", help, "gauge", &names(&["container_state"]));
        for (state, count) in &containers {
            family.value(&[state], *count);
        }
    });
    with_type(StatusCode::OK, CONTENT_TYPE, inner.context.metrics.registry.render() + &shown)
}

/// Whose a container's numbers are.
fn whose(stats: &ContainerStats) -> Option<[String; 3]> {
    let labels = &stats.attributes.as_ref()?.labels;
    let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Some([get(labels::CONTAINER_NAME), get(labels::POD_NAMESPACE), get(labels::POD_NAME)])
}

fn seconds(stats: &ContainerStats) -> f64 {
    stats.cpu.as_ref().and_then(|c| c.usage_core_nano_seconds).map_or(0.0, |n| n.value as f64 / 1e9)
}

fn memory(stats: &ContainerStats, of: impl Fn(&cri::v1::MemoryUsage) -> Option<UInt64Value>) -> f64 {
    stats.memory.as_ref().and_then(of).map_or(0.0, |n| n.value as f64)
}

/// `/metrics/resource`: what the Metrics API is made from.
pub(super) async fn resource(inner: &Inner) -> Response {
    let all = match stats::containers(inner).await {
        Ok(all) => all,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut starts: Vec<([String; 3], f64)> = Vec::new();
    for mailbox in inner.pods.list() {
        let pod = mailbox.letter().pod;
        for status in &mailbox.status().container_statuses {
            if let Some(at) = status.state.running.as_ref().and_then(|r| r.started_at) {
                let whose = [status.name.clone(), pod.metadata.namespace.clone(), pod.metadata.name.clone()];
                starts.push((whose, at.unix() as f64));
            }
        }
    }
    let node = stats::node_usage();
    rendered(move |encoder| {
        let none: [&str; 0] = [];
        let per_container = names(&["container", "namespace", "pod"]);
        let per_pod = names(&["namespace", "pod"]);
        let mut pods: BTreeMap<[String; 2], (f64, f64)> = BTreeMap::new();
        let mut cpu = Vec::new();
        for one in &all {
            let Some(whose) = whose(one) else { continue };
            let bytes = memory(one, |m| m.working_set_bytes);
            let sum = pods.entry([whose[1].clone(), whose[2].clone()]).or_default();
            sum.0 += seconds(one);
            sum.1 += bytes;
            cpu.push((whose, seconds(one), bytes));
        }
        let mut family = encoder.family(
            "container_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
            "counter",
            &per_container,
        );
        cpu.iter().for_each(|(whose, seconds, _)| family.value(whose, *seconds));
        let mut family = encoder.family(
            "container_memory_working_set_bytes",
            "[STABLE] Current working set of the container in bytes",
            "gauge",
            &per_container,
        );
        cpu.iter().for_each(|(whose, _, bytes)| family.value(whose, *bytes));
        let help = "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems";
        let mut family = encoder.family("container_swap_usage_bytes", help, "gauge", &per_container);
        let mut swapped: BTreeMap<[String; 2], f64> = BTreeMap::new();
        for one in &all {
            let used =
                one.swap.as_ref().and_then(|swap| swap.swap_usage_bytes).map(|bytes| bytes.value as f64);
            let (Some(whose), Some(used)) = (whose(one), used) else { continue };
            family.value(&whose, used);
            *swapped.entry([whose[1].clone(), whose[2].clone()]).or_default() += used;
        }
        let help =
            "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
        let mut family = encoder.family("pod_swap_usage_bytes", help, "gauge", &per_pod);
        swapped.iter().for_each(|(whose, used)| family.value(whose, *used));
        let help = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
        encoder.family("node_swap_usage_bytes", help, "gauge", &[]).value(&none, node.swap_used as f64);
        let mut family = encoder.family(
            "container_start_time_seconds",
            "[STABLE] Start time of the container since unix epoch in seconds",
            "gauge",
            &per_container,
        );
        starts.iter().for_each(|(whose, at)| family.value(whose, *at));
        let mut family = encoder.family(
            "pod_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            "counter",
            &per_pod,
        );
        pods.iter().for_each(|(whose, (seconds, _))| family.value(whose, *seconds));
        let mut family = encoder.family(
            "pod_memory_working_set_bytes",
            "[STABLE] Current working set of the pod in bytes",
            "gauge",
            &per_pod,
        );
        pods.iter().for_each(|(whose, (_, bytes))| family.value(whose, *bytes));
        encoder
            .family(
                "node_cpu_usage_seconds_total",
                "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
                "counter",
                &[],
            )
            .value(&none, node.cpu_seconds);
        encoder
            .family(
                "node_memory_working_set_bytes",
                "[STABLE] Current working set of the node in bytes",
                "gauge",
                &[],
            )
            .value(&none, node.working_set as f64);
        let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
        encoder.family("resource_scrape_error", help, "gauge", &[]).value(&none, 0.0);
    })
}

/// `/metrics/probes`: how probes went.
pub(super) fn probes(inner: &Inner) -> Response {
    with_type(StatusCode::OK, CONTENT_TYPE, inner.context.metrics.probes_registry.render())
}
