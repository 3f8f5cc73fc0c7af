//! Walking paths below a directory that others may change while we look: every lookup is an openat2 from a held
//! descriptor, so that no symlink, rename or magic link leads out of it. [`Root`] treats the directory as `/` (a container's
//! root: symlinks are followed within it); [`Beneath`] follows no symlink at all (subPaths, logs, volumes).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, unlinkat,
};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory that is the root of the paths looked up in it.
#[derive(Debug)]
pub struct Root(Held);

/// A directory beneath which paths are looked up without following any symlink.
#[derive(Debug)]
pub struct Beneath(Held);

#[derive(Debug)]
struct Held {
    dir: OwnedFd,
    resolve: ResolveFlags,
}

macro_rules! walks {
    ($kind:ident, $resolve:expr) => {
        impl $kind {
            /// Holds `dir`, which is itself trusted.
            pub fn open(dir: &Path) -> io::Result<$kind> {
                Ok($kind::from(openat(CWD, dir, DIRECTORY, Mode::empty())?))
            }

            /// A handle (O_PATH) on what is there: for mounting, or `/proc/self/fd`.
            pub fn handle(&self, path: &Path) -> io::Result<OwnedFd> {
                self.0.at(path, OFlags::PATH | OFlags::CLOEXEC)
            }

            /// Opens a regular file for reading; a FIFO or device is refused, not waited for.
            pub fn open_file(&self, path: &Path) -> io::Result<File> {
                self.0.file(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)
            }

            /// Opens a directory, made with its parents where absent.
            pub fn make_dirs(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
                self.0.make_dirs(path, mode)
            }

            /// Opens a regular file for writing, made empty where absent; its directory exists.
            pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
                self.0.create(path, mode)
            }
        }

        impl From<OwnedFd> for $kind {
            fn from(dir: OwnedFd) -> $kind {
                $kind(Held { dir, resolve: $resolve })
            }
        }

        impl AsFd for $kind {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.dir.as_fd()
            }
        }
    };
}

walks!(Root, ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS));
walks!(Beneath, ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS));

impl Beneath {
    /// Removes a file, or a directory with all that is in it, staying on its file system and following nothing.
    pub fn remove_all(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = split(path)?;
        let parent = self.0.at(parent, DIRECTORY)?;
        let device = fstat(&parent)?.st_dev;
        remove(parent.as_fd(), name, device)
    }
}

impl Held {
    fn at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.at_mode(path, flags, Mode::empty())
    }

    fn at_mode(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        // Beneath a directory an absolute path would be an escape; here it only means "from the top".
        let path = path.strip_prefix("/").unwrap_or(path);
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match openat2(&self.dir, path, flags, mode, self.resolve) {
                // A rename raced with the lookup.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn file(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        let fd = self.at(path, flags)?;
        regular(&fd)?;
        Ok(fd.into())
    }

    fn create(&self, path: &Path, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = self.at_mode(path, flags, Mode::from_raw_mode(mode))?;
        regular(&fd)?;
        Ok(fd.into())
    }

    fn make_dirs(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        match self.at(path, DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut done = std::path::PathBuf::new();
        let mut at = self.at(&done, DIRECTORY)?;
        for part in path.components() {
            let Component::Normal(name) = part else {
                if part == Component::ParentDir {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "path to be made has a .. component",
                    ));
                }
                continue;
            };
            done.push(name);
            at = match self.at(&done, DIRECTORY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match mkdirat(&at, name, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(Errno::EXIST) => self.at(&done, DIRECTORY)?,
                        Err(error) => return Err(error.into()),
                    }
                }
                other => other?,
            };
        }
        Ok(at)
    }
}

fn regular(fd: &OwnedFd) -> io::Result<()> {
    match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "path names nothing below the directory")),
    }
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr, device: u64) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    if fstat(&dir)?.st_dev != device {
        return Err(io::Error::other(format!("{name:?} is a mount point")));
    }
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
        let name: &OsStr = name;
        if name != "." && name != ".." {
            remove(dir.as_fd(), name, device)?;
        }
    }
    Ok(unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// The path by which a descriptor can be named to calls that take only paths.
pub fn by_fd(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(inside.join("a")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        symlink("../../out", inside.join("a/up")).unwrap();
        symlink(&outside, inside.join("a/abs")).unwrap();
        symlink("a", inside.join("fine")).unwrap();
        std::fs::write(inside.join("a/file"), "y").unwrap();

        let (root, beneath) = (Root::open(&inside).unwrap(), Beneath::open(&inside).unwrap());
        for path in ["a/up/secret", "a/abs/secret", "../out/secret", "/../out/secret", "a/../../out/secret"] {
            assert!(root.open_file(Path::new(path)).is_err(), "{path}");
            assert!(beneath.open_file(Path::new(path)).is_err(), "{path}");
        }
        assert!(root.open_file(Path::new("/fine/file")).is_ok());
        assert!(beneath.open_file(Path::new("fine/file")).is_err());
        assert!(beneath.open_file(Path::new("/a/file")).is_ok());
        assert!(beneath.open_file(Path::new("a")).is_err());
        assert!(beneath.make_dirs(Path::new("a/up/made"), 0o755).is_err());
        assert!(!outside.join("made").exists());
        root.make_dirs(Path::new("/fine/x/y"), 0o755).unwrap();
        assert!(inside.join("a/x/y").is_dir());
        beneath.create_file(Path::new("a/new"), 0o600).unwrap();
        assert!(beneath.create_file(Path::new("a/up/new"), 0o600).is_err());

        beneath.remove_all(Path::new("a")).unwrap();
        assert!(!inside.join("a").exists() && outside.join("secret").exists());
    }
}
