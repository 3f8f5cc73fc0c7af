//! Sockets that outlive their daemon: kept by a small process of their own (`tiphys-shim hold`), handed to the next daemon.
//! Calls block, for a moment.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::codec;
use crate::spawn::Program;

/// A connection to the holder: as long as it is open, the holder stays.
#[derive(Debug)]
pub struct Held(OwnedFd);

/// Where and how a holder lives.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its socket.
    pub socket: PathBuf,
    /// Seconds that it waits for a successor.
    pub patience: u32,
    /// Cgroup directories that it moves itself into: outside the daemon's.
    pub cgroups: Vec<PathBuf>,
}

impl Held {
    fn connect(socket: &Path) -> io::Result<Held> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&fd, &SocketAddrUnix::new(socket)?)?;
        Ok(Held(fd))
    }

    fn ask(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        codec::send(self.0.as_fd(), message, fds)?;
        let mut buffer = [0; 512];
        let (length, fds) = codec::receive(self.0.as_fd(), &mut buffer)?;
        match buffer[..length].strip_prefix(b"held") {
            Some(label) => Ok((label.to_vec(), fds)),
            None => Err(io::Error::other("the holder of sockets does not answer")),
        }
    }

    /// What a holder has under this label; a holder of something else ends.
    pub fn take(place: &Place, label: &str) -> Option<(Held, Vec<OwnedFd>)> {
        let held = Held::connect(&place.socket).ok()?;
        match held.ask(b"get", &[]) {
            Ok((known, fds)) if known == label.as_bytes() && !fds.is_empty() => Some((held, fds)),
            _ => {
                drop(held);
                end(&place.socket);
                None
            }
        }
    }

    /// Has sockets kept by a new holder.
    pub fn keep(program: &Program, place: &Place, label: &str, fds: &[BorrowedFd<'_>]) -> io::Result<Held> {
        program.hold(place)?;
        let held = Held::connect(&place.socket)?;
        held.ask(&[b"put", label.as_bytes()].concat(), fds)?;
        Ok(held)
    }
}

/// Ends the holder there, if there is one.
pub fn end(socket: &Path) {
    if let Ok(held) = Held::connect(socket) {
        // It ends with the answer.
        let _ = held.ask(b"end", &[]);
    }
}
