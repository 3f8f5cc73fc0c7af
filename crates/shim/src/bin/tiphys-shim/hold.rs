//! Holding sockets while their daemon is away: what is asked meanwhile waits in them for its successor, instead of being
//! refused. Whoever connects says so with one message: `get` what is held, `put` others in its place, `end`. As long as
//! a connection is open somebody lives; a while after the last one closes, the holder ends.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use shim::codec;
use shim::protocol::Cgroup;

use crate::{create, start, sys};

/// `hold SOCKET SECONDS [CGROUP]...`.
pub(crate) fn run(socket: &str, seconds: &str, cgroups: &[String]) -> i32 {
    let Ok(seconds) = seconds.parse() else { return 2 };
    let patience = Duration::from_secs(seconds);
    let begun = create::join(&Cgroup { dirs: cgroups.to_vec(), v2: false })
        .map_err(|failure| io::Error::other(failure.message))
        .and_then(|()| {
            start::in_background(|| listener(socket), |listener| hold(socket, &listener, patience))
        });
    match begun {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            1
        }
    }
}

fn listener(path: &str) -> io::Result<OwnedFd> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::process::umask(before);
    listen(&socket, 8)?;
    Ok(socket)
}

/// What is held, and what it is called.
#[derive(Default)]
struct Held {
    label: Vec<u8>,
    fds: Vec<OwnedFd>,
}

fn hold(path: &str, listener: &OwnedFd, patience: Duration) -> ! {
    let mut held = Held::default();
    let mut connections: Vec<OwnedFd> = Vec::new();
    let mut alone_since = Instant::now();
    loop {
        let left = patience.saturating_sub(alone_since.elapsed());
        if connections.is_empty() && left.is_zero() {
            let _ = rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::empty());
            sys::quit(0);
        }
        let ready = ready(listener.as_fd(), &connections, connections.is_empty().then_some(left));
        let mut open = Vec::new();
        for (connection, ready) in connections.drain(..).zip(ready.iter().skip(1)) {
            if !ready || served(&connection, &mut held, path) {
                open.push(connection);
            } else {
                alone_since = Instant::now();
            }
        }
        connections = open;
        if ready.first() == Some(&true)
            && let Ok(connection) = accept_with(listener, SocketFlags::CLOEXEC)
        {
            connections.push(connection);
        }
    }
}

/// Whether the listener, and each connection, has something to say.
fn ready(listener: BorrowedFd<'_>, connections: &[OwnedFd], limit: Option<Duration>) -> Vec<bool> {
    let all = std::iter::once(listener).chain(connections.iter().map(AsFd::as_fd));
    let mut all: Vec<PollFd<'_>> = all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let limit = limit.map(|limit| Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match poll(&mut all, limit.as_ref()) {
        Ok(_) => all.iter().map(|fd| !fd.revents().is_empty()).collect(),
        Err(_) => vec![false; all.len()],
    }
}

/// Answers one message; whether the connection goes on.
fn served(connection: &OwnedFd, held: &mut Held, path: &str) -> bool {
    let mut buffer = [0; 512];
    let Ok((length, fds)) = codec::receive(connection.as_fd(), &mut buffer) else { return false };
    let message = &buffer[..length];
    if message.starts_with(b"get") {
        let fds: Vec<BorrowedFd<'_>> = held.fds.iter().map(AsFd::as_fd).collect();
        let mut answer = b"held".to_vec();
        answer.extend_from_slice(&held.label);
        return codec::send(connection.as_fd(), &answer, &fds).is_ok();
    }
    if let Some(label) = message.strip_prefix(b"put") {
        *held = Held { label: label.to_vec(), fds };
        return codec::send(connection.as_fd(), b"held", &[]).is_ok();
    }
    if message.starts_with(b"end") {
        let _ = rustix::fs::unlinkat(CWD, path, rustix::fs::AtFlags::empty());
        held.fds.clear();
        let _ = codec::send(connection.as_fd(), b"ended", &[]);
        sys::quit(0);
    }
    false
}
