//! What is mounted beneath a directory, and taking it away, innermost first.

use std::io;
use std::path::{Path, PathBuf};

/// Mount points at or beneath a directory, in the order they were mounted.
pub(super) fn beneath(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    Ok(points.filter(|point| point.starts_with(dir)).collect())
}

/// Whether something is mounted exactly there. The table, which grows with every pod of the node, is read only where the
/// kernel (before 5.8) or the file system does not say.
pub(super) fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let told = match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(told) => told,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if told.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(told.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    Ok(beneath(path)?.iter().any(|point| point == path))
}

/// Unmounts everything at or beneath a directory; fails when something stays, so that nobody deletes through it.
pub(super) fn unmount_beneath(dir: &Path) -> io::Result<()> {
    // Mounts may lie on top of each other: look again until nothing is left or nothing moves.
    for _ in 0..8 {
        let mut points = beneath(dir)?;
        if points.is_empty() {
            return Ok(());
        }
        points.reverse();
        for point in &points {
            let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
            match rustix::mount::unmount(point.as_path(), flags) {
                Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(io::Error::other(format!("something stays mounted beneath {}", dir.display())))
}

/// Octal escapes of the kernel's tables.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|d| bytes[at] == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |value, d| value.wrapping_mul(8).wrapping_add(d - b'0')));
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// Mounts a file system that is in memory: `tmpfs` or `hugetlbfs`.
pub(super) fn mount_memory(path: &Path, kind: &str, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(kind, path, kind, flags, Some(options.as_c_str())).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_a_mount_point_is_told_from_what_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (from, at, link) = (dir.path().join("from"), dir.path().join("at"), dir.path().join("link"));
        std::fs::create_dir_all(from.join("within")).unwrap();
        std::fs::create_dir(&at).unwrap();
        std::os::unix::fs::symlink(&at, &link).unwrap();
        assert!(!is_mount_point(&at).unwrap());
        rustix::mount::mount_bind(&from, &at).unwrap();
        for (path, is) in
            [(at.clone(), true), (link, false), (at.join("within"), false), (at.join("no"), false)]
        {
            assert_eq!(is_mount_point(&path).unwrap(), is, "{}", path.display());
            assert_eq!(beneath(dir.path()).unwrap().contains(&path), is, "{}", path.display());
        }
        unmount_beneath(dir.path()).unwrap();
        assert!(!is_mount_point(&at).unwrap());
    }
}
