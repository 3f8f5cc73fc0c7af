//! A container's output on its way to the log and to attached clients, and their typing on its way in.
//! The container is never made to wait: a client that does not read is dropped, a log that cannot be written loses lines.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use crate::logs::Lines;
use crate::shim::{Shim, Source};
use crate::sys;

/// What a client may leave unread.
const MAX_BEHIND: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The reading end of a container's stdout or stderr, or its terminal.
pub(crate) struct Output {
    pub(crate) fd: OwnedFd,
    pub(crate) container: String,
    pub(crate) stream: Stream,
    pub(crate) lines: Lines,
}

/// The writing end of a container's stdin, or its terminal.
pub(crate) struct Input {
    pub(crate) fd: OwnedFd,
    pub(crate) container: String,
    pub(crate) pending: Vec<u8>,
    /// To be closed once `pending` is written.
    pub(crate) closing: bool,
}

/// Where an attached client writes.
pub(crate) struct Typing {
    pub(crate) fd: OwnedFd,
    pub(crate) container: String,
    /// The container has not read what came before.
    pub(crate) held: bool,
}

/// Where an attached client reads.
pub(crate) struct Follower {
    pub(crate) fd: OwnedFd,
    pub(crate) container: String,
    pub(crate) stream: Stream,
    pub(crate) queue: VecDeque<u8>,
    pub(crate) closing: bool,
}

impl Follower {
    /// Writes what the client takes; false when it has gone, or all is written and the container has ended.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.queue.is_empty() {
            match rustix::io::write(&self.fd, self.queue.as_slices().0) {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(rustix::io::Errno::AGAIN) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        // An idle client that hangs up is noticed by epoll, which then calls us with nothing to write.
        !self.closing && alive(&self.fd)
    }
}

fn alive(fd: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(fd, PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let gone = PollFlags::ERR | PollFlags::HUP;
    poll(&mut fds, Some(&now)).is_err() || !fds[0].revents().intersects(gone)
}

impl Shim {
    /// Reads up to `rounds` bufferfuls; false at the end.
    pub(crate) fn drain(&mut self, output: &mut Output, rounds: usize) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut open = true;
        for _ in 0..rounds {
            match rustix::io::read(&output.fd, &mut buffer[..]) {
                Ok(0) => open = false,
                Ok(count) => {
                    self.pass_on(output, &buffer[..count]);
                    if count == buffer.len() {
                        continue;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {}
                Err(rustix::io::Errno::INTR) => continue,
                // EIO: the last process has closed the terminal.
                Err(_) => open = false,
            }
            break;
        }
        self.buffer = buffer;
        open
    }

    fn pass_on(&mut self, output: &mut Output, chunk: &[u8]) {
        if let Some(log) =
            self.containers.get_mut(&output.container).and_then(|container| container.log.as_mut())
        {
            let mut text = Vec::new();
            output.lines.feed(output.stream.name(), chunk, sys::now(), &mut text);
            log.write(&text);
        }
        for token in self.followers(&output.container, Some(output.stream)) {
            let Some(Source::Follower(follower)) = self.sources.get_mut(&token) else { continue };
            follower.queue.extend(chunk);
            if !follower.flush() || follower.queue.len() > MAX_BEHIND {
                self.remove(token);
            } else {
                self.rearm_token(token);
            }
        }
    }

    fn followers(&self, id: &str, stream: Option<Stream>) -> Vec<u64> {
        self.tokens(|source| {
            matches!(source, Source::Follower(follower)
                if follower.container == id && stream.is_none_or(|stream| stream == follower.stream))
        })
    }

    /// The stream has ended: its last line, unfinished, goes to the log.
    pub(crate) fn end_output(&mut self, output: &mut Output) {
        if let Some(log) =
            self.containers.get_mut(&output.container).and_then(|container| container.log.as_mut())
        {
            let mut text = Vec::new();
            output.lines.finish(output.stream.name(), sys::now(), &mut text);
            log.write(&text);
        }
    }

    /// Takes out everything a container that has ended still has in its pipes, then lets its clients go.
    pub(crate) fn drain_all(&mut self, id: &str) {
        for token in self.tokens(|source| matches!(source, Source::Output(output) if output.container == id))
        {
            let Some(Source::Output(mut output)) = self.sources.remove(&token) else { continue };
            // A pipe holds 64 KiB by default, 1 MiB at most unless the container is privileged.
            let open = self.drain(&mut output, 64);
            self.sources.insert(token, Source::Output(output));
            if !open {
                self.remove(token);
            }
        }
        for token in self.followers(id, None) {
            let Some(Source::Follower(follower)) = self.sources.get_mut(&token) else { continue };
            follower.closing = true;
            if !follower.flush() {
                self.remove(token);
            }
        }
        for token in self.tokens(|source| {
            matches!(source, Source::Typing(typing) if typing.container == id)
                || matches!(source, Source::Input(input) if input.container == id)
        }) {
            self.remove(token);
        }
    }

    /// An attached client has typed; false when it is done.
    pub(crate) fn typed(&mut self, typing: &mut Typing) -> bool {
        let mut chunk = [0; 4096];
        let count = match rustix::io::read(&typing.fd, &mut chunk) {
            Ok(count) => count,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) => 0,
        };
        let Some(container) = self.containers.get(&typing.container) else { return false };
        let (Some(token), once) = (container.input, container.stdin_once) else { return false };
        if count == 0 {
            if once {
                self.close_input(&typing.container);
            }
            return false;
        }
        if let Some(Source::Input(input)) = self.sources.get_mut(&token) {
            input.pending.extend_from_slice(&chunk[..count]);
            if write_pending(input).is_err() {
                self.remove(token);
                return false;
            }
            typing.held = !input.pending.is_empty();
            self.rearm_token(token);
        }
        true
    }

    /// The container's stdin takes more; false when it is closed.
    pub(crate) fn feed(&mut self, input: &mut Input) -> bool {
        if write_pending(input).is_err() {
            return false;
        }
        if input.pending.is_empty() {
            if input.closing {
                return false;
            }
            for token in self.tokens(
                |source| matches!(source, Source::Typing(typing) if typing.container == input.container),
            ) {
                if let Some(Source::Typing(typing)) = self.sources.get_mut(&token) {
                    typing.held = false;
                    self.rearm_token(token);
                }
            }
        }
        alive(&input.fd)
    }

    /// Closes stdin when what is pending is written.
    pub(crate) fn close_input(&mut self, id: &str) {
        let Some(token) = self.containers.get(id).and_then(|container| container.input) else { return };
        if let Some(Source::Input(input)) = self.sources.get_mut(&token) {
            input.closing = true;
            if input.pending.is_empty() {
                self.remove(token);
            }
        }
    }
}

fn write_pending(input: &mut Input) -> io::Result<()> {
    while !input.pending.is_empty() {
        match rustix::io::write(&input.fd, &input.pending) {
            Ok(count) => drop(input.pending.drain(..count)),
            Err(rustix::io::Errno::AGAIN) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
