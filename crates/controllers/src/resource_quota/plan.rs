//! What is used of a quota. Pure.

use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use api::resource::v1::ResourceClaim;
use apimachinery::time::{Duration, Time};
use client::source::Raw;
use client::{Resource, Result};
use rules::quota::devices::{self, Asking, DeviceClasses, MadeFor};
use rules::quota::{self, PodScopes, Usage};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// What is kept of an object that quotas count.
#[derive(Debug)]
pub(super) enum Item {
    Pod {
        usage: Arc<Usage>,
        scopes: PodScopes,
        /// When its time to end is over; from then on it is an object and no more.
        expires: Option<Time>,
        /// That it asks for extended resources, for which claims to devices may be made.
        asking: Option<Box<Asking>>,
    },
    Service(Arc<Usage>),
    /// Kept whole, for the scopes of claims may ask for much of it; claims are few.
    Claim(Box<PersistentVolumeClaim>),
    /// A claim to devices: what it uses whatever the classes are, and the pod that it was made for.
    Devices {
        usage: Arc<Usage>,
        made_for: Option<Box<MadeFor>>,
    },
    Other,
}

/// Reads an object of a resource.
pub(super) fn read(resource: &Resource, raw: &Raw, now: Time) -> Result<Item> {
    Ok(match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => {
            let pod: Pod = raw.decode()?;
            let grace = Duration::from_seconds(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
            let usage = quota::pod_usage(&pod, now);
            Item::Pod {
                scopes: PodScopes::of(&pod),
                expires: pod.metadata.deletion_timestamp.map(|at| at.plus(grace)),
                asking: Asking::of(&pod, &usage).map(Box::new),
                usage: Arc::new(usage),
            }
        }
        ("", "services") => Item::Service(Arc::new(quota::service_usage(&raw.decode::<Service>()?))),
        ("", "persistentvolumeclaims") => Item::Claim(Box::new(raw.decode()?)),
        (devices::GROUP, devices::RESOURCE) => {
            let claim: ResourceClaim = raw.decode()?;
            Item::Devices {
                usage: Arc::new(devices::usage(&claim)),
                made_for: MadeFor::of(&claim).map(Box::new),
            }
        }
        _ => Item::Other,
    })
}

impl Item {
    /// Makes equal usages one: pods of one template use the same.
    pub(super) fn share(&mut self, last: &mut Arc<Usage>) {
        if let Item::Pod { usage, .. } | Item::Service(usage) | Item::Devices { usage, .. } = self {
            if usage == last {
                *usage = last.clone();
            } else {
                *last = usage.clone();
            }
        }
    }

    /// Whether it uses more than its place, so that something is free when it ends.
    pub(super) fn runs(&self) -> bool {
        matches!(self, Item::Pod { usage, .. } if usage.contains_key("pods"))
    }
}

/// A pod that asks for extended resources.
struct Charged {
    asking: Asking,
    usage: Arc<Usage>,
}

/// The status that the quota should have. What could not be counted stays as it was.
pub(super) struct Counting<'a> {
    quota: &'a ResourceQuota,
    classes: &'a DeviceClasses,
    now: Time,
    /// What objects use that are in all scopes of the quota.
    total: Usage,
    /// Names of which at least one resource was counted, and of which one could not be.
    counted: BTreeSet<&'a String>,
    unknown: BTreeSet<&'a String>,
    /// By uid.
    charged: HashMap<String, Charged>,
    pub next: Option<Time>,
}

impl<'a> Counting<'a> {
    pub(super) fn new(quota: &'a ResourceQuota, classes: &'a DeviceClasses, now: Time) -> Self {
        Counting {
            quota,
            classes,
            now,
            total: Usage::new(),
            counted: BTreeSet::new(),
            unknown: BTreeSet::new(),
            charged: HashMap::new(),
            next: None,
        }
    }

