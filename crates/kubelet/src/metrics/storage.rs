//! How long what is done for volumes takes. Upstream: `pkg/volume/util/metrics.go`.

use super::families::Families;
use component::metrics::{HistogramVec, Registry};
use std::time::Instant;

const BUCKETS: [f64; 13] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct StorageOperations(HistogramVec);

impl StorageOperations {
    pub(crate) fn new(registry: &Registry) -> Self {
        let labels = ["volume_plugin", "operation_name", "status", "migrated"];
        let name = "storage_operation_duration_seconds";
        StorageOperations(Families(registry).times(name, "Storage operation duration", &labels, &BUCKETS))
    }

    /// An operation of a plugin ended, well or not.
    pub(crate) fn done(&self, plugin: &str, operation: &str, began: Instant, well: bool) {
        let status = if well { "success" } else { "fail-unknown" };
        self.0.with(&[plugin, operation, status, "false"]).observe_since(began);
    }
}
