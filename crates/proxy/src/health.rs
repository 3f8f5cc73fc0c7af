//! What others may ask: `/healthz` and `/livez` of the proxy, and the health check port of each Service whose load
//! balancer must know which nodes have endpoints.

use crate::http::{self, Answer, JSON, TEXT, answer, not_found, with_header};
use crate::metrics::{Metrics, families};
use crate::plan::HealthCheck;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Time;
use client::ObjectKey;
use component::metrics::Registry;
use hyper::StatusCode;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A change that the kernel does not have after this long makes the proxy unhealthy (upstream: two sync periods).
const LATE: Duration = Duration::from_secs(60);

/// The proxy's own health.
#[derive(Debug)]
pub(crate) struct Health {
    pending_since: Mutex<Option<Instant>>,
    last_updated: Mutex<Time>,
    eligible: AtomicBool,
    ipv6: bool,
    metrics: Metrics,
}

impl Health {
    pub(crate) fn new(ipv6: bool, metrics: Metrics) -> Self {
        Health {
            pending_since: Mutex::new(None),
            last_updated: Mutex::new(now()),
            eligible: AtomicBool::new(false),
            ipv6,
            metrics,
        }
    }

    /// A change waits to be written.
    pub(crate) fn queued(&self) {
        self.pending_since.lock().get_or_insert_with(Instant::now);
    }

    /// The kernel has everything that was queued before `since`.
    pub(crate) fn updated(&self, since: Instant) {
        let mut pending = self.pending_since.lock();
        *pending = pending.filter(|queued| *queued > since);
        *self.last_updated.lock() = now();
    }

    /// Whether load balancers should send this node new traffic.
    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.eligible.store(eligible, Ordering::Relaxed);
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.pending_since.lock().is_none_or(|since| since.elapsed() < LATE)
    }

    /// The answer for a path, as upstream words it.
    pub(crate) fn answer(&self, path: &str) -> Answer {
        let healthy = self.is_healthy();
        let eligible = self.eligible.load(Ordering::Relaxed);
        let (good, count) = match path {
            "/healthz" => (healthy && eligible, &self.metrics.healthz),
            "/livez" => (healthy, &self.metrics.livez),
            _ => return not_found(),
        };
        let updated = self.last_updated.lock().to_string();
        let current = now().to_string();
        let family = json!({"lastUpdated": updated, "healthy": healthy});
        let status: BTreeMap<_, _> = families(self.ipv6).iter().map(|(_, name)| (*name, &family)).collect();
        let mut body = json!({
            "lastUpdated": if good { &current } else { &updated },
            "currentTime": current,
            "healthy": healthy,
            "status": status,
        });
        if path == "/healthz" {
            body["nodeEligible"] = eligible.into();
        }
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        count.with(&[status.as_str()]).inc();
        answer(status, JSON, body.to_string())
    }
}

fn now() -> Time {
    Time::from(SystemClock::default().now())
}

/// The answers of upstream's metrics address.
pub(crate) fn tell_metrics(registry: &Registry, path: &str) -> Answer {
    match path {
        "/metrics" => answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", registry.render()),
        "/proxyMode" => answer(StatusCode::OK, TEXT, "nftables"),
        "/healthz" => answer(StatusCode::OK, TEXT, "ok"),
        _ => not_found(),
    }
}

/// The health check ports of Services.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    addresses: Vec<IpAddr>,
    proxy: Arc<Health>,
    open: HashMap<ObjectKey, Open>,
    shutdown: CancellationToken,
}

#[derive(Debug)]
struct Open {
    port: u16,
    endpoints: Arc<AtomicUsize>,
    closing: CancellationToken,
}

/// A port that could not be opened.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    pub(crate) error: io::Error,
}

impl ServiceHealth {
    pub(crate) fn new(addresses: Vec<IpAddr>, proxy: Arc<Health>, shutdown: CancellationToken) -> Self {
        ServiceHealth { addresses, proxy, open: HashMap::new(), shutdown }
    }

    /// Opens, updates or closes the port of one Service.
    pub(crate) async fn set(
        &mut self,
        service: &ObjectKey,
        check: Option<HealthCheck>,
    ) -> Result<(), Failed> {
        if let Some(open) = self.open.get(service) {
            if let Some(check) = check.filter(|c| c.port == open.port) {
                open.endpoints.store(check.local_endpoints, Ordering::Relaxed);
                return Ok(());
            }
            open.closing.cancel();
            self.open.remove(service);
        }
        let Some(check) = check else { return Ok(()) };
        let endpoints = Arc::new(AtomicUsize::new(check.local_endpoints));
        let closing = self.shutdown.child_token();
        for address in &self.addresses {
            match TcpListener::bind((*address, check.port)).await {
                Ok(listener) => {
                    let (service, endpoints, proxy) =
                        (service.clone(), endpoints.clone(), self.proxy.clone());
                    let respond =
                        move |_: &str| tell(&service, endpoints.load(Ordering::Relaxed), proxy.is_healthy());
                    tokio::spawn(http::accept(listener, Arc::new(respond), closing.clone()));
                }
                Err(error) => {
                    closing.cancel();
                    return Err(Failed { service: service.clone(), port: check.port, error });
                }
            }
        }
        self.open.insert(service.clone(), Open { port: check.port, endpoints, closing });
        Ok(())
    }
}

/// The answer to a load balancer, in upstream's form.
fn tell(service: &ObjectKey, endpoints: usize, healthy: bool) -> Answer {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}",
        service.namespace, service.name
    );
    let good = endpoints > 0 && healthy;
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_header(answer(status, JSON, body), "x-load-balancing-endpoint-weight", endpoints)
}
