//! Which parts of the allocation of devices are in use. Upstream: `structured.Features`, and what else `DynamicResources`
//! asks gates for.

use component::gates::FeatureGates;

/// What the feature gates say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// Devices may take time to be bound: `DRADeviceBindingConditions`, and `DRAResourceClaimDeviceStatus`, by which is told
    /// how far they are.
    pub binding_conditions: bool,
    /// Several claims may share a device: `DRAConsumableCapacity`.
    pub consumable_capacity: bool,
    /// Taints keep claims off devices: `DRADeviceTaints`.
    pub taints: bool,
    /// And not only those that drivers publish: `DRADeviceTaintRules`.
    pub taint_rules: bool,
    /// Devices may give extended resources: `DRAExtendedResource`.
    pub extended_resources: bool,
    /// Attributes may have several values: `DRAListTypeAttributes`.
    pub list_attributes: bool,
    /// Devices may overlap, and be had on nodes of their own: `DRAPartitionableDevices`.
    pub partitionable_devices: bool,
    /// Requests may have alternatives: `DRAPrioritizedList`.
    pub prioritized_list: bool,
    /// A search may take too long: `DRASchedulerFilterTimeout`.
    pub filter_timeout: bool,
}

impl Default for Features {
    /// As v1.36 has them.
    fn default() -> Self {
        Features {
            binding_conditions: true,
            consumable_capacity: true,
            taints: true,
            taint_rules: false,
            extended_resources: true,
            list_attributes: false,
            partitionable_devices: true,
            prioritized_list: true,
            filter_timeout: true,
        }
    }
}

impl Features {
    pub fn of(gates: &FeatureGates) -> Self {
        let on = |gate| gates.enabled(gate);
        Features {
            binding_conditions: on("DRADeviceBindingConditions") && on("DRAResourceClaimDeviceStatus"),
            consumable_capacity: on("DRAConsumableCapacity"),
            taints: on("DRADeviceTaints"),
            taint_rules: on("DRADeviceTaintRules"),
            extended_resources: on("DRAExtendedResource"),
            list_attributes: on("DRAListTypeAttributes"),
            partitionable_devices: on("DRAPartitionableDevices"),
            prioritized_list: on("DRAPrioritizedList"),
            filter_timeout: on("DRASchedulerFilterTimeout"),
        }
    }
}
