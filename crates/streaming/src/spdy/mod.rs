//! SPDY/3.1 as Kubernetes speaks it (github.com/moby/spdystream on the other side): streams opened by the client, each
//! accepted at once. That peer neither keeps nor grants flow-control windows, so what we send is held back by the
//! transport alone, and waiting for windows would hang after 64 KiB. A peer that does keep windows is granted them as
//! its data is consumed. A stream whose consumer is slow stops the connection once its pipe is full, as it does there.

mod frame;
mod headers;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, DuplexStream},
    sync::{mpsc, oneshot},
};

use crate::{
    Error,
    channel::{Frame, Input, Output, QUEUE},
    connection::{Connection, Encode, Ends, Io, deliver},
};
use frame::{Event, Reader};
pub(crate) use headers::Headers;
use headers::Packer;

/// RST_STREAM's codes.
pub(crate) const PROTOCOL_ERROR: u32 = 1;
const REFUSED: u32 = 3;
pub(crate) const CANCEL: u32 = 5;

/// Streams at once; more are refused. A browser through a port-forward opens tens, each two streams.
const MAX_STREAMS: usize = 1024;

/// A stream, both directions.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    pub(crate) input: Input,
    pub(crate) output: Output,
}

impl Stream {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
    }
}

/// What the reader knows of a stream.
struct Entry {
    /// Nothing once the peer has ended its direction, or nobody reads.
    pipe: Option<DuplexStream>,
    /// Who waits for the stream to be accepted.
    accepted: Option<oneshot::Sender<()>>,
    remote_ended: bool,
    local_ended: bool,
    /// Set when the stream is reset.
    over: Arc<AtomicBool>,
}

impl Entry {
    fn new(pipe: Option<DuplexStream>, accepted: Option<oneshot::Sender<()>>) -> Entry {
        Entry { remote_ended: pipe.is_none(), pipe, accepted, local_ended: false, over: Arc::default() }
    }
}

/// The streams that are open, known to reader, writer and openers. Locked for look-ups only.
type Table = Arc<Mutex<HashMap<u32, Entry>>>;

/// However the reader ends, the streams' consumers see their end.
struct ClearAtEnd(Table);

impl Drop for ClearAtEnd {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}

fn end(streams: &mut HashMap<u32, Entry>, id: u32, which: impl FnOnce(&mut Entry)) {
    if let Some(entry) = streams.get_mut(&id) {
        which(entry);
        if entry.local_ended && entry.remote_ended {
            streams.remove(&id);
        }
    }
}

struct Encoder {
    packer: Packer,
    table: Table,
    client: bool,
    pings: u32,
    last_accepted: u32,
}

impl Encode for Encoder {
    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Data { id, data, last } => {
                let mut streams = self.table.lock();
                // Data on a stream that is over (reset by the peer) would break the protocol.
                if streams.get(&id).is_some_and(|s| !s.local_ended) {
                    frame::data(out, id, last, &data);
                    if last {
                        end(&mut streams, id, |s| s.local_ended = true);
                    }
                }
            }
            Frame::Open { id, headers } => frame::open(out, &mut self.packer, id, &headers),
            Frame::Accept { id } => {
                self.last_accepted = id;
                frame::reply(out, &mut self.packer, id);
            }
            Frame::Reset { id, status } => {
                self.table.lock().remove(&id);
                frame::reset(out, id, status);
            }
            Frame::Window { id, bytes } => {
                frame::window(out, id, bytes);
                frame::window(out, 0, bytes);
            }
            Frame::Ping => {
                // Clients' pings are odd, servers' even.
                self.pings = self.pings.wrapping_add(2);
                frame::ping(out, self.pings | u32::from(self.client));
            }
            Frame::Pong(id) => {
                if let Ok(id) = <[u8; 4]>::try_from(&id[..]) {
                    frame::ping(out, u32::from_be_bytes(id));
                }
            }
            Frame::Close => frame::go_away(out, self.last_accepted),
        }
        Ok(())
    }
}

/// A connection's opener of streams (client), and what ends it.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    opener: Opener,
}

