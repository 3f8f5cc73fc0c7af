//! The plugins, in upstream's order. To add one: a file here and a line in a list.

mod balanced_allocation;
mod fit;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod taint_toleration;

use crate::framework::{Filter, Score};

/// Filters in the order in which they are asked; the first refusal counts.
pub const FILTERS: &[&dyn Filter] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &fit::Fit,
];

pub const SCORES: &[&dyn Score] = &[
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &fit::Fit,
    &balanced_allocation::BalancedAllocation,
];
