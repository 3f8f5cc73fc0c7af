//! What a plugin is: asked once per decision, it prepares a filter, which says why a node is out of the question, or a
//! ranking of the nodes that are left, or both; and it knows which events may help a pod it refused.

use crate::cache::{Cache, NodeInfo};
use crate::devices::rows as devices;
use crate::facts::{NodeFacts, PodFacts, PodInfo};
use crate::queue::Waiter;
use crate::reservation::Reservation;
use crate::storage::{rows::ClassRow, rows::VolumeRow};
use client::{Cached, ObjectKey};
use rules::volumes::Claim;
use std::collections::BTreeSet;

pub const MAX_SCORE: i64 = 100;

/// Why a node is out of the question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// As it is counted in `FailedScheduling`: `Insufficient cpu`, `node(s) had untolerated taint(s)`.
    pub reasons: Vec<String>,
    /// Removing pods from the node would not help.
    pub unresolvable: bool,
    /// What the pod asks for is wrong: no other node need be asked.
    pub everywhere: bool,
}

impl Refusal {
    pub fn new(reason: impl Into<String>) -> Self {
        Refusal { reasons: vec![reason.into()], ..Refusal::default() }
    }

    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Refusal { unresolvable: true, ..Refusal::new(reason) }
    }

    pub fn everywhere(reason: impl Into<String>) -> Self {
        Refusal { everywhere: true, ..Refusal::unresolvable(reason) }
    }
}

/// A node under consideration.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub info: &'a NodeInfo,
    pub facts: &'a NodeFacts,
}

impl<'a> Candidate<'a> {
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.facts.labels.get(key).map(String::as_str)
    }
}

/// One decision: for this pod, among these nodes.
#[derive(Debug, Clone, Copy)]
pub struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub cache: &'a Cache,
}

/// Something happened that may let pods in.
#[derive(Debug)]
pub enum Event<'a> {
    /// A node came (`old` is absent) or changed.
    Node {
        old: Option<&'a NodeFacts>,
        new: &'a NodeFacts,
    },
    /// A pod no longer holds its place on a node.
    PodGone(&'a PodFacts),
    /// A pod was placed on a node, or changed its labels there.
    PodPlaced(&'a PodFacts),
    /// A pod on a node asks for less than before.
    PodShrank,
    /// A namespace came or changed its labels.
    Namespace,
    /// A claim came (`old` is absent) or changed.
    Claim {
        old: Option<&'a Claim>,
        new: &'a Claim,
    },
    /// A volume came or changed.
    Volume {
        old: Option<&'a VolumeRow>,
        new: &'a VolumeRow,
    },
    StorageClass {
        old: Option<&'a ClassRow>,
        new: &'a ClassRow,
    },
    /// A driver does not say any more what it has.
    DriverSilent,
    /// More can be had of a driver somewhere.
    MoreCapacity,
    /// A node can have more volumes of a driver, or says for the first time what it can have.
    DriversOfNode {
        new: bool,
    },
    /// A volume was detached.
    Detached,
    /// A claim to devices came or changed.
    DeviceClaim {
        old: Option<&'a devices::Claim>,
        new: &'a devices::Claim,
    },
    DeviceClass {
        new: bool,
    },
    /// A driver says what it has.
    DeviceSlice {
        new: bool,
    },
}

impl Event<'_> {
    /// As upstream labels it. What changed of a node is told by the first of its changes.
    pub fn label(&self) -> &'static str {
        match self {
            Event::Node { old: None, .. } => "NodeAdd",
            Event::Node { old: Some(old), new } if old.allocatable != new.allocatable => {
                "NodeUpdateNodeAllocatable"
            }
            Event::Node { old: Some(old), new } if old.labels != new.labels => "NodeUpdateNodeLabel",
            Event::Node { old: Some(old), new } if old.taints != new.taints => "NodeUpdateNodeTaint",
            Event::Node { .. } => "NodeUpdateNodeCondition",
            Event::PodGone(_) => "AssignedPodDelete",
            Event::PodPlaced(_) => "AssignedPodAdd",
            Event::PodShrank => "AssignedPodUpdatePodScaleDown",
            Event::Namespace => "NamespaceUpdate",
            Event::Claim { old: None, .. } => "PersistentVolumeClaimAdd",
            Event::Claim { .. } => "PersistentVolumeClaimUpdate",
            Event::Volume { old: None, .. } => "PersistentVolumeAdd",
            Event::Volume { .. } => "PersistentVolumeUpdate",
            Event::StorageClass { old: None, .. } => "storage.k8s.io/StorageClassAdd",
            Event::StorageClass { .. } => "storage.k8s.io/StorageClassUpdate",
            Event::DriverSilent => "storage.k8s.io/CSIDriverUpdate",
            Event::MoreCapacity => "storage.k8s.io/CSIStorageCapacityUpdate",
            Event::DriversOfNode { new: true } => "storage.k8s.io/CSINodeAdd",
            Event::DriversOfNode { new: false } => "storage.k8s.io/CSINodeUpdate",
            Event::Detached => "storage.k8s.io/VolumeAttachmentDelete",
            Event::DeviceClaim { old: None, .. } => "resource.k8s.io/ResourceClaimAdd",
            Event::DeviceClaim { .. } => "resource.k8s.io/ResourceClaimUpdate",
            Event::DeviceClass { new: true } => "resource.k8s.io/DeviceClassAdd",
            Event::DeviceClass { new: false } => "resource.k8s.io/DeviceClassUpdate",
            Event::DeviceSlice { new: true } => "resource.k8s.io/ResourceSliceAdd",
            Event::DeviceSlice { new: false } => "resource.k8s.io/ResourceSliceUpdate",
        }
    }

    /// Whether a node came, or changed in what `read` reads of it.
    pub fn node_changed<T: PartialEq>(&self, read: impl Fn(&NodeFacts) -> &T) -> bool {
        match self {
            Event::Node { old: None, .. } => true,
            Event::Node { old: Some(old), new } => read(old) != read(new),
            _ => false,
        }
    }
}

