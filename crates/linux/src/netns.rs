//! Network namespaces: made and pinned at a path, opened, entered by a thread of their own, removed.
//!
//! `setns` changes one thread for good, so no thread that does other work ever calls it: [`Netns::run`] starts a
//! scoped thread that enters, works and ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// The namespace pinned at `path`, or any `/proc/<pid>/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        File::open(path).map(|file| Self { file })
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a new namespace with `lo` up. It ends with the last descriptor and process in it.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            unshare_net()?;
            let netns = Self::current()?;
            let mut routing = crate::netlink::route::Routing::open().map_err(io::Error::other)?;
            let lo = routing.link("lo").map_err(io::Error::other)?;
            if let Some(lo) = lo {
                routing.set_up(lo.index).map_err(io::Error::other)?;
            }
            Ok(netns)
        })
    }

    /// Makes a new namespace and pins it at `path` with a bind mount, so that it outlives every process.
    /// A namespace already pinned there is returned as it is.
    pub fn create_at(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if is_pinned(path) {
            return Self::open(path);
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let netns = Self::create()?;
        OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        crate::steps::step("pinning a network namespace");
        let source = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&netns.file));
        rustix::mount::mount_bind(source.as_str(), path)?;
        // Whatever the parent mount propagates, this one must not reach other mount namespaces and stay busy there.
        let _ = rustix::mount::mount_change(path, MountPropagationFlags::PRIVATE);
        Ok(netns)
    }

    /// Runs `work` inside the namespace, on a thread made for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_own_thread(|| {
            rustix::thread::move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }

    /// Device and inode: equal for two handles of one namespace.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|m| (m.dev(), m.ino()))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a namespace is pinned at `path` (an unpinned file may be left by a crash).
pub fn is_pinned(path: impl AsRef<Path>) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path.as_ref()).is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC)
}

/// Unpins and removes what [`Netns::create_at`] made; absent is fine.
pub fn remove(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    while is_pinned(path) {
        rustix::mount::unmount(path, UnmountFlags::DETACH)?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn unshare_net() -> io::Result<()> {
    // SAFETY: only the network namespace of this thread changes; no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_pins_enters_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ns");
        let made = Netns::create_at(&path).unwrap();
        assert!(is_pinned(&path));
        assert_ne!(made.id().unwrap(), Netns::current().unwrap().id().unwrap());
        assert_eq!(Netns::create_at(&path).unwrap().id().unwrap(), made.id().unwrap());
        let inside = Netns::open(&path).unwrap().run(|| Netns::current().unwrap().id().unwrap()).unwrap();
        assert_eq!(inside, made.id().unwrap());
        let lo = crate::netlink::route::Routing::open_in(&made).unwrap().link("lo").unwrap().unwrap();
        assert!(lo.up);
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
