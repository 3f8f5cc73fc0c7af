//! Making families of one room's metrics: names, help and labels in a row.

use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
};

/// Upstream's `prometheus.DefBuckets`.
pub(super) const USUAL: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Makes alpha metrics in a registry.
pub(super) struct Families<'a>(pub &'a Registry);

fn opts<'a>(name: &'a str, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability: Stability::Alpha }
}

impl Families<'_> {
    pub(super) fn counts(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.0.counter_vec(opts(name, help), labels)
    }

    pub(super) fn count(&self, name: &str, help: &str) -> Counter {
        self.0.counter(opts(name, help))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.0.gauge_vec(opts(name, help), labels)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.0.gauge(opts(name, help))
    }

    pub(super) fn times(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        self.0.histogram_vec(opts(name, help), labels, buckets)
    }

    pub(super) fn time(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.0.histogram(opts(name, help), buckets)
    }
}
