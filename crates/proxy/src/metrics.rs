//! What the proxy counts, under upstream's names.

use crate::plan::{Entry, Family, Plan, PoolName, Refusal};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Timestamp;
use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, HistogramVec, Opts, Registry, Stability, exponential_buckets,
    linear_buckets,
};
use std::collections::HashSet;
use std::time::Duration;

/// The proxy's metrics, registered once.
#[derive(Clone)]
pub struct Metrics {
    families: &'static [(Family, &'static str)],
    sync_duration: HistogramVec,
    last_queued: GaugeVec,
    last_synced: GaugeVec,
    programming: HistogramVec,
    failures: CounterVec,
    no_local_endpoints: GaugeVec,
    deleted_flows: CounterVec,
    pub endpoint_changes: Counter,
    pub service_changes: Counter,
    pub endpoint_changes_pending: Gauge,
    pub service_changes_pending: Gauge,
    pub healthz: CounterVec,
    pub livez: CounterVec,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];

/// What upstream calls the families a node has.
pub fn families(ipv6: bool) -> &'static [(Family, &'static str)] {
    if ipv6 { &FAMILIES } else { &FAMILIES[..1] }
}

impl Metrics {
    pub fn new(registry: &Registry, ipv6: bool) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        let programming: Vec<f64> = [
            linear_buckets(0.25, 0.25, 2),
            linear_buckets(1.0, 1.0, 59),
            linear_buckets(60.0, 5.0, 12),
            linear_buckets(120.0, 30.0, 7),
        ]
        .concat();
        Metrics {
            families: families(ipv6),
            sync_duration: registry.histogram_vec(
                opts("kubeproxy_sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds"),
                &["ip_family"],
                &exponential_buckets(0.001, 2.0, 15),
            ),
            last_queued: registry.gauge_vec(
                opts(
                    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                    "The last time a sync of proxy rules was queued",
                ),
                &["ip_family"],
            ),
            last_synced: registry.gauge_vec(
                opts(
                    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                    "The last time proxy rules were successfully synced",
                ),
                &["ip_family"],
            ),
            programming: registry.histogram_vec(
                opts(
                    "kubeproxy_network_programming_duration_seconds",
                    "In Cluster Network Programming Latency in seconds",
                ),
                &["ip_family"],
                &programming,
            ),
            failures: registry.counter_vec(
                opts(
                    "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                    "Cumulative proxy nftables sync failures",
                ),
                &["ip_family"],
            ),
            no_local_endpoints: registry.gauge_vec(
                opts(
                    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
                    "Number of services with a Local traffic policy and no endpoints",
                ),
                &["traffic_policy", "ip_family"],
            ),
            deleted_flows: registry.counter_vec(
                opts(
                    "kubeproxy_conntrack_reconciler_deleted_entries_total",
                    "Cumulative conntrack flows deleted by conntrack reconciler",
                ),
                &["ip_family"],
            ),
            endpoint_changes: registry.counter(opts(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
            )),
            service_changes: registry.counter(opts(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
            )),
            endpoint_changes_pending: registry.gauge(opts(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
            )),
            service_changes_pending: registry.gauge(opts(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
            )),
            healthz: registry.counter_vec(
                opts("kubeproxy_proxy_healthz_total", "Cumulative proxy healthz HTTP status"),
                &["code"],
            ),
            livez: registry.counter_vec(
                opts("kubeproxy_proxy_livez_total", "Cumulative proxy livez HTTP status"),
                &["code"],
            ),
        }
    }

    pub fn queued(&self) {
        let now = seconds(now());
        self.families.iter().for_each(|(_, family)| self.last_queued.with(&[family]).set(now));
    }

    /// A write that succeeded, with the times at which the changes it holds were made.
    pub fn synced(&self, took: Duration, triggers: &[(Family, Timestamp)]) {
        let now = now();
        for (_, family) in self.families {
            self.sync_duration.with(&[family]).observe(took.as_secs_f64());
            self.last_synced.with(&[family]).set(seconds(now));
        }
        for (family, trigger) in triggers {
            self.programming.with(&[name(*family)]).observe(now.duration_since(*trigger).as_secs_f64());
        }
    }

    pub fn failed(&self) {
        self.families.iter().for_each(|(_, family)| self.failures.with(&[family]).inc());
    }

    pub fn deleted_flow(&self, family: Family) {
        self.deleted_flows.with(&[name(family)]).inc();
    }

    /// Counts a plan in the place of another among those whose traffic policy finds no endpoint here.
    pub fn replaced(&self, old: &Plan, new: &Plan) {
        for (family, label) in self.families {
            let (before, after) = (lacking(old, *family), lacking(new, *family));
            for (policy, before, after) in [("internal", before.0, after.0), ("external", before.1, after.1)]
            {
                let gauge = self.no_local_endpoints.with(&[policy, label]);
                if before != after {
                    gauge.add(after as f64 - before as f64);
                }
            }
        }
    }
}

/// How many ports drop traffic for want of a local endpoint, from inside and from outside.
fn lacking(plan: &Plan, family: Family) -> (usize, usize) {
    let dropped = plan
        .frontends
        .iter()
        .filter(|(frontend, route)| frontend.family == family && route.refusal == Some(Refusal::Drop));
    let (inside, outside): (Vec<_>, Vec<_>) =
        dropped.map(|(_, route)| route).partition(|route| route.entry == Entry::Internal);
    // A port may be reached at several addresses from outside.
    let ports: HashSet<Option<&PoolName>> = outside.iter().map(|r| r.short_circuit.as_ref()).collect();
    (inside.len(), ports.len())
}

fn name(family: Family) -> &'static str {
    if family == Family::V4 { "IPv4" } else { "IPv6" }
}

fn now() -> Timestamp {
    SystemClock::default().now()
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}
