//! Upstream's metrics of JWT authenticators.

use component::metrics::{GaugeVec, HistogramVec, Opts, Registry, Stability};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Issuer and server, hashed.
type Key = (String, String);

/// For all authenticators of a server.
#[derive(Clone)]
pub struct OidcMetrics {
    latency: HistogramVec,
    fetched: GaugeVec,
    key_sets: Arc<Mutex<BTreeMap<Key, String>>>,
    server: String,
}

impl std::fmt::Debug for OidcMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OidcMetrics").finish_non_exhaustive()
    }
}

impl OidcMetrics {
    /// `server` tells this server from others.
    pub fn new(registry: &Registry, server: &str) -> Self {
        let name = |what: &str| format!("apiserver_authentication_jwt_authenticator_{what}");
        let key_sets: Arc<Mutex<BTreeMap<Key, String>>> = Arc::default();
        let shown = key_sets.clone();
        let info = name("jwks_fetch_last_key_set_info");
        registry.collector(move |encoder| {
            let shown = shown.lock();
            if shown.is_empty() {
                return;
            }
            let labels = ["jwt_issuer_hash", "apiserver_id_hash", "hash"].map(str::to_owned);
            let mut family = encoder.family(
                &info,
                "[ALPHA] Information about the last JWKS fetched by the JWT authenticator with hash as label, split by api server identity and jwt issuer.",
                "gauge",
                &labels,
            );
            for ((issuer, server), hash) in shown.iter() {
                family.value(&[issuer, server, hash], 1.0);
            }
        });
        let buckets = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        OidcMetrics {
            latency: registry.histogram_vec(
                Opts {
                    name: &name("latency_seconds"),
                    help: "Latency of jwt authentication operations in seconds. This is the time spent authenticating a token for cache miss only (i.e. when the token is not found in the cache).",
                    stability: Stability::Alpha,
                },
                &["result", "jwt_issuer_hash"],
                &buckets,
            ),
            fetched: registry.gauge_vec(
                Opts {
                    name: &name("jwks_fetch_last_timestamp_seconds"),
                    help: "Timestamp of the last successful or failed JWKS fetch split by result, api server identity and jwt issuer for the JWT authenticator.",
                    stability: Stability::Alpha,
                },
                &["result", "jwt_issuer_hash", "apiserver_id_hash"],
            ),
            key_sets,
            server: crate::config_metrics::hash(server),
        }
    }

    pub(super) fn authenticated(&self, issuer: &str, success: bool, took: Duration) {
        let result = if success { "success" } else { "failure" };
        self.latency.with(&[result, &crate::config_metrics::hash(issuer)]).observe(took.as_secs_f64());
    }

    pub(super) fn of_issuer(&self, issuer: &str) -> JwksMetrics {
        JwksMetrics { all: self.clone(), issuer: crate::config_metrics::hash(issuer) }
    }

    /// Forgets an issuer that is no longer configured.
    pub(super) fn forget(&self, issuer: &str) {
        let issuer = crate::config_metrics::hash(issuer);
        for result in ["success", "failure"] {
            self.fetched.remove(&[result, &issuer, &self.server]);
        }
        self.key_sets.lock().remove(&(issuer, self.server.clone()));
    }
}

/// For the keys of one issuer.
pub(super) struct JwksMetrics {
    all: OidcMetrics,
    issuer: String,
}

impl JwksMetrics {
    /// Notes a fetch, and what it brought if it did.
    pub(super) fn fetched(&self, keys: Option<&str>) {
        let result = if keys.is_some() { "success" } else { "failure" };
        let now = crate::config_metrics::now();
        self.all.fetched.with(&[result, &self.issuer, &self.all.server]).set(now);
        if let Some(keys) = keys {
            let key = (self.issuer.clone(), self.all.server.clone());
            self.all.key_sets.lock().insert(key, crate::config_metrics::hash(keys));
        }
    }
}
