//! Requests of claims, each with the alternatives by which it can be met.

use super::capacity::{Amounts, consumption, fits};
use super::pools::device_is_for;
use super::rows::{Claim, ClassRow, Slice};
use super::{Devices, Features};
use crate::framework::Candidate;
use api::resource::v1::{
    CapacityRequirements, Device, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration,
    ExactDeviceRequest,
};
use cel::device::Selector;

/// The claim, or its class, is wrong; no other node would do better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

/// A device, by its place among the pools of a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) pool: usize,
    pub(super) slice: &'a Slice,
    pub(super) index: usize,
}

impl<'a> Spot<'a> {
    pub(super) fn device(&self) -> &'a Device {
        &self.slice.spec.devices[self.index]
    }

    pub(super) fn id(&self) -> &'a super::rows::DeviceId {
        &self.slice.devices[self.index].id
    }
}

/// What an alternative says, whichever of the two forms it is written in.
#[derive(Debug, Clone, Copy)]
struct Form<'a> {
    class: &'a str,
    mode: &'a str,
    count: i64,
    admin: bool,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
}

impl<'a> From<&'a ExactDeviceRequest> for Form<'a> {
    fn from(exact: &'a ExactDeviceRequest) -> Self {
        Form {
            class: &exact.device_class_name,
            mode: &exact.allocation_mode,
            count: exact.count,
            admin: exact.admin_access == Some(true),
            selectors: &exact.selectors,
            tolerations: &exact.tolerations,
            capacity: exact.capacity.as_ref(),
        }
    }
}

impl<'a> From<&'a DeviceSubRequest> for Form<'a> {
    fn from(sub: &'a DeviceSubRequest) -> Self {
        Form {
            class: &sub.device_class_name,
            mode: &sub.allocation_mode,
            count: sub.count,
            admin: false,
            selectors: &sub.selectors,
            tolerations: &sub.tolerations,
            capacity: sub.capacity.as_ref(),
        }
    }
}

/// One way to meet a request.
#[derive(Debug)]
pub(super) struct Alternative<'a> {
    /// Its own name, if it is one of several.
    pub(super) name: Option<&'a str>,
    pub(super) class: &'a ClassRow,
    pub(super) count: usize,
    /// All devices are wanted, and these are all.
    pub(super) all: Option<Vec<Spot<'a>>>,
    /// Devices that others use will do.
    pub(super) admin: bool,
    pub(super) tolerations: &'a [DeviceToleration],
    capacity: Option<&'a CapacityRequirements>,
    selectors: Vec<Selector>,
    /// As errors name what the selectors are of: those of the class come first.
    of_class: usize,
}

