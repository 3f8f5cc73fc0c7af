//! What the scheduler keeps of pods and nodes: projections of the informers.

use crate::terms::Terms;
use api::core::v1::{Node, Pod, PreferredSchedulingTerm, Taint, Toleration, Volume};
use apimachinery::time::Time;
use client::{Cached, Projection};
use rules::ephemeral_volume::claim_name;
use rules::pod_requests::{Options, amount, requests_as};
use rules::resource_claim::Wanted;
use std::collections::BTreeMap;
use std::sync::Arc;

/// CPU that a container without a request counts with for scoring (upstream's non-zero request), in millicores.
const DEFAULT_CPU: i64 = 100;
/// The same for memory, in bytes.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Amounts of resources: CPU in millicores, everything else in units. The two that every pod counts stand apart; the
/// others are few, and ordered by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    others: Vec<(Arc<str>, i64)>,
}

impl Amounts {
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            _ => self.others.iter().find(|(n, _)| **n == *name).map_or(0, |(_, amount)| *amount),
        }
    }

    /// All amounts but those of zero.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        let others = self.others.iter().map(|(name, amount)| (&**name, *amount));
        [("cpu", self.cpu), ("memory", self.memory)]
            .into_iter()
            .chain(others)
            .filter(|(_, amount)| *amount != 0)
    }

    /// Adds `times` the other amounts; subtracts when it is negative.
    pub fn add(&mut self, other: &Amounts, times: i64) {
        self.cpu += other.cpu * times;
        self.memory += other.memory * times;
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(i) => self.others[i].1 += amount * times,
                Err(i) => self.others.insert(i, (name.clone(), amount * times)),
            }
        }
    }
}

impl<'a> FromIterator<(&'a str, i64)> for Amounts {
    fn from_iter<I: IntoIterator<Item = (&'a str, i64)>>(amounts: I) -> Self {
        let mut all = Amounts::default();
        for (name, amount) in amounts {
            match name {
                "cpu" => all.cpu = amount,
                "memory" => all.memory = amount,
                _ => all.others.push((name.into(), amount)),
            }
        }
        all.others.sort();
        all
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

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    pub name: String,
    /// It is made with the pod, and is nobody else's.
    pub ephemeral: bool,
}

fn claims(pod: &Pod) -> Box<[ClaimUse]> {
    let of = |volume: &Volume| match &volume.persistent_volume_claim {
        Some(source) => Some(ClaimUse { name: source.claim_name.clone(), ephemeral: false }),
        None => volume
            .ephemeral
            .as_ref()
            .map(|_| ClaimUse { name: claim_name(pod, &volume.name), ephemeral: true }),
    };
    pod.spec.volumes.iter().filter_map(of).collect()
}

/// A disk that a pod names without a claim, and that several pods of a node cannot have, unless they all only read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    kind: &'static str,
    id: Vec<String>,
    /// Any of these leads to the disk of that id; for most kinds there is but one way.
    monitors: Vec<String>,
    shared: bool,
}

impl Disk {
    pub fn conflicts(&self, other: &Disk) -> bool {
        let reached = self.monitors.is_empty() && other.monitors.is_empty()
            || self.monitors.iter().any(|monitor| other.monitors.contains(monitor));
        self.kind == other.kind && self.id == other.id && reached && !(self.shared && other.shared)
    }

    fn of(volume: &Volume) -> Option<Self> {
        let disk = |kind, id: Vec<&String>, shared| Disk {
            kind,
            id: id.into_iter().cloned().collect(),
            monitors: Vec::new(),
            shared,
        };
        if let Some(source) = &volume.gce_persistent_disk {
            return Some(disk("gce", vec![&source.pd_name], source.read_only));
        }
        if let Some(source) = &volume.aws_elastic_block_store {
            return Some(disk("ebs", vec![&source.volume_id], false));
        }
        if let Some(source) = &volume.iscsi {
            return Some(disk("iscsi", vec![&source.iqn], source.read_only));
        }
        let source = volume.rbd.as_ref()?;
        let monitors = source.monitors.clone();
        Some(Disk { monitors, ..disk("rbd", vec![&source.pool, &source.image], source.read_only) })
    }
}

