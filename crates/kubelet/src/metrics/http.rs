//! What is counted of the kubelet's own server.

use super::families::{Families, USUAL};
use component::metrics::{CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Registry};
use http::Method;
use std::time::Instant;

/// The first parts of paths that are counted by name.
const PATHS: [&str; 15] = [
    "healthz",
    "pods",
    "stats",
    "metrics",
    "run",
    "exec",
    "attach",
    "portForward",
    "containerLogs",
    "configz",
    "runningpods",
    "checkpoint",
    "pprof",
    "logs",
    "debug",
];
/// As upstream has them, who forgets that `portForward` is written otherwise.
const LONG_RUNNING: [&str; 4] = ["exec", "attach", "portforward", "debug"];
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    requests: CounterVec,
    durations: HistogramVec,
    inflight: GaugeVec,
    /// Streams over WebSocket, by subresource.
    pub web_sockets: CounterVec,
}

/// A request that is being answered, until this is dropped.
pub(crate) struct Answering {
    began: Instant,
    duration: Histogram,
    inflight: Gauge,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.inflight.dec();
        self.duration.observe_since(self.began);
    }
}

impl Http {
    pub(super) fn new(registry: &Registry) -> Self {
        let of = Families(registry);
        let labels = ["method", "path", "server_type", "long_running"];
        Http {
            requests: of.counts(
                "kubelet_http_requests_total",
                "Number of the http requests received since the server started",
                &labels,
            ),
            durations: of.times(
                "kubelet_http_requests_duration_seconds",
                "Duration in seconds to serve http requests",
                &labels,
                &USUAL,
            ),
            inflight: of.gauges(
                "kubelet_http_inflight_requests",
                "Number of the inflight http requests",
                &labels,
            ),
            web_sockets: of.counts(
                "kubelet_websocket_streaming_requests_total",
                "Total number of WebSocket streaming requests (exec/attach/portforward) received by the kubelet.",
                &["subresource"],
            ),
        }
    }

    /// Counts a request, whoever sent it.
    pub(crate) fn answering(&self, method: &Method, path: &str) -> Answering {
        let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let path = if PATHS.contains(&root) { root } else { "other" };
        let method = if METHODS.contains(&method.as_str()) { method.as_str() } else { "other" };
        let long = if LONG_RUNNING.contains(&path) { "true" } else { "false" };
        let labels = [method, path, "readwrite", long];
        self.requests.with(&labels).inc();
        let inflight = self.inflight.with(&labels);
        inflight.inc();
        Answering { began: Instant::now(), duration: self.durations.with(&labels), inflight }
    }
}
