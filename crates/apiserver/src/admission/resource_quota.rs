//! ResourceQuota: what a namespace may use. What a request would add is written to the quotas before the object is; a
//! write that then fails is put right by the controller's recount.

use super::lookup::Objects;
use super::{Attributes, Operation, Plugin};
use api::core::v1::{Container, PersistentVolumeClaim, Pod, ResourceQuota as Quota, Service};
use apimachinery::decode::Decode;
use apimachinery::quantity::Quantity;
use apimachinery::status::Status;
use apimachinery::time::Time;
use futures::future::BoxFuture;
use rules::quota::{self, PodScopes, Usage};
use schema::encode::Body;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Entry, Expect, Write};

pub(super) struct ResourceQuota(pub Arc<Objects>);

/// What is needed of an object that is counted.
enum Counted {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    /// Counted by number alone.
    Other,
}

impl Counted {
    fn of(a: &Attributes<'_>, object: &Value) -> Result<Self, Status> {
        fn read<T: Decode>(object: &Value) -> Result<Box<T>, Status> {
            apimachinery::value::typed(object).map(Box::new).map_err(Status::internal_error)
        }
        Ok(match (a.resource.row.group.as_ref(), a.resource.row.resource.as_ref()) {
            ("", "pods") => Counted::Pod(read(object)?),
            ("", "services") => Counted::Service(read(object)?),
            ("", "persistentvolumeclaims") => Counted::Claim(read(object)?),
            _ => Counted::Other,
        })
    }

    fn usage(&self, a: &Attributes<'_>, now: Time) -> Usage {
        match self {
            Counted::Pod(pod) => quota::pod_usage(pod, now),
            Counted::Service(service) => quota::service_usage(service),
            Counted::Claim(claim) => quota::claim_usage(claim),
            Counted::Other => quota::count_usage(&a.resource.row.group, &a.resource.row.resource, 1),
        }
    }

    fn in_scopes(&self, of: &Quota) -> bool {
        let scopes = quota::scopes(of);
        match self {
            Counted::Pod(pod) => PodScopes::of(pod).in_all(&scopes),
            Counted::Claim(claim) => quota::claim_in_all(claim, &scopes),
            _ => scopes.is_empty(),
        }
    }

    /// What containers have to say because a quota constrains it.
    fn missing(&self, constrained: &[&String]) -> Option<String> {
        const NAMES: [&str; 6] =
            ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
        let Counted::Pod(pod) = self else { return None };
        if pod.spec.resources.is_some() {
            return None;
        }
        let required: BTreeSet<&str> =
            constrained.iter().map(|n| n.as_str()).filter(|n| NAMES.contains(n)).collect();
        let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let says = |container: &Container, name: &str| {
            let (of, resource) = name.split_once('.').unwrap_or(("requests", name));
            let list = &container.resources;
            (if of == "limits" { &list.limits } else { &list.requests }).contains_key(resource)
        };
        for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
            for name in required.iter().filter(|name| !says(container, name)) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
        if missing.is_empty() {
            return None;
        }
        let texts: Vec<String> = missing
            .iter()
            .map(|(name, of)| format!("{name} for: {}", of.iter().copied().collect::<Vec<_>>().join(",")))
            .collect();
        Some(format!("must specify {}", texts.join("; ")))
    }
}

fn pretty(usage: &Usage, names: &[String]) -> String {
    let one = |name: &String| format!("{name}={}", usage.get(name).cloned().unwrap_or_default());
    names.iter().map(one).collect::<Vec<_>>().join(",")
}

/// A quota and the entry it was read from.
struct Stored {
    entry: Arc<Entry>,
    value: Value,
    quota: Quota,
}

enum Attempt {
    Done,
    Again,
}

impl ResourceQuota {
    fn concerns(a: &Attributes<'_>) -> bool {
        let updates = a.is("", "pods") || a.is("", "services") || a.is("", "persistentvolumeclaims");
        let counts = match a.operation {
            Operation::Create => true,
            Operation::Update => updates,
            _ => false,
        };
        let plain = a.subresource.is_empty() || a.is("", "pods") && a.subresource == "resize";
        // Events are counted by nobody, and reviews are no objects.
        let ignored = a.is("", "events") || a.is("events.k8s.io", "events");
        counts && plain && !a.namespace.is_empty() && !a.is("", "namespaces") && !ignored
    }