    /// What the quota constrains of a resource.
    fn constrained(&self, resource: &Resource) -> Vec<&'a String> {
        let constrains =
            |name: &&String| quota::constrains(name, &resource.group, &resource.resource, self.classes);
        self.quota.spec.hard.keys().filter(constrains).collect()
    }

    /// A resource could not be counted, and so nothing that it has a part in.
    pub(super) fn miss(&mut self, resource: &Resource) {
        let constrained = self.constrained(resource);
        self.unknown.extend(constrained);
    }

    /// Counts the objects of a resource; pods before claims to devices, which count for less where a pod is charged. Of
    /// one that the quota constrains at all, everything counts.
    pub(super) fn add<'i>(&mut self, resource: &Resource, items: impl Iterator<Item = &'i Item> + Clone) {
        let constrained = self.constrained(resource);
        if constrained.is_empty() {
            return;
        }
        self.counted.extend(constrained);
        let first = first_claims(items.clone());
        let scopes = quota::scopes(self.quota);
        let mut count = 0;
        for item in items {
            match item {
                Item::Pod { usage, scopes: within, expires, asking } => {
                    let over = expires.is_some_and(|at| at < self.now);
                    if let Some(asking) = asking.as_deref().filter(|_| !over) {
                        let charged = Charged { asking: asking.clone(), usage: usage.clone() };
                        self.charged.insert(asking.uid.clone(), charged);
                    }
                    if !within.in_all(&scopes) {
                        continue;
                    }
                    if over {
                        quota::add(&mut self.total, &quota::count_usage("", "pods", 1));
                        continue;
                    }
                    if usage.contains_key("pods") {
                        self.next = self.next.into_iter().chain(*expires).min();
                    }
                    quota::add(&mut self.total, usage);
                }
                Item::Service(usage) if scopes.is_empty() => quota::add(&mut self.total, usage),
                Item::Claim(claim) if quota::claim_in_all(claim, &scopes) => {
                    quota::add(&mut self.total, &quota::claim_usage(claim));
                }
                Item::Devices { usage, made_for } if scopes.is_empty() => {
                    let mut usage = Usage::clone(usage);
                    let charged = made_for.as_deref().and_then(|made_for| {
                        let pod = self.charged.get(&made_for.pod_uid)?;
                        let first = || first.get(made_for.pod_uid.as_str()).copied().cloned();
                        made_for.is_of(&pod.asking, first).then_some(&*pod.usage)
                    });
                    devices::add_extended(&mut usage, self.classes, charged);
                    quota::add(&mut self.total, &usage);
                }
                Item::Other if scopes.is_empty() => count += 1,
                _ => {}
            }
        }
        if count > 0 {
            let usage = quota::count_usage(&resource.group, &resource.resource, count);
            quota::add(&mut self.total, &usage);
        }
    }

    /// The status; none if it is what it was.
    pub(super) fn status(self) -> Option<ResourceQuotaStatus> {
        let mut used = self.quota.status.used.clone();
        used.retain(|name, _| self.quota.spec.hard.contains_key(name));
        used.extend(quota::mask(&self.total, self.counted.difference(&self.unknown).copied()));
        let status = ResourceQuotaStatus { hard: self.quota.spec.hard.clone(), used };
        (status != self.quota.status).then_some(status)
    }
}

