//! `emptyDir`: a directory of the pod, on disk or in memory.

use super::{Plugin, Ready, Request, mount_table, ownership};
use api::core::v1::Volume;
use futures::future::BoxFuture;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub(super) struct EmptyDir;

const MODE: u32 = 0o777;

impl Plugin for EmptyDir {
    fn supports(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(async move {
            let source = request.volume.empty_dir.clone().unwrap_or_default();
            let path = request.path("kubernetes.io/empty-dir");
            let memory = match source.medium.as_str() {
                "" => None,
                "Memory" => Some(source.size_limit.map_or(0, |q| q.value())),
                other => return Err(format!("storage medium {other:?} is not supported by this node")),
            };
            let group = request.fs_group();
            let made = path.clone();
            tokio::task::spawn_blocking(move || make(&made, memory, group))
                .await
                .map_err(|e| e.to_string())?
                .map_err(|e| e.to_string())?;
            Ok(Ready { host_path: path, read_only: false, mode: MODE, refresh_at: None })
        })
    }
}

/// Ready before is ready now: a restarted kubelet must not touch what containers have written.
fn make(path: &Path, memory: Option<i64>, group: Option<i64>) -> io::Result<()> {
    let ready = marker(path);
    if ready.exists() && (memory.is_none() || mount_table::is_mount_point(path)?) {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    if let Some(limit) = memory
        && !mount_table::is_mount_point(path)?
    {
        mount_table::mount_tmpfs(path, &if limit > 0 { format!("size={limit}") } else { String::new() })?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    if let Some(group) = group {
        ownership::set_group(path, group, false)?;
    }
    if let Some(dir) = ready.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(ready, b"")
}

/// `pods/<uid>/plugins/kubernetes.io~empty-dir/<name>/ready`, as upstream.
fn marker(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let pod = path.ancestors().nth(3).unwrap_or(path);
    pod.join("plugins").join("kubernetes.io~empty-dir").join(name).join("ready")
}
