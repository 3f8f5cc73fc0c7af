//! A byte stream inside WebSocket messages: how kubectl tunnels SPDY for port-forward
//! (`SPDY/3.1+portforward.k8s.io`). What is written goes out as binary messages, whose bounds mean nothing.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Codec, frame::Role};
use crate::{
    channel::{Input, Output},
    connection::{Connection, Io},
};

/// The tunnel's near end. Shutting it down closes the WebSocket in order; dropping it aborts.
pub(crate) struct Tunnel {
    input: Input,
    output: Output,
    _connection: Connection,
}

impl Tunnel {
    pub(crate) fn start(io: impl Io, role: Role) -> Tunnel {
        let (pipe, input) = Input::pipe();
        let connection = super::start(io, role, Codec::Raw, vec![Some(pipe)]);
        Tunnel { input, output: Output::new(0, connection.queue.clone()), _connection: connection }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_goodbye(cx)
    }
}
