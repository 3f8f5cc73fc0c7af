//! Paths inside a container's root: every lookup goes through openat2, so that no symlink, however placed or swapped
//! while we look, leads out of it (CVE-2021-30465, CVE-2024-45310).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;

/// Whether symlinks inside the root are followed (within it) or refused.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

fn resolve(links: Links) -> ResolveFlags {
    let base = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refuse { base | ResolveFlags::NO_SYMLINKS } else { base }
}

/// openat2 beneath `root`, again when a rename raced with it.
pub(crate) fn open(root: BorrowedFd<'_>, path: &str, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { "/" } else { path };
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve(links)) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// A handle on what is at `path`, for mounting upon.
pub(crate) fn handle(root: BorrowedFd<'_>, path: &str, links: Links) -> io::Result<OwnedFd> {
    open(root, path, OFlags::PATH, links)
}

/// As [`handle`] of a directory, made with its parents where absent.
pub(crate) fn make_dir(root: BorrowedFd<'_>, path: &str, links: Links) -> io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, directory, links) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let mut done = String::new();
    let mut at = open(root, "/", directory, links)?;
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        done.push('/');
        done.push_str(name);
        at = match open(root, &done, directory, links) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && name != ".." => {
                match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => open(root, &done, directory, links)?,
                    Err(error) => return Err(error.into()),
                }
            }
            other => other?,
        };
    }
    Ok(at)
}

/// As [`handle`] of a file, made (empty) where absent.
pub(crate) fn make_file(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    match handle(root, path, Links::Follow) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = split(path)?;
    let parent = make_dir(root, parent, Links::Follow)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)) {
        Ok(_) | Err(Errno::EXIST) => handle(root, path, Links::Follow),
        Err(error) => Err(error.into()),
    }
}

/// Directory and last component.
pub(crate) fn split(path: &str) -> io::Result<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() || name == "." || name == ".." {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} names no file")));
    }
    Ok((parent, name))
}

pub(crate) fn is_dir(fd: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}
