//! Mounts of the host: bind, overlay, read-only, and the table of what is mounted. What happens inside containers is the
//! shim's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    move_mount, open_tree,
};

/// Whether a bind takes the mounts below the source along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Single,
    Recursive,
}

/// Binds `source` to `target`, which exists and is of the same type.
pub fn bind(source: &Path, target: &Path, depth: Depth) -> io::Result<()> {
    crate::steps::step("mounting");
    match depth {
        Depth::Single => rustix::mount::mount_bind(source, target)?,
        Depth::Recursive => rustix::mount::mount_bind_recursive(source, target)?,
    }
    Ok(())
}

/// Binds what a descriptor refers to (looked up safely before) to what another refers to: no path is walked again.
pub fn bind_fd(source: impl AsFd, target: impl AsFd, depth: Depth) -> io::Result<()> {
    crate::steps::step("mounting");
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if depth == Depth::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = open_tree(source, c"", flags)?;
    attach(&clone, target)
}

fn attach(mount: &OwnedFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Makes the mount at `target` read-only, keeping what else it is.
pub fn read_only(target: &Path) -> io::Result<()> {
    crate::steps::step("mounting");
    let stat = rustix::fs::statvfs(target)?.f_flag;
    let mut flags = MountFlags::RDONLY | MountFlags::BIND;
    for (has, flag) in [
        (rustix::fs::StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (rustix::fs::StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if stat.contains(has) {
            flags |= flag;
        }
    }
    Ok(rustix::mount::mount_remount(target, flags, c"")?)
}

/// Mounts and unmounts at and below `target` reach nobody else, nor come from elsewhere.
pub fn make_private(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Mounts and unmounts at and below `target` are shared with its copies.
pub fn make_shared(target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_change(target, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// A tmpfs at `target`; `options` as in mount(8).
pub fn tmpfs(target: &Path, options: &str) -> io::Result<()> {
    crate::steps::step("mounting");
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))?)
}

/// The layers of an overlay: `lower` from the uppermost down; without `upper` and `work` it is read-only.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    pub lower: Vec<PathBuf>,
    pub upper: Option<PathBuf>,
    pub work: Option<PathBuf>,
    /// More options, such as `volatile` or `metacopy=off`.
    pub options: Vec<String>,
}

impl Overlay {
    /// Mounts at `target`: layer by layer where the kernel can (6.5), else by mount(2), whose options hold 4 KiB.
    pub fn mount(&self, target: &Path) -> io::Result<()> {
        match self.by_descriptor(target) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.by_options(target),
            other => other,
        }
    }

    fn by_descriptor(&self, target: &Path) -> io::Result<()> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        fsconfig_set_string(context, "source", "overlay")?;
        for dir in &self.lower {
            fsconfig_set_string(context, "lowerdir+", dir)?;
        }
        for (key, dir) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(dir) = dir {
                fsconfig_set_string(context, key, dir)?;
            }
        }
        for option in &self.options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(context, key, value)?,
                None => fsconfig_set_flag(context, option.as_str())?,
            }
        }
        fsconfig_create(context)?;
        let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        Ok(move_mount(&mount, c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    fn by_options(&self, target: &Path) -> io::Result<()> {
        let escape = |path: &Path| {
            path.to_string_lossy().replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
        };
        let lower: Vec<String> = self.lower.iter().map(|dir| escape(dir)).collect();
        let mut data = format!("lowerdir={}", lower.join(":"));
        for (key, dir) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(dir) = dir {
                data.push_str(&format!(",{key}={}", escape(dir)));
            }
        }
        for option in &self.options {
            data.push(',');
            data.push_str(option);
        }
        let data = std::ffi::CString::new(data)?;
        Ok(rustix::mount::mount("overlay", target, "overlay", MountFlags::empty(), Some(data.as_c_str()))?)
    }
}

/// Unmounts everything that is mounted at `target`, at once for us and for others when they are done with it. Nothing
/// mounted there, or nothing there at all, is no error; a symlink is not followed.
pub fn unmount(target: &Path) -> io::Result<()> {
    crate::steps::step("unmounting");
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The part of the file system that is mounted.
    pub root: PathBuf,
    pub target: PathBuf,
    /// `shared:7`, `master:3` and the like.
    pub propagation: Vec<String>,
    pub file_system: String,
    pub source: String,
    /// Options of the mount, then of the file system.
    pub options: String,
    pub super_options: String,
}

/// Everything mounted in this mount namespace, in the kernel's order.
pub fn table() -> io::Result<Vec<Mounted>> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?))
}

/// What is mounted at `target` or below, the last mounted first: the order in which to unmount.
pub fn below(target: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = table()?.into_iter().map(|mounted| mounted.target).collect();
    found.retain(|path| path.starts_with(target));
    found.reverse();
    Ok(found)
}

fn parse(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, target, options) = (mount.next()?, mount.next()?, mount.next()?);
        let mut rest = file_system.splitn(3, ' ');
        Some(Mounted {
            root: unescape(root),
            target: unescape(target),
            propagation: mount.map(str::to_owned).collect(),
            file_system: rest.next()?.to_owned(),
            source: unescape(rest.next()?).to_string_lossy().into_owned(),
            options: options.to_owned(),
            super_options: rest.next().unwrap_or_default().to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

/// The kernel writes space, tab, newline and backslash in octal.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                out.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => {
                out.push(b'\\');
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_parsed() {
        let text =
            "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue\n";
        let mounted = parse(text);
        assert_eq!(mounted.len(), 1);
        assert_eq!(mounted[0].target, Path::new("/mnt 2"));
        assert_eq!(mounted[0].root, Path::new("/mnt1"));
        assert_eq!(mounted[0].propagation, ["shared:1", "master:2"]);
        assert_eq!((mounted[0].file_system.as_str(), mounted[0].source.as_str()), ("ext3", "/dev/root"));
        assert!(table().unwrap().iter().any(|mounted| mounted.target == Path::new("/")));
    }

    #[test]
    fn overlay_and_binds_as_root() {
        let dir = tempfile::tempdir_in("/run").unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["l1", "l2", "upper", "work", "merged", "bound"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::fs::write(at("l1/a"), "1").unwrap();
        std::fs::write(at("l2/a"), "2").unwrap();
        std::fs::write(at("l2/b"), "2").unwrap();
        let overlay = Overlay {
            lower: vec![at("l1"), at("l2")],
            upper: Some(at("upper")),
            work: Some(at("work")),
            options: Vec::new(),
        };
        for mount in [Overlay::by_descriptor, Overlay::by_options] {
            mount(&overlay, &at("merged")).unwrap();
            assert_eq!(std::fs::read_to_string(at("merged/a")).unwrap(), "1");
            assert_eq!(std::fs::read_to_string(at("merged/b")).unwrap(), "2");
            unmount(&at("merged")).unwrap();
        }
        bind(&at("l1"), &at("bound"), Depth::Single).unwrap();
        read_only(&at("bound")).unwrap();
        assert!(std::fs::write(at("bound/new"), "").is_err());
        assert_eq!(below(dir.path()).unwrap(), [at("bound")]);
        unmount(&at("bound")).unwrap();
        unmount(&at("bound")).unwrap();
        unmount(&at("absent")).unwrap();
        assert!(below(dir.path()).unwrap().is_empty());
    }
}
