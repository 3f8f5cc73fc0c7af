//! WebSocket frames (RFC 6455). Reading gives out data as it arrives, in pieces, whatever the size of frames and
//! messages; only control frames are gathered, and those are small.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{Error, channel::CHUNK};

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Whether this end masks what it sends, as clients must and servers must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What arrives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of a message. `first` and `last` mark its bounds.
    Piece {
        first: bool,
        last: bool,
        data: Bytes,
    },
    Ping(Bytes),
    Pong,
    Close,
}

/// Reads events from a byte stream.
pub(crate) struct Reader<R> {
    io: R,
    role: Role,
    buffer: BytesMut,
    /// Of the data frame that is being read: bytes left, mask and position in it, and whether it ends its message.
    left: u64,
    mask: [u8; 4],
    offset: usize,
    last: bool,
    /// The next piece is the first of its message.
    first: bool,
    /// Between the first and the last frame of a message.
    open: bool,
    in_frame: bool,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(io: R, role: Role) -> Reader<R> {
        Reader {
            io,
            role,
            buffer: BytesMut::with_capacity(CHUNK),
            left: 0,
            mask: [0; 4],
            offset: 0,
            last: false,
            first: false,
            open: false,
            in_frame: false,
        }
    }

    /// The next event; an error at the end of the stream, which a WebSocket never just reaches.
    pub(crate) async fn next(&mut self) -> Result<Event, Error> {
        loop {
            if self.in_frame {
                return self.piece().await;
            }
            self.need(2).await?;
            let (a, b) = (self.buffer[0], self.buffer[1]);
            let (fin, opcode, masked) = (a & 0x80 != 0, a & 0x0f, b & 0x80 != 0);
            if a & 0x70 != 0 {
                return Err(Error::Protocol("reserved bits without an extension"));
            }
            if masked != (self.role == Role::Server) {
                return Err(Error::Protocol("wrong masking"));
            }
            let (extra, mut length) = match b & 0x7f {
                126 => (2, 0),
                127 => (8, 0),
                n => (0, u64::from(n)),
            };
            let header = 2 + extra + if masked { 4 } else { 0 };
            self.need(header).await?;
            self.buffer.advance(2);
            if extra > 0 {
                length = self.buffer.get_uint(extra);
            }
            if length > i64::MAX as u64 {
                return Err(Error::Protocol("impossible frame length"));
            }
            let mut mask = [0; 4];
            if masked {
                self.buffer.copy_to_slice(&mut mask);
            }
            if opcode >= CLOSE {
                return self.control(opcode, fin, length, mask).await;
            }
            match (opcode, self.open) {
                (0, true) => {}
                (TEXT | BINARY, false) => self.first = true,
                (0..=BINARY, _) => return Err(Error::Protocol("fragments out of order")),
                _ => return Err(Error::Protocol("unknown opcode")),
            }
            self.open = !fin;
            (self.last, self.left, self.mask, self.offset, self.in_frame) = (fin, length, mask, 0, true);
        }
    }

    async fn piece(&mut self) -> Result<Event, Error> {
        if self.left > 0 && self.buffer.is_empty() {
            self.fill().await?;
        }
        let n = self.left.min(self.buffer.len() as u64).min(CHUNK as u64) as usize;
        let mut data = self.buffer.split_to(n);
        apply_mask(&mut data, self.mask, self.offset);
        self.offset = (self.offset + n) % 4;
        self.left -= n as u64;
        self.in_frame = self.left > 0;
        let first = std::mem::take(&mut self.first);
        Ok(Event::Piece { first, last: self.last && !self.in_frame, data: data.freeze() })
    }

    async fn control(&mut self, opcode: u8, fin: bool, length: u64, mask: [u8; 4]) -> Result<Event, Error> {
        if !fin || length > 125 {
            return Err(Error::Protocol("control frame in parts or too large"));
        }
        self.need(length as usize).await?;
        let mut data = self.buffer.split_to(length as usize);
        apply_mask(&mut data, mask, 0);
        match opcode {
            CLOSE => Ok(Event::Close),
            PING => Ok(Event::Ping(data.freeze())),
            PONG => Ok(Event::Pong),
            _ => Err(Error::Protocol("unknown opcode")),
        }
    }

    async fn need(&mut self, n: usize) -> Result<(), Error> {
        while self.buffer.len() < n {
            self.fill().await?;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Error> {
        self.buffer.reserve(CHUNK);
        match self.io.read_buf(&mut self.buffer).await? {
            0 => Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }
}

fn apply_mask(data: &mut [u8], mask: [u8; 4], offset: usize) {
    if mask == [0; 4] {
        return;
    }
    let mut rotated = mask;
    rotated.rotate_left(offset % 4);
    let word = u64::from_ne_bytes([
        rotated[0], rotated[1], rotated[2], rotated[3], rotated[0], rotated[1], rotated[2], rotated[3],
    ]);
    let mut chunks = data.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let value = u64::from_ne_bytes(chunk.as_ref().try_into().unwrap_or_default()) ^ word;
        chunk.copy_from_slice(&value.to_ne_bytes());
    }
    for (i, byte) in chunks.into_remainder().iter_mut().enumerate() {
        *byte ^= rotated[i % 4];
    }
}

/// Appends one whole frame whose payload is `head` followed by `body`.
pub(crate) fn write(out: &mut BytesMut, role: Role, opcode: u8, head: &[u8], body: &[u8]) {
    let length = head.len() + body.len();
    out.reserve(length + 14);
    out.put_u8(0x80 | opcode);
    let masked = if role == Role::Client { 0x80 } else { 0 };
    match length {
        0..126 => out.put_u8(masked | length as u8),
        126..65536 => {
            out.put_u8(masked | 126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
    let mut mask = [0; 4];
    if role == Role::Client {
        // Masks protect careless proxies from the data; without randomness they are merely useless.
        let _ = aws_lc_rs::rand::fill(&mut mask);
        out.put_slice(&mask);
    }
    let start = out.len();
    out.put_slice(head);
    out.put_slice(body);
    apply_mask(&mut out[start..], mask, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8], role: Role) -> Vec<Event> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = Reader::new(bytes, role);
            let mut events = Vec::new();
            while let Ok(event) = reader.next().await {
                events.push(event);
            }
            events
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            read_all(&bytes, Role::Server);
            read_all(&bytes, Role::Client);
        }

        #[test]
        fn what_is_written_is_read(messages in prop::collection::vec((0usize..70_000, any::<u8>()), 0..4), client: bool) {
            let (from, to) = if client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
            let messages: Vec<Vec<u8>> =
                messages.iter().map(|(n, seed)| (0..*n).map(|i| seed.wrapping_mul(i as u8)).collect()).collect();
            let mut wire = BytesMut::new();
            for message in &messages {
                let (head, body) = message.split_at(message.len().min(1));
                write(&mut wire, from, BINARY, head, body);
            }
            let mut got: Vec<Vec<u8>> = Vec::new();
            for event in read_all(&wire, to) {
                let Event::Piece { first, data, .. } = event else { panic!("{event:?}") };
                if first { got.push(Vec::new()) }
                got.last_mut().unwrap().extend_from_slice(&data);
            }
            prop_assert_eq!(got, messages);
        }
    }
}
