//! What the kubelet knows: its pods and its configuration.

use super::Inner;
use super::answer::{Response, json};
use api::core::v1::Pod;
use apimachinery::json as value;

/// All pods with their newest status, as a `PodList`.
pub(super) fn pods(inner: &Inner) -> Response {
    let items: Vec<Pod> = inner
        .pods
        .list()
        .iter()
        .map(|mailbox| {
            let mut pod = Pod::clone(&mailbox.letter().pod);
            pod.kind = String::new();
            pod.api_version = String::new();
            pod.status = (*mailbox.status()).clone();
            pod
        })
        .collect();
    json(&value!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

/// The configuration under upstream's names.
pub(super) fn configz(inner: &Inner) -> Response {
    let config = &inner.context.config;
    let periods = config.shutdown_periods.iter();
    let shutdown: Vec<_> = periods
        .map(|period| value!({ "priority": period.priority, "shutdownGracePeriodSeconds": period.seconds }))
        .collect();
    json(&value!({ "kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": config.address.ip().to_string(),
        "port": config.address.port(),
        "healthzBindAddress": config.healthz.ip().to_string(),
        "healthzPort": config.healthz.port(),
        "authentication": { "anonymous": { "enabled": false }, "webhook": { "enabled": true, "cacheTTL": "2m0s" } },
        "authorization": { "mode": "Webhook" },
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "resolvConf": config.resolv_conf,
        "staticPodPath": config.static_pod_path,
        "seccompDefault": config.seccomp_default,
        "serializeImagePulls": config.parallel_image_pulls == 1,
        "containerLogMaxSize": format!("{}Mi", config.container_log_max_size >> 20),
        "containerLogMaxFiles": config.container_log_max_files,
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": config.fail_cgroup_v1,
        "nodeStatusUpdateFrequency": apimachinery::time::Duration::from(config.node_status_update_frequency),
        "nodeStatusReportFrequency": apimachinery::time::Duration::from(config.node_status_report_frequency),
        "nodeLeaseDurationSeconds": config.node_lease_duration.as_secs(),
        "enableSystemLogHandler": config.system_log_handler,
        "enableSystemLogQuery": config.system_log_query,
        "enableDebuggingHandlers": config.debugging_handlers,
        "podPidsLimit": config.pod_pids_limit.unwrap_or(-1),
        "podsPerCore": config.pods_per_core,
        "cpuCFSQuota": config.cpu_cfs_quota,
        "crashLoopBackOff": {
            "maxContainerRestartPeriod": apimachinery::time::Duration::from(config.restart_most),
        },
        "imageGCHighThresholdPercent": config.image_gc_high,
        "imageGCLowThresholdPercent": config.image_gc_low,
        "imageMinimumGCAge": apimachinery::time::Duration::from(config.image_gc_min_age),
        "imageMaximumGCAge": apimachinery::time::Duration::from(config.image_gc_max_age.unwrap_or_default()),
        "nodeStatusMaxImages": config.node_status_max_images,
        "shutdownGracePeriodByPodPriority": shutdown,
        "featureGates": config.features,
    } }))
}
