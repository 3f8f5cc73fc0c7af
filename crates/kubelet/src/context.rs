//! What all parts of a kubelet share: one value, made once, behind an `Arc`.

use crate::cgroups::Cgroups;
use crate::claims::Claims;
use crate::config::Config;
use crate::container_config::resources::page_size_name;
use crate::container_config::service_env::ServiceView;
use crate::container_config::swap::Swap;
use crate::cpus::Cpus;
use crate::devices::Devices;
use crate::events::Events;
use crate::eviction::thresholds::Pressure;
use crate::images::Images;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::objects::Objects;
use crate::topology::Topology;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::Volumes;
use api::core::v1::Node;
use client::{Client, Informer};
use cri::RuntimeService;
use std::sync::Arc;
use tokio::sync::watch;

/// The runtime as it introduced itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuntimeInfo {
    pub name: String,
    pub version: String,
    pub recursive_read_only: bool,
    pub user_namespaces: bool,
}

/// Shared by the pod workers, the node's tasks and the server.
pub(crate) struct Context {
    pub config: Config,
    pub client: Client,
    pub events: Events,
    pub metrics: Metrics,
    pub runtime: Arc<dyn RuntimeService>,
    pub runtime_info: RuntimeInfo,
    pub images: Images,
    pub volumes: Volumes,
    pub objects: Arc<Objects>,
    pub services: Informer<ServiceView>,
    pub machine: Machine,
    pub cgroups: Cgroups,
    pub devices: Arc<Devices>,
    pub claims: Arc<Claims>,
    pub plugins: Arc<crate::plugins::watcher::Plugins>,
    /// Under the policy `static`.
    pub cpus: Option<Cpus>,
    /// Under the policy `Static`.
    pub memory: Option<Memory>,
    pub topology: Topology,
    pub user_namespaces: UserNamespaces,
    /// When the runtime was last well.
    pub pulse: Arc<crate::server::healthz::Pulse>,
    /// What the node is short of.
    pub pressures: watch::Sender<Vec<Pressure>>,
    /// Whether the machine is shutting down.
    pub shutting_down: watch::Sender<bool>,
    /// Whether it is known which static pods there are.
    pub static_pods_known: watch::Sender<bool>,
    /// The node object as the API has it.
    pub node: watch::Sender<Arc<Node>>,
    /// Nanoseconds since the epoch when this kubelet started.
    pub started_at: i64,
}

impl Context {
    /// Leaves away what is not enforced, says how the kernel kills, and that nobody has huge pages who asks for none.
    pub(crate) fn enforce(&self, resources: &mut cri::v1::LinuxContainerResources) {
        if !self.config.cpu_cfs_quota {
            (resources.cpu_quota, resources.cpu_period) = (0, 0);
        }
        for (size, _) in &self.machine.huge_pages {
            let page_size = page_size_name(*size);
            if !resources.hugepage_limits.iter().any(|known| known.page_size == page_size) {
                resources.hugepage_limits.push(cri::v1::HugepageLimit { page_size, limit: 0 });
            }
        }
        if self.cgroups.is_v2() && !self.config.single_process_oom_kill {
            resources.unified.insert("memory.oom.group".into(), "1".into());
        }
    }

    /// What containers may have swapped out.
    pub(crate) fn swap(&self) -> Swap {
        Swap {
            behavior: self.config.swap,
            accounting: self.cgroups.swap_accounting(),
            memory: self.machine.memory,
            swap: self.machine.swap,
        }
    }
}
