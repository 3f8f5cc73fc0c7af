//! Passing an upgrade through to a backend (API server to kubelet): both ends speak the same protocol, so after both have
//! switched only bytes are copied. What the backend answers instead of switching goes back as it is, but a redirect
//! never does: following one would carry the API server's credentials elsewhere (CVE-2018-1002102). A backend that does
//! not switch gets no further byte of the client's (CVE-2018-1002105).

use std::{
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::Empty;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use crate::{Error, connection::Io};

/// When one end has hung up, the other may be quiet for this long.
const GRACE: Duration = Duration::from_secs(10);
const BUFFER: usize = 32 << 10;
const HOP_BY_HOP: [HeaderName; 5] = [TE, TRAILER, TRANSFER_ENCODING, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];

/// What came of it.
#[derive(Debug)]
pub enum Proxied {
    /// Send this 101 to the client and drive the copying, in a task of its own. It ends when both ends have.
    Switched(Response<()>, Tunnel),
    /// The backend's own answer.
    Refused(Response<Incoming>),
    /// The backend answered with a redirect: 502 is the answer.
    Redirected,
}

/// Two upgraded ends that are about to be joined.
#[derive(Debug)]
pub struct Tunnel {
    client: hyper::upgrade::OnUpgrade,
    backend: hyper::upgrade::OnUpgrade,
}

/// Sends a client's request to upgrade over a fresh connection to the backend. `head` is the request as the backend
/// shall see it (path, host, credentials: no header of the client's is copied but those that the upgrade needs).
pub async fn proxy_upgrade<B>(
    client: &mut Request<B>,
    mut head: Request<()>,
    backend: impl Io,
) -> Result<Proxied, Error> {
    let names = ["connection", "upgrade", "x-stream-protocol-version"];
    for (name, value) in client.headers() {
        if names.contains(&name.as_str()) || name.as_str().starts_with("sec-websocket-") {
            head.headers_mut().append(name.clone(), value.clone());
        }
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(backend)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(head.map(|()| Empty::<Bytes>::new())).await?;
    if response.status().is_redirection() {
        return Ok(Proxied::Redirected);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        strip(response.headers_mut());
        return Ok(Proxied::Refused(response));
    }
    let backend = hyper::upgrade::on(&mut response);
    let mut switched = Response::new(());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = std::mem::take(response.headers_mut());
    let client = hyper::upgrade::on(client);
    Ok(Proxied::Switched(switched, Tunnel { client, backend }))
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP.iter().chain(&[UPGRADE]) {
        headers.remove(name);
    }
    // The client's connection cannot be used on: it may have sent more than a request already.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

impl Tunnel {
    /// Copies both ways until both ends have hung up.
    pub async fn run(self) -> Result<(), Error> {
        let (client, backend) = (self.client.await?, self.backend.await?);
        Ok(join(TokioIo::new(client), TokioIo::new(backend)).await?)
    }
}

/// Copies both ways until both ends have hung up, or one has and nothing more comes from the other.
pub async fn join(a: impl Io, b: impl Io) -> io::Result<()> {
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let copied = AtomicU64::new(0);
    let mut there = pin!(copy(a_read, b_write, &copied));
    let mut back = pin!(copy(b_read, a_write, &copied));
    let other: Pin<&mut (dyn Future<Output = io::Result<()>> + Send)> = tokio::select! {
        first = &mut there => { first?; back }
        first = &mut back => { first?; there }
    };
    let mut other = other;
    loop {
        let before = copied.load(Ordering::Relaxed);
        match timeout(GRACE, &mut other).await {
            Ok(result) => return result,
            Err(_) if copied.load(Ordering::Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    copied: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        copied.fetch_add(n as u64, Ordering::Relaxed);
    }
}
