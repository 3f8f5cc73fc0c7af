//! ResourceQuota: what a namespace may use. What a request would add is written to the quotas before the object is; a
//! write that then fails is put right by the controller's recount.

pub(super) mod devices;
pub(super) mod limited;

use super::lookup::Objects;
use super::{Attributes, Operation, Plugin, When};
use api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuota as Quota, ScopedResourceSelectorRequirement, Service,
};
use api::resource::v1::ResourceClaim;
use apimachinery::decode::Decode;
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use devices::Devices;
use futures::future::BoxFuture;
use limited::LimitedResource;
use rules::quota::devices::{self as device_rules, DeviceClasses};
use rules::quota::{self, PodScopes, Usage};
use schema::encode::Body;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::{Entry, Expect, Write};

pub(super) struct ResourceQuota {
    pub quotas: Arc<Objects>,
    /// Nothing where claims to devices are not served, or stand for no extended resources.
    pub devices: Option<Devices>,
    pub limited: Vec<LimitedResource>,
}

/// What is needed of an object that is counted.
enum Counted {
    Pod(Box<Pod>),
    Service(Box<Service>),
    Claim(Box<PersistentVolumeClaim>),
    Devices(Box<ResourceClaim>),
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
            (device_rules::GROUP, device_rules::RESOURCE) => Counted::Devices(read(object)?),
            _ => Counted::Other,
        })
    }

    fn in_scopes(&self, of: &Quota) -> bool {
        let scopes = quota::scopes(of);
        match self {
            Counted::Pod(pod) => PodScopes::of(pod).in_all(&scopes),
            Counted::Claim(claim) => quota::claim_in_all(claim, &scopes),
            _ => scopes.is_empty(),
        }
    }

    /// Whether the object is in one scope; those of no other kinds are in any.
    fn is_in(&self, scope: &ScopedResourceSelectorRequirement) -> bool {
        match self {
            Counted::Pod(pod) => PodScopes::of(pod).in_all(std::slice::from_ref(scope)),
            Counted::Claim(claim) => quota::claim_in_all(claim, std::slice::from_ref(scope)),
            _ => false,
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

/// A quota that constrains a request.
struct Concerned {
    stored: Stored,
    /// What it constrains of the request's resource.
    constrained: Vec<String>,
    /// What the request adds to what is used.
    delta: Usage,
}

enum Attempt {
    Done,
    Again,
}

fn refuse(a: &Attributes<'_>, why: String) -> Status {
    Status::forbidden(&a.resource.group_resource(), a.name, why)
}

/// What is used more than before, without what is not.
fn increase(mut usage: Usage, before: Option<&Usage>) -> Usage {
    for (name, was) in before.into_iter().flatten() {
        if let Some(more) = usage.get_mut(name) {
            more.sub(was);
        }
    }
    usage.retain(|_, more| more.cmp_i64(0).is_gt());
    usage
}

impl ResourceQuota {
    fn concerns(a: &Attributes<'_>) -> bool {
        let updates = a.is("", "pods")
            || a.is("", "services")
            || a.is("", "persistentvolumeclaims")
            || a.is(device_rules::GROUP, device_rules::RESOURCE);
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
            .quotas
            .store
            .snapshot(&self.quotas.resource.prefix)
            .range(&format!("{namespace}/"), "")
            .map(|entry| entry.name.clone())
            .collect();
        let mut quotas = Vec::new();
        for name in names {
            let key = store::Key { prefix: self.quotas.resource.prefix.clone(), name };
            let Some(entry) = self.quotas.store.pending(&key) else { continue };
            let value = crate::registry::decode(&self.quotas.resource, &entry)?.value;
            let quota = Decode::from_value(&value).map_err(Status::internal_error)?;
            quotas.push(Stored { entry, value, quota });
        }
        Ok(quotas)
    }

    /// What claims to devices are charged by; nothing where nobody asks for what they use of extended resources.
    fn classes(&self, a: &Attributes<'_>, quotas: &[Stored]) -> Result<Option<DeviceClasses>, Status> {
        let Some(devices) =
            self.devices.as_ref().filter(|_| a.is(device_rules::GROUP, device_rules::RESOURCE))
        else {
            return Ok(None);
        };
        let mut hard = quotas.iter().flat_map(|stored| stored.quota.status.hard.keys());
        let asked = !self.limited.is_empty() || hard.any(|name| quota::extended_request(name).is_some());
        asked.then(|| devices.classes()).transpose()
    }

    /// What the object uses, as far as anybody asks.
    fn usage(
        &self,
        a: &Attributes<'_>,
        counted: &Counted,
        classes: Option<&DeviceClasses>,
        now: Time,
    ) -> Usage {
        match counted {
            Counted::Pod(pod) => quota::pod_usage(pod, now),
            Counted::Service(service) => quota::service_usage(service),
            Counted::Claim(claim) => quota::claim_usage(claim),
            Counted::Devices(claim) => {
                let mut usage = device_rules::usage(claim);
                if let Some((classes, devices)) = classes.zip(self.devices.as_ref()) {
                    let charged = devices.charged(a, claim, now);
                    device_rules::add_extended(&mut usage, classes, charged.as_ref());
                }
                usage
            }
            Counted::Other => quota::count_usage(&a.resource.row.group, &a.resource.row.resource, 1),
        }
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
        let nothing = quotas.is_empty() && self.limited.is_empty();
        let Some(object) = a.object.as_deref().filter(|_| !nothing) else { return Ok(Attempt::Done) };
        let now = Time::from(jiff::Timestamp::now());
        let counted = Counted::of(a, object)?;
        let classes = self.classes(a, &quotas)?;
        let usage = self.usage(a, &counted, classes.as_ref(), now);
        let before = a.old.map(|old| Counted::of(a, old)).transpose()?;
        let before = before.as_ref().map(|before| (before, self.usage(a, before, classes.as_ref(), now)));
        let classes = classes.unwrap_or_default();
        let scopes: Vec<_> = quotas
            .iter()
            .flat_map(|stored| quota::scopes(&stored.quota))
            .filter(|scope| counted.is_in(scope))
            .collect();
        let mut concerned = Vec::new();
        for stored in quotas {
            let Some(constrained) = constrained(a, &counted, &classes, &stored.quota)? else { continue };
            let was = before.as_ref().filter(|(before, _)| before.in_scopes(&stored.quota));
            let delta = increase(usage.clone(), was.map(|(_, usage)| usage));
            concerned.push(Concerned { stored, constrained, delta });
        }
        let uses_more = match concerned.as_slice() {
            [] => !increase(usage.clone(), before.as_ref().map(|(_, usage)| usage)).is_empty(),
            concerned => concerned.iter().any(|concerned| !concerned.delta.is_empty()),
        };
        if !uses_more {
            return Ok(Attempt::Done);
        }
        self.covered(a, &counted, &usage, &concerned, &scopes)?;
        let mut writes = Vec::new();
        for concerned in concerned {
            writes.extend(self.charge(a, concerned)?);
        }
        if a.dry_run || writes.is_empty() {
            return Ok(Attempt::Done);
        }
        match self.quotas.store.commit_many(writes).await {
            Ok(_) => Ok(Attempt::Done),
            Err(store::Error::Conflict { .. }) => Ok(Attempt::Again),
            Err(error) => Err(crate::registry::store_error(error)),
        }
    }

    /// Refuses what is limited by default and constrained by no quota.
    fn covered(
        &self,
        a: &Attributes<'_>,
        counted: &Counted,
        usage: &Usage,
        concerned: &[Concerned],
        scopes: &[ScopedResourceSelectorRequirement],
    ) -> Result<(), Status> {
        let constrains = |name: &str| concerned.iter().any(|c| c.constrained.iter().any(|n| n == name));
        let mut bare = limited::names(&self.limited, a, usage);
        bare.retain(|name| !constrains(name));
        if !bare.is_empty() {
            let names = bare.into_iter().collect::<Vec<_>>().join(",");
            return Err(refuse(a, format!("insufficient quota to consume: {names}")));
        }
        let limited = self.limited.iter().flat_map(|limited| &limited.match_scopes);
        let bare: Vec<_> = limited
            .filter(|scope| counted.is_in(scope))
            .filter(|scope| !scopes.iter().any(|covered| covered.scope_name == scope.scope_name))
            .collect();
        if bare.is_empty() {
            return Ok(());
        }
        let scopes = limited::print(&bare);
        Err(Status::plain_error(format!("insufficient quota to match these scopes: {scopes}")))
    }

    /// The write that charges a quota, unless there is nothing to charge.
    fn charge(&self, a: &Attributes<'_>, concerned: Concerned) -> Result<Option<Write>, Status> {
        let Concerned { stored: Stored { entry, mut value, quota }, mut delta, .. } = concerned;
        // Once a quota concerns the request, all counts that it names.
        delta.retain(|name, _| quota.status.hard.contains_key(name));
        if delta.is_empty() {
            return Ok(None);
        }
        let mut used = quota.status.used.clone();
        quota::add(&mut used, &delta);
        let exceeded: Vec<String> =
            delta.keys().filter(|name| used.get(*name) > quota.status.hard.get(*name)).cloned().collect();
        if !exceeded.is_empty() {
            let why = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.metadata.name,
                pretty(&delta, &exceeded),
                pretty(&quota.status.used, &exceeded),
                pretty(&quota.status.hard, &exceeded),
            );
            return Err(refuse(a, why));
        }
        value["status"]["used"] = used
            .iter()
            .map(|(name, q)| (name.clone(), Value::from(q.to_string())))
            .collect::<apimachinery::value::Map>()
            .into();
        let resource = &self.quotas.resource;
        let body = Body::encode(&resource.table, resource.hub_ty, &value);
        let key = store::Key { prefix: resource.prefix.clone(), name: entry.name.clone() };
        Ok(Some(Write::put(key, body.stored().clone(), Expect::Revision(entry.mod_revision))))
    }
}

/// What a quota constrains of the request's resource; none if it does not concern the request. What keeps it from being
/// judged refuses the request.
fn constrained(
    a: &Attributes<'_>,
    counted: &Counted,
    classes: &DeviceClasses,
    quota: &Quota,
) -> Result<Option<Vec<String>>, Status> {
    let row = &a.resource.row;
    let constrained: Vec<&String> = quota
        .status
        .hard
        .keys()
        .filter(|name| quota::constrains(name, &row.group, &row.resource, classes))
        .collect();
    if constrained.is_empty() || !counted.in_scopes(quota) {
        return Ok(None);
    }
    let name = &quota.metadata.name;
    if let Some(why) = counted.missing(&constrained) {
        return Err(refuse(a, format!("failed quota: {name}: {why}")));
    }
    let all = || constrained.iter().map(|name| name.as_str());
    if all().any(|name| !quota.status.used.contains_key(name)) {
        let all = all().collect::<Vec<_>>().join(",");
        return Err(refuse(a, format!("status unknown for quota: {name}, resources: {all}")));
    }
    Ok(Some(constrained.into_iter().cloned().collect()))
}

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(a))
    }
}
