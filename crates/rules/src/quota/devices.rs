//! What claims to devices use of a ResourceQuota: so many devices of a class, and of the extended resources that stand for
//! the class. Upstream: `pkg/quota/v1/evaluator/core/resource_claims.go`.

use super::{Usage, count_usage, extended_request, number};
use crate::resource_claim::{CLASS_PREFIX, EXTENDED};
use api::core::v1::Pod;
use api::resource::v1::ResourceClaim;
use apimachinery::quantity::Quantity;
use apimachinery::time::{Duration, Time};
use std::cmp::Ordering;
use std::collections::BTreeMap;

pub const GROUP: &str = "resource.k8s.io";
pub const RESOURCE: &str = "resourceclaims";
/// Behind the name of a class: how many of its devices.
const BY_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// How many devices a request for all of them is taken for: as many as a claim can have.
const ALL: i64 = 32;

/// The classes of devices by name, each with the extended resource that it gives; empty where it gives none but the one
/// that is named after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceClasses(BTreeMap<String, String>);

impl FromIterator<(String, Option<String>)> for DeviceClasses {
    fn from_iter<I: IntoIterator<Item = (String, Option<String>)>>(classes: I) -> Self {
        DeviceClasses(classes.into_iter().map(|(name, gives)| (name, gives.unwrap_or_default())).collect())
    }
}

impl DeviceClasses {
    /// Whether any class gives the extended resource.
    pub fn gives(&self, resource: &str) -> bool {
        let implied = resource.strip_prefix(CLASS_PREFIX).is_some_and(|class| self.0.contains_key(class));
        implied || self.0.values().any(|given| !given.is_empty() && given == resource)
    }

    /// What requests of the class are charged as, beside the number of devices.
    fn requests_of(&self, class: &str) -> impl Iterator<Item = String> {
        let given = self.0.get(class).filter(|given| !given.is_empty());
        let implied = format!("requests.{CLASS_PREFIX}{class}");
        given.map(|given| format!("requests.{given}")).into_iter().chain([implied])
    }
}

/// Whether the named constraint is on claims to devices.
pub(super) fn constrains(name: &str, classes: &DeviceClasses) -> bool {
    name.ends_with(BY_CLASS) || extended_request(name).is_some_and(|resource| classes.gives(resource))
}

/// The most devices that a request may be given; those of unknown modes are not charged.
fn most(mode: &str, count: i64) -> i64 {
    match mode {
        "ExactCount" => count,
        "All" => ALL,
        _ => 0,
    }
}

/// What a claim uses, but for what [`add_extended`] adds.
pub fn usage(claim: &ResourceClaim) -> Usage {
    let mut devices: BTreeMap<&str, i64> = BTreeMap::new();
    for request in &claim.spec.devices.requests {
        // It is not known which of the alternatives will do.
        let mut asked: BTreeMap<&str, i64> = BTreeMap::new();
        for sub in &request.first_available {
            let count = asked.entry(&sub.device_class_name).or_default();
            *count = most(&sub.allocation_mode, sub.count).max(*count);
        }
        if let Some(exactly) = request.exactly.as_ref().filter(|_| asked.is_empty()) {
            asked.insert(&exactly.device_class_name, most(&exactly.allocation_mode, exactly.count));
        }
        for (class, count) in asked {
            let sum = devices.entry(class).or_default();
            *sum = sum.saturating_add(count);
        }
    }
    let mut usage = count_usage(GROUP, RESOURCE, 1);
    for (class, count) in devices.into_iter().filter(|(_, count)| *count > 0) {
        usage.insert(format!("{class}{BY_CLASS}"), number(usize::try_from(count).unwrap_or(usize::MAX)));
    }
    usage
}

/// Adds the extended resources by which pods could have asked for the devices, as far as their pod is not charged for
/// them already. Of two classes of a claim that give one resource, the one with more devices counts: upstream takes either.
pub fn add_extended(usage: &mut Usage, classes: &DeviceClasses, charged: Option<&Usage>) {
    let mut extended = Usage::new();
    for (name, devices) in usage.iter() {
        let Some(class) = name.strip_suffix(BY_CLASS).filter(|class| !class.is_empty()) else { continue };
        for name in classes.requests_of(class) {
            let most: &mut Quantity = extended.entry(name).or_insert_with(|| number(0));
            if devices > most {
                *most = devices.clone();
            }
        }
    }
    for (name, mut quantity) in extended {
        if let Some(already) = charged.and_then(|charged| charged.get(&name)) {
            quantity.sub(already);
        }
        if quantity.cmp_i64(0).is_gt() {
            usage.insert(name, quantity);
        }
    }
}

