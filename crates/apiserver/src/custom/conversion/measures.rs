//! `apiserver_conversion_webhook_*` and `apiserver_crd_conversion_webhook_*`: how conversions by webhooks went.

use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use std::time::Duration;

const BOUNDS: [f64; 15] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];

/// What was wrong with a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Call,
    Malformed,
    Partial,
    Invalid,
}

impl Failure {
    fn name(self) -> &'static str {
        match self {
            Failure::Call => "conversion_webhook_call_failure",
            Failure::Malformed => "conversion_webhook_malformed_response_failure",
            Failure::Partial => "conversion_webhook_partial_response_failure",
            Failure::Invalid => "conversion_webhook_invalid_converted_object_failure",
        }
    }
}

/// See the module.
pub struct Measures {
    requests: CounterVec,
    durations: HistogramVec,
    of_definitions: HistogramVec,
}

impl std::fmt::Debug for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measures").finish_non_exhaustive()
    }
}

impl Measures {
    pub(crate) fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            requests: registry.counter_vec(
                alpha(
                    "apiserver_conversion_webhook_request_total",
                    "Counter for conversion webhook requests with success/failure and failure error type",
                ),
                &["result", "failure_type"],
            ),
            durations: registry.histogram_vec(
                alpha("apiserver_conversion_webhook_duration_seconds", "Conversion webhook request latency"),
                &["result", "failure_type"],
                &BOUNDS,
            ),
            of_definitions: registry.histogram_vec(
                alpha(
                    "apiserver_crd_conversion_webhook_duration_seconds",
                    "CRD webhook conversion duration in seconds",
                ),
                &["crd_name", "from_version", "to_version", "succeeded"],
                &exponential_buckets(0.001, 2.0, 15),
            ),
        }
    }

    /// Counts a conversion of a definition's objects from one version to another.
    pub(super) fn took(
        &self,
        (definition, from, to): (&str, &str, &str),
        failure: Option<Failure>,
        time: Duration,
    ) {
        let result = if failure.is_none() { "success" } else { "failure" };
        let labels = [result, failure.map_or("", Failure::name)];
        self.requests.with(&labels).inc();
        self.durations.with(&labels).observe(time.as_secs_f64());
        let succeeded = if failure.is_none() { "true" } else { "false" };
        self.of_definitions.with(&[definition, from, to, succeeded]).observe(time.as_secs_f64());
    }
}
