//! A connection through a tunnel, as a stream of bytes.

use super::generated::packet::Payload;
use super::generated::{Data, Packet};
use super::packet;
use bytes::{Buf as _, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};

/// The bytes of a packet at most.
const LARGEST: usize = 32 << 10;

/// See the module. The connection is closed when this is gone.
pub(super) struct Stream {
    id: i64,
    incoming: mpsc::Receiver<Bytes>,
    /// What has come and is not read.
    rest: Bytes,
    /// The other side has closed the connection, rather than been lost.
    whole: Arc<AtomicBool>,
    outgoing: PollSender<Packet>,
    closing: CancellationToken,
    _gone: DropGuard,
}

impl Stream {
    pub(super) fn new(
        id: i64,
        incoming: mpsc::Receiver<Bytes>,
        whole: Arc<AtomicBool>,
        outgoing: mpsc::Sender<Packet>,
        closing: CancellationToken,
    ) -> Self {
        let _gone = closing.clone().drop_guard();
        let outgoing = PollSender::new(outgoing);
        Stream { id, incoming, rest: Bytes::new(), whole, outgoing, closing, _gone }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.incoming.poll_recv(cx)) {
                Some(more) => self.rest = more,
                None if self.whole.load(Ordering::Acquire) => return Poll::Ready(Ok(())),
                None => {
                    let lost = io::Error::new(io::ErrorKind::UnexpectedEof, "tunnel closed");
                    return Poll::Ready(Err(lost));
                }
            }
        }
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let broken = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        if self.closing.is_cancelled() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.outgoing.poll_reserve(cx)).map_err(broken)?;
        let count = bytes.len().min(LARGEST);
        let data = Data { connect_id: self.id, error: String::new(), data: bytes[..count].to_vec() };
        self.outgoing.send_item(packet(Payload::Data(data))).map_err(broken)?;
        Poll::Ready(Ok(count))
    }

    /// Packets are sent as soon as the proxy takes them.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The protocol has no word for half of a connection: it is closed, behind what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closing.cancel();
        Poll::Ready(Ok(()))
    }
}
