//! The smallest of servers: a path in, an answer out.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// When an address that is taken is tried again, as upstream does.
const BIND_AGAIN: Duration = Duration::from_secs(5);

pub(crate) type Answer = Response<Full<Bytes>>;
pub(crate) type Responder = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

pub(crate) fn with_header(mut answer: Answer, name: &'static str, value: usize) -> Answer {
    answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(value));
    answer
}

/// Serves at an address until `shutdown`. An address that is taken is no reason to stop serving Services.
pub(crate) fn serve(
    what: &'static str,
    address: SocketAddr,
    respond: Responder,
    shutdown: CancellationToken,
) {
    tokio::spawn(async move {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => tracing::error!(%address, %error, "failed to start proxy {what}"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(BIND_AGAIN) => {}
            }
        };
        accept(listener, respond, shutdown).await;
    });
}

/// Answers whoever comes, until `shutdown`.
pub(crate) async fn accept(listener: TcpListener, respond: Responder, shutdown: CancellationToken) {
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
