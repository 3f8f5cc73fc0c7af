//! What there is in the store, read off when somebody asks: objects, bytes, events (`apiserver_storage_*`,
//! `apiserver_watch_cache_*` and their kin). What it is asked for is counted in [`super::measures`].

use super::measures::Families;
use crate::resources::Resources;
use component::metrics::{Encoder, Registry};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use store::{BucketStats, Stats, Store};

/// Adds them to a registry.
pub fn register(registry: &Registry, store: &Arc<dyn Store>, resources: &Arc<Resources>) {
    resources.measure(Arc::new(Families::new(registry)));
    let (store, resources) = (store.clone(), resources.clone());
    registry.collector(move |encoder| {
        let stats = store.stats();
        collect(encoder, &stats, &resources);
    });
}

/// A metric of resources: name, kind, help, and what its value is; a bucket that nobody has touched is none yet.
type Row = (&'static str, &'static str, &'static str, fn(Option<&BucketStats>, &Stats) -> f64);

const ROWS: &[Row] = &[
    (
        "apiserver_resource_objects",
        "gauge",
        "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
        |bucket, _| bucket.map_or(0, |b| b.keys) as f64,
    ),
    (
        "apiserver_resource_size_estimate_bytes",
        "gauge",
        "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
        |bucket, _| bucket.map_or(0, |b| b.bytes) as f64,
    ),
    (
        "apiserver_storage_events_received_total",
        "counter",
        "[BETA] Number of etcd events received split by kind.",
        |bucket, _| bucket.map_or(0, |b| b.received) as f64,
    ),
    (
        "apiserver_watch_cache_events_received_total",
        "counter",
        "[ALPHA] Counter of events received in watch cache broken by resource type.",
        |bucket, _| bucket.map_or(0, |b| b.received) as f64,
    ),
    (
        "apiserver_watch_cache_events_dispatched_total",
        "counter",
        "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
        |bucket, _| bucket.map_or(0, |b| b.received) as f64,
    ),
    (
        "apiserver_watch_cache_initializations_total",
        "counter",
        "[ALPHA] Counter of watch cache initializations broken by resource type.",
        |bucket, _| bucket.map_or(1, |b| b.readings) as f64,
    ),
    (
        "apiserver_watch_cache_resource_version",
        "gauge",
        "[ALPHA] Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.",
        |_, stats| (stats.revision.0 % 1_000_000_000_000_000) as f64,
    ),
    (
        "watch_cache_capacity",
        "gauge",
        "[ALPHA] Total capacity of watch cache broken by resource type.",
        |bucket, stats| bucket.or(stats.buckets.first()).map_or(0, |b| b.capacity) as f64,
    ),
];

fn collect(encoder: &mut Encoder, stats: &Stats, resources: &Resources) {
    let buckets: HashMap<&str, &BucketStats> = stats.buckets.iter().map(|b| (&*b.prefix, b)).collect();
    // A resource is counted once, whatever the versions and groups it is served in: in the first of them, where it is stored.
    let all: BTreeMap<(String, String), Arc<str>> = resources
        .all()
        .iter()
        .filter(|served| !served.prefix.is_empty())
        .map(|served| {
            ((served.row.group.to_string(), served.row.resource.to_string()), served.prefix.clone())
        })
        .collect();
    let mut counted = HashSet::new();
    let all: Vec<_> = all.iter().filter(|(_, prefix)| counted.insert((*prefix).clone())).collect();
    let help = "[STABLE] (Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
    let mut family = encoder.family("apiserver_storage_objects", help, "gauge", &["resource".to_owned()]);
    for ((group, resource), prefix) in &all {
        let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
        family.value(&[name], buckets.get(&***prefix).map_or(0, |b| b.keys) as f64);
    }
    let labels = ["group".to_owned(), "resource".to_owned()];
    for (name, kind, help, value) in ROWS {
        let mut family = encoder.family(name, help, kind, &labels);
        for ((group, resource), prefix) in &all {
            family.value(&[group, resource], value(buckets.get(&***prefix).copied(), stats));
        }
    }
    let help = "[STABLE] Size of the storage database file physically allocated in bytes.";
    let label = ["storage_cluster_id".to_owned()];
    encoder
        .family("apiserver_storage_size_bytes", help, "gauge", &label)
        .value(&["etcd-0"], stats.file_bytes as f64);
}
