//! What must hold of all devices of a claim together: that they have an attribute in common, or each another. Monotonic:
//! what is refused now is not accepted when more devices have come.

use super::rows::DeviceId;
use api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// All have the same.
    Same,
    /// No two have the same.
    Distinct,
}

/// A request of a claim, by name; and which of its alternatives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) request: &'a str,
    pub(super) alternative: Option<&'a str>,
}

/// A constraint, with the values of the devices that were accepted so far.
#[derive(Debug)]
pub(super) struct Constraint<'a> {
    rule: Rule,
    attribute: &'a str,
    /// The requests it is about; empty for all.
    requests: &'a [String],
    values: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// Nothing where the constraint is of no known sort.
    pub(super) fn of(constraint: &'a DeviceConstraint) -> Option<Self> {
        let same = constraint.match_attribute.as_deref().map(|attribute| (Rule::Same, attribute));
        let distinct = || Some((Rule::Distinct, constraint.distinct_attribute.as_deref()?));
        let (rule, attribute) = same.or_else(distinct)?;
        Some(Constraint { rule, attribute, requests: &constraint.requests, values: Vec::new() })
    }

    fn is_about(&self, asker: Asker<'_>) -> bool {
        let names = |name: &String| {
            let (request, alternative) = match name.split_once('/') {
                Some((request, alternative)) => (request, Some(alternative)),
                None => (name.as_str(), None),
            };
            request == asker.request && (alternative.is_none() || alternative == asker.alternative)
        };
        self.requests.is_empty() || self.requests.iter().any(names)
    }

    /// Whether the device may be added to those before it.
    pub(super) fn accepts(&self, asker: Asker<'_>, id: &DeviceId, device: &'a Device) -> bool {
        if !self.is_about(asker) {
            return true;
        }
        let Some(value) = attribute(device, id, self.attribute) else { return false };
        match self.rule {
            Rule::Same => self.values.first().is_none_or(|first| equal(first, value)),
            Rule::Distinct => !self.values.iter().any(|other| equal(other, value)),
        }
    }

    pub(super) fn add(&mut self, asker: Asker<'_>, id: &DeviceId, device: &'a Device) {
        if self.is_about(asker)
            && let Some(value) = attribute(device, id, self.attribute)
        {
            self.values.push(value);
        }
    }

    /// Takes the device back that was added last.
    pub(super) fn remove(&mut self, asker: Asker<'_>) {
        if self.is_about(asker) {
            self.values.pop();
        }
    }
}

/// An attribute by its whole name. A device gives those of its driver's domain without it.
fn attribute<'a>(device: &'a Device, id: &DeviceId, name: &str) -> Option<&'a DeviceAttribute> {
    let of_driver = || {
        let (domain, id_) = name.split_once('/')?;
        device.attributes.get(id_).filter(|_| domain == id.driver)
    };
    device.attributes.get(name).or_else(of_driver)
}

/// Whether two values are of one type and equal. What has no value known here equals nothing.
fn equal(one: &DeviceAttribute, other: &DeviceAttribute) -> bool {
    if one.string.is_some() {
        return one.string == other.string;
    }
    if one.int.is_some() {
        return one.int == other.int;
    }
    if one.bool.is_some() {
        return one.bool == other.bool;
    }
    one.version.is_some() && one.version == other.version
}
