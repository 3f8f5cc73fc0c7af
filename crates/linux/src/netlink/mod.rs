//! Netlink, spoken directly: one small codec and one socket under links, routes, nftables and conntrack.
//!
//! Requests go in as [`Message`]s, replies come out as [`Reply`]s whose attributes are read with [`attributes`].
//! The kernel answers a request inside `sendmsg`, so these calls are synchronous and take microseconds; a
//! transaction of tens of thousands of elements belongs on a blocking thread.

mod message;
pub mod route;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink as nl};

pub use message::{Attributes, Message, Reply, attributes};

use crate::netns::Netns;

/// What the kernel, or the way to it, refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("netlink socket")]
    Io(#[from] io::Error),
    /// The kernel's answer to one request; `detail` is its extended acknowledgement, when it gives one.
    #[error("{what}: {errno}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Refused { what: &'static str, errno: io::Error, detail: String },
    #[error("{0}: the kernel did not acknowledge the request")]
    NoAnswer(&'static str),
    #[error("{0}: malformed answer")]
    Malformed(&'static str),
    /// The kernel's table changed under every reading of it.
    #[error("{0}: the table does not settle")]
    Unsettled(&'static str),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The errno, whichever way it came.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Io(e) | Error::Refused { errno: e, .. } => e.raw_os_error(),
            Error::NoAnswer(_) | Error::Malformed(_) | Error::Unsettled(_) => None,
        }
    }

    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the object named is not there; the families disagree about the number.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL))
    }
}

/// Which subsystem a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
}

/// A netlink socket. It stays in the network namespace it was opened in, whatever thread uses it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

/// The kernel never puts more than this into one datagram of a dump, and requests echo back only their header.
const RECEIVE: usize = 256 * 1024;

const SOL_NETLINK: i32 = 270;
const NETLINK_ADD_MEMBERSHIP: i32 = 1;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;

impl Socket {
    /// A socket in the calling thread's network namespace.
    pub fn open(family: Family) -> Result<Self> {
        // NETLINK_ROUTE is protocol zero, the default.
        let protocol = (family == Family::Netfilter).then_some(nl::NETFILTER);
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(io::Error::from)?;
        net::bind(&fd, &nl::SocketAddrNetlink::new(0, 0)).map_err(io::Error::from)?;
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK] {
            set_option(&fd, option, 1)?;
        }
        // A refused batch answers with one message per error: leave room for them.
        let _ = net::sockopt::set_socket_recv_buffer_size_force(&fd, 4 << 20);
        Ok(Self { fd, sequence: 0 })
    }

    /// A socket in `netns`.
    pub fn open_in(netns: &Netns, family: Family) -> Result<Self> {
        netns.run(|| Self::open(family))?
    }

    /// A socket in `netns` that is told what happens in a multicast group.
    pub(crate) fn listen_in(netns: &Netns, family: Family, group: i32) -> Result<Self> {
        let socket = Self::open_in(netns, family)?;
        set_option(&socket.fd, NETLINK_ADD_MEMBERSHIP, group)?;
        Ok(socket)
    }

    /// What was told and not yet taken; nothing is waited for.
    pub(crate) fn told(&self) -> Result<Vec<Reply>> {
        let mut buffer = vec![0; RECEIVE];
        let mut out = Vec::new();
        loop {
            match net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((n, _)) => out.extend(message::replies(&buffer[..n])),
                Err(rustix::io::Errno::AGAIN) => return Ok(out),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        // A batch must fit the send buffer as one datagram.
        if bytes.len() > 100_000 {
            let _ = net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() + bytes.len() / 2);
        }
        let sent = net::send(&self.fd, bytes, SendFlags::empty()).map_err(io::Error::from)?;
        if sent == bytes.len() { Ok(()) } else { Err(Error::NoAnswer("send")) }
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, what: &'static str, message: Message) -> Result<()> {
        self.exchange(what, message.acknowledged()).map(drop)
    }

    /// Sends one request and returns the objects it answers with.
    pub fn get(&mut self, what: &'static str, message: Message) -> Result<Vec<Reply>> {
        self.exchange(what, message.acknowledged())
    }

    fn exchange(&mut self, what: &'static str, mut message: Message) -> Result<Vec<Reply>> {
        let sequence = self.next_sequence();
        self.send(message.finish(sequence))?;
        let mut replies = Vec::new();
        self.receive_until(what, |reply| {
            if reply.sequence != sequence {
                return Ok(false);
            }
            match reply.status() {
                None => {
                    replies.push(reply);
                    Ok(false)
                }
                Some(status) => check(what, status).map(|()| true),
            }
        })?;
        Ok(replies)
    }

    /// Asks for a whole list. A list that changed while it was being read is read again.
    pub fn dump(&mut self, what: &'static str, message: Message) -> Result<Vec<Reply>> {
        let mut message = message.dumped();
        loop {
            let sequence = self.next_sequence();
            self.send(message.finish(sequence))?;
            let (mut replies, mut interrupted) = (Vec::new(), false);
            self.receive_until(what, |reply| {
                if reply.sequence != sequence {
                    return Ok(false);
                }
                interrupted |= reply.interrupted();
                match reply.status() {
                    None => {
                        replies.push(reply);
                        Ok(false)
                    }
                    Some(status) => check(what, status).map(|()| true),
                }
            })?;
            if !interrupted {
                return Ok(replies);
            }
        }
    }

    /// Sends several requests as one datagram, all or nothing where the family has batches, and returns when the
    /// last is acknowledged. `what` names a message by its place for the error.
    pub(crate) fn batch(
        &mut self,
        messages: Vec<Message>,
        what: impl Fn(usize) -> &'static str,
    ) -> Result<()> {
        let first = self.sequence.wrapping_add(1).max(1);
        let mut bytes = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for (i, mut message) in messages.into_iter().enumerate() {
            bytes.extend_from_slice(message.finish(first.wrapping_add(i as u32)));
            self.sequence = first.wrapping_add(i as u32);
        }
        self.send(&bytes)?;
        // Every answer is queued by the time `send` returns; what is not there will not come.
        let (mut acknowledged, mut refused) = (false, None);
        let mut buffer = vec![0; RECEIVE];
        loop {
            let n = match net::recv(&self.fd, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((n, _)) => n,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(io::Error::from(e).into()),
            };
            for reply in message::replies(&buffer[..n]) {
                let index = reply.sequence.wrapping_sub(first) as usize;
                match reply.status() {
                    Some(status) if status.errno == 0 => acknowledged = true,
                    // The first error is the cause, those after it are its consequences.
                    Some(status) if refused.is_none() => refused = check(what(index), status).err(),
                    _ => {}
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None if acknowledged => Ok(()),
            None => Err(Error::NoAnswer("batch")),
        }
    }

    fn receive_until(&self, what: &'static str, mut done: impl FnMut(Reply) -> Result<bool>) -> Result<()> {
        let mut buffer = vec![0; RECEIVE];
        loop {
            let n = match net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((n, _)) => n,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(io::Error::from(e).into()),
            };
            if n == 0 {
                return Err(Error::NoAnswer(what));
            }
            for reply in message::replies(&buffer[..n]) {
                if done(reply)? {
                    return Ok(());
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(what: &'static str, status: message::Status) -> Result<()> {
    if status.errno == 0 {
        return Ok(());
    }
    Err(Error::Refused { what, errno: io::Error::from_raw_os_error(status.errno), detail: status.detail })
}

fn set_option(fd: &OwnedFd, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the value points at an i32 of the length given.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            SOL_NETLINK,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
