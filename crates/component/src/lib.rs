//! What every component shares: feature gates, health, metrics registry, logging set-up, shutdown, the words of connections that fail.

/// Addresses and failed connections in Go's words.
pub mod dial;
/// Feature gates: rows in, `--feature-gates` read, questions answered.
pub mod gates;
/// Named checks behind /healthz, /livez and /readyz.
pub mod health;
/// Logs to stderr, in klog's format or JSON.
pub mod logs;
/// Counters, gauges and histograms, and their text format.
pub mod metrics;
/// The process's own metrics.
pub mod process;
/// The token that SIGTERM cancels.
pub mod shutdown;