/// What a claim says that was made for the extended resources of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeFor {
    pub claim: String,
    pub created: Time,
    pub pod: String,
    pub pod_uid: String,
}

impl MadeFor {
    /// Reads what a claim says; nothing where it does not say that it was made so.
    pub fn of(claim: &ResourceClaim) -> Option<Self> {
        let metadata = &claim.metadata;
        if metadata.annotations.get(EXTENDED).is_none_or(|made| made != "true") {
            return None;
        }
        let owner = metadata.owner_references.iter().find(|owner| owner.controller == Some(true))?;
        (owner.kind == "Pod" && owner.api_version == "v1").then(|| MadeFor {
            claim: metadata.name.clone(),
            created: metadata.creation_timestamp,
            pod: owner.name.clone(),
            pod_uid: owner.uid.clone(),
        })
    }

    /// The same of a claim that is being made now: whatever is there was made earlier, even within the second.
    pub fn being_made(mut self) -> Self {
        self.created = self.created.plus(Duration::from_seconds(1));
        self
    }

    /// Which of two claims was made first.
    pub fn age(&self, other: &Self) -> Ordering {
        self.created.cmp(&other.created).then_with(|| self.claim.cmp(&other.claim))
    }

    /// Whether this is the pod's claim: the one that the pod names, or, as long as it names none, the first of those that
    /// say so. Nobody gets devices for nothing by saying so of more.
    pub fn is_of(&self, asking: &Asking, first: impl FnOnce() -> Option<MadeFor>) -> bool {
        self.pod_uid == asking.uid
            && match &asking.claim {
                Some(claim) => *claim == self.claim,
                None => first().is_none_or(|first| self.age(&first).is_le()),
            }
    }
}

/// A pod that is charged for extended resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    pub uid: String,
    /// The claim for them that its status names.
    pub claim: Option<String>,
}

