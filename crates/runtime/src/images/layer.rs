//! Unpacks one layer: a tar stream becomes a directory that overlayfs can stack, whiteouts and all.
//! The layer does not need those below it while it is unpacked, so that all of an image's go in parallel;
//! what does refer to them (directories it left out, links to files of theirs) is settled by `settle`.

use super::error::{Error, Result};
use super::tree::{self, Tree, clean, split};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::cell::Cell;
use std::collections::HashSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tar::EntryType;

/// How large one layer may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the uncompressed stream.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// Uncompressed to compressed, from the first GiB on: gzip can do 1000, no real image does.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 1 << 20, ratio: 200 }
    }
}

/// Headers, long names and pax records before one entry may not be larger.
const MAX_HEADER: u64 = 1 << 20;
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const CHUNK: usize = 256 << 10;
/// So much of a large file goes to the disk at a time.
const BATCH: u64 = 8 << 20;

/// What an unpacked layer takes, and what is open about it.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    pub(crate) bytes: u64,
    pub(crate) inodes: u64,
    /// Directories without an entry of their own: theirs are the attributes of the layer below.
    implied: Vec<Vec<u8>>,
    /// Links (name, target) to files this layer does not have.
    dangling: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Lets `tar` read headers only up to `MAX_HEADER` bytes, and the whole stream up to the limit.
struct Budgeted<R> {
    inner: R,
    header: Rc<Cell<Option<u64>>>,
    total: u64,
    limit: u64,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)? as u64;
        self.total += count;
        if self.total > self.limit {
            return Err(Error::TooLarge { what: "uncompressed layer".into(), limit: self.limit }.into());
        }
        if let Some(left) = self.header.get() {
            let left = left
                .checked_sub(count)
                .ok_or_else(|| Error::TooLarge { what: "tar header".into(), limit: MAX_HEADER })?;
            self.header.set(Some(left));
        }
        Ok(count as usize)
    }
}

/// Unpacks the tar stream into `destination`, an empty directory. Reads to the end of the archive, not of the stream.
pub(crate) fn unpack(stream: impl Read, destination: &Path, limits: &Limits) -> Result<Unpacked> {
    let header = Rc::new(Cell::new(Some(MAX_HEADER)));
    let budgeted = Budgeted { inner: stream, header: header.clone(), total: 0, limit: limits.bytes };
    let mut archive = tar::Archive::new(budgeted);
    let mut writer = Writer {
        tree: Tree::open(destination).map_err(Error::io("opening the snapshot"))?,
        done: Unpacked::default(),
        implied: HashSet::new(),
        directories: Vec::new(),
        buffer: vec![0; CHUNK],
    };
    let mut count = 0;
    for entry in archive.entries().map_err(Error::io("reading layer"))? {
        let mut entry = entry.map_err(Error::io("reading layer"))?;
        header.set(None);
        count += 1;
        if count > limits.entries {
            return Err(Error::TooLarge { what: "number of files in layer".into(), limit: limits.entries });
        }
        let name = clean(&entry.path_bytes());
        linux::steps::step("unpacking an entry");
        let attempt = writer.entry(&name, &mut entry).and_then(|()| io::copy(&mut entry, &mut io::sink()));
        attempt.map_err(Error::io(format!("unpacking {:?}", String::from_utf8_lossy(&name))))?;
        header.set(Some(MAX_HEADER));
    }
    writer.finish().map_err(Error::io("finishing the snapshot"))
}

struct Writer {
    tree: Tree,
    done: Unpacked,
    implied: HashSet<Vec<u8>>,
    /// Times of directories, set when nothing is written into them any more.
    directories: Vec<(Vec<u8>, i64)>,
    buffer: Vec<u8>,
}

