//! Giving a volume to the pod's `fsGroup`. Links are changed themselves, never followed. Upstream: `SetVolumeOwnership`.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

const SET_GID: u32 = 0o2000;

/// Owns a tree to a group: files may be read (and written unless read-only) by it, directories pass it on.
pub(super) fn set_group(path: &Path, group: i64, read_only: bool) -> io::Result<()> {
    let gid =
        u32::try_from(group).map_err(|_| io::Error::other(format!("fsGroup {group} is no group id")))?;
    change(path, gid, if read_only { 0o440 } else { 0o660 })
}

fn change(path: &Path, gid: u32, mask: u32) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    std::os::unix::fs::lchown(path, None, Some(gid))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mask = if metadata.is_dir() { mask | SET_GID | 0o110 } else { mask };
    // A change of owner clears set-id bits, so the mode is written after it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(metadata.mode() & 0o7777 | mask))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            change(&entry?.path(), gid, mask & 0o660)?;
        }
    }
    Ok(())
}
