//! One way, without channels: a body sent as WebSocket messages. How browsers read logs and watch. Upstream:
//! `wsstream.Reader`, and the WebSocket side of `WatchServer`.

use crate::{
    Error,
    negotiate::{Agreed, Refusal, answer_websocket},
    ws::frame::{self, BINARY, CLOSE, Event, PONG, Reader, Role, TEXT},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use hyper::{Request, Response, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use std::pin::pin;
use tokio::io::AsyncWriteExt as _;

const BASE64: &str = "base64.binary.k8s.io";
const PROTOCOLS: &[&str] = &["", "binary.k8s.io", BASE64];
/// Status 1000, "normal closure".
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

/// How a body becomes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each chunk is a binary message.
    Chunks,
    /// Each line is a text message.
    Lines,
}

/// A WebSocket that is about to open.
#[derive(Debug)]
pub struct Messages {
    upgrade: OnUpgrade,
    base64: bool,
}

/// Answers a request for a WebSocket. Send the response (its status is 101), and the body through [`Messages::send`].
pub fn upgrade<B>(request: &mut Request<B>) -> Result<(Response<()>, Messages), Refusal> {
    let (agreed, response) = answer_websocket(request.headers(), PROTOCOLS)?;
    let base64 = matches!(agreed, Agreed::WebSocket(BASE64));
    Ok((response, Messages { upgrade: hyper::upgrade::on(request), base64 }))
}

impl Messages {
    /// Sends a body to its end, or until the client hangs up.
    pub async fn send<E>(
        self,
        body: impl Stream<Item = Result<Bytes, E>>,
        framing: Framing,
    ) -> Result<(), Error> {
        let Messages { upgrade, base64 } = self;
        let (read, mut write) = tokio::io::split(TokioIo::new(upgrade.await?));
        let mut client = Reader::new(read, Role::Server);
        let mut body = pin!(body);
        let mut out = BytesMut::new();
        let mut line = BytesMut::new();
        loop {
            let over = tokio::select! {
                event = client.next() => match event? {
                    Event::Ping(data) => { frame::write(&mut out, Role::Server, PONG, &data, &[]); false }
                    Event::Close => true,
                    Event::Pong | Event::Piece { .. } => false,
                },
                chunk = body.next() => match chunk {
                    Some(Ok(chunk)) => {
                        match framing {
                            Framing::Chunks => message(&mut out, BINARY, base64, &chunk),
                            Framing::Lines => {
                                line.extend_from_slice(&chunk);
                                while let Some(end) = line.iter().position(|b| *b == b'\n') {
                                    let whole = line.split_to(end + 1);
                                    message(&mut out, TEXT, base64, &whole);
                                }
                            }
                        }
                        false
                    }
                    Some(Err(_)) | None => true,
                },
            };
            if over {
                frame::write(&mut out, Role::Server, CLOSE, &NORMAL, &[]);
            }
            write.write_all(&out).await?;
            write.flush().await?;
            out.clear();
            if over {
                return Ok(write.shutdown().await?);
            }
        }
    }
}

fn message(out: &mut BytesMut, opcode: u8, base64: bool, data: &[u8]) {
    if base64 {
        frame::write(out, Role::Server, TEXT, STANDARD.encode(data).as_bytes(), &[]);
    } else {
        frame::write(out, Role::Server, opcode, data, &[]);
    }
}
