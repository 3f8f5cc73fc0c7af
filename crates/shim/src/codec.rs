//! Frames: four bytes of length (little endian), then JSON; file descriptors ride on a frame's first byte (SCM_RIGHTS).
//! [`encode`] and [`Decoder`] do no IO; [`send`] and [`receive`] are one system call each, for a blocking socket or
//! inside tokio's `async_io`.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// No frame is larger: a container's specification is a few kilobytes.
pub const MAX_FRAME: usize = 16 << 20;
/// No frame carries more descriptors.
pub const MAX_FDS: usize = 64;

/// One frame's bytes.
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "frame too large"));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(frame)
}

/// Gathers bytes and descriptors as they come in and gives whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Descriptors with the count of stream bytes that had come before them.
    fds: VecDeque<(u64, OwnedFd)>,
    received: u64,
    consumed: u64,
}

impl Decoder {
    /// Adds what one receive gave.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        let at = self.received;
        self.fds.extend(fds.into_iter().map(|fd| (at, fd)));
        self.bytes.extend_from_slice(bytes);
        self.received += bytes.len() as u64;
    }

    /// The next whole frame and its descriptors.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
        }
        let Some(body) = self.bytes.get(4..4 + length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        self.consumed += 4 + length as u64;
        // The kernel never merges bytes of a later send into a receive that carries descriptors of an earlier one, so
        // descriptors seen before this frame's end belong to it.
        let mut fds = Vec::new();
        while self.fds.front().is_some_and(|(at, _)| *at < self.consumed) {
            fds.extend(self.fds.pop_front().map(|(_, fd)| fd));
        }
        Ok(Some((message, fds)))
    }
}

/// Sends some of `bytes`, and all of `fds` with the first of them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors in a frame"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives some bytes, and the descriptors that came with them (close-on-exec). No bytes: the peer has gone.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok((message.bytes, fds))
}