/// A plugin, under upstream's name and with upstream's default weight.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    /// What its scores count; zero when it ranks nothing.
    fn weight(&self) -> i64 {
        0
    }

    /// The only nodes that need be looked at, by name; none says all of them.
    fn only(&self, _pod: &PodInfo) -> Option<BTreeSet<String>> {
        None
    }

    /// Why no node whatever would do, and no pod's going would help. Upstream: a `PreFilter` that says unresolvable.
    fn refuse(&self, _cycle: Cycle<'_>) -> Option<String> {
        None
    }

    /// Prepares to refuse nodes; nothing when it has no objection to any.
    fn filter<'a>(&self, _cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        None
    }

    /// Prepares to rank the nodes that no filter refused; nothing when all are equal to it.
    fn score<'a>(&self, _cycle: Cycle<'a>, _feasible: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        None
    }

    /// A claim to devices that is better given back, when this plugin refused these nodes and none is left. Upstream: a
    /// `PostFilter` before preemption.
    fn release(&self, _cycle: Cycle<'_>, _refused: &[Candidate<'_>]) -> Option<ObjectKey> {
        None
    }

    /// What is to be done about the pod's claims before it is bound to this node. Upstream: `Reserve`, for `PreBind`.
    fn reserve(&self, _cycle: Cycle<'_>, _node: Candidate<'_>) -> Option<Reservation> {
        None
    }

    /// Whether an event may help a pod that this plugin refused.
    fn helped_by(&self, _event: &Event<'_>, _waiter: &Waiter) -> bool {
        false
    }
}

/// Says why a node is out of the question.
pub trait Filter<'a>: Send + Sync {
    fn filter(&self, node: Candidate<'_>) -> Result<(), Refusal>;

    /// Takes into account that a pod were (`by` 1) or were not (`by` -1) on a node.
    fn moved(&mut self, _pod: &Cached<PodFacts>, _node: Candidate<'_>, _by: i64) {}

    /// A copy, to try things with.
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a>;
}

/// Ranks nodes.
pub trait Score {
    fn score(&self, node: Candidate<'_>) -> i64;

    /// Brings raw scores into 0 to 100.
    fn normalize(&self, _nodes: &[Candidate<'_>], _scores: &mut [i64]) {}
}

#[derive(Clone)]
struct Stateless<F>(F);

impl<'a, F> Filter<'a> for Stateless<F>
where
    F: Fn(Candidate<'_>) -> Result<(), Refusal> + Clone + Send + Sync + 'a,
{
    fn filter(&self, node: Candidate<'_>) -> Result<(), Refusal> {
        (self.0)(node)
    }

    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

/// A filter that looks at nothing but the node.
pub fn stateless<'a, F>(filter: F) -> Option<Box<dyn Filter<'a> + 'a>>
where
    F: Fn(Candidate<'_>) -> Result<(), Refusal> + Clone + Send + Sync + 'a,
{
    Some(Box::new(Stateless(filter)))
}

/// How raw scores are brought into 0 to 100.
#[derive(Debug, Clone, Copy)]
pub enum Scale {
    /// They are there already.
    Raw,
    /// The highest becomes 100.
    Up,
    /// Zero becomes 100, the highest zero.
    Down,
}

struct Ranking<F>(F, Scale);

impl<F: Fn(Candidate<'_>) -> i64> Score for Ranking<F> {
    fn score(&self, node: Candidate<'_>) -> i64 {
        (self.0)(node)
    }

    fn normalize(&self, _: &[Candidate<'_>], scores: &mut [i64]) {
        let reverse = match self.1 {
            Scale::Raw => return,
            Scale::Up => false,
            Scale::Down => true,
        };
        let max = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
            *score = if reverse { MAX_SCORE - scaled } else { scaled };
        }
    }
}

/// A ranking that looks at nothing but the node.
pub fn ranking<'a>(score: impl Fn(Candidate<'_>) -> i64 + 'a, scale: Scale) -> Option<Box<dyn Score + 'a>> {
    Some(Box::new(Ranking(score, scale)))
}
