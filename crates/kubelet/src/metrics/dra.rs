//! What is counted of claims and their drivers.

use super::families::Families;
use component::metrics::{HistogramVec, Registry};
use std::time::Instant;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Dra {
    operations: HistogramVec,
    calls: HistogramVec,
}

/// Fifteen bounds from 0.1 to 40, as far apart by factor. Upstream: `ExponentialBucketsRange(.1, 40, 15)`.
fn bounds() -> Vec<f64> {
    let growth = (40.0f64 / 0.1).powf(1.0 / 14.0);
    (0..15).map(|at| 0.1 * growth.powi(at)).collect()
}

impl Dra {
    pub(super) fn new(registry: &Registry) -> Self {
        let of = Families(registry);
        Dra {
            operations: of.times(
                "dra_operations_duration_seconds",
                "Latency histogram in seconds for the duration of handling all ResourceClaims referenced by a pod when the pod starts or stops. Identified by the name of the operation (PrepareResources or UnprepareResources) and separated by the success of the operation. The number of failed operations is provided through the histogram's overall count.",
                &["operation_name", "is_error"],
                &bounds(),
            ),
            calls: of.times(
                "dra_grpc_operations_duration_seconds",
                "Duration in seconds of the DRA gRPC operations",
                &["driver_name", "method_name", "grpc_status_code"],
                &bounds(),
            ),
        }
    }

    /// All claims of a pod were prepared or unprepared, or not.
    pub(crate) fn done<T, E>(&self, operation: &str, began: Instant, outcome: &Result<T, E>) {
        let failed = if outcome.is_err() { "true" } else { "false" };
        self.operations.with(&[operation, failed]).observe_since(began);
    }

    /// A driver has answered.
    pub(crate) fn called<T>(
        &self,
        driver: &str,
        method: &str,
        began: Instant,
        answer: &Result<T, tonic::Status>,
    ) {
        let code = answer.as_ref().err().map_or(tonic::Code::Ok, tonic::Status::code);
        let code = if code == tonic::Code::Ok { "OK".to_owned() } else { format!("{code:?}") };
        self.calls.with(&[driver, method, &code]).observe_since(began);
    }
}
