//! The siblings of `/metrics`, under upstream's names: what pods and containers use, how probes and checks went.

use super::answer::{Response, text, with_type};
use super::{Inner, stats};
use crate::labels;
use component::metrics::{CONTENT_TYPE, Encoder, Registry};
use cri::v1::{ContainerStats, UInt64Value};
use http::StatusCode;
use std::collections::BTreeMap;

fn rendered(collect: impl Fn(&mut Encoder) + Send + Sync + 'static) -> Response {
    with_type(StatusCode::OK, CONTENT_TYPE, shown(collect))
}

pub(super) fn shown(collect: impl Fn(&mut Encoder) + Send + Sync + 'static) -> String {
    let registry = Registry::new();
    registry.collector(collect);
    registry.render()
}

pub(super) fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
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
    let (all, mut swapped) = match stats::counted(inner).await {
        Ok(counted) => counted,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let mut starts: Vec<([String; 3], f64)> = Vec::new();
    let mut pods_swapped: Vec<([String; 2], f64)> = Vec::new();
    for mailbox in inner.pods.list() {
        let pod = mailbox.letter().pod;
        if let Some(used) = swapped.remove(&pod.metadata.uid).and_then(|usage| usage.swap_usage_bytes) {
            let whose = [pod.metadata.namespace.clone(), pod.metadata.name.clone()];
            pods_swapped.push((whose, used.value as f64));
        }
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
        for one in &all {
            let used =
                one.swap.as_ref().and_then(|swap| swap.swap_usage_bytes).map(|bytes| bytes.value as f64);
            let (Some(whose), Some(used)) = (whose(one), used) else { continue };
            family.value(&whose, used);
        }
        let help = "[ALPHA] Current amount of the container swap limit in bytes. Reported only on non-windows systems";
        let mut family = encoder.family("container_swap_limit_bytes", help, "gauge", &per_container);
        for one in &all {
            let Some((whose, swap)) = whose(one).zip(one.swap.as_ref()) else { continue };
            if let Some(left) = swap.swap_available_bytes {
                let used = swap.swap_usage_bytes.map_or(0, |bytes| bytes.value);
                family.value(&whose, (left.value + used) as f64);
            }
        }
        let help =
            "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
        let mut family = encoder.family("pod_swap_usage_bytes", help, "gauge", &per_pod);
        pods_swapped.iter().for_each(|(whose, used)| family.value(whose, *used));
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

/// `/metrics/slis`: how the checks of health went.
pub(super) fn slis(inner: &Inner) -> Response {
    with_type(StatusCode::OK, CONTENT_TYPE, inner.health.registry.render())
}
