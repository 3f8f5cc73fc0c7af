//! `apiserver_admission_webhook_*`: how long each webhook took, what it answered, and what came of it when it did not.

use super::Phase;
use crate::admission::Operation;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability};
use std::time::Duration;

const BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// Codes beyond are told as this one.
const LAST_CODE: i32 = 600;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    /// The webhook refused, with a code.
    Denied(i32),
    /// It could not be asked, which mattered, or did not.
    Failed,
    FailedOpen,
    /// It was not asked: something is wrong here.
    Broken,
}

/// See the module.
pub(super) struct Measures {
    phase: Phase,
    durations: HistogramVec,
    rejections: CounterVec,
    requests: CounterVec,
    fail_open: CounterVec,
}

impl Measures {
    pub(super) fn new(phase: Phase, registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            phase,
            durations: registry.histogram_vec(
                Opts {
                    name: "apiserver_admission_webhook_admission_duration_seconds",
                    help: "Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                    stability: Stability::Stable,
                },
                &["name", "type", "operation", "rejected"],
                &BOUNDS,
            ),
            rejections: registry.counter_vec(
                alpha(
                    "apiserver_admission_webhook_rejection_count",
                    "Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                ),
                &["name", "type", "operation", "error_type", "rejection_code"],
            ),
            requests: registry.counter_vec(
                alpha(
                    "apiserver_admission_webhook_request_total",
                    "Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                ),
                &["name", "type", "operation", "code", "rejected"],
            ),
            fail_open: registry.counter_vec(
                alpha(
                    "apiserver_admission_webhook_fail_open_count",
                    "Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
                ),
                &["name", "type"],
            ),
        }
    }

    /// Counts a call.
    pub(super) fn took(&self, name: &str, operation: Operation, outcome: Outcome, time: Duration) {
        let phase = match self.phase {
            Phase::Mutating => "admit",
            Phase::Validating => "validating",
        };
        let (error, code) = match outcome {
            Outcome::Allowed => (None, 200),
            Outcome::Denied(code) => (Some("no_error"), code.min(LAST_CODE)),
            Outcome::Failed => (Some("calling_webhook_error"), 500),
            Outcome::FailedOpen => (None, 500),
            Outcome::Broken => (Some("apiserver_internal_error"), 0),
        };
        let (operation, code) = (operation.name(), code.to_string());
        let rejected = if error.is_some() { "true" } else { "false" };
        if let Some(error) = error {
            self.rejections.with(&[name, phase, operation, error, &code]).inc();
        }
        if outcome == Outcome::FailedOpen {
            self.fail_open.with(&[name, phase]).inc();
        }
        self.requests.with(&[name, phase, operation, &code, rejected]).inc();
        self.durations.with(&[name, phase, operation, rejected]).observe(time.as_secs_f64());
    }
}
