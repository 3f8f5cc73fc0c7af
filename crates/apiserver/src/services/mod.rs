//! What Services take: addresses of the ServiceCIDRs, each with an IPAddress object of its name, and node ports, which
//! are bits of the RangeAllocation `servicenodeports`. Both are written in the transaction that writes the Service
//! (upstream writes them before it and repairs what is left behind; so does [`Repair`], for what others left).
//!
//! * `spec`: the fields of a Service that belong together (pure); `addresses`: ranges and a free address (pure);
//! * `ports`: the ports in use (pure), and how many a Service needs; `default_range`: the ServiceCIDR `kubernetes`;
//! * `ranges`: what the flags say; `measures`: what was asked for, given and is in use, counted;
//! * `judge`: what is wrong with a Service's addresses, or with an address (pure); `repair` puts it right.

mod addresses;
mod default_range;
mod judge;
mod measures;
mod ports;
mod ranges;
mod repair;
mod spec;

pub use ranges::{PortRange, Ranges};
pub use repair::Repair;

use crate::object;
use crate::registry::{Asked, Companion, Stock, StockChange, decode, store_error};
use crate::resources::{Resources, Served};
use addresses::Range;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::validation::parse_ip_sloppy;
use apimachinery::value::Value;
use component::metrics::Registry;
use futures::future::BoxFuture;
use measures::{Measures, Scope};
use ports::{Allocation, Operation};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use store::{Expect, Key, Store, Write};

/// What marks the IPAddress objects that are given out here.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";

/// Where the ports in use are kept.
fn ports_key() -> Key {
    Key::new("/registry/ranges/", "servicenodeports")
}

/// `IPv4` or `IPv6`.
pub(crate) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// Addresses and node ports for Services.
pub struct ServiceStock {
    store: Arc<dyn Store>,
    services: Arc<Served>,
    addresses: Arc<Served>,
    ranges: Arc<Served>,
    /// The families that there are, first that of Services which ask for none.
    families: Vec<&'static str>,
    node_ports: PortRange,
    measures: Measures,
}

impl std::fmt::Debug for ServiceStock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceStock").field("families", &self.families).finish_non_exhaustive()
    }
}

impl ServiceStock {
    /// `flags` say which families Services may have.
    pub fn new(
        store: Arc<dyn Store>,
        resources: &Resources,
        flags: &Ranges,
        metrics: &Registry,
    ) -> Result<Arc<Self>, String> {
        let get = |group: &str, resource: &str| {
            resources.get(group, "v1", resource).ok_or_else(|| format!("{resource} are not served"))
        };
        let stock = Arc::new(ServiceStock {
            store,
            services: get("", "services")?,
            addresses: get("networking.k8s.io", "ipaddresses")?,
            ranges: get("networking.k8s.io", "servicecidrs")?,
            families: flags.families(),
            node_ports: flags.node_ports,
            measures: Measures::new(metrics),
        });
        let told = Arc::downgrade(&stock);
        metrics.collector(move |encoder| {
            if let Some(stock) = told.upgrade() {
                measures::collect(encoder, &stock);
            }
        });
        Ok(stock)
    }

    /// The objects of a kind as they are known here.
    fn all(&self, resource: &Served) -> Vec<Value> {
        let snapshot = self.store.snapshot(&resource.prefix);
        snapshot.entries.values().filter_map(|entry| Some(decode(resource, entry).ok()?.value)).collect()
    }

    /// The ranges that addresses of a family may be taken from.
    fn ranges(&self, family: &str) -> Vec<Range> {
        let usable = self.all(&self.ranges).into_iter().filter(addresses::is_usable);
        addresses::ranges(usable, family)
    }

    fn address_key(&self, address: IpAddr) -> Key {
        self.addresses.key("", &address.to_string())
    }

