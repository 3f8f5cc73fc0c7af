//! Projections of claims, classes and slices, and how their changes are taken in.

use super::{Devices, Features};
use crate::framework::Event;
use crate::surroundings::{Neighbour, Surroundings};
use api::resource::v1::{
    DeviceAttribute, DeviceClaim, DeviceClass, DeviceClassSpec, DeviceRequestAllocationResult, ResourceClaim,
    ResourceClaimStatus, ResourceSlice, ResourceSliceSpec,
};
use apimachinery::time::{Duration, Time};
use cel::device::{Attribute, Device as Seen};
use client::{Cached, Projection};
use rules::resource_claim::{EXTENDED, controller};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// A device, by driver, pool and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    pub driver: String,
    pub pool: String,
    pub device: String,
}

impl DeviceId {
    pub(super) fn of(result: &DeviceRequestAllocationResult) -> Self {
        DeviceId { driver: result.driver.clone(), pool: result.pool.clone(), device: result.device.clone() }
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.driver, self.pool, self.device)
    }
}

/// What is kept of a claim.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The uid of the pod that it was made for.
    pub controller: Option<String>,
    /// It was made here, for extended resources.
    pub extended: bool,
    pub deleting: bool,
    pub asks: DeviceClaim,
    pub status: ResourceClaimStatus,
}

/// Whether the devices of a claim are ready for the pod to be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    NotYet,
    /// It will never be, and why.
    Failed(String),
}

impl Claim {
    pub fn of(claim: &ResourceClaim) -> Self {
        let meta = &claim.metadata;
        Claim {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            controller: controller(claim).map(str::to_owned),
            extended: meta.annotations.get(EXTENDED).is_some_and(|value| value == "true"),
            deleting: meta.deletion_timestamp.is_some(),
            asks: claim.spec.devices.clone(),
            status: claim.status.clone(),
        }
    }

    pub fn is_allocated(&self) -> bool {
        self.status.allocation.is_some()
    }

    /// Whether the pod may use it already.
    pub fn is_reserved_for(&self, uid: &str) -> bool {
        self.status.reserved_for.iter().any(|consumer| consumer.uid == uid)
    }

    /// Whether nobody uses it but this pod, if even that.
    pub fn is_idle_but_for(&self, uid: &str) -> bool {
        self.status.reserved_for.iter().all(|consumer| consumer.uid == uid)
    }

    /// What it was given.
    pub fn given(&self) -> &[DeviceRequestAllocationResult] {
        self.status.allocation.as_ref().map_or(&[], |allocation| &allocation.devices.results)
    }

    /// Whether what its devices wait for has come about. Upstream: `isClaimReadyForBinding`.
    pub fn readiness(&self) -> Readiness {
        if !self.is_allocated() {
            return Readiness::NotYet;
        }
        for given in self.given().iter().filter(|given| !given.binding_conditions.is_empty()) {
            let same = |told: &&api::resource::v1::AllocatedDeviceStatus| {
                (&told.device, &told.driver, &told.pool) == (&given.device, &given.driver, &given.pool)
            };
            let Some(told) = self.status.devices.iter().find(same) else { return Readiness::NotYet };
            let is_true =
                |name: &String| told.conditions.iter().find(|c| c.type_ == *name && c.status == "True");
            if let Some(failed) = given.binding_failure_conditions.iter().find_map(is_true) {
                return Readiness::Failed(format!(
                    "claim={}, reason={}, message={:?}",
                    self.name, failed.reason, failed.message
                ));
            }
            if !given.binding_conditions.iter().all(|name| is_true(name).is_some()) {
                return Readiness::NotYet;
            }
        }
        Readiness::Ready
    }

    /// When waiting for its devices is over; never, if they wait for nothing.
    pub fn deadline(&self, patience: Duration) -> Option<Time> {
        let allocated = self.status.allocation.as_ref()?.allocation_timestamp?;
        let waits = self.given().iter().any(|given| !given.binding_conditions.is_empty());
        waits.then(|| allocated.plus(patience))
    }
}

#[derive(Debug, Clone)]
pub struct ClaimRow(pub Arc<Claim>);

impl Projection for ClaimRow {
    type Kind = ResourceClaim;

    fn project(claim: &ResourceClaim) -> Self {
        ClaimRow(Arc::new(Claim::of(claim)))
    }
}

