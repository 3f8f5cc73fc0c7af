//! Passing an upgrade through to a backend (API server to kubelet): both ends speak the same protocol, so after both have
//! switched only bytes are copied. What the backend answers instead of switching goes back as it is, but a redirect
//! never does: following one would carry the API server's credentials elsewhere (CVE-2018-1002102). A backend that does
//! not switch gets no further byte of the client's (CVE-2018-1002105).

use std::{
    io,
    num::NonZeroU64,
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
    time::{Instant, sleep_until, timeout},
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
    pace: Pace,
}

/// So many bytes a second, each way; as many as can be, if that is not said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace(Option<NonZeroU64>);

impl Pace {
    /// As many as can be, if there are none.
    pub fn bytes_per_second(bytes: u64) -> Self {
        Pace(NonZeroU64::new(bytes))
    }

    /// How much is copied at a time: little enough that something moves several times a second.
    fn at_a_time(self) -> usize {
        self.0.map_or(BUFFER, |rate| usize::try_from(rate.get() / 10).unwrap_or(BUFFER).clamp(1, BUFFER))
    }

    /// How long so many bytes take.
    fn takes(self, bytes: usize) -> Duration {
        self.0.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(bytes as f64 / rate.get() as f64))
    }
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
    Ok(Proxied::Switched(switched, Tunnel { client, backend, pace: Pace::default() }))
}

fn strip(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP.iter().chain(&[UPGRADE]) {
        headers.remove(name);
    }
    // The client's connection cannot be used on: it may have sent more than a request already.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

impl Tunnel {
    /// One that goes no faster.
    pub fn at(self, pace: Pace) -> Self {
        Tunnel { pace, ..self }
    }

    /// Copies both ways until both ends have hung up.
    pub async fn run(self) -> Result<(), Error> {
        let (client, backend) = (self.client.await?, self.backend.await?);
        Ok(join(TokioIo::new(client), TokioIo::new(backend), self.pace).await?)
    }
}

/// Copies both ways until both ends have hung up, or one has and nothing more comes from the other.
async fn join(a: impl Io, b: impl Io, pace: Pace) -> io::Result<()> {
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let copied = AtomicU64::new(0);
    let mut there = pin!(copy(a_read, b_write, &copied, pace));
    let mut back = pin!(copy(b_read, a_write, &copied, pace));
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
    pace: Pace,
) -> io::Result<()> {
    let mut buffer = vec![0; pace.at_a_time()];
    let mut next = Instant::now();
    loop {
        if pace.0.is_some() {
            sleep_until(next).await;
        }
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        copied.fetch_add(n as u64, Ordering::Relaxed);
        // Time in which nothing came is not made up for.
        next = next.max(Instant::now()) + pace.takes(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(rate: u64, bytes: usize, seconds: std::ops::RangeInclusive<u64>) {
        let (mut client, a) = tokio::io::duplex(1 << 20);
        let (b, mut backend) = tokio::io::duplex(1 << 20);
        let joined = tokio::spawn(join(a, b, Pace::bytes_per_second(rate)));
        let began = Instant::now();
        client.write_all(&vec![1; bytes]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut came = Vec::new();
        backend.read_to_end(&mut came).await.unwrap();
        assert_eq!(came.len(), bytes);
        // Both ways at the same time are no slower.
        backend.write_all(&[2; 10]).await.unwrap();
        drop(backend);
        joined.await.unwrap().unwrap();
        let took = began.elapsed().as_secs();
        assert!(seconds.contains(&took), "{rate}: {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn tunnels_keep_their_pace() {
        check(0, 1 << 20, 0..=0).await;
        check(1_000, 20_000, 19..=21).await;
        check(1 << 20, 1 << 21, 1..=2).await;
        // Slower than the patience with ends that have nothing more to say, and yet all arrives.
        check(3, 100, 32..=37).await;
    }
}
