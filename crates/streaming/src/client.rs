//! The calling end: dial something, `connect`, and have a command's streams or ports to forward.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Request, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Error, Forward, Input, Outcome, Output, Streams, TerminalSize,
    connection::{Connection, Io},
    negotiate::{
        Agreed, EXEC_SPDY, EXEC_WEBSOCKET, FORWARD_SPDY, FORWARD_WEBSOCKET, PROTOCOL_VERSION,
        TUNNELED_PORT_FORWARD, accept,
    },
    remote_command::{ERROR, RESIZE, STDERR, STDIN, STDOUT},
    spdy,
    ws::{self, frame::Role, tunnel::Tunnel},
};

/// Error bodies and statuses beyond this are cut or refused.
const MAX_TEXT: usize = 64 << 10;

/// How to ask for the upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    WebSocket,
    Spdy,
}

/// Sends `request` (method, path, host and credentials as the caller made them) with an upgrade over a fresh
/// connection, offering these sub-protocols.
pub async fn connect(
    io: impl Io,
    mut request: Request<()>,
    via: Via,
    protocols: &[&'static str],
) -> Result<(TokioIo<Upgraded>, Agreed), Error> {
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::Protocol("no random key"))?;
    let key = STANDARD.encode(key);
    match via {
        Via::WebSocket => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).expect("base64 is a header value"));
            let all =
                HeaderValue::from_str(&protocols.join(", ")).map_err(|_| Error::Protocol("protocol name"))?;
            headers.insert(SEC_WEBSOCKET_PROTOCOL, all);
        }
        Via::Spdy => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            for protocol in protocols {
                headers.append(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
            }
        }
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    // Ends when the upgraded stream is taken out of it, or with the sender.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request.map(|()| Empty::<Bytes>::new())).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_TEXT).collect().await;
        let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
        return Err(Error::NotUpgraded { status, body });
    }
    let header = |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let chosen = |name, known: [&[&'static str]; 2]| {
        let chosen: &str = header(name);
        protocols
            .iter()
            .chain(known.into_iter().flatten().filter(|k| k.is_empty()))
            .find(|p| **p == chosen)
            .copied()
    };
    let unknown = Error::Protocol("the server chose a protocol that was not offered");
    let agreed = match via {
        Via::WebSocket => {
            if response.headers().get(SEC_WEBSOCKET_ACCEPT) != Some(&accept(key.as_bytes())) {
                return Err(Error::Protocol("wrong Sec-WebSocket-Accept"));
            }
            let name = SEC_WEBSOCKET_PROTOCOL;
            Agreed::WebSocket(chosen(name, [EXEC_WEBSOCKET, FORWARD_WEBSOCKET]).ok_or(unknown)?)
        }
        Via::Spdy => Agreed::Spdy(chosen(PROTOCOL_VERSION, [EXEC_SPDY, FORWARD_SPDY]).ok_or(unknown)?),
    };
    Ok((TokioIo::new(hyper::upgrade::on(response).await?), agreed))
}

/// A remote command's streams at the calling end.
#[derive(Debug)]
pub struct RemoteCommand {
    /// Shut it down or drop it to end the command's input, where the protocol can say so (v5, SPDY).
    pub stdin: Option<Output>,
    pub stdout: Option<Input>,
    pub stderr: Option<Input>,
    pub resize: Option<Resize>,
    pub status: Status,
}

/// Tells the far end the terminal's size.
#[derive(Debug)]
pub struct Resize(Output);

impl Resize {
    pub async fn set(&mut self, size: TerminalSize) -> Result<(), Error> {
        let json = serde_json::to_vec(&size).map_err(|_| Error::Protocol("terminal size"))?;
        Ok(self.0.write_all(&json).await?)
    }
}

/// How the command will have ended. Holds the connection: dropping it aborts.
#[derive(Debug)]
pub struct Status {
    error: Input,
    connection: Connection,
    has_status: bool,
}

impl Status {
    /// Waits for the end, and closes the connection in order. Read stdout and stderr to their ends too, in other tasks:
    /// what waits there unread holds the status back.
    pub async fn wait(mut self) -> Result<Outcome, Error> {
        let mut said = Vec::new();
        (&mut self.error).take(MAX_TEXT as u64).read_to_end(&mut said).await?;
        let outcome = if said.is_empty() && self.has_status {
            Err(Error::Gone)
        } else {
            Outcome::decode(said, self.has_status)
        };
        // The outcome is known, whatever becomes of the goodbye.
        let _ = self.connection.close().await;
        outcome
    }
}

