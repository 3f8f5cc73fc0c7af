//! What the scheduler keeps of pods and nodes: projections of the informers.

use api::core::v1::{Node, Pod, PreferredSchedulingTerm, Taint, Toleration};
use client::informer::Index;
use client::{Cached, Projection};
use rules::pod_requests::{Options, amount, pod_requests};
use std::collections::BTreeMap;
use std::sync::Arc;

/// CPU that a container without a request counts with for scoring (upstream's non-zero request), in millicores.
const DEFAULT_CPU: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources: CPU in millicores, everything else in units.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(pub BTreeMap<Arc<str>, i64>);

impl Amounts {
    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += amount;
        }
    }

    pub fn sub(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= amount;
        }
    }
}

/// A port a pod takes on its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// What is kept of a pod.
#[derive(Debug)]
pub struct PodFacts {
    pub node_name: String,
    pub scheduler_name: String,
    pub terminal: bool,
    pub deleting: bool,
    pub gated: bool,
    pub priority: i32,
    pub requests: Amounts,
    /// CPU and memory with upstream's defaults for what asks for nothing.
    pub non_zero: (i64, i64),
    pub ports: Vec<HostPort>,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let spec = &pod.spec;
        let requests = pod_requests(pod, Options::default());
        let requests =
            Amounts(requests.iter().map(|(name, q)| (Arc::from(name.as_str()), amount(name, q))).collect());
        let or = |asked: i64, default: i64| {
            if asked == 0 { default * spec.containers.len() as i64 } else { asked }
        };
        PodFacts {
            node_name: spec.node_name.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            terminal: rules::pod_conditions::is_terminal(&pod.status.phase),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gated: !spec.scheduling_gates.is_empty(),
            priority: spec.priority.unwrap_or(0),
            non_zero: (or(requests.get("cpu"), DEFAULT_CPU), or(requests.get("memory"), DEFAULT_MEMORY)),
            requests,
            ports: host_ports(pod),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[]
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let containers = pod.spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|c| &c.ports).filter(|p| p.host_port > 0);
    ports
        .map(|p| HostPort {
            ip: if p.host_ip.is_empty() { "0.0.0.0".into() } else { p.host_ip.clone() },
            protocol: if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() },
            port: p.host_port,
        })
        .collect()
}

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeFacts {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let allocatable = node.status.allocatable.iter();
        NodeFacts {
            labels: node.metadata.labels.clone(),
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            allocatable: Amounts(allocatable.map(|(n, q)| (Arc::from(n.as_str()), amount(n, q))).collect()),
        }
    }
}

/// A pod that is to be scheduled.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Pod,
    pub facts: Arc<Cached<PodFacts>>,
}

impl PodInfo {
    pub fn tolerations(&self) -> &[Toleration] {
        &self.pod.spec.tolerations
    }

    /// Terms of preferred node affinity.
    pub fn preferred_node_terms(&self) -> &[PreferredSchedulingTerm] {
        let affinity = self.pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        affinity.map_or(&[], |a| &a.preferred_during_scheduling_ignored_during_execution)
    }
}
