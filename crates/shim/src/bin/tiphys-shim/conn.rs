//! One connection of the daemon: frames in, frames out, never waiting for a peer that does not read.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use shim::codec::{self, Decoder};
use shim::protocol::{Call, Message};

/// A peer that leaves more than this unread is dropped.
const MAX_QUEUE: usize = 4 << 20;

pub(crate) struct Conn {
    pub(crate) fd: OwnedFd,
    decoder: Decoder,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    queued: usize,
    pub(crate) greeted: bool,
    pub(crate) subscribed: bool,
}

impl Conn {
    pub(crate) fn new(fd: OwnedFd) -> Conn {
        Conn {
            fd,
            decoder: Decoder::default(),
            queue: VecDeque::new(),
            queued: 0,
            greeted: false,
            subscribed: false,
        }
    }

    /// Reads what there is; false when the peer has gone.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match codec::receive(self.fd.as_fd(), buffer) {
            Ok((0, _)) => Ok(false),
            Ok((count, fds)) => {
                self.decoder.push(&buffer[..count], fds);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<(Call, Vec<OwnedFd>)>> {
        self.decoder.next_message()
    }

    /// Queues a frame and sends what the socket takes.
    pub(crate) fn send(&mut self, message: &Message, fds: Vec<OwnedFd>) -> io::Result<()> {
        let frame = codec::encode(message)?;
        self.queued += frame.len();
        if self.queued > MAX_QUEUE {
            return Err(io::Error::other("the peer does not read"));
        }
        self.queue.push_back((frame, fds));
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some((frame, fds)) = self.queue.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match codec::send(self.fd.as_fd(), frame, &borrowed) {
                Ok(count) => {
                    // The descriptors went with the first byte.
                    fds.clear();
                    self.queued -= count;
                    frame.drain(..count);
                    if frame.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the socket's readiness to take more matters.
    pub(crate) fn wants_to_write(&self) -> bool {
        !self.queue.is_empty()
    }
}