/// Owner, mode and time of an entry.
struct Attributes {
    uid: u64,
    gid: u64,
    mode: u32,
    mtime: i64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn invalid(message: &str) -> io::Error {
    Error::Invalid(message.to_owned()).into()
}

fn owner(attributes: &Attributes) -> io::Result<(Option<Uid>, Option<Gid>)> {
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    match (id(attributes.uid), id(attributes.gid)) {
        (Some(uid), Some(gid)) => Ok((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))),
        _ => Err(invalid("owner is out of range")),
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

impl Writer {
    fn entry<R: Read>(&mut self, name: &[u8], entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let attributes = attributes(entry)?;
        if name.is_empty() {
            return match kind {
                EntryType::Directory => {
                    set(self.tree.root(), &attributes)?;
                    set_times_later(&mut self.directories, name, &attributes);
                    Ok(())
                }
                _ => Err(invalid("the root is not a directory")),
            };
        }
        let (parent, base) = split(name);
        if let Some(hidden) = base.strip_prefix(b".wh.") {
            return self.whiteout(parent, hidden);
        }
        self.done.inodes += 1;
        let mut made = Vec::new();
        self.tree.directory(parent, &mut made)?;
        self.implied.extend(made);
        if kind == EntryType::Directory {
            return self.make_directory(name, &attributes);
        }
        if matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            let mut file = self.make_file(name)?;
            self.done.bytes += copy_sparse(entry, &mut file, &mut self.buffer)?;
            set(file.as_fd(), &attributes)?;
            return Ok(rustix::fs::futimens(&file, &times(attributes.mtime))?);
        }
        self.make_room(name)?;
        let dir = self.tree.directory(parent, &mut Vec::new())?;
        match kind {
            EntryType::Link => {
                let target = clean(&entry.link_name_bytes().ok_or_else(|| invalid("a link to nothing"))?);
                self.link(name, target)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or_else(|| invalid("a link to nothing"))?;
                rustix::fs::symlinkat(&*target, dir, base)?;
                set_by_name(dir, base, &attributes, None)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = match kind {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    kind => {
                        let major = entry.header().device_major().ok().flatten().unwrap_or(0);
                        let minor = entry.header().device_minor().ok().flatten().unwrap_or(0);
                        let file = if kind == EntryType::Char {
                            FileType::CharacterDevice
                        } else {
                            FileType::BlockDevice
                        };
                        (file, rustix::fs::makedev(major, minor))
                    }
                };
                rustix::fs::mknodat(dir, base, kind, Mode::from_raw_mode(0o600), device)?;
                set_by_name(dir, base, &attributes, Some(attributes.mode))?;
            }
            other => return Err(invalid(&format!("unknown entry type {:?}", other.as_byte() as char))),
        }
        Ok(())
    }

    /// A new file. Rarely there is something of that name: whether there is need not be asked.
    fn make_file(&mut self, name: &[u8]) -> io::Result<std::fs::File> {
        let (parent, base) = split(name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |tree: &mut Tree| -> io::Result<std::fs::File> {
            let dir = tree.directory(parent, &mut Vec::new())?;
            Ok(rustix::fs::openat(dir, base, flags, Mode::from_raw_mode(0o600))?.into())
        };
        match make(&mut self.tree) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.make_room(name)?;
                make(&mut self.tree)
            }
            made => made,
        }
    }

    /// Later entries replace earlier ones of the same name.
    fn make_room(&mut self, name: &[u8]) -> io::Result<()> {
        let (parent, base) = split(name);
        let dir = self.tree.directory(parent, &mut Vec::new())?;
        if tree::kind(dir, base)?.is_some() {
            self.tree.remove(name)?;
        }
        Ok(())
    }

