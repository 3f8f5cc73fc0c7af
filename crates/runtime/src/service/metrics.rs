//! Usage under cAdvisor's names, for who asks for metrics: one table, read for what they mean and for what they are.

use super::{Inner, stats};
use cri::v1::*;

/// What all metrics are labelled with; those of interfaces have the interface besides.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
const NANOSECONDS: u64 = 1_000_000_000;

/// A metric of a container: name, meaning, kind, value.
type OfContainer = (&'static str, &'static str, MetricType, fn(&ContainerStats) -> Option<u64>);

const OF_CONTAINERS: &[OfContainer] = &[
    (
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        MetricType::Counter,
        |s| get(&s.cpu.as_ref()?.usage_core_nano_seconds).map(|used| used / NANOSECONDS),
    ),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        MetricType::Gauge,
        |s| get(&s.memory.as_ref()?.usage_bytes),
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", MetricType::Gauge, |s| {
        get(&s.memory.as_ref()?.working_set_bytes)
    }),
    ("container_memory_rss", "Size of RSS in bytes.", MetricType::Gauge, |s| {
        get(&s.memory.as_ref()?.rss_bytes)
    }),
    ("container_memory_swap", "Container swap usage in bytes.", MetricType::Gauge, |s| {
        get(&s.swap.as_ref()?.swap_usage_bytes)
    }),
    (
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        MetricType::Gauge,
        |s| get(&s.writable_layer.as_ref()?.used_bytes),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        MetricType::Counter,
        |s| waited(s.cpu.as_ref()?.psi.as_ref(), |psi| psi.some),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        MetricType::Counter,
        |s| waited(s.memory.as_ref()?.psi.as_ref(), |psi| psi.some),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        MetricType::Counter,
        |s| waited(s.memory.as_ref()?.psi.as_ref(), |psi| psi.full),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        MetricType::Counter,
        |s| waited(s.io.as_ref()?.psi.as_ref(), |psi| psi.some),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        MetricType::Counter,
        |s| waited(s.io.as_ref()?.psi.as_ref(), |psi| psi.full),
    ),
];

/// A metric of a pod's interface.
type OfInterface = (&'static str, &'static str, fn(&NetworkInterfaceUsage) -> Option<u64>);

const OF_INTERFACES: &[OfInterface] = &[
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| get(&i.rx_bytes)),
    (
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        |i| get(&i.rx_errors),
    ),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| get(&i.tx_bytes)),
    (
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        |i| get(&i.tx_errors),
    ),
];

fn get(value: &Option<UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

fn waited(psi: Option<&PsiStats>, which: fn(&PsiStats) -> Option<PsiData>) -> Option<u64> {
    // The kernel counts microseconds.
    which(psi?).map(|data| data.total / 1_000_000)
}

pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let describe = |name: &str, help: &str, more: &[&str]| MetricDescriptor {
        name: name.into(),
        help: help.into(),
        label_keys: LABELS.iter().chain(more).map(|label| (*label).to_owned()).collect(),
    };
    let containers = OF_CONTAINERS.iter().map(|(name, help, ..)| describe(name, help, &[]));
    containers
        .chain(OF_INTERFACES.iter().map(|(name, help, _)| describe(name, help, &["interface"])))
        .collect()
}

/// Of every pod that runs.
pub(super) fn of_pods(inner: &Inner) -> Vec<PodSandboxMetrics> {
    let pods = stats::sandboxes(inner, None);
    pods.into_iter().filter_map(|pod| of_pod(inner, &pod)).collect()
}

fn of_pod(inner: &Inner, pod: &PodSandboxStats) -> Option<PodSandboxMetrics> {
    let (attributes, linux) = (pod.attributes.as_ref()?, pod.linux.as_ref()?);
    let meta = attributes.metadata.clone().unwrap_or_default();
    let labels = |container: &str, id: &str, image: &str| -> Vec<String> {
        [container, id, image, id, &meta.namespace, &meta.name].map(str::to_owned).into()
    };
    let mut metrics = Vec::new();
    if let Some(network) = &linux.network {
        for interface in network.default_interface.iter().chain(&network.interfaces) {
            for (name, _, read) in OF_INTERFACES {
                let mut label_values = labels("", &attributes.id, "");
                label_values.push(interface.name.clone());
                metrics.extend(metric(
                    name,
                    network.timestamp,
                    MetricType::Counter,
                    label_values,
                    read(interface),
                ));
            }
        }
    }
    let container_metrics = linux.containers.iter().filter_map(|container| {
        let own = container.attributes.as_ref()?;
        let image = inner.container(&own.id).ok().and_then(|known| known.record().config.image.clone());
        let image = image.map(|image| image.user_specified_image).unwrap_or_default();
        let name = own.metadata.as_ref().map(|meta| meta.name.as_str()).unwrap_or_default();
        let timestamp = container.memory.as_ref().map_or(0, |memory| memory.timestamp);
        let metrics = OF_CONTAINERS.iter().filter_map(|(metric_name, _, kind, read)| {
            metric(metric_name, timestamp, *kind, labels(name, &own.id, &image), read(container))
        });
        Some(ContainerMetrics { container_id: own.id.clone(), metrics: metrics.collect() })
    });
    let container_metrics = container_metrics.collect();
    Some(PodSandboxMetrics { pod_sandbox_id: attributes.id.clone(), metrics, container_metrics })
}

fn metric(
    name: &str,
    timestamp: i64,
    kind: MetricType,
    label_values: Vec<String>,
    value: Option<u64>,
) -> Option<Metric> {
    value.map(|value| Metric {
        name: name.into(),
        timestamp,
        metric_type: kind.into(),
        label_values,
        value: Some(UInt64Value { value }),
    })
}
