//! A blocking client of one shim: a call at a time, for short-lived connections and tests. A daemon that keeps a
//! connection open and interleaves calls uses the codec directly.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::codec::{self, Decoder};
use crate::protocol::{Call, Event, Failure, FailureKind, Message, Reply, Request, VERSION};

/// A connection that has said hello.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    next: u64,
    events: Vec<Event>,
}

impl Client {
    /// Connects and shakes hands.
    pub fn connect(socket: &Path) -> io::Result<Client> {
        Client::from_stream(UnixStream::connect(socket)?)
    }

    /// Shakes hands on a connected socket.
    pub fn from_stream(socket: UnixStream) -> io::Result<Client> {
        let mut client = Client { socket, decoder: Decoder::default(), next: 0, events: Vec::new() };
        match client.call(Request::Hello { version: VERSION }, &[])? {
            (Ok(Reply::Hello { .. }), _) => Ok(client),
            (Err(failure), _) => Err(io::Error::other(failure.message)),
            _ => Err(unexpected()),
        }
    }

    /// One call and its answer, with descriptors in both directions. Blocks for requests that are answered late.
    pub fn call(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(Result<Reply, Failure>, Vec<OwnedFd>)> {
        self.next += 1;
        let id = self.next;
        let frame = codec::encode(&Call { id, request })?;
        let mut sent = codec::send(self.socket.as_fd(), &frame, fds)?;
        while sent < frame.len() {
            sent += codec::send(self.socket.as_fd(), &frame[sent..], &[])?;
        }
        loop {
            match self.message()? {
                (Message::Reply { id: of, result }, fds) if of == id => return Ok((result, fds)),
                (Message::Reply { .. }, _) => {}
                (Message::Event(event), _) => self.events.push(event),
            }
        }
    }

    /// As [`Client::call`], without descriptors and with both kinds of failure in one.
    pub fn ask(&mut self, request: Request) -> Result<Reply, Failure> {
        match self.call(request, &[]) {
            Ok((result, _)) => result,
            Err(error) => Err(Failure { kind: FailureKind::Failed, message: format!("shim: {error}") }),
        }
    }

    /// The next event of a subscribed connection.
    pub fn event(&mut self) -> io::Result<Event> {
        if !self.events.is_empty() {
            return Ok(self.events.remove(0));
        }
        loop {
            if let (Message::Event(event), _) = self.message()? {
                return Ok(event);
            }
        }
    }

    fn message(&mut self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut buffer = [0; 16384];
        loop {
            if let Some(whole) = self.decoder.next_message()? {
                return Ok(whole);
            }
            let (count, fds) = codec::receive(self.socket.as_fd(), &mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(&buffer[..count], fds);
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected answer from the shim")
}
