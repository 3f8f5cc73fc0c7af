//! The gRPC health check (`grpc.health.v1.Health/Check`): one call over plain HTTP/2, its two messages written by hand.

use super::action::Answer;
use crate::http_client::{AbortOnDrop, dial};
use bytes::Bytes;
use component::dial::join_host_port;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;

const SERVING: u64 = 1;

/// Whether the service says that it serves.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Answer {
    let address = join_host_port(host, port);
    match tokio::time::timeout(timeout, call(host, port, service)).await {
        Ok(Ok(SERVING)) => Answer::Success,
        Ok(Ok(status)) => {
            let name = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNRECOGNIZED",
            };
            Answer::Failure(format!("service unhealthy (responded with {name:?})"))
        }
        Ok(Err(error)) => Answer::Failure(error),
        Err(_) => {
            Answer::Failure(format!("timeout: failed to connect service {address:?} within {timeout:?}"))
        }
    }
}

async fn call(host: &str, port: u16, service: &str) -> Result<u64, String> {
    let address = join_host_port(host, port);
    let stream = dial(host, port)
        .await
        .map_err(|e| format!("error: failed to connect service at {address:?}: {e}"))?;
    let failed = |error: hyper::Error| format!("error: health rpc probe failed: {error}");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(failed)?;
    let connection = tokio::spawn(connection);
    let _end = AbortOnDrop(connection.abort_handle());
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .header(http::header::USER_AGENT, "kube-probe/1.36")
        .body(Full::new(message(service)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let early = code(response.headers());
    let body = response.into_body().collect().await.map_err(failed)?;
    match early.or_else(|| body.trailers().and_then(code)) {
        Some(0) | None => {}
        Some(12) => {
            return Err(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
                    .into(),
            );
        }
        Some(5) => return Ok(3),
        Some(other) => return Err(format!("error: health rpc probe failed: rpc error: code = {other}")),
    }
    Ok(status(&body.to_bytes()))
}

fn code(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// `HealthCheckRequest { string service = 1 }` in a gRPC frame.
fn message(service: &str) -> Bytes {
    let mut body = Vec::new();
    if !service.is_empty() {
        body.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            body.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        body.push(length as u8);
        body.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&body);
    frame.into()
}

/// `HealthCheckResponse { ServingStatus status = 1 }` of a gRPC frame; absent is zero.
fn status(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, value, ..]) => u64::from(*value),
        _ => 0,
    }
}