    fn make_directory(&mut self, name: &[u8], attributes: &Attributes) -> io::Result<()> {
        let (parent, base) = split(name);
        let dir = self.tree.directory(parent, &mut Vec::new())?;
        let present = tree::kind(dir, base)?;
        let is_directory =
            |stat: &rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let replaces_whiteout = present.as_ref().is_some_and(tree::is_whiteout);
        if !present.as_ref().is_some_and(is_directory) {
            if present.is_some() {
                self.tree.remove(name)?;
            }
            let dir = self.tree.directory(parent, &mut Vec::new())?;
            rustix::fs::mkdirat(dir, base, Mode::from_raw_mode(0o700))?;
        }
        self.implied.remove(name);
        let dir = self.tree.directory(parent, &mut Vec::new())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, base, flags, Mode::empty())?;
        set(fd.as_fd(), attributes)?;
        if replaces_whiteout {
            rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?;
        }
        set_times_later(&mut self.directories, name, attributes);
        Ok(())
    }

    fn whiteout(&mut self, parent: &[u8], hidden: &[u8]) -> io::Result<()> {
        let mut made = Vec::new();
        let dir = self.tree.directory(parent, &mut made)?;
        match hidden {
            b".wh..opq" => rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())?,
            // Aufs' own book-keeping.
            hidden if hidden.starts_with(b".wh.") => {}
            b"" | b"." | b".." => return Err(invalid("a whiteout without a name")),
            // A name that this layer itself has already given is not hidden by it.
            hidden => match rustix::fs::mknodat(dir, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
                Ok(()) => self.done.inodes += 1,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
        }
        self.implied.extend(made);
        Ok(())
    }

    fn link(&mut self, name: &[u8], target: Vec<u8>) -> io::Result<()> {
        match link(&mut self.tree, name, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.done.dangling.push((name.to_owned(), target));
                Ok(())
            }
            result => result,
        }
    }

    fn finish(mut self) -> io::Result<Unpacked> {
        for (path, mtime) in self.directories.iter().rev() {
            // One that was replaced since is no longer there.
            if let Ok(fd) = self.tree.existing(path) {
                rustix::fs::futimens(&fd, &times(*mtime))?;
            }
        }
        self.done.implied = self.implied.into_iter().collect();
        self.done.implied.sort();
        Ok(self.done)
    }
}

fn set_times_later(directories: &mut Vec<(Vec<u8>, i64)>, name: &[u8], attributes: &Attributes) {
    directories.push((name.to_owned(), attributes.mtime));
}

/// Neither name nor target is followed if it is a symlink; the target's directories are, inside the root.
fn link(tree: &mut Tree, name: &[u8], target: &[u8]) -> io::Result<()> {
    let (target_parent, target_base) = split(target);
    if target_base.is_empty() {
        return Err(invalid("a link to the root"));
    }
    let mut made = Vec::new();
    // Does not make directories for a target that is not here.
    let beneath = rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS;
    let from = if target_parent.is_empty() { b"." } else { target_parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = rustix::fs::openat2(tree.root(), from, flags, Mode::empty(), beneath)?;
    let (parent, base) = split(name);
    let to = tree.directory(parent, &mut made)?;
    Ok(rustix::fs::linkat(&from, target_base, to, base, AtFlags::empty())?)
}

fn attributes<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Attributes> {
    let header = entry.header();
    let raw = header.as_old();
    let mut attributes = Attributes {
        uid: or_zero(&raw.uid, header.uid())?,
        gid: or_zero(&raw.gid, header.gid())?,
        mode: or_zero(&raw.mode, header.mode())? & 0o7777,
        mtime: i64::try_from(or_zero(&raw.mtime, header.mtime())?).unwrap_or(0),
        xattrs: Vec::new(),
    };
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            let extension = extension?;
            let key = extension.key_bytes();
            if key.starts_with(b"GNU.sparse.") {
                return Err(invalid("sparse files in pax format are not supported"));
            }
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                // `trusted.overlay.*` would let a layer redirect lookups in the layers below.
                if !name.starts_with(b"trusted.") {
                    attributes.xattrs.push((name.to_owned(), extension.value_bytes().to_owned()));
                }
            }
        }
    }
    Ok(attributes)
}

/// A field that was left blank is zero, as every other reader has it.
fn or_zero<T: Default>(field: &[u8], value: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { value }
}

