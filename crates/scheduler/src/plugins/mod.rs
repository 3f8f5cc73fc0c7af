//! The plugins, in upstream's order. To add one: a file here and a line in the list.

mod balanced_allocation;
pub mod dynamic_resources;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_declared_features;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod taint_toleration;
mod topology;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use crate::framework::{Event, Plugin};
use crate::queue::Waiter;

/// Asked in this order; the first refusal of a node counts.
pub const PLUGINS: &[&dyn Plugin] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &fit::Fit,
    &volume_restrictions::VolumeRestrictions,
    &node_volume_limits::NodeVolumeLimits,
    &volume_binding::VolumeBinding,
    &volume_zone::VolumeZone,
    &pod_topology_spread::PodTopologySpread,
    &inter_pod_affinity::InterPodAffinity,
    &dynamic_resources::DynamicResources,
    &balanced_allocation::BalancedAllocation,
    &image_locality::ImageLocality,
    &node_declared_features::NodeDeclaredFeatures,
];

/// Some of the plugins, by their place in the list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PluginSet(u32);

impl PluginSet {
    pub fn insert(&mut self, plugin: usize) {
        self.0 |= 1 << plugin;
    }

    /// Whether the plugin, by its place in the list, is among them.
    pub fn has(self, plugin: usize) -> bool {
        self.0 & (1 << plugin) != 0
    }

    /// Whether an event may help a pod that these plugins refused. One that none refused is helped by anything.
    pub fn helped_by(self, event: &Event<'_>, waiter: &Waiter) -> bool {
        let refused = PLUGINS.iter().enumerate().filter(|(i, _)| self.has(*i));
        self.0 == 0 || refused.into_iter().any(|(_, plugin)| plugin.helped_by(event, waiter))
    }
}
