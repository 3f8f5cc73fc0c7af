//! `/containerLogs/{namespace}/{pod}/{container}`. Upstream: `getContainerLogs`, `GetKubeletContainerLogs`.

use super::Inner;
use super::answer::{Response, flag, query, streaming, text, value};
use crate::logs::{LogOptions, Stream, stream};
use crate::runtime_pod::{ExitedCache, RuntimeContainer, State, observe};
use api::core::v1::{ContainerStatus, Pod, PodStatus};
use http::StatusCode;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Chunks on their way to a slow client.
const WAITING: usize = 8;

pub(super) async fn answer(
    inner: &Arc<Inner>,
    namespace: &str,
    pod: &str,
    container: &str,
    raw: Option<&str>,
) -> Response {
    let pairs = query(raw);
    let options = match options(&pairs) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let Some(mailbox) = inner.pods.named(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
    };
    let object = mailbox.letter().pod;
    if !has_container(&object, container) {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
    }
    let previous = flag(&pairs, "previous");
    let found = match find(inner, &object, container, previous).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            return text(StatusCode::BAD_REQUEST, why_not(&mailbox.status(), pod, container, previous));
        }
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let path = PathBuf::from(&found.log_path);
    if !path.starts_with(&inner.context.config.pod_logs_dir) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the log lies outside the directory of logs\n");
    }
    let (out, chunks) = mpsc::channel(WAITING);
    let runtime = inner.context.runtime.clone();
    let id = found.id.clone();
    tokio::spawn(async move {
        let running = || {
            let (runtime, id) = (runtime.clone(), id.clone());
            async move {
                let request = cri::v1::ContainerStatusRequest { container_id: id, verbose: false };
                let status = runtime.container_status(request).await.ok().and_then(|answer| answer.status);
                status.is_some_and(|s| s.state == cri::v1::ContainerState::ContainerRunning as i32)
            }
        };
        if let Err(error) = stream(&path, &options, running, out.clone()).await {
            let _ =
                out.send(format!("failed to try resolving symlinks in path {path:?}: {error}").into()).await;
        }
    });
    streaming(chunks)
}

fn options(pairs: &[(String, String)]) -> Result<LogOptions, String> {
    let number = |name: &str| match value(pairs, name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(text) => {
            text.parse::<i64>().map(Some).map_err(|_| format!("{{\"message\": \"Invalid {name}: {text}\"}}"))
        }
    };
    let not_negative = |name: &str, found: Option<i64>| match found {
        Some(n) if n < 0 => {
            Err(format!("{{\"message\": \"Invalid {name}: must be greater than or equal to 0\"}}"))
        }
        other => Ok(other.and_then(|n| u64::try_from(n).ok())),
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = Some(crate::clock::now() - seconds.saturating_mul(1_000_000_000));
    } else if let Some(time) = value(pairs, "sinceTime").filter(|v| !v.is_empty()) {
        let parsed: apimachinery::time::Timestamp =
            time.parse().map_err(|_| format!("{{\"message\": \"Invalid sinceTime: {time}\"}}"))?;
        let nanos = parsed.as_nanosecond().clamp(i64::MIN.into(), i64::MAX.into());
        since = i64::try_from(nanos).ok();
    }
    Ok(LogOptions {
        tail: not_negative("tailLines", number("tailLines")?)?,
        since,
        timestamps: flag(pairs, "timestamps"),
        limit_bytes: not_negative("limitBytes", number("limitBytes")?)?,
        follow: flag(pairs, "follow"),
        stream: match value(pairs, "stream") {
            Some("Stdout") => Stream::Stdout,
            Some("Stderr") => Stream::Stderr,
            _ => Stream::All,
        },
    })
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let spec = &pod.spec;
    spec.containers.iter().chain(&spec.init_containers).any(|c| c.name == name)
        || spec.ephemeral_containers.iter().any(|c| c.name == name)
}

async fn find(
    inner: &Inner,
    pod: &Pod,
    container: &str,
    previous: bool,
) -> cri::Result<Option<RuntimeContainer>> {
    let runtime = observe(&*inner.context.runtime, &pod.metadata.uid, &mut ExitedCache::new()).await?;
    let mut of_name =
        runtime.containers.into_iter().filter(|c| c.name == container && c.state != State::Created);
    let newest = of_name.next();
    if !previous {
        return Ok(newest);
    }
    let before = of_name.next();
    // While a crashed container waits for its next start, its last run is the previous one.
    Ok(before.or(newest.filter(|c| c.state == State::Exited && c.restart_count > 0)))
}

/// Upstream's words for a log that is not there.
fn why_not(status: &PodStatus, pod: &str, container: &str, previous: bool) -> String {
    if previous {
        return format!("previous terminated container {container:?} in pod {pod:?} not found");
    }
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    let found: Option<&ContainerStatus> =
        all.chain(&status.ephemeral_container_statuses).find(|s| s.name == container);
    match found.and_then(|s| s.state.waiting.as_ref()) {
        Some(waiting) => match waiting.reason.as_str() {
            "ErrImagePull" => {
                format!("container {container:?} in pod {pod:?} is waiting to start: image can't be pulled")
            }
            "ImagePullBackOff" => {
                format!(
                    "container {container:?} in pod {pod:?} is waiting to start: trying and failing to pull image"
                )
            }
            reason => format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"),
        },
        None => format!("container {container:?} in pod {pod:?} is not available"),
    }
}
