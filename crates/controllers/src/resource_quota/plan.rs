//! What is used of a quota. Pure.

use api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};
use apimachinery::time::{Duration, Time};
use client::source::Raw;
use client::{Resource, Result};
use rules::quota::{self, PodScopes, Usage};
use std::sync::Arc;

/// What is kept of an object that quotas count.
#[derive(Debug)]
pub(super) enum Item {
    Pod {
        usage: Arc<Usage>,
        scopes: PodScopes,
        /// When its time to end is over; from then on it is an object and no more.
        expires: Option<Time>,
    },
    Service(Arc<Usage>),
    /// Kept whole, for the scopes of claims may ask for much of it; claims are few.
    Claim(Box<PersistentVolumeClaim>),
    Other,
}

/// Reads an object of a resource.
pub(super) fn read(resource: &Resource, raw: &Raw, now: Time) -> Result<Item> {
    if !resource.group.is_empty() {
        return Ok(Item::Other);
    }
    Ok(match resource.resource.as_str() {
        "pods" => {
            let pod: Pod = raw.decode()?;
            let grace = Duration::from_seconds(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
            Item::Pod {
                usage: Arc::new(quota::pod_usage(&pod, now)),
                scopes: PodScopes::of(&pod),
                expires: pod.metadata.deletion_timestamp.map(|at| at.plus(grace)),
            }
        }
        "services" => Item::Service(Arc::new(quota::service_usage(&raw.decode::<Service>()?))),
        "persistentvolumeclaims" => Item::Claim(Box::new(raw.decode()?)),
        _ => Item::Other,
    })
}

impl Item {
    /// Makes equal usages one: pods of one template use the same.
    pub(super) fn share(&mut self, last: &mut Arc<Usage>) {
        if let Item::Pod { usage, .. } | Item::Service(usage) = self {
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

/// What objects of one resource use that are in all scopes of the quota, and when that will change by itself.
fn sum<'a>(
    quota: &ResourceQuota,
    resource: &Resource,
    items: impl Iterator<Item = &'a Item>,
    now: Time,
) -> (Usage, Option<Time>) {
    let scopes = quota::scopes(quota);
    let (mut total, mut count, mut next) = (Usage::new(), 0, None);
    for item in items {
        match item {
            Item::Pod { usage, scopes: within, expires } => {
                if !within.in_all(&scopes) {
                    continue;
                }
                match expires {
                    Some(at) if *at < now => {
                        quota::add(&mut total, &quota::count_usage("", "pods", 1));
                        continue;
                    }
                    Some(at) if usage.contains_key("pods") => {
                        next = Some(next.map_or(*at, |n: Time| n.min(*at)))
                    }
                    _ => {}
                }
                quota::add(&mut total, usage);
            }
            Item::Service(usage) if scopes.is_empty() => quota::add(&mut total, usage),
            Item::Claim(claim) if quota::claim_in_all(claim, &scopes) => {
                quota::add(&mut total, &quota::claim_usage(claim));
            }
            Item::Other if scopes.is_empty() => count += 1,
            _ => {}
        }
    }
    if count > 0 {
        quota::add(&mut total, &quota::count_usage(&resource.group, &resource.resource, count));
    }
    (total, next)
}

/// The status that the quota should have. What is in no resource of `known` stays as it was.
pub(super) struct Counting<'a> {
    quota: &'a ResourceQuota,
    now: Time,
    used: Usage,
    pub next: Option<Time>,
}

impl<'a> Counting<'a> {
    pub(super) fn new(quota: &'a ResourceQuota, now: Time) -> Self {
        Counting { quota, now, used: quota.status.used.clone(), next: None }
    }

    /// Counts the objects of a resource.
    pub(super) fn add<'i>(&mut self, resource: &Resource, items: impl Iterator<Item = &'i Item>) {
        let (usage, next) = sum(self.quota, resource, items, self.now);
        self.next = self.next.into_iter().chain(next).min();
        let constrained = |name: &&String| quota::constrains(name, &resource.group, &resource.resource);
        self.used.extend(quota::mask(&usage, self.quota.spec.hard.keys().filter(constrained)));
    }

    /// The status; none if it is what it was.
    pub(super) fn status(mut self) -> Option<ResourceQuotaStatus> {
        self.used.retain(|name, _| self.quota.spec.hard.contains_key(name));
        let status = ResourceQuotaStatus { hard: self.quota.spec.hard.clone(), used: self.used };
        (status != self.quota.status).then_some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use client::ObjectKey;

    fn item(resource: &str, object: Value) -> Item {
        let raw = Raw { key: ObjectKey::new("a", "x"), revision: 1, bytes: object.to_string().into() };
        read(&Resource::new("", "v1", resource), &raw, Time::from_unix(100)).unwrap()
    }

    fn check(spec: Value, resource: &str, items: &[Item], want: &str) {
        let quota: ResourceQuota = apimachinery::value::from_value(json!({"spec": spec})).unwrap();
        let mut counting = Counting::new(&quota, Time::from_unix(100));
        counting.add(&Resource::new("", "v1", resource), items.iter());
        let used = counting.status().map(|status| serde_json::to_string(&status.used).unwrap());
        assert_eq!(used.unwrap_or_default(), want);
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
}