impl RemoteCommand {
    /// Over a connection that `connect` upgraded.
    pub async fn open(io: impl Io, agreed: Agreed, streams: Streams) -> Result<RemoteCommand, Error> {
        match agreed {
            Agreed::WebSocket(_) => Ok(Self::websocket(io, agreed, streams)),
            Agreed::Spdy(_) => Self::spdy(io, agreed, streams).await,
        }
    }

    fn websocket(io: impl Io, agreed: Agreed, streams: Streams) -> RemoteCommand {
        let mut pipes: Vec<_> = (0..5).map(|_| None).collect();
        let mut pipe = |channel: u32| {
            let (ours, input) = Input::pipe();
            pipes[channel as usize] = Some(ours);
            input
        };
        let stdout = streams.stdout.then(|| pipe(STDOUT));
        let stderr = streams.stderr.then(|| pipe(STDERR));
        let error = pipe(ERROR);
        let connection = ws::start(io, Role::Client, agreed.codec(), pipes);
        let output = |id| Output::new(id, connection.queue.clone());
        RemoteCommand {
            stdin: streams.stdin.then(|| output(STDIN)),
            stdout,
            stderr,
            resize: streams.tty.then(|| Resize(output(RESIZE))),
            status: Status { error, has_status: agreed.has_status(), connection },
        }
    }

    async fn spdy(io: impl Io, agreed: Agreed, streams: Streams) -> Result<RemoteCommand, Error> {
        let session = spdy::Session::client(io);
        let opener = session.opener();
        let open = async |kind: &str, wanted: bool| match wanted {
            true => opener.open(vec![("streamtype".into(), kind.into())]).await.map(Some),
            false => Ok(None),
        };
        // In upstream's order.
        let error = open("error", true).await?.ok_or(Error::Gone)?;
        let stdin = open("stdin", streams.stdin).await?;
        let stdout = open("stdout", streams.stdout).await?;
        let stderr = open("stderr", streams.stderr).await?;
        let resize = open("resize", streams.tty && agreed.can_resize()).await?;
        Ok(RemoteCommand {
            stdin: stdin.map(|s| s.output),
            stdout: stdout.map(|s| s.input),
            stderr: stderr.map(|s| s.input),
            resize: resize.map(|s| Resize(s.output)),
            status: Status {
                error: error.input,
                has_status: agreed.has_status(),
                connection: session.connection,
            },
        })
    }
}

/// Forwards ports at the calling end.
pub struct PortForward {
    connection: Connection,
    opener: spdy::Opener,
    requests: u32,
}

/// What the far end says about one forwarded connection; nothing when all went well.
#[derive(Debug)]
pub struct ForwardErrors(Input);

impl ForwardErrors {
    /// Waits for the connection's end.
    pub async fn wait(mut self) -> Result<Option<String>, Error> {
        let mut said = Vec::new();
        (&mut self.0).take(MAX_TEXT as u64).read_to_end(&mut said).await?;
        Ok((!said.is_empty()).then(|| String::from_utf8_lossy(&said).into_owned()))
    }
}

impl PortForward {
    /// Over a connection that `connect` upgraded with `portforward.k8s.io` or the tunnelled variant of it.
    pub fn open(io: impl Io, agreed: Agreed) -> PortForward {
        let session = match agreed {
            Agreed::WebSocket(TUNNELED_PORT_FORWARD) => {
                spdy::Session::client(Tunnel::start(io, Role::Client))
            }
            _ => spdy::Session::client(io),
        };
        PortForward { opener: session.opener(), connection: session.connection, requests: 0 }
    }

    /// A new connection to the port.
    pub async fn forward(&mut self, port: u16) -> Result<(Forward, ForwardErrors), Error> {
        let request = self.requests.to_string();
        self.requests += 1;
        let headers = |kind: &str| {
            vec![
                ("streamtype".into(), kind.into()),
                ("port".into(), port.to_string()),
                ("requestid".into(), request.clone()),
            ]
        };
        let mut error = self.opener.open(headers("error")).await?;
        // Nothing is sent on it; upstream's client says so at once.
        error.output.shutdown().await?;
        let data = self.opener.open(headers("data")).await?;
        Ok((Forward::new(port, data.input, data.output, error.output), ForwardErrors(error.input)))
    }

    /// Closes the connection in order.
    pub async fn close(self) -> Result<(), Error> {
        Ok(self.connection.close().await?)
    }
}
