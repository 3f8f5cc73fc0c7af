//! What is kept of slices and of rules: the taints that they give devices.

use super::plan::NO_EXECUTE;
use crate::resource_claim::facts::{BY_POOL, pool};
use api::resource::v1::{DeviceRequestAllocationResult, DeviceTaint, ResourceSlice};
use api::resource::v1beta2::{DeviceTaintRule, DeviceTaintSelector};
use apimachinery::meta::Condition;
use client::Projection;
use client::informer::Index;
use rules::device_taint_rules::{selects, taint};
use std::collections::HashMap;

/// What rules tell of how far they are.
pub(super) const IN_PROGRESS: &str = "EvictionInProgress";

/// What is kept of a slice: the taints of its devices that evict.
#[derive(Debug, PartialEq)]
pub(super) struct SliceFacts {
    pub pool: String,
    pub generation: i64,
    pub tainted: HashMap<String, Vec<DeviceTaint>>,
}

impl Projection for SliceFacts {
    type Kind = ResourceSlice;

    fn project(slice: &ResourceSlice) -> Self {
        let evicting = |taints: &[DeviceTaint]| -> Vec<DeviceTaint> {
            taints.iter().filter(|taint| taint.effect == NO_EXECUTE).cloned().collect()
        };
        let tainted = slice.spec.devices.iter().map(|device| (device.name.clone(), evicting(&device.taints)));
        SliceFacts {
            pool: pool(&slice.spec.driver, &slice.spec.pool.name),
            generation: slice.spec.pool.generation,
            tainted: tainted.filter(|(_, taints)| !taints.is_empty()).collect(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_POOL, |slice| vec![slice.pool.clone()])]
    }
}

/// What a rule says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Saying {
    /// It means no device where there is none.
    selector: Option<DeviceTaintSelector>,
    pub taint: DeviceTaint,
}

impl Saying {
    /// Whether it means a device.
    pub(super) fn is_about(&self, driver: &str, pool: &str, device: &str) -> bool {
        self.selector.as_ref().is_some_and(|selector| selects(selector, driver, pool, device))
    }

    pub(super) fn is_about_given(&self, device: &DeviceRequestAllocationResult) -> bool {
        self.is_about(&device.driver, &device.pool, &device.device)
    }

    pub(super) fn evicts(&self) -> bool {
        self.taint.effect == NO_EXECUTE
    }

    /// The same, if it evicted.
    pub(super) fn evicting(&self) -> Self {
        let taint = DeviceTaint { effect: NO_EXECUTE.into(), ..self.taint.clone() };
        Saying { taint, ..self.clone() }
    }
}

/// What is kept of a rule.
#[derive(Debug, Clone)]
pub(super) struct RuleFacts {
    pub saying: Saying,
    pub generation: i64,
    /// What its status says of it.
    pub condition: Option<Condition>,
}

impl Projection for RuleFacts {
    type Kind = DeviceTaintRule;

    fn project(rule: &DeviceTaintRule) -> Self {
        let told = rule.status.conditions.iter().find(|condition| condition.type_ == IN_PROGRESS);
        RuleFacts {
            saying: Saying { selector: rule.spec.device_selector.clone(), taint: taint(&rule.spec) },
            generation: rule.metadata.generation,
            condition: told.cloned(),
        }
    }
}
