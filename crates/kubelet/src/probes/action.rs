//! One question to a container: exec, HTTP, TCP or gRPC, in upstream's words when the answer is no.

use super::prober::Target;
use super::{Context, grpc};
use crate::http_client::{self, Get, resolve_port};
use api::core::v1::Probe;
use component::dial;
use cri::v1::ExecSyncRequest;
use std::io::ErrorKind;
use std::time::Duration;

const MAX_OUTPUT: usize = 10 * 1024;

/// What a container answered.
#[derive(Debug)]
pub(super) enum Answer {
    Success,
    /// Counts as success, and is told.
    Warning(String),
    Failure(String),
    /// The question could not be asked.
    Error(String),
}

/// Asks.
pub(super) async fn ask(context: &Context, spec: &Probe, target: &Target, pod_ip: &str) -> Answer {
    let timeout = Duration::from_secs(u64::try_from(spec.timeout_seconds.max(1)).unwrap_or(1));
    if let Some(exec) = &spec.exec {
        let cmd = crate::container_config::expansion::expand_static(&exec.command, &target.container.env);
        return command(context, target, cmd, timeout).await;
    }
    if let Some(get) = &spec.http_get {
        return match Get::of(get, &target.container, pod_ip, "probe") {
            Ok(request) => http(&request, timeout).await,
            Err(error) => Answer::Error(error),
        };
    }
    if let Some(tcp) = &spec.tcp_socket {
        let port = match resolve_port(&tcp.port, &target.container) {
            Ok(port) => port,
            Err(error) => return Answer::Error(error),
        };
        let host = if tcp.host.is_empty() { pod_ip } else { &tcp.host };
        return match tokio::time::timeout(timeout, http_client::dial(host, port)).await {
            Ok(Ok(_)) => Answer::Success,
            Ok(Err(error)) => Answer::Failure(error),
            Err(_) => Answer::Failure(dial::tcp_failed(host, port, &ErrorKind::TimedOut.into())),
        };
    }
    if let Some(service) = &spec.grpc {
        let name = service.service.as_deref().unwrap_or_default();
        return match u16::try_from(service.port) {
            Ok(port) => grpc::check(pod_ip, port, name, timeout).await,
            Err(_) => Answer::Error(format!("invalid port number: {}", service.port)),
        };
    }
    Answer::Error(format!("missing probe handler for {}", target.container.name))
}

async fn http(request: &Get, timeout: Duration) -> Answer {
    match http_client::get(request, timeout).await {
        Ok(answer) if (200..300).contains(&answer.status) => Answer::Success,
        Ok(answer) if (300..400).contains(&answer.status) => {
            Answer::Warning(format!("Probe terminated redirects, Response body: {}", answer.body))
        }
        Ok(answer) => Answer::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
        Err(error) => Answer::Failure(error),
    }
}

async fn command(context: &Context, target: &Target, cmd: Vec<String>, timeout: Duration) -> Answer {
    let seconds = i64::try_from(timeout.as_secs()).unwrap_or(1);
    let line = cmd.join(" ");
    let request = ExecSyncRequest { container_id: target.container_id.clone(), cmd, timeout: seconds };
    match context.runtime.exec_sync(request).await {
        Ok(answer) if answer.exit_code == 0 => Answer::Success,
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(MAX_OUTPUT);
            Answer::Failure(String::from_utf8_lossy(&output).into_owned())
        }
        Err(error) if error.code == cri::Code::DeadlineExceeded => {
            Answer::Failure(format!("command timed out: {line:?} timed out after {seconds}s"))
        }
        Err(error) => Answer::Error(error.to_string()),
    }
}
