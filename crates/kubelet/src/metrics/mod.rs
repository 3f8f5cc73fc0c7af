//! What a kubelet counts, under upstream's names. Upstream: `pkg/kubelet/metrics`.

mod dra;
mod families;
mod http;
mod managers;
mod renewals;
mod resizes;
pub(crate) mod startup;
mod storage;

pub(crate) use dra::Dra;
pub(crate) use http::Http;
pub(crate) use managers::{Managers, Pinned, PodResources};
pub(crate) use renewals::{CLIENT_RENEWALS, Names, Renewals, SERVER_RENEWALS};

pub(crate) use storage::StorageOperations;

use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
    exponential_buckets,
};
use families::USUAL;
use std::sync::Arc;
use std::time::Duration;

const POD_START: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const IMAGE_PULL: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0,
    2700.0, 3600.0,
];
/// What a probe is counted by, and its time.
const PROBE: [&str; 6] = ["probe_type", "result", "container", "pod", "namespace", "pod_uid"];
const PROBED: [&str; 4] = ["probe_type", "container", "pod", "namespace"];
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
    pub containers_per_pod: Histogram,
    pub worker_durations: HistogramVec,
    pub worker_start: Histogram,
    pub status_sync: Histogram,
    pub pod_start_sli: Histogram,
    pub pod_start_total: Histogram,
    pub orphaned_runtime_pods: Counter,
    pub terminated_containers: CounterVec,
    pub user_namespaced_pods: Counter,
    pub user_namespaced_pods_errors: Counter,
    pub relist_durations: Histogram,
    pub relist_intervals: Histogram,
    pub relist_last_seen: Gauge,
    pub event_connections: Counter,
    pub event_connection_errors: Counter,
    pub event_latency: Histogram,
    pub eviction_stats_age: HistogramVec,
    pub cgroup_operations: HistogramVec,
    pub image_volumes: Counter,
    pub image_volumes_mounted: Counter,
    pub image_volumes_errors: Counter,
    pub managers: Managers,
    pub resizes: resizes::Resizes,
    pub dra: Dra,
    pub http: Http,
    pub startup: startup::Startup,
    pub storage: StorageOperations,
    pub restarted_pods: CounterVec,
    pub orphans_cleaned: Gauge,
    pub orphans_not_cleaned: Gauge,
    pub first_network_pod: Gauge,
    pub ensured_images: CounterVec,
    pub http_fallbacks: Counter,
    pub sleeps_cut_short: Counter,
    pub looks: Histogram,
    pub volume_stats: HistogramVec,
    pub must_pull_checks: CounterVec,
    pub credential_provider_errors: CounterVec,
    pub credential_provider_duration: HistogramVec,
    pub credential_provider_config: GaugeVec,
    pub rejections: CounterVec,
    /// At `/metrics/probes`, and there alone.
    pub probes: CounterVec,
    pub probe_durations: HistogramVec,
    pub probes_registry: Registry,
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
        let beta = |name, help| registry.counter(Opts { stability: Stability::Beta, ..opts(name, help) });
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
            containers_per_pod: single(
                "kubelet_containers_per_pod_count",
                "The number of containers per pod.",
                &exponential_buckets(1.0, 2.0, 5),
            ),
            worker_durations: time(
                "kubelet_pod_worker_duration_seconds",
                "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
                &by_operation,
                &USUAL,
            ),
            worker_start: single(
                "kubelet_pod_worker_start_duration_seconds",
                "Duration in seconds from kubelet seeing a pod to starting a worker.",
                &USUAL,
            ),
            status_sync: single(
                "kubelet_pod_status_sync_duration_seconds",
                "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status until the API is successfully updated for that pod, even if multiple intevening changes to pod status occur.",
                &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0],
            ),
            pod_start_sli: single(
                "kubelet_pod_start_sli_duration_seconds",
                "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                &POD_START,
            ),
            pod_start_total: single(
                "kubelet_pod_start_total_duration_seconds",
                "Duration in seconds to start a pod since creation, including time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                &POD_START,
            ),
            orphaned_runtime_pods: one(
                "kubelet_orphaned_runtime_pods_total",
                "Number of pods that have been detected in the container runtime without being already known to the pod worker. This typically indicates the kubelet was restarted while a pod was force deleted in the API or in the local configuration, which is unusual.",
            ),
            terminated_containers: count(
                "kubelet_terminated_containers_total",
                "Cumulative number of container terminations.",
                &["container_type", "exit_code", "reason"],
            ),
            user_namespaced_pods: one(
                "kubelet_started_user_namespaced_pods_total",
                "Cumulative number of pods with user namespaces started. This metric will only be collected on Linux.",
            ),
            user_namespaced_pods_errors: one(
                "kubelet_started_user_namespaced_pods_errors_total",
                "Cumulative number of errors when starting pods with user namespaces. This metric will only be collected on Linux.",
            ),
            relist_durations: single(
                "kubelet_pleg_relist_duration_seconds",
                "Duration in seconds for relisting pods in PLEG.",
                &USUAL,
            ),
            relist_intervals: single(
                "kubelet_pleg_relist_interval_seconds",
                "Interval in seconds between relisting in PLEG.",
                &USUAL,
            ),
            relist_last_seen: registry.gauge(opts(
                "kubelet_pleg_last_seen_seconds",
                "Timestamp in seconds when PLEG was last seen active.",
            )),
            event_connections: one(
                "kubelet_evented_pleg_connection_success_count",
                "The number of times a streaming client was obtained to receive CRI Events.",
            ),
            event_connection_errors: one(
                "kubelet_evented_pleg_connection_error_count",
                "The number of errors encountered during the establishment of streaming connection with the CRI runtime.",
            ),
            event_latency: single(
                "kubelet_evented_pleg_connection_latency_seconds",
                "The latency of streaming connection with the CRI runtime, measured in seconds.",
                &USUAL,
            ),
            eviction_stats_age: time(
                "kubelet_eviction_stats_age_seconds",
                "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
                &["eviction_signal"],
                &USUAL,
            ),
            cgroup_operations: time(
                "kubelet_cgroup_manager_duration_seconds",
                "Duration in seconds for cgroup manager operations. Broken down by method.",
                &by_operation,
                &USUAL,
            ),
            image_volumes: beta("kubelet_image_volume_requested_total", "Number of requested image volumes."),
            image_volumes_mounted: beta(
                "kubelet_image_volume_mounted_succeed_total",
                "Number of successful image volume mounts.",
            ),
            image_volumes_errors: beta(
                "kubelet_image_volume_mounted_errors_total",
                "Number of failed image volume mounts.",
            ),
            managers: Managers::new(&registry),
            resizes: resizes::Resizes::new(&registry),
            dra: Dra::new(&registry),
            http: Http::new(&registry),
            startup: startup::Startup::new(&registry),
            storage: StorageOperations::new(&registry),
            orphans_cleaned: registry.gauge(opts(
                "kubelet_orphan_pod_cleaned_volumes",
                "The total number of orphaned Pods whose volumes were cleaned in the last periodic sweep.",
            )),
            orphans_not_cleaned: registry.gauge(opts(
                "kubelet_orphan_pod_cleaned_volumes_errors",
                "The number of orphaned Pods whose volumes failed to be cleaned in the last periodic sweep.",
            )),
            restarted_pods: count(
                "kubelet_restarted_pods_total",
                "Number of pods that have been restarted because they were deleted and recreated with the same UID while the kubelet was watching them (common for static pods, extremely uncommon for API pods)",
                &["static"],
            ),
            first_network_pod: registry.gauge(Opts {
                name: "kubelet_first_network_pod_start_sli_duration_seconds",
                help: "Duration in seconds to start the first network pod, excluding time to pull images and run init containers, measured from pod creation timestamp to when all its containers are reported as started and observed via watch",
                stability: Stability::Internal,
            }),
            ensured_images: count(
                "kubelet_image_manager_ensure_image_requests_total",
                "Number of ensure-image requests processed by the kubelet.",
                &["pull_policy", "present_locally", "pull_required"],
            ),
            http_fallbacks: one(
                "kubelet_lifecycle_handler_http_fallbacks_total",
                "The number of times lifecycle handlers successfully fell back to http from https.",
            ),
            sleeps_cut_short: one(
                "kubelet_sleep_action_terminated_early_total",
                "The number of times lifecycle sleep handler got terminated before it finishes",
            ),
            looks: single(
                "kubelet_pleg_pod_relist_duration_seconds",
                "Duration in seconds for relisting a single pod in PLEG.",
                &USUAL,
            ),
            volume_stats: time(
                "kubelet_volume_metric_collection_duration_seconds",
                "Duration in seconds to calculate volume stats",
                &["metric_source"],
                &USUAL,
            ),
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
            probes: probes_registry.counter_vec(probes, &PROBE),
            probe_durations: probes_registry.histogram_vec(
                opts("prober_probe_duration_seconds", "Duration in seconds for a probe response."),
                &PROBED,
                &USUAL,
            ),
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

    /// Counts the renewals of a certificate; asked for once.
    pub(crate) fn renewals(&self, names: Names) -> Renewals {
        Renewals::new(&self.registry, names)
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
