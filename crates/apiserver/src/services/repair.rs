//! Puts right what does not agree: Services and their addresses, ports in use and those that Services have, and the
//! range that every cluster has. Once before a server serves, then whenever one of these objects changes, and from time
//! to time. Upstream: `ipallocator-repair-controller`, `portallocator-repair-controller`.

use super::addresses::Range;
use super::default_range::{self, Step};
use super::judge::{self, Cure, Fault, Known};
use super::ports::{self, Allocation};
use super::{Ranges, ServiceStock, ip_address, ports_key};
use crate::object;
use crate::registry::{decode, store_error};
use crate::resources::Served;
use api::core::v1::ObjectReference;
use apimachinery::clock::Clock;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use client::client::Dynamic;
use client::recorder::{EventType, Recorder};
use client::{Client, Error, Patch, PatchParams, Resource};
use component::metrics::{Counter, CounterVec, Opts, Registry, Stability};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use store::{Event, EventKind, Watch, Write};
use tokio_util::sync::CancellationToken;

/// How often everything is looked at, changed or not.
const EVERY: Duration = Duration::from_secs(180);
/// How often in a row a port must be nobody's until it is given back.
const LEAK_ROUNDS: u32 = 3;
/// How often others may get ahead of one look at the ports.
const PORT_ATTEMPTS: usize = 8;

/// See the module.
pub struct Repair {
    stock: Arc<ServiceStock>,
    addresses: Dynamic,
    ranges: Dynamic,
    address_events: Recorder,
    port_events: Recorder,
    range_events: Recorder,
    clock: Arc<dyn Clock>,
    /// What the server's flag says.
    cidrs: Vec<String>,
    /// Ports that nobody has, and how often that may yet be found.
    leaks: HashMap<u16, u32>,
    /// What people were told of the default range.
    told: HashSet<String>,
    measures: Measures,
}

/// `apiserver_nodeport_repair_*`.
struct Measures {
    port_errors: CounterVec,
    reconcile_errors: Counter,
}

impl Measures {
    fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            port_errors: registry.counter_vec(
                alpha(
                    "apiserver_nodeport_repair_port_errors_total",
                    "Number of errors detected on ports by the repair loop broken down by type of error: leak, repair, full, outOfRange, duplicate, unknown",
                ),
                &["type"],
            ),
            reconcile_errors: registry.counter(alpha(
                "apiserver_nodeport_repair_reconcile_errors_total",
                "Number of reconciliation failures on the nodeport repair reconcile loop",
            )),
        }
    }
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").field("cidrs", &self.cidrs).finish_non_exhaustive()
    }
}

impl Repair {
    /// `client` is the server's own.
    pub fn new(
        stock: Arc<ServiceStock>,
        client: &Client,
        clock: Arc<dyn Clock>,
        ranges: &Ranges,
        metrics: &Registry,
    ) -> Self {
        let of = |resource: &Arc<Served>| {
            let row = &resource.row;
            let resource = Resource {
                group: row.group.to_string(),
                version: row.version.to_string(),
                resource: row.resource.to_string(),
            };
            client.resource(resource, None)
        };
        let recorder = |component: &str| Recorder::new(client.clone(), component, "");
        Repair {
            addresses: of(&stock.addresses),
            ranges: of(&stock.ranges),
            address_events: recorder("ipallocator-repair-controller"),
            port_events: recorder("portallocator-repair-controller"),
            range_events: recorder(default_range::MANAGER),
            stock,
            clock,
            cidrs: ranges.cidrs(),
            leaks: HashMap::new(),
            told: HashSet::new(),
            measures: Measures::new(metrics),
        }
    }

    fn now(&self) -> Time {
        Time::from(self.clock.now())
    }

    /// Looks at everything once.
    pub async fn once(&mut self) {
        let (range, addresses) = (self.default_range().await, self.all_addresses().await);
        let ports = self.ports().await.inspect_err(|_| self.measures.reconcile_errors.inc());
        let checks = [
            ("the default service range", range),
            ("the addresses of services", addresses),
            ("the node ports of services", ports),
        ];
        for (what, outcome) in checks {
            if let Err(error) = outcome {
                tracing::warn!(%error, "{what} cannot be put right");
            }
        }
    }