    /// The ports in use by all that is known; nothing yet in a new cluster.
    async fn allocation(&self) -> Result<(Allocation, Expect), Status> {
        let newest = self.store.newest(&ports_key()).await.map_err(store_error)?;
        match newest {
            None => Ok((Allocation::new(self.node_ports), Expect::Absent)),
            Some(entry) => {
                let read =
                    Allocation::decode(&entry.value, self.node_ports).map_err(Status::internal_error)?;
                Ok((read, Expect::Revision(entry.mod_revision)))
            }
        }
    }

    async fn complete(&self, asked: Asked<'_>) -> Result<(), Status> {
        let Asked { old, new, dry_run, .. } = asked;
        let name = object::name(new).to_owned();
        let old = old.map(|old| &old["spec"]);
        let spec = &mut new["spec"];
        if let Some(old) = old {
            spec::patch_allocated(spec, old);
        }
        spec::normalise(spec, old);
        let invalid = |errors: &ErrorList| {
            Status::invalid(&GroupKind::new(String::new(), "Service".to_owned()), &name, errors)
        };
        spec::init_families(spec, old, &self.families).map_err(|errors| invalid(&errors))?;
        self.take_addresses(spec, old, &name, dry_run).await?;
        if spec::needs_any_port(spec) || old.is_some_and(spec::needs_any_port) {
            let allocation = self.allocation().await?.0;
            let mut operation = Operation::new(&allocation, dry_run);
            let completed = ports::complete(spec, old, &mut operation);
            if !dry_run {
                self.measures.ports(&operation.tally);
            }
            completed.map_err(|failed| match failed {
                ports::Failed::Invalid(error) => invalid(&error.into()),
                ports::Failed::Internal(why) => Status::internal_error(why),
            })?;
        }
        Ok(())
    }

    /// Gives the Service the addresses that its families ask for and that it does not have.
    async fn take_addresses(
        &self,
        spec: &mut Value,
        old: Option<&Value>,
        name: &str,
        dry_run: bool,
    ) -> Result<(), Status> {
        if !spec::takes_addresses(spec, old) {
            return Ok(());
        }
        let held: Vec<String> = old.map(spec::cluster_ips).unwrap_or_default();
        let mut all = spec::cluster_ips(spec);
        let families = spec::families(spec);
        all.resize(all.len().max(families.len()), String::new());
        let path = Path::new("spec").child("clusterIPs");
        for (index, family) in families.iter().enumerate() {
            let wanted = all[index].clone();
            if !wanted.is_empty() && held.contains(&wanted) {
                continue;
            }
            let failed = |ips: &[String], why: String| {
                let error = Error::invalid(&path, &json!(ips), why);
                Status::invalid(
                    &GroupKind::new(String::new(), "Service".to_owned()),
                    name,
                    &ErrorList::from(error),
                )
            };
            if wanted.is_empty() {
                let Some(address) = self.free_address(family, dry_run) else {
                    return Err(Status::internal_error(format!(
                        "failed to allocate a serviceIP for Service {name:?}: range is full"
                    )));
                };
                all[index] = address.to_string();
            } else if let Err(why) = self.is_free(&wanted, dry_run).await? {
                return Err(failed(&all, format!("failed to allocate IP {wanted}: {why}")));
            }
        }
        spec["clusterIP"] = all.first().map_or("", String::as_str).into();
        spec["clusterIPs"] = all.into();
        Ok(())
    }

    /// An address that nobody is known to have.
    fn free_address(&self, family: &str, dry_run: bool) -> Option<IpAddr> {
        let ranges = self.ranges(family);
        if dry_run {
            return ranges.first().map(Range::network);
        }
        let given = self.store.snapshot(&self.addresses.prefix);
        let is_free = |address: &IpAddr| {
            given.get(&address.to_string()).is_none()
                && self.store.pending(&self.address_key(*address)).is_none()
        };
        ranges.iter().find_map(|range| {
            let begun = Instant::now();
            let found = range.candidates(&random).find(is_free);
            match found {
                Some(_) => self.measures.given(range, Scope::Dynamic, begun.elapsed()),
                None => self.measures.refused(range, Scope::Dynamic),
            }
            found
        })
    }

