//! The kubelet's HTTPS server: logs, exec, attach, port-forward, pods, statistics, metrics. Every request is authenticated
//! (client certificate or token) and authorized (SubjectAccessReview on `nodes/…`). One file per kind of answer; the list
//! of paths is in [`route`]. Upstream: `pkg/kubelet/server`.

mod answer;
mod auth;
mod cadvisor;
mod checkpoint;
mod container_logs;
pub(crate) mod healthz;
mod metrics;
mod node_logs;
mod node_metrics;
mod port_forward;
mod remote_command;
mod route;
mod state;
mod stats;
mod swapped;

use crate::context::Context;
use crate::error::Error;
use crate::pods::Pods;
use answer::{Body, Response, text};
use auth::Auth;
use cri::Streams;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use route::Route;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The server's certificate, and whom it believes.
#[derive(Clone)]
pub struct Serving {
    /// The serving certificate; may be exchanged while the server runs.
    pub identity: Arc<pki::tls::Slot>,
    /// Authorities of client certificates: the cluster's client CA.
    pub client_authorities: Vec<pki::Certificate>,
}

/// How long a client may take for its handshake and its request's head.
const PATIENCE: Duration = Duration::from_secs(32);

struct Inner {
    context: Arc<Context>,
    pods: Arc<Pods>,
    streams: Option<Arc<dyn Streams>>,
    auth: Auth,
    health: healthz::Health,
    identity: Arc<pki::tls::Slot>,
    /// What the node calls with, where it is renewed.
    client_certificate: Option<Arc<pki::tls::Slot>>,
}

impl Inner {
    /// Counts a stream that comes over WebSocket.
    fn count_web_socket(&self, request: &Request<Incoming>, subresource: &str) {
        let upgrade = request.headers().get(http::header::UPGRADE).and_then(|value| value.to_str().ok());
        if upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")) {
            self.context.metrics.http.web_sockets.with(&[subresource]).inc();
        }
    }
}

/// A server that listens.
pub(crate) struct Server {
    inner: Arc<Inner>,
    tls: tokio_rustls::TlsAcceptor,
    listener: TcpListener,
}

impl Server {
    pub(crate) async fn bind(
        context: Arc<Context>,
        pods: Arc<Pods>,
        streams: Option<Arc<dyn Streams>>,
        serving: Serving,
        client_certificate: Option<Arc<pki::tls::Slot>>,
    ) -> Result<Self, Error> {
        let address = context.config.address;
        let listen = |source: std::io::Error| Error::Listen { address, source };
        // Upgrades need HTTP/1.1, and a kubelet has few clients.
        let identity = serving.identity.clone();
        let tls = pki::tls::server_config(serving.identity, &serving.client_authorities, &[b"http/1.1"]);
        let tls = tls.map_err(|e| listen(std::io::Error::other(e.to_string())))?;
        let roots = match serving.client_authorities.as_slice() {
            [] => None,
            all => Some(
                pki::tls::ClientRoots::new(all).map_err(|e| listen(std::io::Error::other(e.to_string())))?,
            ),
        };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let auth = Auth::new(context.client.clone(), context.config.node_name.clone(), roots);
        let health = healthz::Health::new(context.pulse.clone());
        let inner = Arc::new(Inner { context, pods, streams, auth, health, identity, client_certificate });
        Ok(Server { inner, tls: Arc::new(tls).into(), listener })
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    /// Serves until shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let serving = serve(self.inner.clone(), self.tls.clone(), stream, peer);
                    let ended = shutdown.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = ended.cancelled() => {}
                            () = serving => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: do not spin.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn serve(inner: Arc<Inner>, tls: tokio_rustls::TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(PATIENCE, tls.accept(stream)).await else { return };
    let chain: Arc<[rustls::pki_types::CertificateDer<'static>]> =
        stream.get_ref().1.peer_certificates().unwrap_or_default().into();
    let service = service_fn(move |request| {
        let (inner, chain) = (inner.clone(), chain.clone());
        async move { Ok::<_, std::convert::Infallible>(handle(inner, &chain, request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

async fn handle(
    inner: Arc<Inner>,
    chain: &[rustls::pki_types::CertificateDer<'static>],
    request: Request<Incoming>,
) -> Response {
    // A stream goes on when its answer has been given: upstream's handler holds both.
    let _answering = inner.context.metrics.http.answering(request.method(), request.uri().path());
    let user = match inner.auth.authenticate(chain, request.headers()).await {
        Ok(user) => user,
        Err(refused) => return text(refused, "Unauthorized"),
    };
    let path = request.uri().path().to_owned();
    let Some(route) = Route::of(&path) else { return text(StatusCode::NOT_FOUND, "404 page not found\n") };
    let verb = match (route.needs_create(), request.method()) {
        // A WebSocket is opened with GET, but what it opens is no reading (upstream: nodes/proxy "get" suffices there).
        (true, _) | (false, &Method::POST) => "create",
        (false, &Method::PUT) => "update",
        (false, &Method::PATCH) => "patch",
        (false, &Method::DELETE) => "delete",
        _ => "get",
    };
    if let Err(refused) = inner.auth.authorize(&user, verb, route.subresources()).await {
        return refused;
    }
    answer(&inner, route, request).await
}

async fn answer(inner: &Arc<Inner>, route: Route, request: Request<Incoming>) -> Response {
    let config = &inner.context.config;
    match route {
        route if route.is_debugging() && !config.debugging_handlers => {
            text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n")
        }
        Route::Healthz(check) => inner.health.answer(&inner.context, check, request.uri().query()).await,
        Route::Pods => state::pods(inner),
        Route::Configz => state::configz(inner),
        Route::StatsSummary => stats::summary(inner, request.uri().query()).await,
        Route::Metrics => node_metrics::answer(inner).await,
        Route::MetricsResource => metrics::resource(inner).await,
        Route::MetricsCadvisor => cadvisor::answer(inner).await,
        Route::MetricsProbes => metrics::probes(inner),
        Route::MetricsSlis => metrics::slis(inner),
        Route::ContainerLogs { namespace, pod, container } => {
            container_logs::answer(inner, &namespace, &pod, &container, request.uri().query()).await
        }
        Route::Exec(target) => remote_command::exec(inner, target, request).await,
        Route::Attach(target) => remote_command::attach(inner, target, request).await,
        Route::Run(target) => remote_command::run(inner, target, request).await,
        Route::PortForward { namespace, pod } => port_forward::answer(inner, &namespace, &pod, request).await,
        Route::Checkpoint(target) => checkpoint::answer(inner, target, &request).await,
        Route::Logs(_) if !config.system_log_handler => {
            text(StatusCode::METHOD_NOT_ALLOWED, "logs endpoint is disabled.\n")
        }
        Route::Logs(path) => node_logs::answer(inner, &path, request).await,
    }
}

/// The body of an answer that has none yet.
pub(super) fn empty() -> Body {
    answer::full("")
}