/// What is kept of a pod.
#[derive(Debug)]
pub struct PodFacts {
    pub node_name: String,
    /// The node where preemption made room for it.
    pub nominated_node: String,
    pub scheduler_name: String,
    pub terminal: bool,
    pub deleting: bool,
    /// It is going because a pod of higher priority needs its place.
    pub preempted: bool,
    pub gated: bool,
    pub priority: i32,
    pub labels: Labels,
    pub requests: Amounts,
    /// CPU and memory with upstream's defaults for what asks for nothing.
    pub non_zero: (i64, i64),
    pub ports: Vec<HostPort>,
    pub claims: Box<[ClaimUse]>,
    pub disks: Box<[Disk]>,
    /// Its claims to devices.
    pub devices: Box<[Wanted]>,
    /// Affinity to other pods, if it has any.
    pub terms: Option<Box<Terms>>,
    /// When the kubelet took it.
    pub started: Option<Time>,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let spec = &pod.spec;
        let requests = requests_as::<i64>(pod, Options::default());
        let requests: Amounts = requests.iter().map(|(name, amount)| (name.as_str(), *amount)).collect();
        let or = |asked: i64, default: i64| {
            if asked == 0 { default * spec.containers.len() as i64 } else { asked }
        };
        let disruption = rules::pod_conditions::find(&pod.status.conditions, "DisruptionTarget");
        PodFacts {
            node_name: spec.node_name.clone(),
            nominated_node: pod.status.nominated_node_name.clone(),
            scheduler_name: spec.scheduler_name.clone(),
            terminal: rules::pod_conditions::is_terminal(&pod.status.phase),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            preempted: disruption.is_some_and(|c| c.status == "True" && c.reason == "PreemptionByScheduler"),
            gated: !spec.scheduling_gates.is_empty(),
            priority: spec.priority.unwrap_or(0),
            labels: pod.metadata.labels.clone(),
            non_zero: (or(requests.cpu, DEFAULT_CPU), or(requests.memory, DEFAULT_MEMORY)),
            requests,
            ports: host_ports(pod),
            claims: claims(pod),
            disks: spec.volumes.iter().filter_map(Disk::of).collect(),
            devices: Wanted::all(pod).collect(),
            terms: Terms::of(pod).map(Box::new),
            started: pod.status.start_time,
        }
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
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Amounts,
    /// Names of the images it has, and their sizes in bytes.
    pub images: BTreeMap<String, i64>,
    /// What of newer versions it can do.
    pub declared_features: Vec<String>,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let allocatable = node.status.allocatable.iter();
        let names = |image: &api::core::v1::ContainerImage| {
            let size = image.size_bytes;
            image.names.iter().map(move |name| (name.clone(), size)).collect::<Vec<_>>()
        };
        NodeFacts {
            labels: node.metadata.labels.clone(),
            taints: node.spec.taints.clone(),
            unschedulable: node.spec.unschedulable,
            allocatable: allocatable.map(|(name, q)| (name.as_str(), amount(name, q))).collect(),
            images: node.status.images.iter().flat_map(names).collect(),
            declared_features: node.status.declared_features.clone(),
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
    pub fn namespace(&self) -> &str {
        self.facts.namespace()
    }

    pub fn tolerations(&self) -> &[Toleration] {
        &self.pod.spec.tolerations
    }

    /// Terms of preferred node affinity.
    pub fn preferred_node_terms(&self) -> &[PreferredSchedulingTerm] {
        let affinity = self.pod.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        affinity.map_or(&[], |a| &a.preferred_during_scheduling_ignored_during_execution)
    }
}
