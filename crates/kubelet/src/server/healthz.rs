//! Whether the kubelet works: the checks behind `/healthz` of its server, which those ask who may, and the endpoint on a
//! port of its own, without TLS, which anybody on the machine may ask. Upstream: `cmd/kubelet/app/server.go`,
//! `SyncLoopHealthCheck`.

use super::answer::{Response, query, text};
use crate::context::Context;
use component::health::{Answer, Checks};
use component::metrics::Registry;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Pods are not looked after while the runtime is not well; for so long that is no reason to start the kubelet anew.
const PATIENCE: Duration = Duration::from_secs(300);
/// Who has seen the runtime well so lately does not ask.
const FRESH: Duration = Duration::from_secs(30);
/// What the runtime gets to answer somebody who asks how the kubelet is.
const ANSWER: Duration = Duration::from_secs(2);
/// After a port was taken.
const AGAIN: Duration = Duration::from_secs(5);

/// When the runtime was last known to be well.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// The runtime is well.
    pub(crate) fn beat(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn age(&self) -> Option<Duration> {
        self.0.lock().map(|at| at.elapsed())
    }

    /// Before the first time nothing is late.
    fn check(&self) -> Result<(), String> {
        match self.age() {
            Some(age) if age > PATIENCE => Err("sync Loop took longer than expected".into()),
            _ => Ok(()),
        }
    }
}

/// The checks of the kubelet's server.
pub(super) struct Health {
    checks: Checks,
    /// At `/metrics/slis`.
    pub registry: Registry,
}

impl Health {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        let registry = Registry::new();
        let checks = Checks::new("healthz", Some(&registry));
        checks.add("log", component::health::log);
        checks.add("syncloop", move || pulse.check());
        Health { checks, registry }
    }

    /// The answer to `/healthz`, or to one of its checks.
    pub(super) async fn answer(&self, context: &Context, check: &str, asked: Option<&str>) -> Response {
        // While the node cannot be registered nobody looks at the runtime.
        if context.pulse.age().is_none_or(|age| age > FRESH) {
            let request = cri::v1::StatusRequest { verbose: false };
            let status = tokio::time::timeout(ANSWER, context.runtime.status(request)).await;
            if let Ok(Ok(answer)) = status
                && crate::node::conditions::is_well(answer.status.as_ref())
            {
                context.pulse.beat();
            }
        }
        answer(&self.checks, check, asked)
    }
}

fn answer(checks: &Checks, check: &str, asked: Option<&str>) -> Response {
    let answer = match check {
        "" => {
            let pairs = query(asked);
            let verbose = pairs.iter().any(|(key, _)| key == "verbose");
            let excluded: Vec<&str> =
                pairs.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
            Some(checks.answer(verbose, &excluded))
        }
        one => checks.answer_one(one),
    };
    let Some(Answer { status, body, reasons }) = answer else {
        return text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if !reasons.is_empty() {
        tracing::info!(reasons = reasons.join("\n"), "healthz check failed");
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = text(status, body);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The endpoint of its own until shutdown: it says that the kubelet lives, no more. Where the port is another's, the
/// kubelet goes on without, and takes it when it is free.
pub(crate) async fn serve(address: SocketAddr, shutdown: CancellationToken) {
    let checks = Checks::new("healthz", None);
    let mut told = false;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = accept(address, &checks) => outcome,
        };
        if let Err(error) = outcome
            && !std::mem::replace(&mut told, true)
        {
            tracing::error!(%address, %error, "Failed to start healthz server");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn accept(address: SocketAddr, checks: &Checks) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    // With the listener go its connections.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let checks = checks.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let checks = checks.clone();
            async move {
                let path = request.uri().path();
                let check = match path.strip_prefix("/healthz") {
                    Some("") => Some(""),
                    Some(rest) => rest.strip_prefix('/'),
                    None => None,
                };
                Ok::<_, std::convert::Infallible>(match check {
                    Some(check) => answer(&checks, check, request.uri().query()),
                    None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
                })
            }
        });
        connections.spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(super::PATIENCE);
            if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection to healthz broke");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn check(health: &Health, check: &str, asked: Option<&str>, code: u16, body: &str) {
        let response = answer(&health.checks, check, asked);
        let status = response.status().as_u16();
        let shown = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!((status, &*String::from_utf8_lossy(&shown)), (code, body), "{check} {asked:?}");
    }

    #[tokio::test]
    async fn a_runtime_that_is_ill_for_long_is_told() {
        let pulse = Arc::new(Pulse::default());
        let health = Health::new(pulse.clone());
        // What has not begun is not late.
        check(&health, "", None, 200, "ok").await;
        pulse.beat();
        check(&health, "syncloop", None, 200, "ok").await;
        let all = "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n";
        check(&health, "", Some("verbose"), 200, all).await;
        *pulse.0.lock() = Instant::now().checked_sub(PATIENCE + Duration::from_secs(1));
        let ill = "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n";
        check(&health, "", None, 500, ill).await;
        check(&health, "", Some("exclude=syncloop"), 200, "ok").await;
        let why = "internal server error: sync Loop took longer than expected\n";
        check(&health, "syncloop", None, 500, why).await;
        check(&health, "nobody", None, 404, "404 page not found\n").await;
    }
}
