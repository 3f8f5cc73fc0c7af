//! `/metrics/resources`: what each pod asks for and may use at most, as the scheduler and the kubelets count it. Upstream:
//! `pkg/scheduler/metrics/resources`, on kube-scheduler's own port.

use crate::server::Server;
use api::core::v1::Pod;
use apimachinery::decode::Decode as _;
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use component::metrics::{Opts, Registry, Stability};
use rules::pod_requests::{Options, pod_limits, pod_requests};
use std::collections::BTreeMap;

const LABELS: [&str; 7] = ["namespace", "pod", "node", "scheduler", "priority", "resource", "unit"];

const REQUEST: Opts<'_> = Opts {
    name: "kube_pod_resource_request",
    help: "Resources requested by workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
    stability: Stability::Stable,
};

const LIMIT: Opts<'_> = Opts {
    name: "kube_pod_resource_limit",
    help: "Resources limit for workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect per pod for resources along with the unit for the resource if any.",
    stability: Stability::Stable,
};

/// What amounts of a resource are counted in; nothing, of most that nodes extend themselves by.
fn unit(resource: &str) -> &'static str {
    match resource {
        "cpu" => "cores",
        "memory" | "storage" | "ephemeral-storage" => "bytes",
        _ if resource.starts_with("hugepages-") => "bytes",
        _ if resource.starts_with("attachable-volumes-") => "integer",
        _ => "",
    }
}

/// Whether a pod takes nothing any more.
fn is_over(pod: &Pod) -> bool {
    !pod.spec.node_name.is_empty() && matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// The text for a scrape. With many pods that takes a while.
pub(crate) fn render(server: &Server) -> Result<String, Status> {
    let pods = server.registry.resources.get("", "v1", "pods").ok_or_else(Status::path_not_found)?;
    let registry = Registry::new();
    let (requests, limits) = (registry.gauge_vec(REQUEST, &LABELS), registry.gauge_vec(LIMIT, &LABELS));
    for entry in server.registry.store.snapshot(&pods.prefix).range("", "") {
        let pod = Pod::from_json(crate::registry::body(entry)?.json()).map_err(Status::internal_error)?;
        if is_over(&pod) {
            continue;
        }
        let priority = pod.spec.priority.map(|priority| priority.to_string()).unwrap_or_default();
        let tell = |gauges: &component::metrics::GaugeVec, amounts: BTreeMap<String, Quantity>| {
            for (resource, amount) in amounts.iter().filter(|(_, amount)| amount.as_f64() != 0.0) {
                let (meta, spec) = (&pod.metadata, &pod.spec);
                let labels = [
                    meta.namespace.as_str(),
                    &meta.name,
                    &spec.node_name,
                    &spec.scheduler_name,
                    &priority,
                    resource,
                    unit(resource),
                ];
                gauges.with(&labels).set(amount.as_f64());
            }
        };
        tell(&requests, pod_requests(&pod, Options::default()));
        tell(&limits, pod_limits(&pod, Options::default()));
    }
    Ok(registry.render())
}