    /// Goes on until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + EVERY, EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            match self.follow(&mut ticks, &shutdown).await {
                Ok(()) => return,
                // A watch that fell behind.
                Err(error @ store::Error::Compacted { .. }) => {
                    tracing::debug!(%error, "following services begins anew");
                }
                // A store that is closing.
                Err(error) => {
                    tracing::debug!(%error, "following services begins anew later");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        _ = ticks.tick() => {}
                    }
                }
            }
        }
    }

    async fn follow(
        &mut self,
        ticks: &mut tokio::time::Interval,
        shutdown: &CancellationToken,
    ) -> Result<(), store::Error> {
        let watch = |resource: &Served| -> Result<Watch, store::Error> {
            self.stock.store.watch(&resource.prefix, self.stock.store.snapshot(&resource.prefix).revision)
        };
        let mut services = watch(&self.stock.services)?;
        let mut addresses = watch(&self.stock.addresses)?;
        let mut ranges = watch(&self.stock.ranges)?;
        // What happened before these watches began is seen by nobody else.
        self.once().await;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => { self.once().await; Ok(()) }
                events = services.next_batch() => {
                    let names: BTreeSet<_> = events?.iter().map(|event| event.entry.name.clone()).collect();
                    self.some_services(names.iter().map(|name| &**name)).await
                }
                events = addresses.next_batch() => {
                    self.changed_addresses(&events?).await
                }
                events = ranges.next_batch() => { events?; self.default_range().await }
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "the addresses of services cannot be put right");
            }
        }
    }

    fn service(&self, name: &str) -> Option<Value> {
        let stock = &self.stock;
        let (namespace, name) = name.split_once('/')?;
        let entry = stock.store.get(&stock.services.key(namespace, name))?;
        Some(decode(&stock.services, &entry).ok()?.value)
    }

    fn address(&self, name: &str) -> Option<Value> {
        let stock = &self.stock;
        let entry = stock.store.get(&stock.addresses.key("", name))?;
        Some(decode(&stock.addresses, &entry).ok()?.value)
    }

    async fn all_addresses(&self) -> Result<(), Status> {
        let names = |resource: &Served| -> Vec<Arc<str>> {
            self.stock.store.snapshot(&resource.prefix).entries.keys().cloned().collect()
        };
        self.some_services(names(&self.stock.services).iter().map(|name| &**name)).await?;
        for name in names(&self.stock.addresses) {
            self.one_address(&name).await?;
        }
        Ok(())
    }

    /// What is wrong with the addresses of a Service, if there is one of that name.
    fn faults(&self, name: &str, ranges: &[Range]) -> Option<(Value, Vec<Fault>)> {
        let service = self.service(name)?;
        let known = Known {
            in_range: &|address| ranges.iter().any(|range| range.holds(address)),
            address: &|address| self.address(&address.to_string()),
            service: &|namespace, name| self.service(&format!("{namespace}/{name}")),
        };
        let faults = judge::service(&service, &known);
        Some((service, faults))
    }

    async fn some_services(&self, names: impl Iterator<Item = &str>) -> Result<(), Status> {
        // Of both families: no Service here takes from a range of the other one, but it holds what others took.
        let objects = self.stock.all(&self.stock.ranges);
        let ranges = ["IPv4", "IPv6"].map(|family| super::addresses::ranges(objects.iter().cloned(), family));
        let ranges = ranges.concat();
        for name in names {
            let Some((service, faults)) = self.faults(name, &ranges) else { continue };
            for fault in faults {
                if let Some((reason, message)) = &fault.event {
                    tracing::warn!(service = name, reason, "{message}");
                    let about = reference(&service, "Service", "v1");
                    self.address_events.event(&about, EventType::Warning, reason, message.as_str());
                }
                self.cure(&service, fault.cure).await.map_err(Status::internal_error)?;
            }
        }
        Ok(())
    }

    async fn cure(&self, service: &Value, cure: Cure) -> Result<(), Error> {
        let address = match cure {
            Cure::None => return Ok(()),
            Cure::Create(address) => address,
            Cure::Recreate(address) => {
                if let Some(there) = self.address(&address.to_string()) {
                    self.delete(&there).await?;
                }
                address
            }
        };
        self.create(address, service).await
    }

    async fn create(&self, address: IpAddr, service: &Value) -> Result<(), Error> {
        let mut object = ip_address(address, object::namespace(service), object::name(service));
        object["apiVersion"] = "networking.k8s.io/v1".into();
        object["kind"] = "IPAddress".into();
        match self.addresses.create::<_, Value>(None, None, &object).await {
            // Another server of this cluster was faster.
            Err(error) if error.is_already_exists() => Ok(()),
            other => other.map(drop),
        }
    }

    /// Deletes the object of an address, unless it has become another one.
    async fn delete(&self, address: &Value) -> Result<(), Error> {
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(object::uid(address).to_owned()),
                resource_version: Some(object::meta_str(address, "resourceVersion").to_owned()),
            }),
            ..Default::default()
        };
        match self.addresses.delete(object::name(address), &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }

    /// An address that has changed, and the Service of one that was deleted: it may have it still.
    async fn changed_addresses(&self, events: &[Arc<Event>]) -> Result<(), Status> {
        for event in events {
            if event.kind == EventKind::Put {
                self.one_address(&event.entry.name).await?;
                continue;
            }
            let Ok(gone) = decode(&self.stock.addresses, &event.entry) else { continue };
            let parent = &gone.value["spec"]["parentRef"];
            let part = |field: &str| parent[field].as_str().unwrap_or_default();
            let service = format!("{}/{}", part("namespace"), part("name"));
            self.some_services([service.as_str()].into_iter()).await?;
        }
        Ok(())
    }

    async fn one_address(&self, name: &str) -> Result<(), Status> {
        let Some(address) = self.address(name) else { return Ok(()) };
        let parent = &address["spec"]["parentRef"];
        let text = |field: &str| parent[field].as_str().unwrap_or_default();
        // As it is for everybody: what is known here may be older than the address.
        let key = self.stock.services.key(text("namespace"), text("name"));
        let entry = self.stock.store.consistent_get(&key).await.map_err(store_error)?;
        let service = entry.map(|entry| decode(&self.stock.services, &entry)).transpose()?;
        let found = judge::address(&address, service.as_ref().map(|stored| &stored.value), self.now());
        let Some((reason, message)) = found else { return Ok(()) };
        tracing::warn!(address = name, reason, "{message}");
        let about = reference(&address, "IPAddress", "networking.k8s.io/v1");
        self.address_events.event(&about, EventType::Warning, reason, message);
        self.delete(&address).await.map_err(Status::internal_error)
    }

    /// Compares the ports in use with those that Services have.
    async fn ports(&mut self) -> Result<(), Status> {
        for _ in 0..PORT_ATTEMPTS {
            let (stored, expect) = self.stock.allocation().await?;
            let services = self.stock.store.consistent_snapshot(&self.stock.services.prefix).await;
            let services = services.map_err(store_error)?;
            let mut leaks = self.leaks.clone();
            let (rebuilt, told) = rebuild(
                &stored,
                services
                    .entries
                    .values()
                    .filter_map(|entry| Some(decode(&self.stock.services, entry).ok()?.value)),
                &mut leaks,
            );
            let leaked = stored.all().filter(|port| !rebuilt.has(*port)).count();
            if rebuilt != stored || expect == store::Expect::Absent {
                let write = Write::put(ports_key(), rebuilt.encode(), expect);
                match self.stock.store.commit(write).await {
                    Ok(_) => {}
                    // A Service was written meanwhile.
                    Err(store::Error::Conflict { .. }) => continue,
                    Err(error) => return Err(store_error(error)),
                }
            }
            self.leaks = leaks;
            if leaked > 0 {
                self.measures.port_errors.with(&["leak"]).add(leaked as u64);
            }
            for (about, reason, message) in told {
                let kind = match reason {
                    "PortOutOfRange" => "outOfRange",
                    "PortAlreadyAllocated" => "duplicate",
                    _ => "repair",
                };
                self.measures.port_errors.with(&[kind]).inc();
                tracing::warn!(service = about.name, reason, "{message}");
                self.port_events.event(&about, EventType::Warning, reason, message);
            }
            return Ok(());
        }
        Ok(())
    }

    async fn default_range(&mut self) -> Result<(), Status> {
        loop {
            let stock = &self.stock;
            let entry = stock.store.get(&stock.ranges.key("", default_range::NAME));
            let current = entry.map(|entry| decode(&stock.ranges, &entry)).transpose()?;
            let current = current.map(|stored| stored.value);
            let done = match default_range::step(current.as_ref(), &self.cidrs, &self.now().to_string()) {
                Step::Nothing => return Ok(()),
                Step::Create(object) => self.ranges.create::<_, Value>(None, None, &object).await.map(drop),
                Step::Widen(object) => {
                    let widened = self.ranges.update::<_, Value>(default_range::NAME, None, &object).await;
                    if let Err(error) = &widened {
                        let message = format!(
                            "The default ServiceCIDR can not be upgraded from {} to dual stack [{}] : {error}",
                            self.cidrs[0],
                            self.cidrs.join(" ")
                        );
                        tracing::warn!("{message}");
                        let about = reference(&object, "ServiceCIDR", "networking.k8s.io/v1");
                        let reason = "KubernetesDefaultServiceCIDRError";
                        self.range_events.event(&about, EventType::Warning, reason, message);
                        return Ok(());
                    }
                    widened.map(drop)
                }
                Step::Apply(status) => {
                    let params = PatchParams {
                        field_manager: default_range::MANAGER.into(),
                        force: true,
                        ..Default::default()
                    };
                    let patch = Patch::Apply(status);
                    let applied =
                        self.ranges.patch::<Value>(default_range::NAME, Some("status"), &patch, &params);
                    return applied.await.map(drop).map_err(Status::internal_error);
                }
                Step::Warn(reason, message) => {
                    if let Some(current) = current.filter(|_| self.told.insert(reason.clone())) {
                        tracing::warn!(reason, "{message}");
                        let about = reference(&current, "ServiceCIDR", "networking.k8s.io/v1");
                        self.range_events.event(&about, EventType::Warning, &reason, message);
                    }
                    return Ok(());
                }
            };
            match done {
                Err(error) if error.is_already_exists() => return Ok(()),
                other => other.map_err(Status::internal_error)?,
            }
        }
    }
}

