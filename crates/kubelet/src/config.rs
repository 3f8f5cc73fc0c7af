//! What a kubelet must be told: names, directories, limits. Defaults are upstream's.

pub use crate::container_config::swap::Behavior as SwapBehavior;
pub(crate) use crate::eviction::thresholds::default_hard as default_eviction;
pub(crate) use crate::eviction::thresholds::parse as thresholds;
pub use crate::eviction::thresholds::{Amount, Signal, Threshold, parse_hard};
use crate::eviction::thresholds::{default_hard, parse};
pub use crate::images::verification::Policy as ImageVerification;
pub use crate::pod_worker::sysctls::check_allowed as check_allowed_sysctls;
use api::core::v1::{Pod, PodExtendedResourceClaimStatus};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Upstream's version that this kubelet behaves as.
pub const VERSION: &str = "v1.36.2";

/// The gates that this kubelet asks about, with v1.36's defaults.
const GATES: [(&str, bool); 11] = [
    ("CPUManagerPolicyAlphaOptions", false),
    ("CPUManagerPolicyBetaOptions", true),
    ("ClusterTrustBundleProjection", false),
    ("ContainerCheckpoint", true),
    ("DRAExtendedResource", true),
    ("KubeletCrashLoopBackOffMax", true),
    ("PodCertificateRequest", false),
    ("PreventStaticPodAPIReferences", true),
    ("ReduceDefaultCrashLoopBackOffDecay", false),
    ("ResourceHealthStatus", true),
    ("ResourceHealthStatusMessage", true),
];

/// Whether claims may stand for extended resources: `DRAExtendedResource`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExtendedClaims(bool);

impl ExtendedClaims {
    /// The claim that the scheduler made for the extended resources of a pod.
    pub(crate) fn of(self, pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
        pod.status.extended_resource_claim_status.as_ref().filter(|_| self.0)
    }
}

fn default_thresholds() -> Vec<Threshold> {
    // A test parses them.
    parse(&default_hard(), &[], &[], &[]).unwrap_or_default()
}

/// How long pods of a priority and above get to end when the machine shuts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownPeriod {
    pub priority: i32,
    pub seconds: i64,
}

/// The programs that know credentials for images.
#[derive(Debug, Clone, Default)]
pub struct CredentialProviders {
    /// `--image-credential-provider-config`: a file, or a directory of such.
    pub config: Option<PathBuf>,
    /// `--image-credential-provider-bin-dir`.
    pub bin_dir: Option<PathBuf>,
}

impl CredentialProviders {
    pub(crate) fn is_empty(&self) -> bool {
        self.config.is_none() && self.bin_dir.is_none()
    }
}