    /// Why a Service cannot have the address that it asks for.
    async fn is_free(&self, wanted: &str, dry_run: bool) -> Result<Result<(), String>, Status> {
        let Some(address) = parse_ip_sloppy(wanted) else {
            return Err(Status::internal_error(format!("failed to parse service IP {wanted:?}")));
        };
        let ranges = self.ranges(family(address));
        let Some(range) = ranges.iter().find(|range| range.holds(address)) else {
            return Ok(Err(match ranges.first().filter(|_| dry_run) {
                // As upstream, which asks one range when nothing is to be kept.
                Some(range) => format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
                ),
                None => "the provided network does not match the current range".into(),
            }));
        };
        if dry_run {
            return Ok(Ok(()));
        }
        let begun = Instant::now();
        if self.store.newest(&self.address_key(address)).await.map_err(store_error)?.is_some() {
            self.measures.refused(range, Scope::Static);
            return Ok(Err("provided IP is already allocated".into()));
        }
        self.measures.given(range, Scope::Static, begun.elapsed());
        Ok(Ok(()))
    }

    async fn companions(&self, change: StockChange<'_>) -> Result<Option<Vec<Companion>>, Status> {
        let held = |object: Option<&Value>| {
            let spec = object.map(|object| &object["spec"]);
            (spec.map(spec::addresses).unwrap_or_default(), spec.map(ports::held).unwrap_or_default())
        };
        let ((had, had_ports), (has, has_ports)) = (held(change.old), held(change.new));
        let mut companions = Vec::new();
        for address in has.difference(&had) {
            if self.store.newest(&self.address_key(*address)).await.map_err(store_error)?.is_some() {
                return Ok(None);
            }
            let object = ip_address(*address, change.namespace, change.name);
            companions.push(Companion::Create(self.addresses.clone(), object));
        }
        for address in had.difference(&has) {
            companions.extend(self.release(*address, change).await?.map(Companion::Write));
        }
        if had_ports != has_ports {
            let (mut allocation, expect) = self.allocation().await?;
            let new: BTreeSet<u16> = has_ports.difference(&had_ports).copied().collect();
            // A port beyond the range, of a Service from before the range was narrowed, is nobody's.
            if !new.iter().all(|port| !self.node_ports.contains(*port) || allocation.take(*port)) {
                return Ok(None);
            }
            had_ports.difference(&has_ports).for_each(|port| allocation.release(*port));
            let write = Write::put(ports_key(), allocation.encode(), expect);
            companions.push(Companion::Write(write));
        }
        Ok(Some(companions))
    }

    /// Deletes the object of an address, if it is this Service's.
    async fn release(&self, address: IpAddr, change: StockChange<'_>) -> Result<Option<Write>, Status> {
        let key = self.address_key(address);
        let Some(entry) = self.store.newest(&key).await.map_err(store_error)? else { return Ok(None) };
        let held = decode(&self.addresses, &entry).ok();
        let own = held.is_some_and(|held| {
            let parent = &held.value["spec"]["parentRef"];
            parent["resource"] == "services"
                && parent["namespace"] == change.namespace
                && parent["name"] == change.name
        });
        Ok(own.then(|| Write::delete(key, Expect::Revision(entry.mod_revision))))
    }
}

/// The object of an address that a Service has.
fn ip_address(address: IpAddr, namespace: &str, name: &str) -> Value {
    json!({
        "metadata": {
            "name": address.to_string(),
            "labels": {FAMILY: family(address), MANAGED_BY: MANAGER},
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// A random number below `limit`.
fn random(limit: u64) -> u64 {
    (uuid::Uuid::new_v4().as_u128() % u128::from(limit.max(1))) as u64
}

impl Stock for ServiceStock {
    fn concerns(&self, resource: &Served) -> bool {
        resource.prefix == self.services.prefix
    }

    fn complete<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.complete(asked))
    }

    fn companions<'a>(
        &'a self,
        change: StockChange<'a>,
    ) -> BoxFuture<'a, Result<Option<Vec<Companion>>, Status>> {
        Box::pin(self.companions(change))
    }
}