/// Opens streams.
#[derive(Clone)]
pub(crate) struct Opener {
    table: Table,
    queue: mpsc::Sender<Frame>,
    next: Arc<tokio::sync::Mutex<u32>>,
}

impl Session {
    /// The called end; the streams that the peer opens come out of the receiver, already accepted.
    pub(crate) fn server(io: impl Io) -> (Session, mpsc::Receiver<Stream>) {
        let (opened, streams) = mpsc::channel(QUEUE);
        (Self::start(io, Some(opened)), streams)
    }

    /// The calling end.
    pub(crate) fn client(io: impl Io) -> Session {
        Self::start(io, None)
    }

    fn start(io: impl Io, opened: Option<mpsc::Sender<Stream>>) -> Session {
        let (read, write) = tokio::io::split(io);
        let (queue, frames) = mpsc::channel(QUEUE);
        let (ends, table) = (Ends::default(), Table::default());
        let opener =
            Opener { table: table.clone(), queue: queue.clone(), next: Arc::new(tokio::sync::Mutex::new(1)) };
        let encoder = Encoder {
            packer: Packer::new(),
            table: table.clone(),
            client: opened.is_none(),
            pings: 0,
            last_accepted: 0,
        };
        let reader = {
            let (queue, ends) = (queue.clone(), ends.clone());
            let clear = ClearAtEnd(table.clone());
            async move {
                let _clear = clear;
                let mut demux = Demux { table, queue, ends, opened, windows: false };
                drop(demux.run(read).await);
            }
        };
        Session { connection: Connection::start(write, encoder, (queue, frames), ends, reader), opener }
    }

    pub(crate) fn opener(&self) -> Opener {
        self.opener.clone()
    }
}

impl Opener {
    /// Opens a stream and waits until it is accepted.
    pub(crate) async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let (pipe, input) = Input::pipe();
        let (accepted, answer) = oneshot::channel();
        let (id, over) = {
            // Streams must be opened in the order of their ids, so the place in the queue is taken under the lock.
            let mut next = self.next.lock().await;
            let id = *next;
            let place = self.queue.reserve().await.map_err(|_| Error::Gone)?;
            *next += 2;
            let entry = Entry::new(Some(pipe), Some(accepted));
            let over = entry.over.clone();
            self.table.lock().insert(id, entry);
            place.send(Frame::Open { id, headers: headers.clone() });
            (id, over)
        };
        let output = Output::until(id, self.queue.clone(), over);
        answer.await.map_err(|_| Error::Protocol("the stream was refused"))?;
        Ok(Stream { id, headers, input, output })
    }
}

struct Demux {
    table: Table,
    queue: mpsc::Sender<Frame>,
    ends: Ends,
    opened: Option<mpsc::Sender<Stream>>,
    windows: bool,
}

impl Demux {
    async fn run(&mut self, read: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut reader = Reader::new(read);
        let mut newest = 0;
        loop {
            match reader.next().await? {
                Event::Open { id, headers, last } => {
                    // Only clients open, with odd ids that grow.
                    let fresh = id % 2 == 1 && id > newest;
                    newest = newest.max(id);
                    self.open(id, headers, last, fresh).await?;
                }
                Event::Reply { id, last } => {
                    let mut streams = self.table.lock();
                    if let Some(accepted) = streams.get_mut(&id).and_then(|s| s.accepted.take()) {
                        // Whoever waited may have given up.
                        let _ = accepted.send(());
                    }
                    if last {
                        end(&mut streams, id, remote_end);
                    }
                }
                Event::Headers { id, last: true } => end(&mut self.table.lock(), id, remote_end),
                Event::Headers { .. } => {}
                Event::Reset { id } => {
                    if let Some(entry) = self.table.lock().remove(&id) {
                        entry.over.store(true, Ordering::Relaxed);
                    }
                }
                Event::Windows => self.windows = true,
                // Our own pings come back odd at a client, even at a server.
                Event::Ping { id } if (id % 2 == 1) == self.opened.is_some() => {
                    self.ends.pong.set(Bytes::copy_from_slice(&id.to_be_bytes()));
                }
                Event::Ping { .. } => {}
                // The peer opens no more and will hang up when its streams are done.
                Event::GoAway => {}
                Event::Data { id, last, data } => {
                    let pipe = self.table.lock().get_mut(&id).and_then(|s| s.pipe.take());
                    let bytes = data.len() as u32;
                    let mut consumed = None;
                    if let Some(mut pipe) = pipe
                        && deliver(&mut pipe, data, &self.ends).await
                    {
                        consumed = Some(pipe);
                    }
                    if self.windows && bytes > 0 {
                        // When the writer is gone, so is the connection.
                        let _ = self.queue.send(Frame::Window { id, bytes }).await;
                    }
                    let mut streams = self.table.lock();
                    if let Some(entry) = streams.get_mut(&id) {
                        entry.pipe = consumed;
                    }
                    if last {
                        end(&mut streams, id, remote_end);
                    }
                }
            }
        }
    }

