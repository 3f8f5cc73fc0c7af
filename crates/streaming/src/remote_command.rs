//! Exec and attach, the called end: stdin and terminal sizes come in, stdout and stderr go out, and at last how it ended.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Input, Outcome, Output,
    channel::Frame,
    connection::{Connection, Io},
    negotiate::Agreed,
    spdy,
    ws::{self, frame::Role},
};

/// How long a SPDY client has to open the streams it announced.
const STREAM_CREATION: Duration = Duration::from_secs(30);
/// A terminal size is shorter than this in any JSON.
const MAX_RESIZE: usize = 4096;

pub(crate) const STDIN: u32 = 0;
pub(crate) const STDOUT: u32 = 1;
pub(crate) const STDERR: u32 = 2;
pub(crate) const ERROR: u32 = 3;
pub(crate) const RESIZE: u32 = 4;

/// Which streams a command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    /// As upstream reads a request: a terminal has no stderr of its own, and there must be at least one stream.
    pub fn checked(mut self) -> Result<Streams, &'static str> {
        self.stderr &= !self.tty;
        if self.stdin || self.stdout || self.stderr {
            Ok(self)
        } else {
            Err("you must specify at least 1 of stdin, stdout, stderr")
        }
    }
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    #[serde(rename = "Width")]
    pub width: u16,
    #[serde(rename = "Height")]
    pub height: u16,
}

/// Changes of the terminal's size. Only the newest waits.
#[derive(Debug)]
pub struct Resizes(watch::Receiver<Option<TerminalSize>>);

impl Resizes {
    /// The next size; nothing when there will be no more.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.0.changed().await.ok()?;
        *self.0.borrow_and_update()
    }

    /// Reads a stream of JSON objects until it ends or makes no sense.
    fn read(mut input: Input) -> Resizes {
        let (newest, resizes) = watch::channel(None);
        tokio::spawn(async move {
            let mut buffer = Vec::new();
            while buffer.len() < MAX_RESIZE && matches!(input.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                let mut sizes = serde_json::Deserializer::from_slice(&buffer).into_iter::<TerminalSize>();
                let mut broken = false;
                for size in sizes.by_ref() {
                    match size {
                        Ok(size) => drop(newest.send_replace(Some(size))),
                        Err(e) => broken = !e.is_eof(),
                    }
                    if broken {
                        break;
                    }
                }
                let done = sizes.byte_offset();
                buffer.drain(..done);
                if broken {
                    break;
                }
            }
            drop(newest);
            // The rest is read and thrown away, so that it does not stop the other channels.
            let _ = tokio::io::copy(&mut input, &mut tokio::io::sink()).await;
        });
        Resizes(resizes)
    }
}

/// A command's streams at the called end. Take the parts, then `finish`; dropping it without aborts the connection.
#[derive(Debug)]
pub struct RemoteCommand {
    pub stdin: Option<Input>,
    pub stdout: Option<Output>,
    pub stderr: Option<Output>,
    pub resizes: Option<Resizes>,
    pub tty: bool,
    error: Output,
    connection: Connection,
    has_status: bool,
}

impl RemoteCommand {
    /// Cancelled when the peer is gone.
    pub fn gone(&self) -> CancellationToken {
        self.connection.ends.gone.clone()
    }

    /// Says how it ended, after everything that was written to stdout and stderr, and closes the connection in order:
    /// when this returns well, the peer has been sent everything.
    pub async fn finish(self, outcome: Outcome) -> Result<(), Error> {
        let RemoteCommand { stdin, stdout, stderr, error, connection, has_status, .. } = self;
        drop((stdin, stdout, stderr));
        let data = outcome.encode(has_status);
        let queue = &connection.queue;
        // When the writer is gone, closing says why.
        if !data.is_empty() {
            let _ = queue.send(Frame::Data { id: error.id(), data: Bytes::from(data), last: false }).await;
        }
        drop(error);
        Ok(connection.close().await?)
    }

