//! Mounting by file descriptor: a new or cloned mount is a descriptor first, gets its attributes, and is then attached
//! to a handle that was looked up safely. No path is walked twice.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    open_tree,
};
use shim::protocol::Propagation;

use crate::sys::{self, MountAttr};

/// A detached, recursive copy of the mounts at a path of the host.
pub(crate) fn clone_path(path: &str) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(CWD, path, flags)?)
}

/// A detached, recursive copy of what a descriptor refers to.
pub(crate) fn clone_fd(fd: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(fd, c"", flags)?)
}

/// A new file system as a detached mount. `options` are as in mount(8).
pub(crate) fn new(kind: &str, options: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let _ = fsconfig_set_string(context.as_fd(), "source", kind);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        set(context.as_fd(), option)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// One option of a file system being configured.
pub(crate) fn set(context: BorrowedFd<'_>, option: &str) -> io::Result<()> {
    let done = match option.split_once('=') {
        Some((key, value)) => fsconfig_set_string(context, key, value),
        None => fsconfig_set_flag(context, option),
    };
    done.map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("option {option}: {error}")))
}

/// Attaches a detached mount.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Adds attributes to a mount, attached or not.
pub(crate) fn restrict(mount: BorrowedFd<'_>, attributes: MountAttrFlags, recursive: bool) -> io::Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let attr = MountAttr { set: u64::from(attributes.bits()), ..MountAttr::default() };
    match sys::mount_setattr(mount, recursive, &attr) {
        // Before 5.12 an attached mount can still be remounted by its descriptor; a whole tree cannot.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && !recursive => remount(mount, attributes),
        other => other,
    }
}

/// Whether the kernel can set attributes on a mount that is not yet attached (5.12).
pub(crate) fn can_set_attributes() -> bool {
    // SAFETY: an invalid descriptor and no attributes: the call only shows whether it exists.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, 0, 0) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

fn remount(mount: BorrowedFd<'_>, attributes: MountAttrFlags) -> io::Result<()> {
    let mut flags = libc::MS_REMOUNT | libc::MS_BIND;
    for (attribute, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, libc::MS_RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, libc::MS_NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, libc::MS_NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, libc::MS_NOEXEC),
    ] {
        if attributes.contains(attribute) {
            flags |= flag;
        }
    }
    // What is already there must be named again, or the kernel takes it as a wish to remove it.
    let now = rustix::fs::fstatvfs(mount)?.f_flag;
    for (has, flag) in [
        (rustix::fs::StatVfsMountFlags::RDONLY, libc::MS_RDONLY),
        (rustix::fs::StatVfsMountFlags::NOSUID, libc::MS_NOSUID),
        (rustix::fs::StatVfsMountFlags::NODEV, libc::MS_NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, libc::MS_NOEXEC),
        (rustix::fs::StatVfsMountFlags::RELATIME, libc::MS_RELATIME),
        (rustix::fs::StatVfsMountFlags::NOATIME, libc::MS_NOATIME),
    ] {
        if now.contains(has) {
            flags |= flag;
        }
    }
    let path = std::ffi::CString::new(by_fd(mount))?;
    let null = std::ptr::null();
    // SAFETY: a C string and null pointers where mount(2) ignores its arguments.
    sys::check(unsafe { libc::mount(null, path.as_ptr(), null, flags, null.cast()) }.into()).map(drop)
}

/// The host's procfs is still in place whenever this is used.
pub(crate) fn by_fd(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Sets how mounts and unmounts travel, for a tree attached at `mount`.
pub(crate) fn propagate(mount: impl AsFd, propagation: Propagation) -> io::Result<()> {
    let flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    Ok(mount_change(by_fd(mount), flags | MountPropagationFlags::REC)?)
}
