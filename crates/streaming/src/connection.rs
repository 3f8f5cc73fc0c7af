//! The tasks of a connection and how it ends. A reader task hands what arrives to the channels; a writer task encodes
//! what they send. The end in order: everything queued is written, then the last frame, then the write side is shut,
//! and what the peer still sends is read and thrown away until it hangs up. Closing a socket with unread data in it
//! makes the kernel send a reset, which can overtake the status frame: the lost-exit-code bug.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, interval_at, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::channel::Frame;

/// Anything bytes go over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

/// Quiet connections are pinged this often, so that nobody between the ends forgets them and a dead peer is noticed.
const PING: Duration = Duration::from_secs(30);
/// While a consumer is slow, the peer is told this often that we are alive: its own pings wait behind the data.
const STALL: Duration = Duration::from_secs(10);
/// What the ends of a closing connection get to finish.
const GRACE: Duration = Duration::from_secs(10);
/// The writer gathers this much before a write.
const GATHER: usize = 64 << 10;

/// How the parts of a connection tell each other that it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The reader is done: the peer hung up, said goodbye or broke the protocol.
    pub(crate) gone: CancellationToken,
    /// This side is closing in order: what still arrives is thrown away.
    pub(crate) closing: CancellationToken,
    /// This side has given up: everything stops now.
    pub(crate) abort: CancellationToken,
    pub(crate) pong: Pong,
}

/// The newest ping that wants an answer. It goes past the queue: kubectl hangs up when 60 seconds bring no pong, however
/// much output they bring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pong(Arc<(Mutex<Option<Bytes>>, Notify)>);

impl Pong {
    pub(crate) fn set(&self, data: Bytes) {
        *self.0.0.lock() = Some(data);
        self.0.1.notify_one();
    }

    fn take(&self) -> Option<Frame> {
        self.0.0.lock().take().map(Frame::Pong)
    }
}

/// Turns frames into bytes.
pub(crate) trait Encode: Send + 'static {
    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> io::Result<()>;
}

/// A running connection; dropping it aborts what has not been closed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) queue: mpsc::Sender<Frame>,
    pub(crate) ends: Ends,
    writer: JoinHandle<io::Result<()>>,
    reader: JoinHandle<()>,
    _abort: DropGuard,
}

impl Connection {
    /// Starts the writer over `write`; `reader` is the other task, which ends when `ends.abort` is cancelled.
    pub(crate) fn start(
        write: impl AsyncWrite + Send + Unpin + 'static,
        encoder: impl Encode,
        (queue, frames): (mpsc::Sender<Frame>, mpsc::Receiver<Frame>),
        ends: Ends,
        reader: impl Future<Output = ()> + Send + 'static,
    ) -> Connection {
        let writer = {
            let ends = ends.clone();
            async move {
                let result = tokio::select! {
                    result = write_frames(write, encoder, frames, &ends) => result,
                    () = ends.abort.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
                };
                if result.is_err() {
                    ends.abort.cancel();
                }
                result
            }
        };
        let reader = {
            let ends = ends.clone();
            async move {
                tokio::select! {
                    () = reader => {}
                    () = ends.abort.cancelled() => {}
                }
                ends.gone.cancel();
            }
        };
        Connection {
            queue,
            writer: tokio::spawn(writer),
            reader: tokio::spawn(reader),
            _abort: ends.abort.clone().drop_guard(),
            ends,
        }
    }

    /// Sends what is queued and the last frame, and waits until the peer has hung up. An error when it had before.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        if self.ends.gone.is_cancelled() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.ends.closing.cancel();
        let written = async {
            // When the writer has ended already, its result says why.
            let _ = self.queue.send(Frame::Close).await;
            (&mut self.writer).await.map_err(io::Error::other)?
        };
        let result = timeout(GRACE, written).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if result.is_ok() {
            // A peer that does not hang up in time has had everything all the same.
            let _ = timeout(GRACE, &mut self.reader).await;
        }
        result
    }
}

async fn write_frames(
    mut write: impl AsyncWrite + Unpin,
    mut encoder: impl Encode,
    mut frames: mpsc::Receiver<Frame>,
    ends: &Ends,
) -> io::Result<()> {
    let mut out = BytesMut::with_capacity(GATHER);
    let mut ping = interval_at(Instant::now() + PING, PING);
    loop {
        let frame = tokio::select! {
            biased;
            frame = frames.recv() => Some(frame.unwrap_or(Frame::Close)),
            () = ends.pong.0.1.notified() => None,
            _ = ping.tick() => Some(Frame::Ping),
            // The peer said goodbye: so do we, after what is queued.
            () = ends.gone.cancelled() => Some(Frame::Close),
        };
        if let Some(pong) = ends.pong.take() {
            encoder.encode(pong, &mut out)?;
        }
        let mut close = matches!(frame, Some(Frame::Close));
        if let Some(frame) = frame {
            encoder.encode(frame, &mut out)?;
        }
        while out.len() < GATHER && !close {
            let Ok(frame) = frames.try_recv() else { break };
            close = matches!(frame, Frame::Close);
            encoder.encode(frame, &mut out)?;
        }
        write.write_all(&out).await?;
        out.clear();
        write.flush().await?;
        if close {
            return write.shutdown().await;
        }
    }
}

/// Hands data to a channel's pipe, waiting while it is full; `false` when nobody reads it any more.
pub(crate) async fn deliver(pipe: &mut DuplexStream, mut data: Bytes, ends: &Ends) -> bool {
    while !data.is_empty() {
        let written = tokio::select! {
            biased;
            () = ends.closing.cancelled() => return false,
            written = timeout(STALL, pipe.write(&data)) => written,
        };
        match written {
            Ok(Ok(n)) if n > 0 => drop(data.split_to(n)),
            Ok(_) => return false,
            Err(_) => ends.pong.set(Bytes::new()),
        }
    }
    true
}
