//! Metrics of configuration files that are followed while the server runs: reloads, and the hash of what is in use.

use component::metrics::{CounterVec, GaugeVec, Opts, Registry, Stability};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// As upstream's metrics write hashes.
pub(crate) fn hash(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Seconds since the epoch.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// For one file: `apiserver_{what}_config_controller_…`.
pub struct ConfigMetrics {
    reloads: CounterVec,
    last: GaugeVec,
    applied: Arc<Mutex<String>>,
    server: String,
}

impl std::fmt::Debug for ConfigMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigMetrics").finish_non_exhaustive()
    }
}

impl ConfigMetrics {
    /// `what` is authentication or authorization, `server` tells this server from others, `text` is in use.
    pub fn new(registry: &Registry, what: &str, server: &str, text: &str) -> Self {
        let name = |rest: &str| format!("apiserver_{what}_config_controller_{rest}");
        let applied = Arc::new(Mutex::new(hash(text)));
        let server = hash(server);
        let (shown, by, info) = (applied.clone(), server.clone(), name("last_config_info"));
        let help = format!(
            "[ALPHA] Information about the last applied {what} configuration with hash as label, split by apiserver identity."
        );
        registry.collector(move |encoder| {
            let labels = ["apiserver_id_hash", "hash"].map(str::to_owned);
            let hash = shown.lock().clone();
            encoder.family(&info, &help, "gauge", &labels).value(&[&by, &hash], 1.0);
        });
        let labels = &["status", "apiserver_id_hash"];
        ConfigMetrics {
            reloads: registry.counter_vec(
                Opts {
                    name: &name("automatic_reloads_total"),
                    help: &format!(
                        "Total number of automatic reloads of {what} configuration split by status and apiserver identity."
                    ),
                    stability: Stability::Beta,
                },
                labels,
            ),
            last: registry.gauge_vec(
                Opts {
                    name: &name("automatic_reload_last_timestamp_seconds"),
                    help: &format!(
                        "Timestamp of the last automatic reload of {what} configuration split by status and apiserver identity."
                    ),
                    stability: Stability::Beta,
                },
                labels,
            ),
            applied,
            server,
        }
    }

    /// Notes that a new text is in use.
    pub fn succeeded(&self, text: &str) {
        self.note("success");
        *self.applied.lock() = hash(text);
    }

    pub fn failed(&self) {
        self.note("failure");
    }

    fn note(&self, status: &str) {
        self.reloads.with(&[status, &self.server]).inc();
        self.last.with(&[status, &self.server]).set(now());
    }
}
