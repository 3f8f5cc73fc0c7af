//! Keeping logs small: a log beyond its size is moved aside, the runtime opens a new one, old ones beyond their number go.
//! Looks as often as upstream (every ten seconds) only while something runs. Upstream: `pkg/kubelet/logs`.

use crate::context::Context;
use cri::v1;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs until shutdown.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(context.config.container_log_interval) => {}
        }
        if let Err(error) = rotate_all(&context).await {
            tracing::warn!(%error, "logs were not rotated");
        }
    }
}

async fn rotate_all(context: &Context) -> cri::Result<()> {
    let max_size = context.config.container_log_max_size;
    let dir = context.config.pod_logs_dir.clone();
    // One walk over the directory finds what is too large; the runtime is asked only about those.
    let large = tokio::task::spawn_blocking(move || too_large(&dir, max_size)).await.unwrap_or_default();
    if large.is_empty() {
        return Ok(());
    }
    let filter = v1::ContainerFilter {
        state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 }),
        ..Default::default()
    };
    let running = context.runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?;
    for container in running.containers {
        let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let Ok(answer) = context.runtime.container_status(request).await else { continue };
        let path = answer.status.map(|s| PathBuf::from(s.log_path)).unwrap_or_default();
        if !large.contains(&path) {
            continue;
        }
        if let Err(error) = rotate(context, &container.id, &path).await {
            tracing::warn!(log = %path.display(), %error, "a log was not rotated");
        }
    }
    Ok(())
}

fn too_large(dir: &Path, max_size: u64) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for pod in entries(dir) {
        for container in entries(&pod.path()) {
            for log in entries(&container.path()) {
                let is_log = log.path().extension().is_some_and(|e| e == "log");
                if is_log && log.metadata().is_ok_and(|m| m.is_file() && m.len() >= max_size) {
                    out.push(log.path());
                }
            }
        }
    }
    out
}

async fn rotate(context: &Context, id: &str, path: &Path) -> Result<(), String> {
    let stamp: String = crate::clock::time().to_string().chars().filter(char::is_ascii_digit).collect();
    let aside = PathBuf::from(format!("{}.{}-{}", path.display(), &stamp[..8], &stamp[8..]));
    std::fs::rename(path, &aside).map_err(|e| e.to_string())?;
    let request = v1::ReopenContainerLogRequest { container_id: id.to_owned() };
    if let Err(error) = context.runtime.reopen_container_log(request).await {
        // The runtime still writes into what was moved: put it back.
        std::fs::rename(&aside, path).map_err(|e| e.to_string())?;
        return Err(error.to_string());
    }
    remove_old(path, context.config.container_log_max_files);
    Ok(())
}

/// Of a container's logs the newest `keep` stay, the one in use among them.
fn remove_old(path: &Path, keep: usize) {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else { return };
    let prefix = format!("{name}.");
    let mut old: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&prefix)))
        .collect();
    old.sort();
    let remove = old.len().saturating_sub(keep.saturating_sub(1));
    for path in old.into_iter().take(remove) {
        let _ = std::fs::remove_file(path);
    }
}
