//! What a kubelet counts, under upstream's names. Upstream: `pkg/kubelet/metrics`.

use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
    exponential_buckets,
};
use std::sync::Arc;
use std::time::Duration;

/// Upstream's `prometheus.DefBuckets`.
const USUAL: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const POD_START: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const IMAGE_PULL: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
    2700.0, 3600.0,
];
/// What a probe is counted by.
const PROBE: [&str; 6] = ["probe_type", "result", "container", "pod", "namespace", "pod_uid"];
const MIB: u64 = 1 << 20;
/// More than so many bytes, and what that is called.
const IMAGE_SIZES: [(u64, &str); 12] = [
    (0, "0-10MB"),
    (10 * MIB, "10MB-100MB"),
    (100 * MIB, "100MB-500MB"),
    (500 * MIB, "500MB-1GB"),
    (1024 * MIB, "1GB-5GB"),
    (5 * 1024 * MIB, "5GB-10GB"),
    (10 * 1024 * MIB, "10GB-20GB"),
    (20 * 1024 * MIB, "20GB-30GB"),
    (30 * 1024 * MIB, "30GB-40GB"),
    (40 * 1024 * MIB, "40GB-60GB"),
    (60 * 1024 * MIB, "60GB-100GB"),
    (100 * 1024 * MIB, "GT100GB"),
];

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub registry: Registry,
    operations: CounterVec,
    operation_errors: CounterVec,
    operation_durations: HistogramVec,
    pub started_pods: Counter,
    pub started_pods_errors: Counter,
    pub run_sandbox: HistogramVec,
    pub run_sandbox_errors: CounterVec,
    pub started_containers: CounterVec,
    pub started_containers_errors: CounterVec,
    pub pod_start: Histogram,
    pub evictions: CounterVec,
    pub preemptions: CounterVec,
    image_pulls: HistogramVec,
    pub images_collected: CounterVec,
    pub graceful_shutdown_start: Gauge,
    pub graceful_shutdown_end: Gauge,
    pub must_pull_checks: CounterVec,
    pub credential_provider_errors: CounterVec,
    pub credential_provider_duration: HistogramVec,
    pub credential_provider_config: GaugeVec,
    pub rejections: CounterVec,
    /// At `/metrics/probes`, and there alone.
    pub probes: CounterVec,
    pub probes_registry: Registry,
    pub topology_requests: Counter,
    pub topology_errors: Counter,
    pub topology_durations: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let (registry, probes_registry) = (Registry::new(), Registry::new());
        let probes = Opts {
            name: "prober_probe_total",
            help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
            stability: Stability::Beta,
        };
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        let count = |name, help, labels: &[&str]| registry.counter_vec(opts(name, help), labels);
        let one = |name, help| registry.counter(opts(name, help));
        let time = |name, help, labels: &[&str], buckets: &[f64]| {
            registry.histogram_vec(opts(name, help), labels, buckets)
        };
        let single = |name, help, buckets: &[f64]| registry.histogram(opts(name, help), buckets);
        let by_operation = ["operation_type"];
        Metrics {
            operations: count(
                "kubelet_runtime_operations_total",
                "Cumulative number of runtime operations by operation type.",
                &by_operation,
            ),
            operation_errors: count(
                "kubelet_runtime_operations_errors_total",
                "Cumulative number of runtime operation errors by operation type.",
                &by_operation,
            ),
            operation_durations: time(
                "kubelet_runtime_operations_duration_seconds",
                "Duration in seconds of runtime operations. Broken down by operation type.",
                &by_operation,
                &exponential_buckets(0.005, 2.5, 14),
            ),
            started_pods: one("kubelet_started_pods_total", "Cumulative number of pods started"),
            started_pods_errors: one(
                "kubelet_started_pods_errors_total",
                "Cumulative number of errors when starting pods",
            ),
            run_sandbox: time(
                "kubelet_run_podsandbox_duration_seconds",
                "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
                &["runtime_handler"],
                &USUAL,
            ),
            run_sandbox_errors: count(
                "kubelet_run_podsandbox_errors_total",
                "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
                &["runtime_handler"],
            ),
            started_containers: count(
                "kubelet_started_containers_total",
                "Cumulative number of containers started",
                &["container_type"],
            ),
            started_containers_errors: count(
                "kubelet_started_containers_errors_total",
                "Cumulative number of errors when starting containers",
                &["container_type", "code"],
            ),
            pod_start: single(
                "kubelet_pod_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
                &POD_START,
            ),
            evictions: count(
                "kubelet_evictions",
                "Cumulative number of pod evictions by eviction signal",
                &["eviction_signal"],
            ),
            preemptions: count(
                "kubelet_preemptions",
                "Cumulative number of pod preemptions by preemption resource",
                &["preemption_signal"],
            ),
            image_pulls: time(
                "kubelet_image_pull_duration_seconds",
                "Duration in seconds to pull an image.",
                &["image_size_in_bytes"],
                &IMAGE_PULL,
            ),
            images_collected: count(
                "kubelet_image_garbage_collected_total",
                "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
                &["reason"],
            ),
            graceful_shutdown_start: registry.gauge(opts(
                "kubelet_graceful_shutdown_start_time_seconds",
                "Last graceful shutdown start time since unix epoch in seconds",
            )),
            graceful_shutdown_end: registry.gauge(opts(
                "kubelet_graceful_shutdown_end_time_seconds",
                "Last graceful shutdown end time since unix epoch in seconds",
            )),
            must_pull_checks: count(
                "kubelet_imagemanager_image_mustpull_checks_total",
                "Counter for how many times kubelet checked whether credentials need to be re-verified to access an image",
                &["result"],
            ),
            credential_provider_errors: count(
                "kubelet_credential_provider_plugin_errors_total",
                "Number of errors from credential provider plugin",
                &["plugin_name"],
            ),
            credential_provider_duration: time(
                "kubelet_credential_provider_plugin_duration",
                "Duration of execution in seconds for credential provider plugin",
                &["plugin_name"],
                &USUAL,
            ),
            credential_provider_config: registry.gauge_vec(
                opts(
                    "kubelet_credential_provider_config_info",
                    "Information about the last applied credential provider configuration with hash as label",
                ),
                &["hash"],
            ),
            rejections: count(
                "kubelet_admission_rejections_total",
                "Cumulative number pod admission rejections by the Kubelet.",
                &["reason"],
            ),
            topology_requests: one(
                "kubelet_topology_manager_admission_requests_total",
                "The number of admission requests where resources have to be aligned.",
            ),
            topology_errors: one(
                "kubelet_topology_manager_admission_errors_total",
                "The number of admission request failures where resources could not be aligned.",
            ),
            topology_durations: single(
                "kubelet_topology_manager_admission_duration_ms",
                "Duration in milliseconds to serve a pod admission request.",
                &exponential_buckets(0.05, 2.0, 15),
            ),
            probes: probes_registry.counter_vec(probes, &PROBE),
            probes_registry,
            registry: registry.clone(),
        }
    }

    /// Counts every call of a runtime.
    pub(crate) fn observer(&self) -> cri::observed::Observer {
        let this = self.clone();
        Arc::new(move |method, took, failed| {
            let name = operation(method);
            this.operations.with(&[&name]).inc();
            this.operation_durations.with(&[&name]).observe(took.as_secs_f64());
            if failed {
                this.operation_errors.with(&[&name]).inc();
            }
        })
    }

    pub(crate) fn image_pulled(&self, bytes: u64, took: Duration) {
        self.image_pulls.with(&[image_size(bytes)]).observe(took.as_secs_f64());
    }
}

/// Upstream writes the sandbox in one word.
fn operation(method: &str) -> String {
    method.replace("pod_sandbox", "podsandbox")
}

fn image_size(bytes: u64) -> &'static str {
    IMAGE_SIZES.iter().rev().find(|(more, _)| bytes > *more).map_or("N/A", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        assert_eq!(
            ["run_pod_sandbox", "list_containers"].map(operation),
            ["run_podsandbox", "list_containers"]
        );
        assert_eq!([0, 1, 11 * MIB, 1 << 40].map(image_size), ["N/A", "0-10MB", "10MB-100MB", "GT100GB"]);
        let metrics = Metrics::new();
        metrics.observer()("run_pod_sandbox", Duration::from_millis(20), true);
        let text = metrics.registry.render();
        for line in [
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"0.03125\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}
