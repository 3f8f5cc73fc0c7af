//! `kube_apiserver_clusterip_allocator_*` and `kube_apiserver_nodeport_allocator_*`: what was asked for and given is counted
//! as it is asked for; what is in use is read off when somebody looks, so that every server tells the same.

use super::addresses::Range;
use super::ports::{Allocation, Tally};
use super::{ServiceStock, ports_key};
use component::metrics::{CounterVec, DEFAULT_BUCKETS, Encoder, HistogramVec, Opts, Registry, Stability};
use std::net::IpAddr;
use std::time::Duration;

/// Whether a Service chose what it got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Static,
    Dynamic,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Scope::Static => "static",
            Scope::Dynamic => "dynamic",
        }
    }
}

/// See the module.
pub(super) struct Measures {
    addresses: CounterVec,
    address_errors: CounterVec,
    address_seconds: HistogramVec,
    ports: CounterVec,
    port_errors: CounterVec,
}

impl Measures {
    pub(super) fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            addresses: registry.counter_vec(
                alpha(
                    "kube_apiserver_clusterip_allocator_allocation_total",
                    "Number of Cluster IPs allocations",
                ),
                &["cidr", "scope"],
            ),
            address_errors: registry.counter_vec(
                alpha(
                    "kube_apiserver_clusterip_allocator_allocation_errors_total",
                    "Number of errors trying to allocate Cluster IPs",
                ),
                &["cidr", "scope"],
            ),
            address_seconds: registry.histogram_vec(
                alpha(
                    "kube_apiserver_clusterip_allocator_allocation_duration_seconds",
                    "Duration in seconds to allocate a Cluster IP by ServiceCIDR",
                ),
                &["cidr"],
                DEFAULT_BUCKETS,
            ),
            ports: registry.counter_vec(
                alpha("kube_apiserver_nodeport_allocator_allocation_total", "Number of NodePort allocations"),
                &["scope"],
            ),
            port_errors: registry.counter_vec(
                alpha(
                    "kube_apiserver_nodeport_allocator_allocation_errors_total",
                    "Number of errors trying to allocate NodePort",
                ),
                &["scope"],
            ),
        }
    }

    /// An address of a range was found, which took so long.
    pub(super) fn given(&self, range: &Range, scope: Scope, took: Duration) {
        let cidr = range.to_string();
        self.addresses.with(&[&cidr, scope.name()]).inc();
        self.address_seconds.with(&[&cidr]).observe(took.as_secs_f64());
    }

    /// None was.
    pub(super) fn refused(&self, range: &Range, scope: Scope) {
        self.address_errors.with(&[&range.to_string(), scope.name()]).inc();
    }

    /// What became of the ports that a request asked for.
    pub(super) fn ports(&self, tally: &Tally) {
        for (scope, given, refused) in [
            (Scope::Static, tally.chosen, tally.refused_chosen),
            (Scope::Dynamic, tally.found, tally.refused_any),
        ] {
            for (counts, count) in [(&self.ports, given), (&self.port_errors, refused)] {
                if count > 0 {
                    counts.with(&[scope.name()]).add(count);
                }
            }
        }
    }
}

/// What is in use, and what is left.
pub(super) fn collect(encoder: &mut Encoder, stock: &ServiceStock) {
    let given = stock.store.snapshot(&stock.addresses.prefix);
    let given: Vec<IpAddr> = given.entries.values().filter_map(|entry| entry.name.parse().ok()).collect();
    let mut addresses = Vec::new();
    for range in stock.families.iter().flat_map(|family| stock.ranges(family)) {
        let used = given.iter().filter(|address| range.holds(**address)).count() as u64;
        // Upstream's numbers are Go's.
        let size = range.size().min(i64::MAX as u64);
        addresses.push((range.to_string(), used, size.saturating_sub(used)));
    }
    let taken = stock.store.get(&ports_key()).map(|entry| Allocation::decode(&entry.value, stock.node_ports));
    let taken = taken.and_then(Result::ok).map_or(0, |allocation| allocation.all().count() as u64);
    let cidr = ["cidr".to_owned()];
    let mut family = encoder.family(
        "kube_apiserver_clusterip_allocator_allocated_ips",
        "[ALPHA] Gauge measuring the number of allocated IPs for Services",
        "gauge",
        &cidr,
    );
    addresses.iter().for_each(|(cidr, used, _)| family.value(&[cidr.as_str()], *used as f64));
    let mut family = encoder.family(
        "kube_apiserver_clusterip_allocator_available_ips",
        "[ALPHA] Gauge measuring the number of available IPs for Services",
        "gauge",
        &cidr,
    );
    addresses.iter().for_each(|(cidr, _, free)| family.value(&[cidr.as_str()], *free as f64));
    let mut alone =
        |name, help, count: u64| encoder.family(name, help, "gauge", &[]).value::<&str>(&[], count as f64);
    alone(
        "kube_apiserver_nodeport_allocator_allocated_ports",
        "[ALPHA] Gauge measuring the number of allocated NodePorts for Services",
        taken,
    );
    alone(
        "kube_apiserver_nodeport_allocator_available_ports",
        "[ALPHA] Gauge measuring the number of available NodePorts for Services",
        stock.node_ports.size().saturating_sub(taken),
    );
}