/// Of every pod, by uid, the first claim that was made for its extended resources.
fn first_claims<'i>(items: impl Iterator<Item = &'i Item>) -> HashMap<&'i str, &'i MadeFor> {
    let mut first: HashMap<&str, &MadeFor> = HashMap::new();
    for item in items {
        let Item::Devices { made_for: Some(made_for), .. } = item else { continue };
        let known = first.entry(&made_for.pod_uid).or_insert(made_for);
        if made_for.age(known).is_lt() {
            *known = made_for;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use client::ObjectKey;

    fn resource(name: &str) -> Resource {
        Resource::new(if name == "resourceclaims" { "resource.k8s.io" } else { "" }, "v1", name)
    }

    fn item(of: &str, object: Value) -> Item {
        let raw = Raw { key: ObjectKey::new("a", "x"), revision: 1, bytes: object.to_string().into() };
        read(&resource(of), &raw, Time::from_unix(100)).unwrap()
    }

    /// What is used after a count of so much; nothing is known of resources without objects.
    fn used(quota: Value, counted: &[(&str, Option<&[Item]>)]) -> String {
        let quota: ResourceQuota = apimachinery::value::from_value(quota).unwrap();
        let classes = [("gpu".to_owned(), Some("example.com/gpu".to_owned()))].into_iter().collect();
        let mut counting = Counting::new(&quota, &classes, Time::from_unix(100));
        for (of, items) in counted {
            match items {
                Some(items) => counting.add(&resource(of), items.iter()),
                None => counting.miss(&resource(of)),
            }
        }
        let used = counting.status().map(|status| serde_json::to_string(&status.used).unwrap());
        used.unwrap_or_default()
    }

    fn check(spec: Value, resource: &str, items: &[Item], want: &str) {
        assert_eq!(used(json!({"spec": spec}), &[(resource, Some(items))]), want);
    }

    #[test]
    fn objects_are_counted_in_their_scopes() {
        let pod = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        let idle = json!({"spec": {"containers": [{"name": "c"}]}});
        let mut stuck = pod("1");
        stuck["metadata"] =
            json!({"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30});
        let pods =
            [item("pods", pod("1")), item("pods", pod("500m")), item("pods", idle), item("pods", stuck)];
        let hard = json!({"hard": {"pods": "10", "requests.cpu": "4", "count/pods": "9", "secrets": "1"}});
        check(hard, "pods", &pods, r#"{"count/pods":"4","pods":"3","requests.cpu":"1500m"}"#);
        let best = json!({"hard": {"pods": "10"}, "scopes": ["BestEffort"]});
        check(best, "pods", &pods, r#"{"pods":"1"}"#);
        let secrets = [Item::Other, Item::Other];
        check(json!({"hard": {"secrets": "5"}}), "secrets", &secrets, r#"{"secrets":"2"}"#);
        check(json!({"hard": {"secrets": "5"}}), "secrets", &[], r#"{"secrets":"0"}"#);
    }

    /// A claim to so many devices; for a pod, if one is named.
    fn claim(name: &str, count: i64, pod: Option<&str>) -> Item {
        let owners: Vec<Value> = pod
            .map(
                |uid| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}),
            )
            .into_iter()
            .collect();
        let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": count});
        item(
            "resourceclaims",
            json!({
                "metadata": {
                    "name": name, "creationTimestamp": "1970-01-01T00:00:00Z", "ownerReferences": owners,
                    "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
                },
                "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}},
            }),
        )
    }

    const DEVICES: &str = "gpu.deviceclass.resource.k8s.io/devices";
    const CLASS: &str = "requests.deviceclass.resource.kubernetes.io/gpu";
    const GPU: &str = "requests.example.com/gpu";

    #[test]
    fn claims_to_devices_are_counted() {
        let pod = |uid: &str, phase: &str| {
            let requests = json!({"example.com/gpu": "2"});
            item(
                "pods",
                json!({
                    "metadata": {"name": "p", "uid": uid}, "status": {"phase": phase},
                    "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
                }),
            )
        };
        let check = |pods: &[Item], claims: &[Item], want: [&str; 3]| {
            let quota = json!({"spec": {"hard": {DEVICES: "9", CLASS: "9", GPU: "9"}}});
            let used = used(quota, &[("pods", Some(pods)), ("resourceclaims", Some(claims))]);
            assert_eq!(
                used,
                format!(r#"{{"{DEVICES}":"{}","{CLASS}":"{}","{GPU}":"{}"}}"#, want[0], want[1], want[2])
            );
        };
        check(&[], &[], ["0", "0", "0"]);
        check(&[], &[claim("a", 3, None)], ["3", "3", "3"]);
        check(&[pod("u", "")], &[claim("a", 3, None)], ["3", "3", "5"]);
        // The pod has asked for its claim, and for no other.
        check(&[pod("u", "")], &[claim("a", 2, Some("u"))], ["2", "2", "2"]);
        check(&[pod("u", "")], &[claim("b", 2, Some("u")), claim("a", 2, Some("u"))], ["4", "4", "4"]);
        check(&[pod("other", "")], &[claim("a", 2, Some("u"))], ["2", "2", "4"]);
        check(&[pod("u", "Succeeded")], &[claim("a", 2, Some("u"))], ["2", "2", "2"]);
    }

    #[test]
    fn what_is_not_known_stays() {
        let hard = json!({DEVICES: "9", GPU: "9", "pods": "9"});
        let quota =
            json!({"spec": {"hard": hard}, "status": {"used": {DEVICES: "7", GPU: "7", "gone": "1"}}});
        let claims = [claim("a", 3, None)];
        let check = |counted: &[(&str, Option<&[Item]>)], want: &str| {
            assert_eq!(used(quota.clone(), counted), want);
        };
        check(
            &[("pods", None), ("resourceclaims", Some(&claims))],
            &format!(r#"{{"{DEVICES}":"3","{GPU}":"7"}}"#),
        );
        check(
            &[("pods", Some(&[])), ("resourceclaims", None)],
            &format!(r#"{{"{DEVICES}":"7","pods":"0","{GPU}":"7"}}"#),
        );
        check(&[], &format!(r#"{{"{DEVICES}":"7","{GPU}":"7"}}"#));
    }

    #[test]
    fn claims_to_devices_are_in_no_scope() {
        let spec = json!({"hard": {DEVICES: "9"}, "scopes": ["NotTerminating"]});
        check(spec, "resourceclaims", &[claim("a", 3, None)], &format!(r#"{{"{DEVICES}":"0"}}"#));
        // A class that is not there yet constrains nothing by the resource's name, but counts beside what does.
        let ghost = "requests.deviceclass.resource.kubernetes.io/ghost";
        let claims = [claim("a", 3, None)];
        let spec = json!({"spec": {"hard": {ghost: "9", DEVICES: "9"}}});
        let want = format!(r#"{{"{DEVICES}":"3","{ghost}":"0"}}"#);
        assert_eq!(used(spec, &[("pods", Some(&[])), ("resourceclaims", Some(&claims))]), want);
    }
}
