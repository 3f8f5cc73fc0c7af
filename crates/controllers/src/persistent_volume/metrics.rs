//! What the binder counts: volumes and claims as they are, and how long making and deleting took.

use super::view::View;
use client::{Cached, Change, Projection};
use component::metrics::{Counter, CounterVec, GaugeVec, HistogramVec, Opts, Registry, Stability};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

const BUCKETS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

/// An operation that began: who does it, what it is, and when.
struct Begun {
    plugin: String,
    operation: &'static str,
    at: Instant,
}

pub(super) struct Metrics {
    errors: CounterVec,
    errors_by_old_name: CounterVec,
    took: HistogramVec,
    operations: HistogramVec,
    classified: Counter,
    not_classified: Counter,
    /// By the claim that waits for a volume, or the volume that is to go.
    begun: Mutex<HashMap<String, Begun>>,
}

impl Metrics {
    pub(super) fn new(registry: &Registry, view: &View) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        let labels = &["plugin_name", "operation_name"];
        count(registry, view);
        Metrics {
            errors: registry
                .counter_vec(opts("volume_operation_errors_total", "Total volume operation errors"), labels),
            errors_by_old_name: registry.counter_vec(
                opts(
                    "volume_operation_total_errors",
                    "(Deprecated since 1.36.0) Total volume operation errors",
                ),
                labels,
            ),
            took: registry.histogram_vec(
                opts("volume_operation_total_seconds", "Storage operation end to end duration in seconds"),
                labels,
                &BUCKETS,
            ),
            operations: registry.histogram_vec(
                opts("storage_operation_duration_seconds", "Storage operation duration"),
                &["volume_plugin", "operation_name", "status", "migrated"],
                &BUCKETS,
            ),
            classified: registry.counter(opts(
                "retroactive_storageclass_total",
                "Total number of retroactive StorageClass assignments to persistent volume claim",
            )),
            not_classified: registry.counter(opts(
                "retroactive_storageclass_errors_total",
                "Total number of failed retroactive StorageClass assignments to persistent volume claim",
            )),
            begun: Mutex::default(),
        }
    }

    /// A claim got the default class, or could not be given it.
    pub(super) fn classified(&self, succeeded: bool) {
        self.classified.inc();
        if !succeeded {
            self.not_classified.inc();
        }
    }

    /// An operation begins, unless it has begun.
    pub(super) fn begin(&self, about: &str, plugin: &str, operation: &'static str) {
        let begun = || Begun { plugin: plugin.into(), operation, at: Instant::now() };
        self.begun.lock().entry(about.into()).or_insert_with(begun);
    }

    /// An operation ended, or failed and goes on.
    pub(super) fn done(&self, about: &str, result: Result<(), ()>) {
        let mut all = self.begun.lock();
        let Some(begun) = all.get(about) else { return };
        let labels = [begun.plugin.as_str(), begun.operation];
        if result.is_err() {
            self.errors.with(&labels).inc();
            self.errors_by_old_name.with(&labels).inc();
            return;
        }
        self.took.with(&labels).observe_since(begun.at);
        all.remove(about);
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&self, about: &str) {
        self.begun.lock().remove(about);
    }

    /// One call of a plugin.
    pub(super) fn operation(&self, plugin: &str, operation: &str, succeeded: bool, begun: Instant) {
        let status = if succeeded { "success" } else { "fail-unknown" };
        self.operations.with(&[plugin, operation, status, "false"]).observe_since(begun);
    }
}

/// How many there are of a sort, by labels.
#[derive(Clone)]
struct Count(GaugeVec);

impl Count {
    fn new(registry: &Registry, name: &'static str, help: &'static str, labels: &[&str]) -> Self {
        let counts = registry.gauge_vec(Opts { name, help, stability: Stability::Alpha }, labels);
        // Whoever counted before in this process, counted in a term that is over.
        counts.reset();
        Count(counts)
    }

    fn add(&self, labels: &[&str], by: f64) {
        let count = self.0.with(labels);
        count.add(by);
        if count.get() == 0.0 {
            self.0.remove(labels);
        }
    }
}

/// Calls with 1 for what an object is now, and with -1 for what it was.
fn counted<P: Projection>(change: &Change<P>, count: impl Fn(&Cached<P>, f64)) {
    if let Some(old) = change.old() {
        count(old, -1.0);
    }
    match change {
        Change::Deleted(object) => count(object, -1.0),
        _ => count(change.object(), 1.0),
    }
}

/// Counts volumes and claims, as they come, change and go.
fn count(registry: &Registry, view: &View) {
    let class = &["storage_class"];
    let labels = &["plugin_name", "volume_mode"];
    let help = "Gauge measuring total number of persistent volumes";
    let total = Count::new(registry, "pv_collector_total_pv_count", help, labels);
    let help = "Gauge measuring number of persistent volume currently bound";
    let bound = Count::new(registry, "pv_collector_bound_pv_count", help, class);
    let help = "Gauge measuring number of persistent volume currently unbound";
    let unbound = Count::new(registry, "pv_collector_unbound_pv_count", help, class);
    view.volumes.subscribe(move |change| {
        counted(change, |volume, by| {
            let facts = &volume.facts;
            total.add(&[volume.plugin, if facts.block { "Block" } else { "Filesystem" }], by);
            let by_phase = if facts.phase == "Bound" { &bound } else { &unbound };
            by_phase.add(&[&facts.class], by);
        });
    });
    let labels = &["namespace", "storage_class", "volume_attributes_class"];
    let help = "Gauge measuring number of persistent volume claim currently bound";
    let bound = Count::new(registry, "pv_collector_bound_pvc_count", help, labels);
    let help = "Gauge measuring number of persistent volume claim currently unbound";
    let unbound = Count::new(registry, "pv_collector_unbound_pvc_count", help, labels);
    view.claims.subscribe(move |change| {
        counted(change, |claim, by| {
            let facts = &claim.0;
            let by_phase = if facts.phase == "Bound" { &bound } else { &unbound };
            by_phase.add(&[&facts.namespace, facts.class(), &facts.attributes_class], by);
        });
    });
}
