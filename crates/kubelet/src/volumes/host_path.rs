//! `hostPath`: a path of the node, checked (or made) as its type says. Upstream: `pkg/volume/hostpath`.

use super::{Plugin, Ready, Request};
use api::core::v1::Volume;
use futures::future::BoxFuture;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

pub(super) struct HostPath;

impl Plugin for HostPath {
    fn supports(&self, volume: &Volume) -> bool {
        volume.host_path.is_some()
    }

    fn name(&self, _: &Volume) -> Option<&'static str> {
        Some("kubernetes.io/host-path")
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(async move {
            let source = request.volume.host_path.clone().unwrap_or_default();
            let kind = source.type_.unwrap_or_default();
            ready(source.path.into(), kind).await
        })
    }
}

/// A node's path of the given type, as a volume.
pub(super) async fn ready(path: PathBuf, kind: String) -> Result<Ready, String> {
    let checked = path.clone();
    // The path may be on a file system that does not answer.
    tokio::task::spawn_blocking(move || check(&checked, &kind)).await.map_err(|e| e.to_string())??;
    Ok(Ready { host_path: path, read_only: false, mode: 0o750, refresh_at: None })
}

fn check(path: &Path, kind: &str) -> Result<(), String> {
    let failed = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", path.display()));
    let found = std::fs::metadata(path).ok();
    let file_type = found.as_ref().map(std::fs::Metadata::file_type);
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => match file_type {
            Some(t) if !t.is_dir() => failed("a directory"),
            Some(_) => Ok(()),
            None => {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(|e| e.to_string())
            }
        },
        "Directory" if file_type.is_none_or(|t| !t.is_dir()) => failed("a directory"),
        "FileOrCreate" => match file_type {
            Some(t) if !t.is_file() => failed("a file"),
            Some(_) => Ok(()),
            None => {
                use std::os::unix::fs::OpenOptionsExt as _;
                let mut options = std::fs::OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(0o644);
                options.open(path).map(|_| ()).map_err(|e| e.to_string())
            }
        },
        "File" if file_type.is_none_or(|t| !t.is_file()) => failed("a file"),
        "Socket" if file_type.is_none_or(|t| !t.is_socket()) => failed("a socket file"),
        "CharDevice" if file_type.is_none_or(|t| !t.is_char_device()) => failed("a character device"),
        "BlockDevice" if file_type.is_none_or(|t| !t.is_block_device()) => failed("a block device"),
        "Directory" | "File" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        other => Err(format!("{other} is an invalid volume type")),
    }
}
