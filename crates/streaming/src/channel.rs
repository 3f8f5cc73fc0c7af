//! What goes over a connection, and the two ends of a channel. An `Input` is a bounded pipe that the connection's
//! reader fills: when it is full the reader waits, so the peer's sender waits. An `Output` puts frames into the bounded
//! queue of the connection's writer: when that is full, writes wait.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;

/// How much of a channel waits for its consumer.
pub(crate) const PIPE: usize = 128 << 10;
/// The most that one data frame carries; Go's copy loops use the same.
pub(crate) const CHUNK: usize = 32 << 10;
/// Frames that wait for the writer.
pub(crate) const QUEUE: usize = 16;

/// What a writer task encodes.
#[derive(Debug)]
pub(crate) enum Frame {
    /// `last`: this side sends no more on the channel.
    Data {
        id: u32,
        data: Bytes,
        last: bool,
    },
    /// SPDY: opens a stream.
    Open {
        id: u32,
        headers: Vec<(String, String)>,
    },
    /// SPDY: accepts a stream.
    Accept {
        id: u32,
    },
    /// SPDY: both directions of a stream are over.
    Reset {
        id: u32,
        status: u32,
    },
    /// SPDY: so many bytes may follow.
    Window {
        id: u32,
        bytes: u32,
    },
    /// Keeps the connection known to be alive.
    Ping,
    Pong(Bytes),
    /// The last frame: the connection ends in order.
    Close,
}

/// What the peer sends on a channel.
#[derive(Debug)]
pub struct Input {
    pipe: DuplexStream,
    /// The other direction of a stream that is only read. kubectl stops sending stdin as soon as it is ended.
    _back: Option<Output>,
}

impl Input {
    /// The pipe's two ends: what the reader task fills, and what a session reads.
    pub(crate) fn pipe() -> (DuplexStream, Input) {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        (ours, Input { pipe: theirs, _back: None })
    }

    /// Keeps the other direction open for as long as this one is read.
    pub(crate) fn holding(self, back: Output) -> Input {
        Input { _back: Some(back), ..self }
    }
}

impl AsyncRead for Input {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

/// What is sent to the peer on a channel. Shutting it down or dropping it ends this direction, where the protocol can
/// say so (SPDY streams; stdin in v5.channel.k8s.io).
#[derive(Debug)]
pub struct Output {
    id: u32,
    queue: mpsc::Sender<Frame>,
    sender: PollSender<Frame>,
    ended: bool,
    /// The peer has reset the stream: writing is in vain.
    over: Arc<AtomicBool>,
}

impl Output {
    pub(crate) fn new(id: u32, queue: mpsc::Sender<Frame>) -> Output {
        Self::until(id, queue, Arc::default())
    }

    /// One that ends when `over` is set.
    pub(crate) fn until(id: u32, queue: mpsc::Sender<Frame>, over: Arc<AtomicBool>) -> Output {
        Output { id, sender: PollSender::new(queue.clone()), queue, ended: false, over }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Both directions of the stream are over, at once (SPDY only).
    pub(crate) async fn reset(mut self, status: u32) {
        self.ended = true;
        // Without a writer there is nobody to tell.
        let _ = self.queue.send(Frame::Reset { id: self.id, status }).await;
    }

    /// The connection ends in order after what has been written.
    pub(crate) fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.poll_put(cx, || Frame::Close))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, frame: impl FnOnce() -> Frame) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.sender.poll_reserve(cx)).map_err(gone)?;
        Poll::Ready(self.sender.send_item(frame()).map_err(gone))
    }
}

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended || self.over.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (id, part) = (self.id, &buf[..buf.len().min(CHUNK)]);
        if !part.is_empty() {
            ready!(self.poll_put(cx, || Frame::Data {
                id,
                data: Bytes::copy_from_slice(part),
                last: false
            }))?;
        }
        Poll::Ready(Ok(part.len()))
    }

    /// The writer task flushes whenever its queue is empty.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            let id = self.id;
            ready!(self.poll_put(cx, || Frame::Data { id, data: Bytes::new(), last: true }))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // A reserved place in the queue would otherwise be held back from the frame below.
        self.sender.abort_send();
        let last = Frame::Data { id: self.id, data: Bytes::new(), last: true };
        if let Err(mpsc::error::TrySendError::Full(last)) = self.queue.try_send(last)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // Ends with the writer at the latest.
            let queue = self.queue.clone();
            runtime.spawn(async move { queue.send(last).await });
        }
    }
}
