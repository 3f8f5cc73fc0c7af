//! `configMap`, `secret`, `downwardAPI` and `projected`: volumes whose files come from the API and follow its changes.

use super::{Plugin, Ready, Request, atomic_writer, mount_table, ownership, payload};
use api::core::v1::Volume;
use futures::future::BoxFuture;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const CONFIG_MAP: &str = "kubernetes.io/configmap";
const SECRET: &str = "kubernetes.io/secret";
const DOWNWARD_API: &str = "kubernetes.io/downward-api";
const PROJECTED: &str = "kubernetes.io/projected";

pub(super) struct Content;

/// On what a volume's files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Disk,
    /// Secrets never touch a disk.
    Memory,
}

impl Plugin for Content {
    fn supports(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    }

    fn name(&self, volume: &Volume) -> Option<&'static str> {
        Some(match volume {
            Volume { config_map: Some(_), .. } => CONFIG_MAP,
            Volume { secret: Some(_), .. } => SECRET,
            Volume { downward_api: Some(_), .. } => DOWNWARD_API,
            _ => PROJECTED,
        })
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(set_up(request))
    }
}

async fn set_up(request: &Request<'_>) -> Result<Ready, String> {
    let volume = request.volume;
    let mut refresh_at = None;
    let (plugin, medium, files) = if let Some(source) = &volume.config_map {
        (CONFIG_MAP, Medium::Disk, payload::of_config_map(request, source).await?)
    } else if let Some(source) = &volume.secret {
        (SECRET, Medium::Memory, payload::of_secret(request, source).await?)
    } else if let Some(source) = &volume.downward_api {
        let files = payload::of_downward_api(request, &source.items, source.default_mode)?;
        (DOWNWARD_API, Medium::Memory, files)
    } else {
        let source = volume.projected.clone().unwrap_or_default();
        let (files, refresh) = payload::of_projected(request, &source.sources, source.default_mode).await?;
        refresh_at = refresh;
        (PROJECTED, Medium::Memory, files)
    };
    let path = request.path(plugin);
    let (dir, group) = (path.clone(), request.fs_group());
    tokio::task::spawn_blocking(move || write(&dir, medium, &files, group))
        .await
        .map_err(|e| e.to_string())?
        .map_err(|e| e.to_string())?;
    Ok(Ready { host_path: path, read_only: true, mode: 0o755, refresh_at })
}

fn write(dir: &Path, medium: Medium, files: &payload::Payload, group: Option<i64>) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if medium == Medium::Memory && !mount_table::is_mount_point(dir)? {
        mount_table::mount_memory(dir, "tmpfs", "mode=0777")?;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    // The group is given before the new files become visible.
    atomic_writer::write(dir, files, |fresh| match group {
        Some(group) => ownership::set_group(fresh, group, true),
        None => Ok(()),
    })?;
    match group {
        Some(group) => {
            std::os::unix::fs::lchown(dir, None, u32::try_from(group).ok())?;
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o2777))
        }
        None => Ok(()),
    }
}