    fn quotas(&self, namespace: &str) -> Result<Vec<Stored>, Status> {
        let names: Vec<Arc<str>> = self
            .0
            .store
            .snapshot(&self.0.resource.prefix)
            .range(&format!("{namespace}/"), "")
            .map(|entry| entry.name.clone())
            .collect();
        let mut quotas = Vec::new();
        for name in names {
            let key = store::Key { prefix: self.0.resource.prefix.clone(), name };
            let Some(entry) = self.0.store.pending(&key) else { continue };
            let value = crate::registry::decode(&self.0.resource, &entry)?.value;
            let quota = Decode::from_value(&value).map_err(Status::internal_error)?;
            quotas.push(Stored { entry, value, quota });
        }
        Ok(quotas)
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !Self::concerns(a) {
            return Ok(());
        }
        while let Attempt::Again = self.attempt(a).await? {}
        Ok(())
    }

    async fn attempt(&self, a: &Attributes<'_>) -> Result<Attempt, Status> {
        let quotas = self.quotas(a.namespace)?;
        let Some(object) = a.object.as_deref().filter(|_| !quotas.is_empty()) else {
            return Ok(Attempt::Done);
        };
        let refuse = |why: String| Status::forbidden(&a.resource.group_resource(), a.name, why);
        let now = Time::from(jiff::Timestamp::now());
        let counted = Counted::of(a, object)?;
        let usage = counted.usage(a, now);
        let before = a.old.map(|old| Counted::of(a, old)).transpose()?;
        let row = &a.resource.row;
        let mut writes = Vec::new();
        for Stored { entry, mut value, quota } in quotas {
            let constrained: Vec<&String> = quota
                .status
                .hard
                .keys()
                .filter(|name| quota::constrains(name, &row.group, &row.resource))
                .collect();
            if constrained.is_empty() || !counted.in_scopes(&quota) {
                continue;
            }
            let name = &quota.metadata.name;
            if let Some(why) = counted.missing(&constrained) {
                return Err(refuse(format!("failed quota: {name}: {why}")));
            }
            let uncounted: Vec<&str> = constrained
                .iter()
                .filter(|n| !quota.status.used.contains_key(**n))
                .map(|n| n.as_str())
                .collect();
            if !uncounted.is_empty() {
                let all: Vec<&str> = constrained.iter().map(|n| n.as_str()).collect();
                let why = format!("status unknown for quota: {name}, resources: {}", all.join(","));
                return Err(refuse(why));
            }
            let mut delta = usage.clone();
            if let Some(before) = before.as_ref().filter(|b| b.in_scopes(&quota)) {
                for (name, was) in before.usage(a, now) {
                    let more = delta.entry(name).or_default();
                    more.sub(&was);
                    if more.cmp_i64(0).is_lt() {
                        *more = Quantity::default();
                    }
                }
            }
            delta.retain(|name, more| constrained.contains(&name) && !more.cmp_i64(0).is_eq());
            if delta.is_empty() {
                continue;
            }
            let mut used = quota.status.used.clone();
            quota::add(&mut used, &delta);
            let exceeded: Vec<String> =
                delta.keys().filter(|name| used.get(*name) > quota.status.hard.get(*name)).cloned().collect();
            if !exceeded.is_empty() {
                return Err(refuse(format!(
                    "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                    pretty(&delta, &exceeded),
                    pretty(&quota.status.used, &exceeded),
                    pretty(&quota.status.hard, &exceeded),
                )));
            }
            value["status"]["used"] = used
                .iter()
                .map(|(name, q)| (name.clone(), Value::from(q.to_string())))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let resource = &self.0.resource;
            let body = Body::encode(&resource.table, resource.hub_ty, &value);
            let key = store::Key { prefix: resource.prefix.clone(), name: entry.name.clone() };
            writes.push(Write::put(key, body.stored().clone(), Expect::Revision(entry.mod_revision)));
        }
        if a.dry_run || writes.is_empty() {
            return Ok(Attempt::Done);
        }
        match self.0.store.commit_many(writes).await {
            Ok(_) => Ok(Attempt::Done),
            Err(store::Error::Conflict { .. }) => Ok(Attempt::Again),
            Err(error) => Err(crate::registry::store_error(error)),
        }
    }
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(a))
    }
}