/// A kubelet's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// What the node calls itself; usually the node name.
    pub hostname: String,
    /// One or two addresses, the first of the preferred family.
    pub node_ips: Vec<String>,
    /// `--root-dir`.
    pub root_dir: PathBuf,
    /// Where containers' logs are: `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// Where links to them are: `/var/log/containers`.
    pub container_logs_dir: PathBuf,
    /// The cgroup beneath which `kubepods` is made; `/` or `/tiphys-x`.
    pub cgroup_root: String,
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    /// The node's resolv.conf, read when a sandbox is made.
    pub resolv_conf: PathBuf,
    pub node_labels: BTreeMap<String, String>,
    pub register_with_taints: Vec<api::core::v1::Taint>,
    pub register_schedulable: bool,
    pub provider_id: String,
    pub max_pods: i64,
    /// Pods for each processor at most; zero for any number.
    pub pods_per_core: i64,
    /// `--pod-max-pids`: processes of each pod at most.
    pub pod_pids_limit: Option<i64>,
    /// Whether limits of processors are enforced.
    pub cpu_cfs_quota: bool,
    /// Whether the kernel, with cgroup v2, kills one process where a container runs out of memory, and not all of it.
    pub single_process_oom_kill: bool,
    /// Whether all pods together are held to what is allocatable.
    pub enforce_pods: bool,
    /// How long a container that fails waits before it starts again, at first and at most.
    pub restart_initial: Duration,
    pub restart_most: Duration,
    /// Gates that were set; see [`Config::feature`].
    pub features: BTreeMap<String, bool>,
    /// The runtime's socket, and that of the images' where it is another.
    pub container_runtime_endpoint: Option<String>,
    pub image_service_endpoint: Option<String>,
    /// Whether logs, exec, attach and port-forward are served.
    pub debugging_handlers: bool,
    /// Whether the node's own logs are served, and whether they may be searched.
    pub system_log_handler: bool,
    pub system_log_query: bool,
    /// Where they are: `/var/log`.
    pub system_logs_dir: PathBuf,
    /// Whether not to run with cgroup v1, or with swap.
    pub fail_cgroup_v1: bool,
    pub fail_swap_on: bool,
    /// `--pod-manifest-path`; none without static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Where the HTTPS server listens; port 10250.
    pub address: SocketAddr,
    /// `--tls-cert-file` and `--tls-private-key-file`: what the server shows.
    pub tls_files: Option<(PathBuf, PathBuf)>,
    /// Whether the server's certificate is asked for, and whether the node's own to call with is renewed.
    pub server_tls_bootstrap: bool,
    pub rotate_certificates: bool,
    /// Where anybody may ask whether the kubelet lives; nobody with port 0.
    pub healthz: SocketAddr,
    pub seccomp_default: bool,
    /// At most so many pulls at a time; one with `serializeImagePulls`, as upstream's default.
    pub parallel_image_pulls: usize,
    /// Which images that are there must be shown credentials for.
    pub image_verification: ImageVerification,
    pub credential_providers: CredentialProviders,
    /// For whom the machine's shutdown waits; for nobody when empty.
    pub shutdown_periods: Vec<ShutdownPeriod>,
    /// The bus on which logind is; that of `DBUS_SYSTEM_BUS_ADDRESS`, or the usual one, when absent.
    pub system_bus: Option<String>,
    /// Where logind is told to wait for longer.
    pub logind_config_dir: PathBuf,
    pub container_log_max_size: u64,
    pub container_log_max_files: usize,
    /// How often logs are looked at.
    pub container_log_interval: Duration,
    /// What the system and Kubernetes keep for themselves, by resource, as quantities.
    pub reserved: rules::pod_requests::ResourceList,
    /// `--allowed-unsafe-sysctls`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What containers may have swapped out.
    pub swap: SwapBehavior,
    /// `--cpu-manager-policy`.
    pub cpu_manager_policy: crate::cpus::Policy,
    /// `--cpu-manager-policy-options`.
    pub cpu_manager_options: crate::cpus::options::Options,
    /// Processors that no container gets for itself.
    pub reserved_cpus: crate::cpus::set::CpuSet,
    /// What the memory manager's policy `Static` keeps of each NUMA node; nothing with the policy `None`.
    pub memory_manager: Option<crate::memory::Reserved>,
    pub topology: crate::topology::Settings,
    /// Where processors and NUMA nodes are told of: `/sys/devices/system`.
    pub system_devices: PathBuf,
    /// When pods are evicted; what the hard ones keep free is no pod's to ask for.
    pub eviction_thresholds: Vec<Threshold>,
    /// How long a pressure is told after it was last seen.
    pub eviction_transition: Duration,
    /// Seconds that a pod gets at most when a soft threshold evicts it.
    pub eviction_max_grace: i64,
    /// Percent of the images' file system in use above which images are deleted, and below which deleting stops.
    pub image_gc_high: u64,
    pub image_gc_low: u64,
    /// Younger images stay.
    pub image_gc_min_age: Duration,
    /// Images that were not used for longer go, whether there is room or not.
    pub image_gc_max_age: Option<Duration>,
    /// Images that the node's status shows at most; all with -1.
    pub node_status_max_images: i64,
    pub node_status_update_frequency: Duration,
    pub node_status_report_frequency: Duration,
    pub node_lease_duration: Duration,
}

