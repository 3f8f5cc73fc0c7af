//! A directory tree that hostile names cannot leave: every path is resolved by the kernel beneath the root
//! (openat2 with RESOLVE_IN_ROOT), links and all, and the last component is never followed.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The root of a tree.
pub(crate) struct Tree {
    root: OwnedFd,
    /// The directory asked for last: archives list files directory by directory.
    last: Option<(Vec<u8>, OwnedFd)>,
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A name as an archive has it, made relative to the root: no empty, `.` or `..` components.
pub(crate) fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Parent and last component of a clean path; the parent of a single component is the root, `""`.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

impl Tree {
    /// `path` is trusted; what is in it is not.
    pub(crate) fn open(path: &Path) -> io::Result<Tree> {
        Ok(Tree { root: rustix::fs::open(path, DIRECTORY, Mode::empty())?, last: None })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn resolve(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let beneath = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), beneath)?)
    }

    /// A directory that exists, found without following any link.
    pub(crate) fn existing(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let beneath = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), beneath)?)
    }

    /// The directory of a clean path, made when absent; the clean paths of those made are added to `made`.
    pub(crate) fn directory(&mut self, path: &[u8], made: &mut Vec<Vec<u8>>) -> io::Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let fd = self.make(path, made)?;
            self.last = Some((path.to_owned(), fd));
        }
        match &self.last {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn make(&self, path: &[u8], made: &mut Vec<Vec<u8>>) -> io::Result<OwnedFd> {
        match self.resolve(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {}
            result => return result,
        }
        let (parent, name) = split(path);
        let parent = self.make(parent, made)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => made.push(path.to_owned()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.resolve(path)
    }

    /// Removes whatever has that name, whole trees included. What is cached may lie in it.
    pub(crate) fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        self.last = None;
        let (parent, name) = split(path);
        let parent = self.resolve(parent)?;
        remove_at(parent.as_fd(), name)
    }
}

/// What has that name in `dir`, if anything.
pub(crate) fn kind(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether this is how overlayfs says that a name of a lower layer is gone.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn remove_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let inside = rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&inside)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_at(inside.as_fd(), name)?;
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_confined() {
        let check = |name: &str, path: &str| assert_eq!(clean(name.as_bytes()), path.as_bytes(), "{name}");
        check("/etc/passwd", "etc/passwd");
        check("../../etc/passwd", "etc/passwd");
        check("./a//b/./../c/", "a/c");
        check("a/../../../..", "");
        assert_eq!(split(b"a/b/c"), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(split(b"a"), (&b""[..], &b"a"[..]));
    }

    #[test]
    fn links_lead_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", dir.path().join("magic")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("inner")).unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        let mut tree = Tree::open(dir.path()).unwrap();
        let mut made = Vec::new();
        for name in ["out/x", "magic/x"] {
            assert!(tree.directory(name.as_bytes(), &mut made).is_err(), "{name}");
        }
        tree.directory(b"inner/x", &mut made).unwrap();
        assert!(dir.path().join("real/x").is_dir());
        assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none());
        tree.remove(b"real").unwrap();
        tree.remove(b"out").unwrap();
        assert!(outside.path().is_dir() && !dir.path().join("real").exists());
    }
}