impl Asking {
    /// Of a pod that uses this much; nothing where none of it is extended resources.
    pub fn of(pod: &Pod, usage: &Usage) -> Option<Self> {
        let status = pod.status.extended_resource_claim_status.as_ref();
        usage.keys().any(|name| extended_request(name).is_some()).then(|| Asking {
            uid: pod.metadata.uid.clone(),
            claim: status.map(|status| status.resource_claim_name.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::show;
    use super::*;
    use apimachinery::json;
    use apimachinery::value::{Value, from_value};

    fn claim(requests: Value) -> ResourceClaim {
        from_value(json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": requests}}})).unwrap()
    }

    fn classes() -> DeviceClasses {
        [("gpu", Some("example.com/gpu")), ("new-gpu", Some("example.com/gpu")), ("nic", None)]
            .map(|(name, gives)| (name.to_owned(), gives.map(str::to_owned)))
            .into_iter()
            .collect()
    }

    #[test]
    fn devices_of_claims() {
        let check = |requests: Value, want: &str| {
            let count = format!("count/resourceclaims.resource.k8s.io=1{want}");
            assert_eq!(show(&usage(&claim(requests))), count);
        };
        let exactly = |class: &str, mode: &str, count: i64| json!({"name": "r", "exactly": {"deviceClassName": class, "allocationMode": mode, "count": count}});
        let sub = |class: &str, mode: &str, count: i64| json!({"name": "s", "deviceClassName": class, "allocationMode": mode, "count": count});
        check(json!([]), "");
        check(
            json!([exactly("gpu", "ExactCount", 2), exactly("gpu", "ExactCount", 1)]),
            " gpu.deviceclass.resource.k8s.io/devices=3",
        );
        check(json!([exactly("gpu", "All", 0)]), " gpu.deviceclass.resource.k8s.io/devices=32");
        check(json!([exactly("gpu", "Some", 5), {"name": "unknown"}]), "");
        let alternatives = json!([
            sub("gpu", "ExactCount", 2),
            sub("gpu", "ExactCount", 4),
            sub("nic", "All", 0),
            sub("nic", "Some", 9)
        ]);
        check(
            json!([{"name": "r", "firstAvailable": alternatives}, exactly("gpu", "ExactCount", 1)]),
            " gpu.deviceclass.resource.k8s.io/devices=5 nic.deviceclass.resource.k8s.io/devices=32",
        );
    }

    #[test]
    fn extended_resources_of_claims() {
        let check = |devices: &[(&str, usize)], charged: &[(&str, usize)], want: &str| {
            let of = |list: &[(&str, usize)], suffix: &str| -> Usage {
                list.iter().map(|(name, count)| (format!("{name}{suffix}"), number(*count))).collect()
            };
            let mut usage = of(devices, BY_CLASS);
            add_extended(&mut usage, &classes(), Some(&of(charged, "")));
            usage.retain(|name, _| !name.ends_with(BY_CLASS));
            assert_eq!(show(&usage), want);
        };
        let gpu = "requests.deviceclass.resource.kubernetes.io/gpu";
        check(&[("gpu", 2)], &[], &format!("{gpu}=2 requests.example.com/gpu=2"));
        check(&[("nic", 1)], &[], "requests.deviceclass.resource.kubernetes.io/nic=1");
        check(&[("ghost", 1)], &[], "requests.deviceclass.resource.kubernetes.io/ghost=1");
        // The pod is charged under the name by which it asks, and no other.
        check(&[("gpu", 2)], &[("requests.example.com/gpu", 2)], &format!("{gpu}=2"));
        check(&[("gpu", 3)], &[(gpu, 2)], &format!("{gpu}=1 requests.example.com/gpu=3"));
        check(
            &[("gpu", 1), ("new-gpu", 2)],
            &[],
            &format!(
                "{gpu}=1 requests.deviceclass.resource.kubernetes.io/new-gpu=2 requests.example.com/gpu=2"
            ),
        );
    }

    #[test]
    fn names_of_constraints() {
        for (name, want) in [
            ("count/resourceclaims.resource.k8s.io", true),
            ("gpu.deviceclass.resource.k8s.io/devices", true),
            ("ghost.deviceclass.resource.k8s.io/devices", true),
            ("requests.example.com/gpu", true),
            ("requests.example.com/other", false),
            ("example.com/gpu", false),
            ("requests.deviceclass.resource.kubernetes.io/nic", true),
            ("requests.deviceclass.resource.kubernetes.io/ghost", false),
            ("requests.cpu", false),
        ] {
            assert_eq!(super::super::constrains(name, GROUP, RESOURCE, &classes()), want, "{name}");
        }
    }

    #[test]
    fn whose_claims() {
        let made = |name: &str, second: u32, annotation: &str, owner: Value| -> Option<MadeFor> {
            MadeFor::of(
                &from_value(json!({"metadata": {
                "name": name, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
                "annotations": {EXTENDED: annotation}, "ownerReferences": [owner]}}))
                .unwrap(),
            )
        };
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        let owner = |key: &str, value: Value| {
            let mut owner = pod.clone();
            owner[key] = value;
            owner
        };
        for (annotation, owner) in [
            ("false", pod.clone()),
            ("true", owner("kind", "Job".into())),
            ("true", owner("apiVersion", "v2".into())),
            ("true", owner("controller", false.into())),
        ] {
            assert_eq!(made("c", 1, annotation, owner), None);
        }
        let claim = |name: &str, second| made(name, second, "true", pod.clone()).unwrap();
        let asking =
            |uid: &str, claim: Option<&str>| Asking { uid: uid.into(), claim: claim.map(Into::into) };
        let check = |this: &MadeFor, asking: Asking, first: Option<MadeFor>, want: bool| {
            assert_eq!(this.is_of(&asking, || first), want);
        };
        let this = claim("c", 2);
        check(&this, asking("u", Some("c")), Some(claim("a", 1)), true);
        check(&this, asking("u", Some("a")), None, false);
        check(&this, asking("other", None), None, false);
        check(&this, asking("u", None), None, true);
        check(&this, asking("u", None), Some(this.clone()), true);
        check(&this, asking("u", None), Some(claim("d", 1)), false);
        check(&this, asking("u", None), Some(claim("b", 2)), false);
        check(&this, asking("u", None), Some(claim("d", 2)), true);
        check(&this.being_made(), asking("u", None), Some(claim("d", 2)), false);
    }
}