/// Owner first: changing it clears setuid and file capabilities.
fn set(fd: BorrowedFd<'_>, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = owner(attributes)?;
    if attributes.uid != 0 || attributes.gid != 0 {
        rustix::fs::fchown(fd, uid, gid)?;
    }
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
            // As containerd: a file system without extended attributes is no reason to fail.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn set_by_name(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
    mode: Option<u32>,
) -> io::Result<()> {
    let (uid, gid) = owner(attributes)?;
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if let Some(mode) = mode {
        // The name is a node we have just made, in a directory that only root can reach.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(dir, name, &times(attributes.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Has the kernel begin to write what a file has got so far: all of it is waited for in the end, and the disk need not be
/// idle until then.
fn begin_writing(file: &std::fs::File, from: u64, to: u64) {
    let (from, count) = (i64::try_from(from).unwrap_or(0), i64::try_from(to - from).unwrap_or(0));
    // SAFETY: the call takes an open descriptor and numbers. What comes of it is seen when everything is synced.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), from, count, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Copies the content, leaving holes for blocks of zeros; gives the number of bytes written.
fn copy_sparse(from: &mut impl Read, to: &mut std::fs::File, buffer: &mut [u8]) -> io::Result<u64> {
    let (mut length, mut written, mut hole, mut begun) = (0u64, 0u64, false, 0u64);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            break;
        }
        length += filled as u64;
        // Only full chunks: small files are not worth looking at.
        hole = filled == buffer.len() && buffer.iter().all(|b| *b == 0);
        if hole {
            to.seek(SeekFrom::Current(filled as i64))?;
        } else {
            to.write_all(&buffer[..filled])?;
            written += filled as u64;
        }
        if length - begun >= BATCH {
            begin_writing(to, begun, length);
            begun = length;
        }
    }
    if hole {
        to.set_len(length)?;
    }
    Ok(written)
}

/// Settles what refers to the layers below, which are complete now; `lowers` has the uppermost first.
pub(crate) fn settle(unpacked: &mut Unpacked, layer: &Path, lowers: &[PathBuf]) -> Result<()> {
    if unpacked.implied.is_empty() && unpacked.dangling.is_empty() {
        return Ok(());
    }
    let open = |path: &Path| Tree::open(path).map_err(Error::io("opening a snapshot"));
    let mut tree = open(layer)?;
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    for (name, target) in std::mem::take(&mut unpacked.dangling) {
        let what = || format!("linking {:?}", String::from_utf8_lossy(&name));
        let mut made = Vec::new();
        copy_up(&mut tree, &lowers, &target, &mut made).map_err(Error::io(what()))?;
        unpacked.implied.extend(made);
        unpacked.inodes += 1;
        link(&mut tree, &name, &target).map_err(Error::io(what()))?;
    }
    // Parents come before children.
    unpacked.implied.sort();
    for path in &unpacked.implied {
        inherit(&tree, &lowers, path).map_err(Error::io("copying a directory's attributes"))?;
    }
    Ok(())
}

/// Gives a directory the attributes of the one it will cover.
fn inherit(tree: &Tree, lowers: &[Tree], path: &[u8]) -> io::Result<()> {
    let Ok(ours) = tree.existing(path) else { return Ok(()) };
    let Some(theirs) = lowers.iter().find_map(|lower| lower.existing(path).ok()) else { return Ok(()) };
    let stat = rustix::fs::fstat(&theirs)?;
    rustix::fs::fchown(&ours, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&ours, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(&ours, &times(stat.st_mtime))?)
}

/// Copies a file of a layer below into this one, as overlayfs would before linking it.
fn copy_up(tree: &mut Tree, lowers: &[Tree], path: &[u8], made: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let (parent, base) = split(path);
    for lower in lowers {
        let Ok(dir) = lower.existing(parent) else { continue };
        let Some(stat) = tree::kind(dir.as_fd(), base)? else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            break;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut from = std::fs::File::from(rustix::fs::openat(&dir, base, flags, Mode::empty())?);
        let to = tree.directory(parent, made)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = std::fs::File::from(rustix::fs::openat(to, base, flags, Mode::from_raw_mode(0o600))?);
        io::copy(&mut from, &mut to)?;
        rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        return Ok(rustix::fs::futimens(&to, &times(stat.st_mtime))?);
    }
    Err(invalid("a link to a file that no layer has"))
}
