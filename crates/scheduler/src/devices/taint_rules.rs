//! Taints that devices have by DeviceTaintRules, beside those that their drivers publish. Upstream: `resourceslice/tracker`.

use super::Devices;
use super::rows::DeviceId;
use crate::framework::Event;
use crate::surroundings::{Neighbour, Surroundings};
use api::resource::v1::{Device, DeviceTaint};
use api::resource::v1beta2::{DeviceTaintRule, DeviceTaintSelector};
use client::{Cached, Projection};
use rules::device_taint_rules::{selects, taint};

/// What is kept of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleRow {
    /// It means every device where there is none.
    selector: Option<DeviceTaintSelector>,
    taint: DeviceTaint,
}

impl Projection for RuleRow {
    type Kind = DeviceTaintRule;

    fn project(rule: &DeviceTaintRule) -> Self {
        RuleRow { selector: rule.spec.device_selector.clone(), taint: taint(&rule.spec) }
    }
}

impl RuleRow {
    fn is_about(&self, id: &DeviceId) -> bool {
        self.selector.as_ref().is_none_or(|selector| selects(selector, &id.driver, &id.pool, &id.device))
    }
}

impl Neighbour for RuleRow {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.set_rule(object.name(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.devices.remove_rule(object.name());
    }

    fn helps<'a>(old: Option<&'a Cached<Self>>, new: &'a Cached<Self>) -> Option<Event<'a>> {
        let same = old.is_some_and(|old| old.projection == new.projection);
        (!same).then_some(Event::DeviceSlice { new: false })
    }

    fn gone() -> Option<Event<'static>> {
        Some(Event::DeviceSlice { new: false })
    }
}

impl Devices {
    pub fn set_rule(&mut self, name: &str, rule: RuleRow) {
        self.changes.happened();
        self.rules.insert(name.to_owned(), rule);
    }

    pub fn remove_rule(&mut self, name: &str) {
        self.changes.happened();
        self.rules.remove(name);
    }

    /// The taints of a device that count.
    pub(super) fn taints<'a>(
        &'a self,
        id: &'a DeviceId,
        device: &'a Device,
    ) -> impl Iterator<Item = &'a DeviceTaint> {
        let by_rules = self.rules.values().filter(|rule| rule.is_about(id)).map(|rule| &rule.taint);
        device.taints.iter().chain(by_rules).filter(|_| self.features.taints)
    }
}
