//! The fields of a `KubeletConfiguration` that change what this kubelet does.

use crate::config::ShutdownPeriod;
use apimachinery::quantity::Quantity;
use apimachinery::time::Duration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) type Texts = BTreeMap<String, String>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct File {
    pub kind: String,
    pub api_version: String,
    pub address: Option<IpAddr>,
    pub allowed_unsafe_sysctls: Vec<String>,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub container_log_max_files: Option<i64>,
    pub container_log_max_size: Option<Quantity>,
    pub container_log_monitor_interval: Option<Duration>,
    pub container_runtime_endpoint: String,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: Option<bool>,
    pub cpu_manager_policy: String,
    pub cpu_manager_policy_options: Texts,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub enable_debugging_handlers: Option<bool>,
    pub enable_system_log_handler: Option<bool>,
    pub enable_system_log_query: Option<bool>,
    pub enforce_node_allocatable: Option<Vec<String>>,
    pub eviction_hard: Option<Texts>,
    pub eviction_max_pod_grace_period: Option<i64>,
    pub eviction_minimum_reclaim: Texts,
    pub eviction_pressure_transition_period: Duration,
    pub eviction_soft: Texts,
    pub eviction_soft_grace_period: BTreeMap<String, Duration>,
    #[serde(rename = "failCgroupV1")]
    pub fail_cgroup_v1: Option<bool>,
    pub fail_swap_on: Option<bool>,
    pub feature_gates: BTreeMap<String, bool>,
    pub healthz_bind_address: String,
    pub healthz_port: Option<i64>,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<i64>,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<i64>,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: Duration,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: Duration,
    pub image_pull_credentials_verification_policy: String,
    pub image_service_endpoint: String,
    pub kube_reserved: BTreeMap<String, Quantity>,
    pub max_parallel_image_pulls: Option<i64>,
    pub max_pods: i64,
    pub memory_manager_policy: String,
    pub memory_swap: MemorySwap,
    pub merge_default_eviction_settings: Option<bool>,
    pub node_lease_duration_seconds: Option<i64>,
    pub node_status_max_images: Option<i64>,
    pub node_status_report_frequency: Duration,
    pub node_status_update_frequency: Duration,
    pub pod_logs_dir: String,
    pub pod_pids_limit: Option<i64>,
    pub pods_per_core: i64,
    pub port: i64,
    pub preloaded_images_verification_allowlist: Vec<String>,
    #[serde(rename = "providerID")]
    pub provider_id: Option<String>,
    pub register_with_taints: Option<Vec<api::core::v1::Taint>>,
    pub reserved_memory: Vec<MemoryReservation>,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    pub resolv_conf: Option<String>,
    pub rotate_certificates: Option<bool>,
    pub seccomp_default: Option<bool>,
    pub serialize_image_pulls: Option<bool>,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: Option<bool>,
    pub shutdown_grace_period: Duration,
    pub shutdown_grace_period_by_pod_priority: Vec<PriorityPeriod>,
    pub shutdown_grace_period_critical_pods: Duration,
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    pub static_pod_path: Option<String>,
    pub system_reserved: BTreeMap<String, Quantity>,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub topology_manager_policy: String,
    pub topology_manager_policy_options: Texts,
    pub topology_manager_scope: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MemorySwap {
    pub swap_behavior: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CrashLoopBackOff {
    pub max_container_restart_period: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MemoryReservation {
    pub numa_node: u32,
    pub limits: BTreeMap<String, Quantity>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PriorityPeriod {
    pub priority: i32,
    pub shutdown_grace_period_seconds: i64,
}

impl From<PriorityPeriod> for ShutdownPeriod {
    fn from(period: PriorityPeriod) -> Self {
        ShutdownPeriod { priority: period.priority, seconds: period.shutdown_grace_period_seconds }
    }
}
