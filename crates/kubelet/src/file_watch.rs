//! Waiting for files to change (inotify), as a future.

use rustix::fs::inotify;
pub use rustix::fs::inotify::WatchFlags;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Paths that are watched.
#[derive(Debug)]
pub struct FileWatch(AsyncFd<OwnedFd>);

impl FileWatch {
    /// Watches each path for its changes. Must be called within a tokio runtime.
    pub fn new(paths: &[(&Path, WatchFlags)]) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        for (path, flags) in paths {
            inotify::add_watch(&fd, *path, *flags)?;
        }
        // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, until it is dropped with the `AsyncFd`.
        let registered = unsafe { AsyncFd::register(fd) };
        Ok(FileWatch(registered.map_err(|e| io::Error::other(e.to_string()))?))
    }

    /// Waits until something changed since the last call. What, the files themselves tell.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [0u8; 4096];
        while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|n| n > 0) {}
        ready.clear_ready();
        Ok(())
    }
}
