//! Upstream's metrics of external signers.

use super::Failure;
use crate::grpc;
use component::metrics::{CounterVec, GaugeVec, HistogramVec, Opts, Registry, Stability};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tonic::Code;

#[derive(Clone)]
pub(super) struct Measures {
    fetched_at: GaugeVec,
    data_stamp: GaugeVec,
    fetches: CounterVec,
    signatures: CounterVec,
    durations: HistogramVec,
}

/// A call under way. One that whoever waits for it gives up, as its time is over, counts as such.
pub(super) struct Begun {
    durations: HistogramVec,
    method: String,
    at: Instant,
    code: Code,
}

/// A token that is being signed, which counts likewise.
pub(super) struct Signing {
    signatures: CounterVec,
    code: &'static str,
}

impl Signing {
    pub(super) fn end(mut self, failure: Option<&Failure>) {
        self.code = code(failure);
    }
}

impl Drop for Signing {
    fn drop(&mut self) {
        self.signatures.with(&[self.code]).inc();
    }
}

impl Begun {
    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.durations.with(&[&self.method, grpc::name(self.code)]).observe_since(self.at);
    }
}

/// The code that a failure is counted under; what failed outside of a call has none.
fn code(failure: Option<&Failure>) -> &'static str {
    failure.map_or("OK", |failure| failure.code.map_or("unknown-non-grpc", grpc::name))
}

impl Measures {
    pub(super) fn new(registry: &Registry) -> Self {
        let full = |name: &str| format!("apiserver_externaljwt_{name}");
        let gauge = |name: &str, help: &str| {
            let opts = Opts { name: &full(name), help, stability: Stability::Alpha };
            registry.gauge_vec(opts, &[])
        };
        let counter = |name: &str, help: &str| {
            let opts = Opts { name: &full(name), help, stability: Stability::Alpha };
            registry.counter_vec(opts, &["code"])
        };
        Measures {
            fetched_at: gauge(
                "fetch_keys_success_timestamp",
                "Unix Timestamp in seconds of the last successful FetchKeys request",
            ),
            data_stamp: gauge(
                "fetch_keys_data_timestamp",
                "Unix Timestamp in seconds of the last successful FetchKeys data_timestamp value returned by the external signer",
            ),
            fetches: counter("fetch_keys_request_total", "Total attempts at syncing supported JWKs"),
            signatures: counter("sign_request_total", "Total attempts at signing JWT"),
            durations: registry.histogram_vec(
                Opts {
                    name: &full("request_duration_seconds"),
                    help: "Request duration and time for calls to external-jwt-signer",
                    stability: Stability::Alpha,
                },
                &["method", "code"],
                &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0],
            ),
        }
    }

    pub(super) fn begin(&self, method: &str) -> Begun {
        Begun {
            durations: self.durations.clone(),
            method: format!("/v1.ExternalJWTSigner/{method}"),
            at: Instant::now(),
            code: Code::DeadlineExceeded,
        }
    }

    /// Keys were fetched, whose data is from a moment, in seconds; or were not.
    pub(super) fn fetched(&self, stamp: Result<f64, &Failure>) {
        self.fetches.with(&[code(stamp.err())]).inc();
        if let Ok(stamp) = stamp {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.fetched_at.with(&[]).set(now.as_secs_f64());
            self.data_stamp.with(&[]).set(stamp);
        }
    }

    pub(super) fn sign(&self) -> Signing {
        Signing { signatures: self.signatures.clone(), code: grpc::name(Code::DeadlineExceeded) }
    }
}
