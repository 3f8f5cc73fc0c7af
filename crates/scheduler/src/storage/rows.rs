//! Projections of the objects of storage, and how their changes are taken in.

use super::Storage;
use crate::framework::Event;
use crate::surroundings::{Neighbour, Surroundings};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use apimachinery::labels::Selector;
use client::{Cached, ObjectKey, Projection};
use rules::volumes::{Claim, Volume};
use std::collections::BTreeMap;

/// Labels of a volume that say where it is, and the ones that took the place of the old ones.
pub const PLACES: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

#[derive(Debug, Clone, PartialEq)]
pub struct ClaimRow(pub Claim);

#[derive(Debug, Clone, PartialEq)]
pub struct VolumeRow {
    pub facts: Volume,
    /// Its driver, and its name there.
    pub csi: Option<(String, String)>,
}

impl VolumeRow {
    /// Where its labels say it is: a label, and the values that would do. Upstream: `getPVTopologies`.
    pub fn places(&self) -> impl Iterator<Item = (&'static str, &'static str, Vec<&str>)> {
        PLACES.into_iter().filter_map(|(key, now)| {
            let values: Vec<&str> = self.facts.labels.get(key)?.split("__").map(str::trim).collect();
            // What cannot be read, means nothing.
            values.iter().all(|value| !value.is_empty()).then_some((key, now, values))
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ClassRow {
    pub delayed: bool,
    pub provisioner: String,
    pub topologies: Vec<TopologySelectorTerm>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DriverRow {
    /// It says how much it has, and where.
    pub tells_capacity: bool,
}

/// How much of a class can be had where.
#[derive(Debug, Clone)]
pub struct CapacityRow {
    pub class: String,
    /// The largest volume, in bytes.
    pub limit: Option<i64>,
    /// The nodes that can have it; none without a selector.
    pub nodes: Option<Selector>,
}

/// How many volumes a node can have of a driver, by driver.
pub struct NodeRow(pub BTreeMap<String, i64>);

pub struct AttachmentRow {
    node: String,
    driver: String,
    volume: String,
}

impl Projection for ClaimRow {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        ClaimRow(Claim::of(claim))
    }
}

impl Projection for VolumeRow {
    type Kind = PersistentVolume;

    fn project(volume: &PersistentVolume) -> Self {
        let csi = volume.spec.csi.as_ref().map(|csi| (csi.driver.clone(), csi.volume_handle.clone()));
        VolumeRow { facts: Volume::of(volume), csi }
    }
}

impl Projection for ClassRow {
    type Kind = StorageClass;

    fn project(class: &StorageClass) -> Self {
        ClassRow {
            delayed: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: class.provisioner.clone(),
            topologies: class.allowed_topologies.clone(),
        }
    }
}

impl Projection for DriverRow {
    type Kind = CSIDriver;

    fn project(driver: &CSIDriver) -> Self {
        DriverRow { tells_capacity: driver.spec.storage_capacity == Some(true) }
    }
}

impl Projection for CapacityRow {
    type Kind = CSIStorageCapacity;

    fn project(capacity: &CSIStorageCapacity) -> Self {
        let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
        let selector = capacity.node_topology.as_ref();
        CapacityRow {
            class: capacity.storage_class_name.clone(),
            limit: limit.map(apimachinery::quantity::Quantity::value),
            nodes: selector.and_then(|selector| Selector::from_label_selector(Some(selector)).ok()),
        }
    }
}

impl Projection for NodeRow {
    type Kind = CSINode;

    fn project(node: &CSINode) -> Self {
        let limit = |driver: &api::storage::v1::CSINodeDriver| {
            let count = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
            count.map(|count| (driver.name.clone(), i64::from(count)))
        };
        NodeRow(node.spec.drivers.iter().filter_map(limit).collect())
    }
}

impl Projection for AttachmentRow {
    type Kind = VolumeAttachment;

    fn project(attachment: &VolumeAttachment) -> Self {
        let spec = &attachment.spec;
        AttachmentRow {
            node: spec.node_name.clone(),
            driver: spec.attacher.clone(),
            volume: spec.source.persistent_volume_name.clone().unwrap_or_default(),
        }
    }
}

impl Neighbour for ClaimRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_claim(object.key(), object.projection.clone(), object.revision());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        let storage: &mut Storage = &mut surroundings.storage;
        storage.claims.remove(object.key());
        storage.assumed_nodes.remove(object.key());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::Claim { old: old.map(|old| &old.0), new: &new.0 })
    }
}

impl Neighbour for VolumeRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_volume(object.name(), object.projection.clone(), object.revision());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.volumes.remove(object.name());
        surroundings.storage.assumed_volumes.remove(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::Volume { old: old.map(|old| &old.projection), new: &new.projection })
    }
}

impl Neighbour for ClassRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_class(object.name(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.classes.remove(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::StorageClass { old: old.map(|old| &old.projection), new: &new.projection })
    }
}

impl Neighbour for DriverRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_driver(object.name(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.drivers.remove(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        let silent = old.is_some_and(|old| old.tells_capacity) && !new.tells_capacity;
        silent.then_some(Event::DriverSilent)
    }
}

impl Neighbour for CapacityRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_capacity(object.key(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        let key: &ObjectKey = object.key();
        surroundings.storage.capacities.remove(key);
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        // Nothing is less than something.
        let more = old.is_none_or(|old| new.limit > old.limit);
        more.then_some(Event::MoreCapacity)
    }
}

impl Neighbour for NodeRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.set_limits(object.name(), object.projection.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.storage.limits.remove(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        let before = |old: &Cached<Self>, driver: &String| old.0.get(driver).copied().unwrap_or(0);
        let grown = |old: &Cached<Self>| new.0.iter().any(|(driver, count)| *count > before(old, driver));
        match old {
            None => Some(Event::DriversOfNode { new: true }),
            Some(old) if grown(old) => Some(Event::DriversOfNode { new: false }),
            Some(_) => None,
        }
    }
}

impl Neighbour for AttachmentRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        let row = &object.projection;
        surroundings.storage.set_attachment(object.name(), &row.node, &row.driver, &row.volume);
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        let attachments = &mut surroundings.storage.attachments;
        if let Some(of_node) = attachments.get_mut(&object.node) {
            of_node.remove(object.name());
            if of_node.is_empty() {
                attachments.remove(&object.node);
            }
        }
    }

    fn gone() -> Option<Event<'static>> {
        Some(Event::Detached)
    }
}