    pub(crate) fn websocket(io: impl Io, agreed: Agreed, streams: Streams) -> RemoteCommand {
        let mut pipes: Vec<_> = (0..5).map(|_| None).collect();
        let mut pipe = |channel: u32| {
            let (ours, input) = Input::pipe();
            pipes[channel as usize] = Some(ours);
            input
        };
        let stdin = streams.stdin.then(|| pipe(STDIN));
        let resizes = Resizes::read(pipe(RESIZE));
        let connection = ws::start(io, Role::Server, agreed.codec(), pipes);
        let output = |wanted: bool, id| wanted.then(|| Output::new(id, connection.queue.clone()));
        // An empty message on the first channel that can be written tells the client that it is connected.
        let hello = match (streams.stdout, streams.stderr) {
            (true, _) => STDOUT,
            (false, true) => STDERR,
            _ => ERROR,
        };
        let _ = connection.queue.try_send(Frame::Data { id: hello, data: Bytes::new(), last: false });
        RemoteCommand {
            stdin,
            stdout: output(streams.stdout, STDOUT),
            stderr: output(streams.stderr, STDERR),
            resizes: Some(resizes),
            tty: streams.tty,
            error: Output::new(ERROR, connection.queue.clone()),
            has_status: agreed.has_status(),
            connection,
        }
    }

    pub(crate) async fn spdy(io: impl Io, agreed: Agreed, streams: Streams) -> Result<RemoteCommand, Error> {
        let (session, mut opened) = spdy::Session::server(io);
        let expected = 1
            + usize::from(streams.stdin)
            + usize::from(streams.stdout)
            + usize::from(streams.stderr)
            + usize::from(streams.tty && agreed.can_resize());
        let gathered = timeout(STREAM_CREATION, gather(&mut opened, expected));
        let mut found = gathered.await.map_err(|_| Error::NoStreams)??;
        let mut take = |kind: &str| {
            let at = found.iter().position(|s| s.header("streamtype") == kind)?;
            Some(found.swap_remove(at))
        };
        let error = take("error").ok_or(Error::Protocol("no error stream"))?.output;
        Ok(RemoteCommand {
            stdin: take("stdin").map(|s| s.input.holding(s.output)),
            stdout: take("stdout").map(|s| s.output),
            stderr: take("stderr").map(|s| s.output),
            resizes: take("resize").map(|s| Resizes::read(s.input.holding(s.output))),
            tty: streams.tty,
            error,
            has_status: agreed.has_status(),
            connection: session.connection,
        })
    }
}

async fn gather(
    opened: &mut mpsc::Receiver<spdy::Stream>,
    expected: usize,
) -> Result<Vec<spdy::Stream>, Error> {
    let mut found = Vec::new();
    while found.len() < expected {
        let stream = opened.recv().await.ok_or(Error::Gone)?;
        let known = ["error", "stdin", "stdout", "stderr", "resize"];
        if known.contains(&stream.header("streamtype")) {
            found.push(stream);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::negotiate::V4;

    /// As kubectl does it: it ends stdin when the server ends the direction in which nothing is ever sent.
    #[tokio::test(start_paused = true)]
    async fn stdin_stays_open_both_ways_while_it_is_read() {
        let (near, far) = tokio::io::duplex(64 << 10);
        let streams = Streams { stdin: true, ..Streams::default() };
        let server = tokio::spawn(RemoteCommand::spdy(far, Agreed::Spdy(V4), streams));
        let session = spdy::Session::client(near);
        let open =
            async |kind: &str| session.opener().open(vec![("streamtype".into(), kind.into())]).await.unwrap();
        let (_error, mut stdin) = (open("error").await, open("stdin").await);
        let mut command = server.await.unwrap().unwrap();
        stdin.output.write_all(b"a").await.unwrap();
        let mut input = command.stdin.take().unwrap();
        assert_eq!(input.read_u8().await.unwrap(), b'a');
        // On the paused clock the time is up when nobody has anything left to do.
        let mut byte = [0];
        assert!(timeout(Duration::from_secs(1), stdin.input.read(&mut byte)).await.is_err());
        drop(input);
        assert_eq!(stdin.input.read(&mut byte).await.unwrap(), 0);
    }
}
