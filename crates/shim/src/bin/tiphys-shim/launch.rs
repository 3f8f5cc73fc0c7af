//! The line between the shim and a process it is setting up: a pair of sockets over which the child tells how far it is,
//! and waits for the word to execute its program. Executing closes the child's end, which is how success is told.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};
use shim::codec;
use shim::protocol::Failure;

use crate::sys::{self, Outcome};

#[derive(Serialize, Deserialize)]
pub(crate) enum Step {
    /// The process that will execute the program, as the host numbers it.
    Pid(i32),
    /// The message carries the master of the terminal.
    Terminal,
    /// All is set up; the child waits for the word.
    Ready,
    Failed(Failure),
}

/// The shim's end, which does not block, and the child's.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

pub(crate) fn tell(line: BorrowedFd<'_>, step: &Step, fds: &[BorrowedFd<'_>]) {
    // A shim that has died hears nothing; the child then ends at its next wait.
    if let Ok(text) = serde_json::to_vec(step) {
        let _ = codec::send(line, &text, fds);
    }
}

/// The next message; None when the child has executed its program, or died.
pub(crate) fn hear(line: BorrowedFd<'_>) -> io::Result<Option<(Step, Vec<OwnedFd>)>> {
    let mut buffer = [0; 8192];
    let (count, fds) = codec::receive(line, &mut buffer)?;
    if count == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..count])?, fds)))
}

/// The word to go on.
pub(crate) fn go(line: BorrowedFd<'_>) -> io::Result<()> {
    codec::send(line, b"go", &[]).map(drop)
}

/// Ends the child if the shim has gone.
pub(crate) fn wait_for_go(line: BorrowedFd<'_>) {
    loop {
        match codec::receive(line, &mut [0; 8]) {
            Ok((0, _)) => sys::quit(1),
            Ok(_) => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => sys::quit(1),
        }
    }
}

/// Runs one stage in a fork and never comes back.
pub(crate) fn stage(line: OwnedFd, work: impl FnOnce(BorrowedFd<'_>) -> Outcome<()>) -> ! {
    // Nobody in a namespace we join may look into us.
    // SAFETY: takes integers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    match work(line.as_fd()) {
        Ok(()) => sys::quit(0),
        Err(failure) => {
            tell(line.as_fd(), &Step::Failed(failure), &[]);
            sys::quit(127)
        }
    }
}
