//! Channels over WebSocket: the first byte of a message names the channel. In the base64 variants messages are text,
//! the channel is a digit and the rest base64. In v5, `[255, channel]` ends what is sent on a channel.

pub(crate) mod frame;
pub(crate) mod tunnel;

use std::io;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, DuplexStream},
    sync::mpsc,
};

use crate::{
    Error,
    channel::{Frame, QUEUE},
    connection::{Connection, Encode, Ends, Io, deliver},
};
use frame::{BINARY, CLOSE, Event, PING, PONG, Reader, Role, TEXT};

/// The channel byte that ends another channel, in v5.
const CLOSE_SIGNAL: u8 = 255;
/// Base64 messages must be gathered to be decoded; this is the most.
const MAX_TEXT: usize = 1 << 20;
/// Status 1000, "normal closure": kubectl takes any other for an error.
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

/// What a sub-protocol says about messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Binary,
    /// Binary, with the signal that ends a channel.
    BinaryWithClose,
    Base64,
    /// No channels: a tunnel.
    Raw,
}

struct Encoder {
    role: Role,
    codec: Codec,
}

impl Encode for Encoder {
    fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> io::Result<()> {
        match frame {
            Frame::Data { id, data, last } => {
                let channel = id as u8;
                if !data.is_empty() || !last {
                    match self.codec {
                        Codec::Raw => frame::write(out, self.role, BINARY, &[], &data),
                        Codec::Base64 => {
                            let text = STANDARD.encode(&data);
                            frame::write(out, self.role, TEXT, &[b'0' + channel], text.as_bytes());
                        }
                        _ => frame::write(out, self.role, BINARY, &[channel], &data),
                    }
                }
                // Only clients end a channel; servers end the connection.
                if last && self.codec == Codec::BinaryWithClose && self.role == Role::Client {
                    frame::write(out, self.role, BINARY, &[CLOSE_SIGNAL, channel], &[]);
                }
            }
            Frame::Ping => frame::write(out, self.role, PING, &[], &[]),
            Frame::Pong(data) => frame::write(out, self.role, PONG, &data, &[]),
            Frame::Close => frame::write(out, self.role, CLOSE, &NORMAL, &[]),
            Frame::Open { .. } | Frame::Accept { .. } | Frame::Reset { .. } | Frame::Window { .. } => {}
        }
        Ok(())
    }
}

/// Starts the connection; `pipes` has an entry per channel whose data is wanted.
pub(crate) fn start(io: impl Io, role: Role, codec: Codec, pipes: Vec<Option<DuplexStream>>) -> Connection {
    let (read, write) = tokio::io::split(io);
    let (queue, frames) = mpsc::channel(QUEUE);
    let ends = Ends::default();
    let reader = {
        let ends = ends.clone();
        // However it ends, the channels' consumers see their end.
        async move { drop(read_messages(read, role, codec, pipes, ends).await) }
    };
    Connection::start(write, Encoder { role, codec }, (queue, frames), ends, reader)
}

async fn read_messages(
    read: impl AsyncRead + Unpin,
    role: Role,
    codec: Codec,
    mut pipes: Vec<Option<DuplexStream>>,
    ends: Ends,
) -> Result<(), Error> {
    let mut reader = Reader::new(read, role);
    let mut channel = None;
    let mut text = BytesMut::new();
    loop {
        let (first, last, mut data) = match reader.next().await? {
            Event::Piece { first, last, data } => (first, last, data),
            Event::Ping(data) => {
                ends.pong.set(data);
                continue;
            }
            Event::Pong => continue,
            Event::Close => return Ok(()),
        };
        if ends.closing.is_cancelled() {
            continue;
        }
        match codec {
            Codec::Raw => channel = Some(0),
            Codec::Base64 => {
                if text.len() + data.len() > MAX_TEXT {
                    return Err(Error::Protocol("base64 message too large"));
                }
                text.extend_from_slice(&data);
                if !last {
                    continue;
                }
                let message = text.split();
                // As upstream: a message that cannot be read is skipped.
                let Some((digit, body)) = message.split_first() else { continue };
                let Ok(decoded) = STANDARD.decode(body) else { continue };
                (channel, data) = (Some(digit.wrapping_sub(b'0')), decoded.into());
            }
            Codec::Binary | Codec::BinaryWithClose => {
                if first {
                    channel = None;
                }
                // An empty piece does not name the channel yet.
                if channel.is_none() && !data.is_empty() {
                    channel = Some(data.split_to(1)[0]);
                }
            }
        }
        match channel {
            Some(CLOSE_SIGNAL) if codec == Codec::BinaryWithClose => match data[..] {
                [] => {}
                [ended] => drop(pipes.get_mut(usize::from(ended)).and_then(Option::take)),
                _ => return Err(Error::Protocol("a close signal names one channel")),
            },
            Some(channel) => give(&mut pipes, usize::from(channel), data, &ends).await,
            None => {}
        }
    }
}

/// Data for a channel that nobody wants, or that has ended, is thrown away.
async fn give(pipes: &mut [Option<DuplexStream>], channel: usize, data: Bytes, ends: &Ends) {
    if let Some(slot) = pipes.get_mut(channel)
        && let Some(pipe) = slot
        && !deliver(pipe, data, ends).await
    {
        *slot = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::channel::Input;

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_while_the_consumer_is_slow_and_quiet_peers_are_pinged() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (pipe, input) = Input::pipe();
        let connection = start(far, Role::Server, Codec::Binary, vec![Some(pipe)]);
        let (read, mut write) = tokio::io::split(near);
        let mut reader = Reader::new(read, Role::Client);
        assert_eq!(reader.next().await.unwrap(), Event::Ping(Bytes::new()), "after half a minute of silence");

        let mut wire = BytesMut::new();
        frame::write(&mut wire, Role::Client, PING, b"one", &[]);
        // More than the pipe holds.
        frame::write(&mut wire, Role::Client, BINARY, &[0], &vec![7; 300_000]);
        tokio::io::AsyncWriteExt::write_all(&mut write, &wire).await.unwrap();
        // The pong, and then one unasked every time the reader has waited long.
        for _ in 0..3 {
            let event = timeout(Duration::from_secs(60), reader.next()).await.unwrap().unwrap();
            assert!(matches!(event, Event::Pong | Event::Ping(_)), "{event:?}");
        }
        drop(input);
        let closing = tokio::spawn(connection.close());
        while !matches!(reader.next().await.unwrap(), Event::Close) {}
        drop((reader, write));
        closing.await.unwrap().unwrap();
    }
}
