//! What is counted of devices, processors, memory and where they are, and of who asks for that.

use super::families::{Families, USUAL};
use component::metrics::{Counter, CounterVec, Histogram, HistogramVec, Registry, exponential_buckets};

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Managers {
    /// By resource.
    pub registrations: CounterVec,
    pub allocations: HistogramVec,
    pub cpus: Pinned,
    pub memory: Pinned,
    /// Containers, or pods, that have everything within one boundary where that was promised; and those that could not.
    pub aligned: CounterVec,
    pub misaligned: CounterVec,
    pub topology_requests: Counter,
    pub topology_errors: Counter,
    pub topology_durations: Histogram,
    pub pod_resources: PodResources,
}

/// How often somebody wanted some alone, and in vain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pinned {
    pub requests: Counter,
    pub errors: Counter,
}

/// Requests to the pod-resources API, by version; no listing fails.
#[derive(Clone)]
pub(crate) struct PodResources {
    pub all: CounterVec,
    pub list: CounterVec,
    pub get: CounterVec,
    pub get_errors: CounterVec,
    pub allocatable: CounterVec,
}

impl Managers {
    /// What the processors' manager counts.
    pub(crate) fn of_cpus(&self) -> crate::cpus::Counted {
        let aligned = |of: &CounterVec, boundary| of.with(&["container", boundary]);
        crate::cpus::Counted {
            pinned: self.cpus.clone(),
            cores: aligned(&self.aligned, "physical_cpu"),
            no_cores: aligned(&self.misaligned, "physical_cpu"),
            caches: aligned(&self.aligned, "uncore_cache"),
        }
    }

    pub(super) fn new(registry: &Registry) -> Self {
        let of = Families(registry);
        let by_resource = ["resource_name"];
        let scope = ["scope", "boundary"];
        let aligned = of.counts(
            "kubelet_container_aligned_compute_resources_count",
            "Cumulative number of aligned compute resources allocated to containers by alignment type.",
            &scope,
        );
        let misaligned = of.counts(
            "kubelet_container_aligned_compute_resources_failure_count",
            "Cumulative number of failures to allocate aligned compute resources to containers by alignment type.",
            &scope,
        );
        // They are there before anything happens.
        for scope in ["container", "pod"] {
            aligned.with(&[scope, "numa_node"]);
            misaligned.with(&[scope, "numa_node"]);
        }
        Managers {
            registrations: of.counts(
                "kubelet_device_plugin_registration_total",
                "Cumulative number of device plugin registrations. Broken down by resource name.",
                &by_resource,
            ),
            allocations: of.times(
                "kubelet_device_plugin_alloc_duration_seconds",
                "Duration in seconds to serve a device plugin Allocation request. Broken down by resource name.",
                &by_resource,
                &USUAL,
            ),
            cpus: Pinned {
                requests: of.count(
                    "kubelet_cpu_manager_pinning_requests_total",
                    "The number of cpu core allocations which required pinning.",
                ),
                errors: of.count(
                    "kubelet_cpu_manager_pinning_errors_total",
                    "The number of cpu core allocations which required pinning failed.",
                ),
            },
            memory: Pinned {
                requests: of.count(
                    "kubelet_memory_manager_pinning_requests_total",
                    "The number of memory pages allocations which required pinning.",
                ),
                errors: of.count(
                    "kubelet_memory_manager_pinning_errors_total",
                    "The number of memory pages allocations which required pinning that failed.",
                ),
            },
            aligned,
            misaligned,
            topology_requests: of.count(
                "kubelet_topology_manager_admission_requests_total",
                "The number of admission requests where resources have to be aligned.",
            ),
            topology_errors: of.count(
                "kubelet_topology_manager_admission_errors_total",
                "The number of admission request failures where resources could not be aligned.",
            ),
            topology_durations: of.time(
                "kubelet_topology_manager_admission_duration_ms",
                "Duration in milliseconds to serve a pod admission request.",
                &exponential_buckets(0.05, 2.0, 15),
            ),
            pod_resources: PodResources::new(&of),
        }
    }
}

impl PodResources {
    fn new(of: &Families<'_>) -> Self {
        let by_version = ["server_api_version"];
        let count = |what: &str, help: &str| {
            let name = format!("kubelet_pod_resources_endpoint_{what}");
            of.counts(&name, &format!("{help} Broken down by server api version."), &by_version)
        };
        PodResources {
            all: count("requests_total", "Cumulative number of requests to the PodResource endpoint."),
            list: count("requests_list", "Number of requests to the PodResource List endpoint."),
            get: count("requests_get", "Number of requests to the PodResource Get endpoint."),
            get_errors: count(
                "errors_get",
                "Number of requests to the PodResource Get endpoint which returned error.",
            ),
            allocatable: count(
                "requests_get_allocatable",
                "Number of requests to the PodResource GetAllocatableResources endpoint.",
            ),
        }
    }
}
