//! The disk and the clock as the engine sees them, small enough that a simulated one can fail at every boundary.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

/// One open file.
pub trait File: Send + Sync {
    /// Its length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`. Not durable until a sync.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes room for `size` bytes, which read as zero until they are written.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Lets go of cached contents, so that the next read asks the device.
    fn forget(&self) {}
}

/// One directory of files, and nothing beside it.
pub trait Disk: Send + Sync + 'static {
    /// The names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Creates a file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Renames a file over whatever has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Bytes the disk has left.
    fn free(&self) -> io::Result<u64>;
}

/// The time, for TTLs and the history's age.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch; never runs backwards.
    fn now_ms(&self) -> u64;
    /// Asks to be told when the clock is moved by hand. A clock that only ticks never calls.
    fn on_jump(&self, _wake: Box<dyn Fn() + Send + Sync>) {}
}

/// The wall clock when it was made, and from then on the monotonic one: a jump of the wall clock expires nothing.
#[derive(Debug)]
pub struct SystemClock {
    wall: SystemTime,
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { wall: SystemTime::now(), start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let now = (self.wall + self.start.elapsed()).duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A real directory, 0700, locked against a second process as long as this lives.
pub struct Directory {
    path: PathBuf,
    handle: fs::File,
    _lock: fs::File,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Directory").field(&self.path).finish()
    }
}

impl Directory {
    /// Makes the directory if need be and locks it. `WouldBlock` when another process has it.
    pub fn lock(path: &Path) -> io::Result<Arc<Self>> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        let lock = options().create(true).truncate(false).open(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Arc::new(Self { path: path.to_owned(), handle: fs::File::open(path)?, _lock: lock }))
    }
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options().open(self.path.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options().create(true).truncate(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(self.handle.as_fd())?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, size) {
            // A file system without preallocation: the length alone, and full disks show at the write.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(size),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn forget(&self) {
        // Advice only: a file system that ignores it serves its cache, which is right unless a sync has failed.
        let _ = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}