impl Neighbour for ClaimRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.set_claim(object.key(), object.0.clone(), object.revision());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.remove_claim(object.key(), object.revision());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::DeviceClaim { old: old.map(|old| &*old.projection.0), new: &new.projection.0 })
    }
}

/// What is kept of a class.
#[derive(Debug, Clone)]
pub struct ClassRow {
    pub name: String,
    pub created: Time,
    pub spec: DeviceClassSpec,
}

impl Projection for ClassRow {
    type Kind = DeviceClass;

    fn project(class: &DeviceClass) -> Self {
        let (name, created) = (class.metadata.name.clone(), class.metadata.creation_timestamp);
        ClassRow { name, created, spec: class.spec.clone() }
    }
}

impl Neighbour for ClassRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.set_class(object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        let devices: &mut Devices = &mut surroundings.devices;
        devices.remove_class(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, _: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::DeviceClass { new: old.is_none() })
    }
}

/// A device of a slice, with what is made of it when it is first looked at.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: DeviceId,
    seen: OnceLock<Result<Seen, String>>,
}

/// What is kept of a slice.
#[derive(Debug)]
pub struct Slice {
    pub(super) name: String,
    pub(super) spec: ResourceSliceSpec,
    pub(super) devices: Vec<Prepared>,
}

impl Slice {
    pub fn of(slice: &ResourceSlice) -> Self {
        let spec = slice.spec.clone();
        let id = |device: &api::resource::v1::Device| DeviceId {
            driver: spec.driver.clone(),
            pool: spec.pool.name.clone(),
            device: device.name.clone(),
        };
        let devices = spec.devices.iter().map(|device| Prepared { id: id(device), seen: OnceLock::new() });
        Slice { name: slice.metadata.name.clone(), devices: devices.collect(), spec }
    }

    /// A device as selectors see it; or why they cannot. What features there are does not change.
    pub(super) fn seen(&self, device: usize, features: Features) -> Result<&Seen, &String> {
        let see = || see(&self.spec.driver, &self.spec.devices[device], features);
        self.devices[device].seen.get_or_init(see).as_ref()
    }
}

/// The value of an attribute, if it has one that is known here.
fn value(attribute: &DeviceAttribute) -> Option<Attribute> {
    if let Some(int) = attribute.int {
        Some(Attribute::Int(int))
    } else if let Some(bool) = attribute.bool {
        Some(Attribute::Bool(bool))
    } else if let Some(string) = &attribute.string {
        Some(Attribute::String(string.clone()))
    } else {
        attribute.version.clone().map(Attribute::Version)
    }
}

/// The values of an attribute, if it may have several.
fn values(attribute: &DeviceAttribute) -> Option<Attribute> {
    let DeviceAttribute { ints, bools, strings, versions, .. } = attribute;
    let lists = [
        ints.iter().copied().map(Attribute::Int).collect::<Vec<_>>(),
        bools.iter().copied().map(Attribute::Bool).collect(),
        strings.iter().cloned().map(Attribute::String).collect(),
        versions.iter().cloned().map(Attribute::Version).collect(),
    ];
    lists.into_iter().find(|list| !list.is_empty()).map(Attribute::List)
}

fn see(driver: &str, device: &api::resource::v1::Device, features: Features) -> Result<Seen, String> {
    let mut attributes = BTreeMap::new();
    for (name, attribute) in &device.attributes {
        let several = values(attribute).filter(|_| features.list_attributes);
        let Some(value) = several.or_else(|| value(attribute)) else {
            return Err(format!("attribute {name}: unsupported attribute value"));
        };
        attributes.insert(name.clone(), value);
    }
    let capacity = device.capacity.iter().map(|(name, amount)| (name.clone(), amount.value.clone()));
    let multiple = device.allow_multiple_allocations == Some(true);
    Seen::new(driver, multiple, &attributes, &capacity.collect())
}

pub struct SliceRow(pub Arc<Slice>);

impl Projection for SliceRow {
    type Kind = ResourceSlice;

    fn project(slice: &ResourceSlice) -> Self {
        SliceRow(Arc::new(Slice::of(slice)))
    }
}

impl Neighbour for SliceRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.set_slice(object.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.remove_slice(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, _: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::DeviceSlice { new: old.is_none() })
    }
}
