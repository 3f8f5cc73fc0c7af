//! `apiserver_storage_objects` and `apiserver_resource_objects`: how many objects there are, read off when somebody asks.

use crate::resources::Resources;
use component::metrics::Registry;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Store;

/// Adds them to a registry.
pub fn register(registry: &Registry, store: &Arc<dyn Store>, resources: &Arc<Resources>) {
    let (store, resources) = (store.clone(), resources.clone());
    registry.collector(move |encoder| {
        // A resource is counted once, whatever the versions it is served in.
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for served in resources.all() {
            if !served.prefix.is_empty() {
                let key = (served.row.group.to_string(), served.row.resource.to_string());
                counts.entry(key).or_insert_with(|| store.snapshot(&served.prefix).entries.len());
            }
        }
        let help = "[STABLE] (Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
        let mut family = encoder.family("apiserver_storage_objects", help, "gauge", &["resource".to_owned()]);
        for ((group, resource), count) in &counts {
            let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            family.value(&[name], *count as f64);
        }
        let help = "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.";
        let labels = ["group".to_owned(), "resource".to_owned()];
        let mut family = encoder.family("apiserver_resource_objects", help, "gauge", &labels);
        for ((group, resource), count) in &counts {
            family.value(&[group, resource], *count as f64);
        }
    });
}
