//! Forwarded ports, the called end: pairs of a data stream and an error stream, one pair per connection that the client
//! accepted. Over SPDY the client opens both with a port and a request id; over plain WebSocket the ports stand in the
//! query and each has two channels from the start.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Input, Output,
    channel::Frame,
    connection::{Connection, Io},
    negotiate::Agreed,
    spdy::{self, CANCEL, PROTOCOL_ERROR},
    ws::{self, frame::Role},
};

/// The ports of a kubelet's query: `port=80,443` or `port=80&port=443`. What is wrong with it is told in upstream's words.
pub fn ports<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for value in values {
        if value.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        for port in value.split(',') {
            match port.parse() {
                Ok(0) => return Err(format!("port {value:?} must be > 0")),
                Ok(port) => ports.push(port),
                Err(_) => {
                    // Go's parser tells a number that is too large from what is none.
                    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                    let why = if digits { "value out of range" } else { "invalid syntax" };
                    return Err(format!(
                        "unable to parse {value:?} as a port: strconv.ParseUint: parsing {port:?}: {why}"
                    ));
                }
            }
        }
    }
    if ports.is_empty() { Err("query parameter \"port\" is required".into()) } else { Ok(ports) }
}

/// How long the second stream of a pair may take.
const STREAM_CREATION: Duration = Duration::from_secs(30);

/// One forwarded connection. Dropping it ends both directions in order.
#[derive(Debug)]
pub struct Forward {
    pub port: u16,
    input: Input,
    output: Output,
    error: Output,
}

impl Forward {
    pub(crate) fn new(port: u16, input: Input, output: Output, error: Output) -> Forward {
        Forward { port, input, output, error }
    }

    /// Tells the client why there is no (more) forwarding, and ends both streams.
    pub async fn fail(mut self, message: &str) {
        // When the connection is gone there is nobody to tell.
        let _ = self.error.write_all(message.as_bytes()).await;
        drop(self.error.shutdown().await);
        self.output.reset(CANCEL).await;
    }
}

impl AsyncRead for Forward {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Forward {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

/// Connections as the client asks for them.
#[derive(Debug)]
pub struct PortForward {
    connection: Connection,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Ports(std::vec::IntoIter<Forward>),
    Streams { opened: mpsc::Receiver<spdy::Stream>, halves: HashMap<String, Half> },
}

/// The first stream of a pair.
#[derive(Debug)]
struct Half {
    stream: spdy::Stream,
    until: Instant,
}

impl PortForward {
    pub(crate) fn spdy(io: impl Io) -> PortForward {
        let (session, opened) = spdy::Session::server(io);
        PortForward {
            connection: session.connection,
            source: Source::Streams { opened, halves: HashMap::new() },
        }
    }

    pub(crate) fn websocket(io: impl Io, agreed: Agreed, ports: &[u16]) -> PortForward {
        let (pipes, inputs): (Vec<_>, Vec<_>) = ports.iter().map(|_| Input::pipe()).unzip();
        let pipes = pipes.into_iter().flat_map(|p| [Some(p), None]).collect();
        let connection = ws::start(io, Role::Server, agreed.codec(), pipes);
        let forward = |(i, (port, input)): (usize, (&u16, Input))| {
            let output = |id| Output::new(id, connection.queue.clone());
            Forward::new(*port, input, output(2 * i as u32), output(2 * i as u32 + 1))
        };
        let forwards: Vec<Forward> = ports.iter().zip(inputs).enumerate().map(forward).collect();
        PortForward { connection, source: Source::Ports(forwards.into_iter()) }
    }

    /// Cancelled when the peer is gone.
    pub fn gone(&self) -> CancellationToken {
        self.connection.ends.gone.clone()
    }

    /// The next connection; nothing when there will be no more. Each is meant for a task of its own.
    pub async fn next(&mut self) -> Option<Forward> {
        match &mut self.source {
            Source::Ports(forwards) => {
                let forward = forwards.next()?;
                // Both channels begin with the port, in little-endian order.
                for id in [forward.output.id(), forward.error.id()] {
                    let data = Bytes::copy_from_slice(&forward.port.to_le_bytes());
                    self.connection.queue.send(Frame::Data { id, data, last: false }).await.ok()?;
                }
                Some(forward)
            }
            Source::Streams { opened, halves } => loop {
                let first_due = halves.values().map(|h| h.until).min();
                let stream = tokio::select! {
                    stream = opened.recv() => stream?,
                    () = sleep_until(first_due.unwrap_or_else(Instant::now)), if first_due.is_some() => {
                        expire(halves).await;
                        continue;
                    }
                };
                if let Some(forward) = pair(halves, stream).await {
                    return Some(forward);
                }
            },
        }
    }

    /// Closes the connection in order, for when every forward is done. An error when the client has hung up already.
    pub async fn finish(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}

/// The other half makes a pair; a stream that makes no sense is reset.
async fn pair(halves: &mut HashMap<String, Half>, stream: spdy::Stream) -> Option<Forward> {
    let kind = stream.header("streamtype").to_owned();
    let port = stream.header("port").parse::<u16>().ok().filter(|p| *p > 0);
    let (Some(_), "data" | "error") = (port, kind.as_str()) else {
        stream.output.reset(PROTOCOL_ERROR).await;
        return None;
    };
    let request = match (stream.header("requestid"), kind.as_str()) {
        // Old clients name no request; they open the error stream and right after it the data stream.
        ("", "error") => stream.id.to_string(),
        ("", _) => stream.id.saturating_sub(2).to_string(),
        (id, _) => id.to_owned(),
    };
    let Some(half) = halves.remove(&request) else {
        halves.insert(request, Half { stream, until: Instant::now() + STREAM_CREATION });
        return None;
    };
    if half.stream.header("streamtype") == kind {
        let message =
            format!("error processing stream for request {request}: {kind} stream already assigned");
        if kind == "error" {
            let mut error = half.stream.output;
            // As above: nobody to tell.
            let _ = error.write_all(message.as_bytes()).await;
        }
        stream.output.reset(PROTOCOL_ERROR).await;
        return None;
    }
    let (data, error) = if kind == "data" { (stream, half.stream) } else { (half.stream, stream) };
    let port = data.header("port").parse().unwrap_or_default();
    Some(Forward::new(port, data.input, data.output, error.output))
}

async fn expire(halves: &mut HashMap<String, Half>) {
    let now = Instant::now();
    let due: Vec<String> = halves.iter().filter(|(_, h)| h.until <= now).map(|(r, _)| r.clone()).collect();
    for request in due {
        if let Some(Half { mut stream, .. }) = halves.remove(&request) {
            if stream.header("streamtype") == "error" {
                let message = format!("(request={request}) timed out waiting for streams");
                let _ = stream.output.write_all(message.as_bytes()).await;
            }
            stream.output.reset(CANCEL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        let asked = |values: &[&str]| ports(values.iter().copied());
        assert_eq!(asked(&["80,443", "8080"]), Ok(vec![80, 443, 8080]));
        for (values, wrong) in [
            (&[][..], "query parameter \"port\" is required"),
            (&[""], "query parameter \"port\" cannot be empty"),
            (&["80,0"], "port \"80,0\" must be > 0"),
            (&["80,"], "unable to parse \"80,\" as a port: strconv.ParseUint: parsing \"\": invalid syntax"),
            (
                &["65536"],
                "unable to parse \"65536\" as a port: strconv.ParseUint: parsing \"65536\": value out of range",
            ),
        ] {
            assert_eq!(asked(values), Err(wrong.to_owned()));
        }
    }
}