fn reference(object: &Value, kind: &str, api_version: &str) -> ObjectReference {
    ObjectReference {
        kind: kind.into(),
        api_version: api_version.into(),
        namespace: object::namespace(object).into(),
        name: object::name(object).into(),
        uid: object::uid(object).into(),
        resource_version: object::meta_str(object, "resourceVersion").into(),
        ..Default::default()
    }
}

/// An event: about what, its reason and message.
type Told = (ObjectReference, &'static str, String);

/// The ports in use as the Services say, with those that nobody has for a few rounds more.
fn rebuild(
    stored: &Allocation,
    services: impl Iterator<Item = Value>,
    leaks: &mut HashMap<u16, u32>,
) -> (Allocation, Vec<Told>) {
    let mut rebuilt = stored.emptied();
    let mut told = Vec::new();
    for service in services {
        let mut tell = |reason, message| told.push((reference(&service, "Service", "v1"), reason, message));
        for port in ports::held(&service["spec"]) {
            let range = stored.range();
            if !range.contains(port) {
                tell(
                    "PortOutOfRange",
                    format!("Port {port} is not within the port range {range}; please recreate service"),
                );
            } else if !rebuilt.take(port) {
                let message =
                    format!("Port {port} was assigned to multiple services; please recreate service");
                tell("PortAlreadyAllocated", message);
            } else if !stored.has(port) {
                tell("PortNotAllocated", format!("Port {port} is not allocated; repairing"));
            }
            leaks.remove(&port);
        }
    }
    for port in stored.all().filter(|port| !rebuilt.has(*port)).collect::<Vec<_>>() {
        let left = leaks.entry(port).or_insert(LEAK_ROUNDS - 1);
        if *left == 0 {
            tracing::warn!(port, "the node port appears to have leaked: cleaning up");
            leaks.remove(&port);
        } else {
            *left -= 1;
            rebuilt.take(port);
        }
    }
    (rebuilt, told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::PortRange;
    use apimachinery::json;

    #[test]
    fn ports_are_rebuilt_from_services() {
        let service = |name: &str, port: u16| {
            json!({"metadata": {"namespace": "ns", "name": name},
                "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}})
        };
        let services = [service("a", 30001), service("b", 30002), service("c", 30002), service("d", 80)];
        let mut stored = Allocation::new(PortRange::default());
        stored.take(30001);
        stored.take(30009);
        let mut leaks = HashMap::new();
        let mut rounds = Vec::new();
        for _ in 0..4 {
            let (rebuilt, told) = rebuild(&stored, services.iter().cloned(), &mut leaks);
            let told: Vec<String> =
                told.into_iter().map(|(about, reason, _)| format!("{} {reason}", about.name)).collect();
            rounds.push((rebuilt.all().collect::<Vec<_>>(), told));
            stored = rebuilt;
        }
        let (first, told) = &rounds[0];
        assert_eq!(*first, [30001, 30002, 30009]);
        assert_eq!(*told, ["b PortNotAllocated", "c PortAlreadyAllocated", "d PortOutOfRange"]);
        let left: Vec<&Vec<u16>> = rounds.iter().map(|(ports, _)| ports).collect();
        assert!(left[1].contains(&30009), "a port that nobody has is kept for a while");
        assert_eq!(*left[3], [30001, 30002]);
    }
}
