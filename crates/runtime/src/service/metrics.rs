//! Usage under cAdvisor's names, for who asks for metrics: what of containers is measured stands in
//! [`linux::cgroup::MEASURES`], what of interfaces in [`linux::interface::MEASURES`].

use super::stats;
use super::{Container, Inner, Sandbox};
use crate::record::now;
use cri::v1::*;
use linux::cgroup::{Disk, MEASURES, MetricKind, Reading};
use linux::interface;

/// What all metrics are labelled with; some have more.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let describe = |name: &str, help: &str, more: &[&str]| MetricDescriptor {
        name: name.into(),
        help: help.into(),
        label_keys: LABELS.iter().chain(more).map(|label| (*label).to_owned()).collect(),
    };
    let containers = MEASURES.iter().map(|measure| describe(measure.name, measure.help, measure.labels));
    containers.chain(interface::MEASURES.iter().map(|m| describe(m.name, m.help, &["interface"]))).collect()
}

/// Of every pod that runs.
pub(super) fn of_pods(inner: &Inner) -> Vec<PodSandboxMetrics> {
    stats::ready(inner, None).iter().map(|pod| of_pod(inner, pod)).collect()
}

fn of_pod(inner: &Inner, pod: &Sandbox) -> PodSandboxMetrics {
    let meta = pod.record().config.metadata.clone().unwrap_or_default();
    let labels = |container: &str, id: &str, image: &str| -> Vec<String> {
        [container, id, image, id, &meta.namespace, &meta.name].map(str::to_owned).into()
    };
    let timestamp = now();
    let mut metrics = Vec::new();
    for interface in stats::interfaces(pod).into_iter().flatten() {
        for measure in interface::MEASURES {
            let Some(value) = (measure.read)(&interface) else { continue };
            let mut labels = labels("", &pod.id, "");
            labels.push(interface.name.clone());
            metrics.push(metric(measure.name, timestamp, MetricType::Counter, labels, value));
        }
    }
    let running = inner.containers_of(&pod.id).into_iter().filter(|container| container.is_running());
    let container_metrics = running.map(|container| {
        let config = container.record().config.clone();
        let image = config.image.map(|image| image.user_specified_image).unwrap_or_default();
        let name = config.metadata.map(|meta| meta.name).unwrap_or_default();
        let labels = labels(&name, &container.id, &image);
        ContainerMetrics {
            container_id: container.id.clone(),
            metrics: of_container(inner, &container, &labels),
        }
    });
    let container_metrics = container_metrics.collect();
    PodSandboxMetrics { pod_sandbox_id: pod.id.clone(), metrics, container_metrics }
}

fn of_container(inner: &Inner, container: &Container, labels: &[String]) -> Vec<Metric> {
    let record = container.record();
    let Ok(group) = inner.group(&record.cgroup) else { return Vec::new() };
    let (used, _) = stats::disk_usage(&container.dir.join("upper"));
    let disk = Disk::at(&inner.config.data_dir, used);
    let started_at = Some(container.live().started_at as f64 / 1e9);
    let reading = Reading::of(&group, started_at, disk);
    let mut out = Vec::new();
    for measure in MEASURES {
        let kind = match measure.kind {
            MetricKind::Counter => MetricType::Counter,
            MetricKind::Gauge => MetricType::Gauge,
        };
        (measure.read)(&reading, &mut |more, value| {
            let labels = labels.iter().cloned().chain(more.iter().map(|label| (*label).to_owned())).collect();
            // CRI knows whole numbers that are not negative: no limit is the largest.
            let value = if value < 0.0 { u64::MAX } else { value as u64 };
            out.push(metric(measure.name, now(), kind, labels, value));
        });
    }
    out
}

fn metric(name: &str, timestamp: i64, kind: MetricType, label_values: Vec<String>, value: u64) -> Metric {
    Metric {
        name: name.into(),
        timestamp,
        metric_type: kind.into(),
        label_values,
        value: Some(UInt64Value { value }),
    }
}
