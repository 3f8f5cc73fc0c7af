//! SPDY/3.1 frames: control frames are read whole (they are small), data frames in pieces.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::headers::{Headers, Packer, Unpacker};
use crate::{Error, channel::CHUNK};

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FIN: u8 = 1;
/// Control frames beyond this are refused: kubectl's have tens of bytes.
const MAX_CONTROL: usize = 64 << 10;
const STREAM_BITS: u32 = 0x7fff_ffff;

/// What arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Open {
        id: u32,
        headers: Headers,
        last: bool,
    },
    Reply {
        id: u32,
        last: bool,
    },
    Reset {
        id: u32,
    },
    /// The peer keeps windows, and so wants to be told when it may go on.
    Windows,
    Ping {
        id: u32,
    },
    GoAway,
    Headers {
        id: u32,
        last: bool,
    },
    Data {
        id: u32,
        last: bool,
        data: Bytes,
    },
}

/// Reads events from a byte stream.
pub(crate) struct Reader<R> {
    io: R,
    buffer: BytesMut,
    unpacker: Unpacker,
    /// Of the data frame being read: stream, bytes left, and whether it ends its stream.
    data: Option<(u32, usize, bool)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R) -> Reader<R> {
        Reader { io, buffer: BytesMut::with_capacity(CHUNK), unpacker: Unpacker::new(), data: None }
    }

    /// The next event; an error at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if let Some((id, left, last)) = self.data {
                if left > 0 {
                    self.need(1).await?;
                }
                let n = left.min(self.buffer.len()).min(CHUNK);
                let data = self.buffer.split_to(n).freeze();
                self.data = (left > n).then_some((id, left - n, last));
                return Ok(Event::Data { id, last: last && left == n, data });
            }
            self.need(8).await?;
            let (word, second) = (self.buffer.get_u32(), self.buffer.get_u32());
            let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
            if word & !STREAM_BITS == 0 {
                self.data = Some((word, length, flags & FIN != 0));
                continue;
            }
            if (word >> 16) & 0x7fff != 3 {
                return Err(Error::Protocol("not SPDY version 3"));
            }
            if length > MAX_CONTROL {
                return Err(Error::Protocol("control frame too large"));
            }
            self.need(length).await?;
            let body = self.buffer.split_to(length);
            if let Some(event) = self.control(word as u16, flags, &body)? {
                return Ok(event);
            }
        }
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Option<Event>, Error> {
        let last = flags & FIN != 0;
        let mut word = || body.try_get_u32().map_err(|_| Error::Protocol("control frame too short"));
        Ok(Some(match kind {
            SYN_STREAM => {
                let (id, _associated) = (word()? & STREAM_BITS, word()?);
                let block = body.get(2..).ok_or(Error::Protocol("control frame too short"))?;
                Event::Open { id, headers: self.unpacker.unpack(block)?, last }
            }
            SYN_REPLY | HEADERS => {
                let id = word()? & STREAM_BITS;
                // Unpacked for the sake of the compression's state only.
                self.unpacker.unpack(body)?;
                if kind == SYN_REPLY { Event::Reply { id, last } } else { Event::Headers { id, last } }
            }
            RST_STREAM => Event::Reset { id: word()? & STREAM_BITS },
            PING => Event::Ping { id: word()? },
            GOAWAY => Event::GoAway,
            SETTINGS | WINDOW_UPDATE => Event::Windows,
            // Unknown control frames are to be ignored.
            _ => return Ok(None),
        }))
    }

    async fn need(&mut self, n: usize) -> Result<(), Error> {
        while self.buffer.len() < n {
            self.buffer.reserve(CHUNK.max(n - self.buffer.len()));
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, body: &[&[u8]]) {
    let length: usize = body.iter().map(|b| b.len()).sum();
    out.put_u32(0x8003_0000 | u32::from(kind));
    out.put_u32(u32::from(flags) << 24 | length as u32);
    body.iter().for_each(|b| out.put_slice(b));
}

pub(crate) fn open(out: &mut BytesMut, packer: &mut Packer, id: u32, headers: &Headers) {
    control(out, SYN_STREAM, 0, &[&id.to_be_bytes(), &[0; 4], &[0; 2], &packer.pack(headers)]);
}

pub(crate) fn reply(out: &mut BytesMut, packer: &mut Packer, id: u32) {
    control(out, SYN_REPLY, 0, &[&id.to_be_bytes(), &packer.pack(&Vec::new())]);
}

pub(crate) fn reset(out: &mut BytesMut, id: u32, status: u32) {
    control(out, RST_STREAM, 0, &[&id.to_be_bytes(), &status.to_be_bytes()]);
}

pub(crate) fn window(out: &mut BytesMut, id: u32, bytes: u32) {
    control(out, WINDOW_UPDATE, 0, &[&id.to_be_bytes(), &bytes.to_be_bytes()]);
}

pub(crate) fn ping(out: &mut BytesMut, id: u32) {
    control(out, PING, 0, &[&id.to_be_bytes()]);
}

pub(crate) fn go_away(out: &mut BytesMut, last_stream: u32) {
    control(out, GOAWAY, 0, &[&last_stream.to_be_bytes(), &[0; 4]]);
}

pub(crate) fn data(out: &mut BytesMut, id: u32, last: bool, data: &[u8]) {
    out.reserve(data.len() + 8);
    out.put_u32(id & STREAM_BITS);
    out.put_u32(u32::from(last) << 24 | data.len() as u32);
    out.put_slice(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8]) -> Vec<Event> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut reader, mut events) = (Reader::new(bytes), Vec::new());
            while let Ok(event) = reader.next().await {
                events.push(event);
            }
            events
        })
    }

    #[test]
    fn frames_are_read_as_written() {
        let (mut out, mut packer) = (BytesMut::new(), Packer::new());
        let headers: Headers = vec![("streamtype".into(), "data".into()), ("port".into(), "80".into())];
        open(&mut out, &mut packer, 1, &headers);
        reply(&mut out, &mut packer, 1);
        data(&mut out, 1, false, b"abc");
        data(&mut out, 1, true, b"");
        ping(&mut out, 2);
        window(&mut out, 1, 9);
        reset(&mut out, 3, 5);
        go_away(&mut out, 1);
        let data = |data: &'static [u8], last| Event::Data { id: 1, last, data: data.into() };
        let want = [
            Event::Open { id: 1, headers, last: false },
            Event::Reply { id: 1, last: false },
            data(b"abc", false),
            data(b"", true),
            Event::Ping { id: 2 },
            Event::Windows,
            Event::Reset { id: 3 },
            Event::GoAway,
        ];
        assert_eq!(read_all(&out), want);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            read_all(&bytes);
        }

        #[test]
        fn any_control_frame_is_read_without_a_panic(kind in 0u16..12, flags: u8, body: Vec<u8>) {
            let mut out = BytesMut::new();
            control(&mut out, kind, flags, &[&body]);
            read_all(&out);
        }
    }
}