    async fn open(&mut self, id: u32, headers: Headers, last: bool, fresh: bool) -> Result<(), Error> {
        let refusal = match &self.opened {
            None => Some(REFUSED),
            Some(_) if !fresh => Some(PROTOCOL_ERROR),
            Some(_) if self.table.lock().len() >= MAX_STREAMS || self.ends.closing.is_cancelled() => {
                Some(REFUSED)
            }
            Some(_) => None,
        };
        let gone = |_| Error::Gone;
        if let Some(status) = refusal {
            return self.queue.send(Frame::Reset { id, status }).await.map_err(gone);
        }
        let (pipe, input) = Input::pipe();
        let pipe = (!last).then_some(pipe);
        let entry = Entry::new(pipe, None);
        let output = Output::until(id, self.queue.clone(), entry.over.clone());
        self.table.lock().insert(id, entry);
        // Before anybody can write to it: kubectl drops data that overtakes the acceptance.
        self.queue.send(Frame::Accept { id }).await.map_err(gone)?;
        let stream = Stream { id, headers, input, output };
        if let Some(opened) = &self.opened {
            // Nobody takes streams any more: the stream is dropped, which ends it.
            let _ = opened.send(stream).await;
        }
        Ok(())
    }
}

fn remote_end(entry: &mut Entry) {
    entry.pipe = None;
    entry.remote_ended = true;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_keeps_windows_is_granted_them_and_a_reset_ends_both_directions() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (session, mut streams) = Session::server(far);
        let (read, mut write) = tokio::io::split(near);
        let (mut reader, mut packer, mut wire) = (Reader::new(read), Packer::new(), BytesMut::new());
        // SETTINGS without entries, a stream, data.
        wire.extend_from_slice(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0]);
        frame::open(&mut wire, &mut packer, 1, &vec![("streamType".into(), "stdin".into())]);
        frame::data(&mut wire, 1, false, b"some data");
        frame::ping(&mut wire, 7);
        write.write_all(&wire).await.unwrap();
        // The answer to the ping goes past the queue.
        let mut rest = Vec::new();
        for _ in 0..4 {
            rest.push(reader.next().await.unwrap());
        }
        assert_eq!(rest.iter().filter(|e| **e == Event::Windows).count(), 2, "{rest:?}");
        assert!(rest.contains(&Event::Ping { id: 7 }), "{rest:?}");
        assert!(rest.contains(&Event::Reply { id: 1, last: false }), "{rest:?}");

        let mut stream = streams.recv().await.unwrap();
        assert_eq!((stream.id, stream.header("streamtype")), (1, "stdin"));
        let mut wire = BytesMut::new();
        frame::reset(&mut wire, 1, CANCEL);
        write.write_all(&wire).await.unwrap();
        let mut got = Vec::new();
        stream.input.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"some data");
        assert!(stream.output.write(b"x").await.is_err());

        // Ids must grow and be odd; what is wrong is reset.
        let mut wire = BytesMut::new();
        for id in [1, 4] {
            frame::open(&mut wire, &mut packer, id, &Headers::new());
        }
        write.write_all(&wire).await.unwrap();
        for id in [1, 4] {
            assert_eq!(reader.next().await.unwrap(), Event::Reset { id });
        }
        drop((reader, write));
        session.connection.ends.gone.cancelled().await;
    }
}
