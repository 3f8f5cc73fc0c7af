//! What others may ask: `/healthz` and `/livez` of the proxy, and the health check port of each Service whose load
//! balancer must know which nodes have endpoints.

use crate::plan::HealthCheck;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Time;
use bytes::Bytes;
use client::ObjectKey;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// A change that the kernel does not have after this long makes the proxy unhealthy (upstream: two sync periods).
const LATE: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Response<Full<Bytes>>;

/// The proxy's own health.
#[derive(Debug)]
pub struct Health {
    pending_since: Mutex<Option<Instant>>,
    last_updated: Mutex<Time>,
    eligible: AtomicBool,
    families: Vec<&'static str>,
}

impl Health {
    pub fn new(ipv6: bool) -> Self {
        Health {
            pending_since: Mutex::new(None),
            last_updated: Mutex::new(now()),
            eligible: AtomicBool::new(false),
            families: if ipv6 { vec!["IPv4", "IPv6"] } else { vec!["IPv4"] },
        }
    }

    /// A change waits to be written.
    pub fn queued(&self) {
        self.pending_since.lock().get_or_insert_with(Instant::now);
    }

    /// The kernel has everything that was queued before `since`.
    pub fn updated(&self, since: Instant) {
        let mut pending = self.pending_since.lock();
        *pending = pending.filter(|queued| *queued > since);
        *self.last_updated.lock() = now();
    }

    /// Whether load balancers should send this node new traffic.
    pub fn set_eligible(&self, eligible: bool) {
        self.eligible.store(eligible, Ordering::Relaxed);
    }

    pub fn is_healthy(&self) -> bool {
        self.pending_since.lock().is_none_or(|since| since.elapsed() < LATE)
    }

    /// The answer for a path, as upstream words it.
    fn answer(&self, path: &str) -> Answer {
        let healthy = self.is_healthy();
        let eligible = self.eligible.load(Ordering::Relaxed);
        let good = match path {
            "/healthz" => healthy && eligible,
            "/livez" => healthy,
            _ => return answer(StatusCode::NOT_FOUND, "404 page not found\n".into(), &[]),
        };
        let updated = self.last_updated.lock().to_string();
        let current = now().to_string();
        let family = json!({"lastUpdated": updated, "healthy": healthy});
        let families: BTreeMap<_, _> = self.families.iter().map(|f| (*f, &family)).collect();
        let mut body = json!({
            "lastUpdated": if good { &current } else { &updated },
            "currentTime": current,
            "healthy": healthy,
            "status": families,
        });
        if path == "/healthz" {
            body["nodeEligible"] = eligible.into();
        }
        let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        answer(status, body.to_string(), &[])
    }
}

fn now() -> Time {
    Time::from(SystemClock::default().now())
}

fn answer(status: StatusCode, body: String, headers: &[(&'static str, String)]) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = if status == StatusCode::NOT_FOUND { "text/plain; charset=utf-8" } else { "application/json" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Serves the proxy's own health at an address, until `shutdown`.
pub async fn serve(address: SocketAddr, health: Arc<Health>, shutdown: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tokio::spawn(accept(listener, Arc::new(move |path: &str| health.answer(path)), shutdown));
    Ok(())
}

async fn accept(
    listener: TcpListener,
    respond: Arc<dyn Fn(&str) -> Answer + Send + Sync>,
    shutdown: CancellationToken,
) {
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a client that left: the next one may fare better.
                    tracing::debug!(%error, "accepting a health check failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (respond, shutdown) = (respond.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = respond(request.uri().path());
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            tokio::select! {
                () = shutdown.cancelled() => {}
                served = builder.serve_connection(TokioIo::new(stream), service) => {
                    if let Err(error) = served {
                        tracing::debug!(%error, "a health check broke");
                    }
                }
            }
        });
    }
}

/// The health check ports of Services.
#[derive(Debug)]
pub struct ServiceHealth {
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
pub struct Failed {
    pub service: ObjectKey,
    pub port: u16,
    pub error: io::Error,
}

impl ServiceHealth {
    pub fn new(addresses: Vec<IpAddr>, proxy: Arc<Health>, shutdown: CancellationToken) -> Self {
        ServiceHealth { addresses, proxy, open: HashMap::new(), shutdown }
    }

    /// Opens, updates or closes the port of one Service.
    pub async fn set(&mut self, service: &ObjectKey, check: Option<HealthCheck>) -> Result<(), Failed> {
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
                    tokio::spawn(accept(listener, Arc::new(respond), closing.clone()));
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
    answer(status, body, &[("x-load-balancing-endpoint-weight", endpoints.to_string())])
}
