//! Accepts connections: TLS, then HTTP/1.1 or HTTP/2, each request handed to [`Server::serve`].

use crate::authn::Connection;
use crate::body;
use crate::server::Server;
use component::metrics::{Counter, Opts, Stability};
use futures::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a client may take to finish its handshake or its request's head.
const PATIENCE: Duration = Duration::from_secs(32);
/// How long requests in flight may go on after shutdown was asked for.
const DRAIN: Duration = Duration::from_secs(10);

/// Which versions of HTTP are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    /// HTTP/2 where the client can, with so many requests at a time, and HTTP/1.1 elsewhere.
    Http2 {
        streams: u32,
    },
}

impl Protocol {
    /// What the handshake offers.
    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Protocol::Http1 => pki::tls::ALPN_HTTP1,
            Protocol::Http2 { .. } => pki::tls::ALPN_ALL,
        }
    }

    fn builder(self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        let Protocol::Http2 { streams } = self else { return builder.http1_only() };
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15));
        builder
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Door {
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    protocol: Protocol,
    /// Counts handshakes that failed.
    failed: Counter,
}

/// Serves until the server's shutdown, then lets requests in flight finish.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    protocol: Protocol,
) {
    let failed = server.metrics.counter(Opts {
        name: "apiserver_tls_handshake_errors_total",
        help: "Number of requests dropped with 'TLS handshake error from' error",
        stability: Stability::Alpha,
    });
    let door = Door { server: server.clone(), acceptor: TlsAcceptor::from(tls), protocol, failed };
    let connections = TaskTracker::new();
    let shutdown = server.shutdown.clone();
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = accept(&door, &listener, |connection| drop(connections.spawn(connection))) => {}
    }
    connections.close();
    let timing = &server.gate.timing;
    let patience = DRAIN.max(timing.watch_grace + Duration::from_secs(1));
    let drained = async {
        if !timing.send_retry_after {
            drop(listener);
            return connections.wait().await;
        }
        // Who still comes is told to come again.
        tokio::select! {
            () = connections.wait() => {}
            () = accept(&door, &listener, |connection| drop(tokio::spawn(connection))) => {}
        }
    };
    if tokio::time::timeout(patience, drained).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
}

/// Accepts connections without end.
async fn accept(door: &Door, listener: &TcpListener, spawn: impl Fn(BoxFuture<'static, ()>)) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let door = door.clone();
                spawn(Box::pin(async move {
                    if let Err(error) = connection(door, stream, peer).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                }));
            }
            // Out of descriptors, most likely: give others time to end.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    Door { server, acceptor, protocol, failed }: Door,
    stream: TcpStream,
    peer: std::net::SocketAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let shaken = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(shaken) => shaken,
        Err(late) => Err(late.into()),
    };
    let tls = shaken.inspect_err(|_| failed.inc())?;
    let certificates = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
    let leave = CancellationToken::new();
    let connection = Arc::new(Connection {
        peer: Some(peer),
        certificates,
        leave: leave.clone(),
        ..Connection::default()
    });
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (server, connection) = (server.clone(), connection.clone());
        let answer = server.serve(request.map(body::stream), connection);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let builder = protocol.builder();
    let mut serving = pin!(builder.serve_connection_with_upgrades(TokioIo::new(tls), service));
    tokio::select! {
        ended = serving.as_mut() => return ended,
        () = shutdown.cancelled() => {}
        () = leave.cancelled() => {}
    }
    // Requests under way are finished; no more come over this connection.
    serving.as_mut().graceful_shutdown();
    serving.await
}
