//! What is counted of volumes: how long was taken for each, and how many there are by their plugins, of those that are
//! wanted and of those that are there. Upstream: `pkg/volume/util/metrics.go`, `volumemanager/metrics`.

use crate::metrics::StorageOperations;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

#[derive(Debug, Clone, Copy)]
struct Known {
    plugin: &'static str,
    mounted: bool,
}

/// Of all pods.
pub(crate) struct Measures {
    operations: StorageOperations,
    /// By pod uid and volume.
    known: Mutex<HashMap<(String, String), Known>>,
}

impl Measures {
    pub(super) fn new(operations: StorageOperations) -> Self {
        Measures { operations, known: Mutex::default() }
    }

    /// Something was done for a volume, or failed.
    pub(super) fn done(&self, plugin: &str, operation: &str, began: Instant, well: bool) {
        self.operations.done(plugin, operation, began, well);
    }

    /// A volume was tried to set up.
    pub(super) fn tried(&self, uid: &str, volume: &str, plugin: &'static str, began: Instant, well: bool) {
        self.done(plugin, "volume_mount", began, well);
        let mut known = self.known.lock();
        let entry = known.entry((uid.to_owned(), volume.to_owned()));
        let known = entry.or_insert(Known { plugin, mounted: false });
        known.plugin = plugin;
        known.mounted |= well;
    }

    /// Whether a volume was set up before.
    pub(super) fn has(&self, uid: &str, volume: &str) -> bool {
        let known = self.known.lock();
        known.get(&(uid.to_owned(), volume.to_owned())).is_some_and(|known| known.mounted)
    }

    /// The volumes of a pod were taken down, or could not be.
    pub(super) fn ended(&self, uid: &str, began: Instant, well: bool) {
        let mut known = self.known.lock();
        for ((pod, _), known) in known.iter().filter(|(_, known)| known.mounted) {
            if pod == uid {
                self.done(known.plugin, "volume_unmount", began, well);
            }
        }
        if well {
            known.retain(|(pod, _), _| pod != uid);
        }
    }

    /// How many there are: by plugin and upstream's words for the two.
    pub(crate) fn counts(&self) -> BTreeMap<(&'static str, &'static str), usize> {
        let mut counts = BTreeMap::new();
        for known in self.known.lock().values() {
            let mut count = |state| *counts.entry((known.plugin, state)).or_default() += 1;
            count("desired_state_of_world");
            if known.mounted {
                count("actual_state_of_world");
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component::metrics::Registry;

    #[test]
    fn what_is_wanted_and_what_is_there() {
        let registry = Registry::new();
        let measures = Measures::new(StorageOperations::new(&registry));
        let began = Instant::now();
        measures.tried("p", "a", "kubernetes.io/secret", began, false);
        measures.tried("p", "b", "kubernetes.io/empty-dir", began, true);
        // Its content is made current.
        measures.tried("p", "b", "kubernetes.io/empty-dir", began, false);
        let count = |plugin, state| measures.counts().get(&(plugin, state)).copied();
        assert_eq!(count("kubernetes.io/secret", "desired_state_of_world"), Some(1));
        assert_eq!(count("kubernetes.io/secret", "actual_state_of_world"), None);
        assert_eq!(count("kubernetes.io/empty-dir", "actual_state_of_world"), Some(1));
        measures.ended("p", began, false);
        assert_eq!(measures.counts().len(), 3);
        measures.ended("p", began, true);
        assert!(measures.counts().is_empty());
        let text = registry.render();
        let line = |operation: &str, status: &str| {
            format!(
                "storage_operation_duration_seconds_count{{migrated=\"false\",operation_name=\"{operation}\",status=\"{status}\",volume_plugin=\"kubernetes.io/empty-dir\"}} 1"
            )
        };
        for (operation, status) in [
            ("volume_mount", "success"),
            ("volume_mount", "fail-unknown"),
            ("volume_unmount", "success"),
            ("volume_unmount", "fail-unknown"),
        ] {
            let wanted = line(operation, status);
            assert!(text.lines().any(|known| known == wanted), "{wanted}: {text}");
        }
    }
}