/// A request of a claim.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) name: &'a str,
    pub(super) alternatives: Vec<Alternative<'a>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(
        devices: &'a Devices,
        claim: &'a Claim,
        request: &'a DeviceRequest,
    ) -> Result<Self, Broken> {
        let name = request.name.as_str();
        allowed(devices.features, claim, request)?;
        let exactly = request.exactly.iter().map(|exact| (None, Form::from(exact)));
        let first = request.first_available.iter();
        let first = first.map(|sub| (Some(sub.name.as_str()), Form::from(sub)));
        let forms = exactly.chain(first);
        let alternatives = forms.map(|(own, form)| Alternative::new(devices, claim, name, own, form));
        let alternatives = alternatives.collect::<Result<Vec<_>, _>>()?;
        if alternatives.is_empty() {
            return Err(broken(claim, name, "missing device class name (unsupported request type?)"));
        }
        Ok(Request { name, alternatives })
    }

    /// Whether it is enough to meet one of several alternatives.
    pub(super) fn chooses(&self) -> bool {
        self.alternatives[0].name.is_some()
    }

    /// As results name it.
    pub(super) fn called(&self, alternative: usize) -> String {
        match self.alternatives[alternative].name {
            Some(name) => format!("{}/{name}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The fewest devices that it takes.
    pub(super) fn least(&self) -> usize {
        self.alternatives.iter().map(|alternative| alternative.count).min().unwrap_or(0)
    }
}

pub(super) fn broken(claim: &Claim, request: &str, why: impl std::fmt::Display) -> Broken {
    Broken(format!("claim {}/{}, request {request}: {why}", claim.namespace, claim.name))
}

impl<'a> Alternative<'a> {
    fn new(
        devices: &'a Devices,
        claim: &'a Claim,
        request: &str,
        name: Option<&'a str>,
        form: Form<'a>,
    ) -> Result<Self, Broken> {
        let request = name.unwrap_or(request);
        let Some(class) = devices.class(form.class) else {
            let class = form.class;
            return Err(broken(
                claim,
                request,
                format_args!(
                    "could not retrieve device class {class}: deviceclass.resource.k8s.io {class:?} not found"
                ),
            ));
        };
        let count = match form.mode {
            "ExactCount" => usize::try_from(form.count).unwrap_or(0),
            "All" => 0,
            mode => return Err(broken(claim, request, format_args!("unsupported count mode {mode}"))),
        };
        let of_class = class.spec.selectors.len();
        let mut selectors = Vec::with_capacity(of_class + form.selectors.len());
        for (i, selector) in class.spec.selectors.iter().chain(form.selectors).enumerate() {
            let Some(cel) = &selector.cel else {
                let i = i.saturating_sub(of_class);
                let why = format_args!("selector #{i}: CEL expression empty (unsupported selector type?)")
                    .to_string();
                return Err(Broken(format!(
                    "claim {}/{}, request {request}, {why}",
                    claim.namespace, claim.name
                )));
            };
            let compiled = devices.compiled.get(&cel.expression, devices.features);
            selectors.push(
                compiled
                    .map_err(|why| about(claim, class, of_class, i, &format!("CEL compile error: {why}")))?,
            );
        }
        Ok(Alternative {
            name,
            class,
            count,
            all: (form.mode == "All").then(Vec::new),
            admin: form.admin,
            tolerations: form.tolerations,
            capacity: form.capacity,
            selectors,
            of_class,
        })
    }

    /// Whether the selectors select a device, and it can be had on the node.
    pub(super) fn selects(
        &self,
        devices: &Devices,
        claim: &Claim,
        spot: Spot<'a>,
        node: Candidate<'_>,
    ) -> Result<bool, Broken> {
        if !devices.features.binding_conditions && !spot.device().binding_conditions.is_empty() {
            return Ok(false);
        }
        for (i, selector) in self.selectors.iter().enumerate() {
            let selected = spot.slice.seen(spot.index, devices.features).map_err(String::clone);
            let selected = selected.and_then(|device| selector.matches(device));
            let failed =
                |why| about(claim, self.class, self.of_class, i, &format!("CEL runtime error: {why}"));
            if !selected.map_err(failed)? {
                return Ok(false);
            }
        }
        let by_device = spot.slice.spec.per_device_node_selection == Some(true);
        Ok(!by_device || device_is_for(spot.device(), node))
    }

    /// What it consumes of a device, if there is so much beside what others have and are about to have.
    pub(super) fn consumes(
        &self,
        devices: &Devices,
        spot: Spot<'a>,
        more: Option<&Amounts>,
    ) -> Option<Amounts> {
        if !devices.features.consumable_capacity {
            return Some(Amounts::new());
        }
        let amounts = consumption(self.capacity, spot.device())?;
        fits(&amounts, spot.device(), &[devices.taken.consumed(spot.id()), more]).then_some(amounts)
    }
}

/// Says of a request whether it asks for something that is off.
fn allowed(features: Features, claim: &Claim, request: &DeviceRequest) -> Result<(), Broken> {
    let refused = |what: &str, name: &str, why: &str| {
        let Claim { namespace, name: claim, .. } = claim;
        Err(Broken(format!("claim {namespace}/{claim}, {what} {name}: {why} feature is disabled")))
    };
    if !features.prioritized_list && !request.first_available.is_empty() {
        return refused("request", &request.name, "has subrequests, but the DRAPrioritizedList");
    }
    // With neither of both upstream has another allocator at work, which knows nothing of capacity at all.
    if features.consumable_capacity || !features.binding_conditions {
        return Ok(());
    }
    let too_much = "has capacity requests, but the DRAConsumableCapacity";
    if request.exactly.as_ref().is_some_and(|exact| exact.capacity.is_some()) {
        return refused("request", &request.name, too_much);
    }
    match request.first_available.iter().find(|sub| sub.capacity.is_some()) {
        Some(sub) => refused("subrequest", &sub.name, too_much),
        None => Ok(()),
    }
}

fn about(claim: &Claim, class: &ClassRow, of_class: usize, i: usize, why: &str) -> Broken {
    Broken(match i.checked_sub(of_class) {
        None => format!("class {}: selector #{i}: {why}", class.name),
        Some(i) => format!("claim {}/{}: selector #{i}: {why}", claim.namespace, claim.name),
    })
}
