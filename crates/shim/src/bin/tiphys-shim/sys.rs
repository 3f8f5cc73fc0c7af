//! The system calls that no crate wraps, and the vocabulary of failing: every step of setting up a container says what
//! was being attempted.

use std::ffi::CString;
use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use shim::protocol::{Failure, FailureKind};

/// What a step of the set-up gives.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Names the step that failed.
pub(crate) trait At<T> {
    fn at(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| failed(format!("{what}: {error}")))
    }
}

/// A failure of the general kind.
pub(crate) fn failed(message: impl Into<String>) -> Failure {
    Failure { kind: FailureKind::Failed, message: message.into() }
}

/// The result of a raw system call.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers; the program has one thread.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

pub(crate) fn setns(fd: impl AsFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for the call; the program has one thread.
    check(unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags) }.into()).map(drop)
}

/// libc's overflows its type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// As fork(2), with clone flags, the child optionally born in a v2 cgroup. None: this is the child.
pub(crate) fn clone(flags: libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Option<i32>> {
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags as u64;
    // With CLONE_PARENT the child signals what its sibling, this process, would have.
    args.exit_signal = if flags & libc::CLONE_PARENT != 0 { 0 } else { libc::SIGCHLD as u64 };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM and a stack this is fork; one thread, so the child may allocate and go on.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) })?;
    Ok((pid != 0).then_some(pid as i32))
}

/// Ends a forked child without running the exit handlers of its parent.
pub(crate) fn quit(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a non-negative result is a new descriptor.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct MountAttr {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: an empty C string and a struct of the size named.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const *attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: changes a flag of descriptors only.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Kernels before 5.11 do not know the flag.
    for fd in first..4096 {
        // SAFETY: F_SETFD takes an integer; descriptors that are not open give EBADF.
        unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Closes every descriptor that is not in `keep` and not 0, 1 or 2. Only for a process about to become another: the
/// owners of what is closed must never be dropped, which a fork that ends in exec or `quit` guarantees.
pub(crate) fn close_all_but(keep: &[i32]) {
    let mut keep: Vec<u32> = keep.iter().filter(|fd| **fd > 2).map(|fd| *fd as u32).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([u32::MAX]) {
        if fd > from {
            let to = if fd == u32::MAX { fd } else { fd - 1 };
            // SAFETY: closes descriptors nobody of this process uses again.
            unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

pub(crate) fn cstring(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| failed(format!("{text:?} contains a NUL byte")))
}

/// Sends a signal to a process that only this program reaps, so that the number cannot have been reused.
/// A negative number is a process group. A process that is gone is no error.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    match check(unsafe { libc::kill(pid, signal) }.into()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other.map(drop),
    }
}