impl Config {
    /// Upstream's defaults for a node of this name and address.
    pub fn new(node_name: &str, node_ip: &str) -> Self {
        Config {
            node_name: node_name.into(),
            hostname: node_name.into(),
            node_ips: vec![node_ip.into()],
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: "/var/log/containers".into(),
            cgroup_root: "/".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            register_schedulable: true,
            provider_id: String::new(),
            max_pods: 110,
            pods_per_core: 0,
            pod_pids_limit: None,
            cpu_cfs_quota: true,
            single_process_oom_kill: false,
            enforce_pods: true,
            restart_initial: Duration::from_secs(10),
            restart_most: Duration::from_secs(300),
            features: BTreeMap::new(),
            container_runtime_endpoint: None,
            image_service_endpoint: None,
            debugging_handlers: true,
            system_log_handler: true,
            system_log_query: false,
            system_logs_dir: "/var/log".into(),
            fail_cgroup_v1: false,
            fail_swap_on: false,
            static_pod_path: None,
            address: SocketAddr::from(([0, 0, 0, 0], 10250)),
            tls_files: None,
            server_tls_bootstrap: false,
            rotate_certificates: false,
            healthz: SocketAddr::from(([127, 0, 0, 1], 10248)),
            seccomp_default: false,
            parallel_image_pulls: 1,
            image_verification: Default::default(),
            credential_providers: Default::default(),
            shutdown_periods: Vec::new(),
            system_bus: None,
            logind_config_dir: "/etc/systemd/logind.conf.d".into(),
            container_log_max_size: 10 << 20,
            container_log_max_files: 5,
            container_log_interval: Duration::from_secs(10),
            reserved: BTreeMap::new(),
            allowed_unsafe_sysctls: Vec::new(),
            swap: Default::default(),
            cpu_manager_policy: Default::default(),
            cpu_manager_options: Default::default(),
            reserved_cpus: Default::default(),
            memory_manager: None,
            topology: Default::default(),
            system_devices: "/sys/devices/system".into(),
            eviction_thresholds: default_thresholds(),
            eviction_transition: Duration::from_secs(300),
            eviction_max_grace: 0,
            image_gc_high: 85,
            image_gc_low: 80,
            image_gc_min_age: Duration::from_secs(120),
            image_gc_max_age: None,
            node_status_max_images: 50,
            node_status_update_frequency: Duration::from_secs(10),
            node_status_report_frequency: Duration::from_secs(300),
            node_lease_duration: Duration::from_secs(40),
        }
    }

    /// `--cpu-manager-policy-options`, by the gates that were set before.
    pub fn set_cpu_manager_options(&mut self, options: &BTreeMap<String, String>) -> Result<(), String> {
        let (alpha, beta) =
            (self.feature("CPUManagerPolicyAlphaOptions"), self.feature("CPUManagerPolicyBetaOptions"));
        self.cpu_manager_options = crate::cpus::options::Options::parse(options, alpha, beta)?;
        Ok(())
    }

    /// Whether a gate is on.
    pub(crate) fn feature(&self, name: &str) -> bool {
        let default = || GATES.iter().any(|(known, on)| *known == name && *on);
        self.features.get(name).copied().unwrap_or_else(default)
    }

    pub(crate) fn extended_claims(&self) -> ExtendedClaims {
        ExtendedClaims(self.feature("DRAExtendedResource"))
    }

    /// What the hard threshold of a signal keeps free.
    pub(crate) fn kept_free(&self, signal: Signal, capacity: i64) -> i64 {
        let hard = self.eviction_thresholds.iter().find(|t| t.signal == signal && t.grace.is_none());
        hard.map_or(0, |threshold| threshold.least.of(capacity))
    }

    /// Where checkpoints of containers are put.
    pub(crate) fn checkpoints_dir(&self) -> PathBuf {
        self.root_dir.join("checkpoints")
    }

    /// `--cert-dir`: where certificates are kept that were asked for.
    pub fn certificates_dir(&self) -> PathBuf {
        self.root_dir.join("pki")
    }

    /// `<root>/pods/<uid>`.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// Where the pod's containers log: `<logs>/<namespace>_<name>_<uid>`.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Where Localhost seccomp profiles are.
    pub fn seccomp_root(&self) -> PathBuf {
        self.root_dir.join("seccomp")
    }
}
