//! Spans on their way to a collector, over OTLP's gRPC in plain text: gathered, sent in batches, dropped when there are
//! more than can be kept.

use super::config::Endpoint;
use super::generated::trace_service_client::TraceServiceClient;
use super::generated::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
};
use crate::egress::{Egress, Purpose};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::{Channel, Uri};

/// How many spans are kept, and sent at a time.
pub(super) const KEPT: usize = 2048;
const BATCH: usize = 512;
/// After how long those are sent that are there.
const DELAY: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(10);
/// How long pauses are after a failure, and how long it is tried.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last spans of a server that stops may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// A span, and by which of upstream's packages it would be made.
pub(super) type Made = (&'static str, Span);

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// The way to a collector; nobody is connected to before there is something to send.
pub(super) fn channel(endpoint: Endpoint, egress: Arc<Egress>) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let (endpoint, egress) = (endpoint.clone(), egress.clone());
        async move {
            let stream: Pin<Box<dyn Stream>> = match &endpoint {
                Endpoint::Tcp(host, port) => Box::pin(egress.dial(Purpose::ControlPlane, host, *port).await?),
                Endpoint::Unix(path) => Box::pin(UnixStream::connect(path).await?),
            };
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    tonic::transport::Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

/// Sends what comes until the server stops.
pub(super) async fn run(
    channel: Channel,
    resource: Vec<KeyValue>,
    mut made: mpsc::Receiver<Made>,
    shutdown: CancellationToken,
) {
    let mut client = TraceServiceClient::new(channel);
    let mut batch = Vec::new();
    while !shutdown.is_cancelled() {
        let until = Instant::now() + DELAY;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let came = tokio::select! {
                came = made.recv_many(&mut batch, room) => came,
                () = tokio::time::sleep_until(until.into()) => break,
                () = shutdown.cancelled() => break,
            };
            if came == 0 {
                break;
            }
        }
        if batch.is_empty() {
            if made.is_closed() {
                return;
            }
            continue;
        }
        let request = request(&resource, std::mem::take(&mut batch));
        tokio::select! {
            () = send(&mut client, request.clone()) => {}
            () = shutdown.cancelled() => {
                let _ = tokio::time::timeout(GOODBYE, client.export(request)).await;
            }
        }
    }
    while let Ok(last) = made.try_recv() {
        batch.push(last);
    }
    if !batch.is_empty() {
        let _ = tokio::time::timeout(GOODBYE, client.export(request(&resource, batch))).await;
    }
}

/// Spans that nobody takes are tried again for a while.
async fn send(client: &mut TraceServiceClient<Channel>, request: ExportTraceServiceRequest) {
    let (begun, mut pause) = (Instant::now(), PAUSE);
    loop {
        let answer = tokio::time::timeout(CALL, client.export(request.clone())).await;
        let failed = match answer {
            Ok(Ok(answer)) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                if partial.rejected_spans != 0 {
                    tracing::warn!(
                        rejected = partial.rejected_spans,
                        why = partial.error_message,
                        "spans were refused"
                    );
                }
                return;
            }
            Ok(Err(status)) => status,
            Err(_) => tonic::Status::deadline_exceeded("context deadline exceeded"),
        };
        let passing = matches!(
            failed.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
                | Code::Unknown
        );
        if !passing || begun.elapsed() + pause > PATIENCE {
            tracing::warn!(%failed, "traces export");
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

fn request(resource: &[KeyValue], made: Vec<Made>) -> ExportTraceServiceRequest {
    let mut by_scope: BTreeMap<&str, Vec<Span>> = BTreeMap::new();
    for (scope, span) in made {
        by_scope.entry(scope).or_default().push(span);
    }
    let scope_spans = by_scope.into_iter().map(|(name, spans)| ScopeSpans {
        scope: Some(InstrumentationScope { name: name.to_owned() }),
        spans,
    });
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes: resource.to_vec() }),
            scope_spans: scope_spans.collect(),
        }],
    }
}
