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
    /// Descriptors with the position of a stream byte that was sent along with them.
    fds: VecDeque<(u64, OwnedFd)>,
    received: u64,
    consumed: u64,
}

impl Decoder {
    /// Adds what one receive gave.
    pub fn push(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        // A receive may begin with bytes of earlier sends that carried none, but ends within the send that carried them.
        let at = self.received + (bytes.len() as u64).saturating_sub(1);
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
        // Those of earlier frames have been taken.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_stay_with_their_frame() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let null = std::fs::File::open("/dev/null").expect("/dev/null");
        // Frames with none, one and two descriptors, all of them in the socket before the first is read.
        let counts = [0, 1, 0, 0, 2, 1, 0];
        for count in counts {
            let frame = encode(&"x".repeat(count + 1)).expect("it can be encoded");
            let fds = vec![null.as_fd(); count];
            assert_eq!(send(ours.as_fd(), &frame, &fds).expect("there is room"), frame.len());
        }
        let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
        while seen.len() < counts.len() {
            let mut buffer = [0; 1024];
            let (length, fds) = receive(theirs.as_fd(), &mut buffer).expect("there is more");
            decoder.push(&buffer[..length], fds);
            while let Some((text, fds)) = decoder.next_message::<String>().expect("whole frames") {
                assert_eq!(text.len(), fds.len() + 1);
                seen.push(fds.len());
            }
        }
        assert_eq!(seen, counts);
    }
}
