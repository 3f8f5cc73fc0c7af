//! Connections through konnectivity's proxy (upstream's konnectivity-client with its single-use tunnels): for each
//! connection a gRPC connection to the proxy's socket, and on it one stream of packets: first the wish to be connected to a
//! host, then what goes to it and comes from it.
//!
//! A task serves the tunnel. What it hands on is bounded: a few packets each way, beyond them the windows of HTTP/2.

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
mod generated;
mod measures;
mod stream;

pub(super) use measures::Measures;

use super::Connection;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use generated::packet::Payload;
use generated::proxy_service_client::ProxyServiceClient;
use generated::{CloseDial, CloseRequest, DialRequest, DialResponse, Packet, PacketType};
use hyper_util::rt::TokioIo;
use measures::Counted;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stream::Stream;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status, Streaming};

/// How long a proxy may take to be there, and how long to connect (upstream's).
const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Between attempts to reach the proxy, at first, and how much longer each time (gRPC's).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGER: f64 = 1.6;
/// How long what has come may wait to be read, and how long it may take the proxy to close a connection (upstream's). A
/// proxy that is kept waiting keeps others waiting who come through it.
const READ_LIMIT: Duration = Duration::from_secs(10);
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// How many packets wait to be read (upstream's), and to be sent.
const INCOMING: usize = 10;
const OUTGOING: usize = 4;
/// The bytes that a proxy may send before somebody looks at them.
const WINDOW: u32 = 256 << 10;

/// What a packet's type says, which upstream looks at, is what its payload is.
fn kind(payload: &Payload) -> PacketType {
    match payload {
        Payload::DialRequest(_) => PacketType::DialReq,
        Payload::DialResponse(_) => PacketType::DialRsp,
        Payload::Data(_) => PacketType::Data,
        Payload::CloseRequest(_) => PacketType::CloseReq,
        Payload::CloseResponse(_) => PacketType::CloseRsp,
        Payload::CloseDial(_) => PacketType::DialCls,
        Payload::Drain(_) => PacketType::Drain,
    }
}

fn packet(payload: Payload) -> Packet {
    Packet { r#type: kind(&payload).into(), payload: Some(payload) }
}

/// Why there is no connection, in upstream's words.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Endpoint(String),
    #[error("dial closed")]
    DialClosed,
    #[error("dial timeout, backstop")]
    Timeout,
    #[error("dial timeout, context")]
    Context,
    #[error("tunnel closed")]
    TunnelClosed,
}

impl Failure {
    fn reason(&self) -> &'static str {
        match self {
            Failure::Endpoint(_) => "endpoint",
            Failure::DialClosed => "dialclosed",
            Failure::Timeout => "timeout",
            Failure::Context => "context",
            Failure::TunnelClosed => "tunnelclosed",
        }
    }
}

/// A way to the proxy, which leads to one host.
pub(super) struct Tunnel {
    channel: Channel,
    measures: Measures,
    counted: Counted,
}

impl Tunnel {
    /// Connects to the proxy, as soon as it is there.
    pub(super) async fn open(socket: &Path, measures: &Measures) -> io::Result<Self> {
        let latest = Instant::now() + DIAL_LIMIT;
        let mut pause = FIRST_PAUSE;
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() + pause > latest => return Err(error),
                Err(_) => sleep(pause).await,
            }
            pause = pause.mul_f64(LONGER);
        };
        let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
        // What is lost is not made anew: who was connected through it has to know.
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.lock().take().ok_or(io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(WINDOW);
        let connected = timeout(DIAL_LIMIT, endpoint.connect_with_connector(connector));
        let channel = connected.await?.map_err(io::Error::other)?;
        Ok(Tunnel { channel, measures: measures.clone(), counted: measures.tunnel() })
    }

    /// Asks for a connection to a host's port.
    pub(super) async fn dial(self, address: String) -> io::Result<Connection> {
        let (told, answer) = oneshot::channel();
        tokio::spawn(self.serve(address, told));
        let answer = answer.await.unwrap_or(Err(Failure::TunnelClosed));
        Ok(Box::new(answer.map_err(io::Error::other)?))
    }

    /// Goes on until the connection is over, on either side.
    async fn serve(mut self, address: String, told: oneshot::Sender<Result<Stream, Failure>>) {
        // Any number would do: upstream's proxies serve many clients, and know dials by theirs.
        let random = uuid::Uuid::new_v4().as_u128() as i64 & i64::MAX;
        let (outgoing, mut queue) = mpsc::channel(OUTGOING);
        let sent = self.measures.clone();
        let packets = futures::stream::poll_fn(move |cx| {
            let next = queue.poll_recv(cx);
            next.map(|next| next.inspect(|packet: &Packet| packet.payload.iter().for_each(|p| sent.sent(p))))
        });
        // The proxy is told that this is the end as soon as it is, whoever holds on to the connection.
        let over = CancellationToken::new();
        let packets = packets.take_until(over.clone().cancelled_owned());
        let _over = over.drop_guard();
        let mut client = ProxyServiceClient::new(self.channel.clone());
        let opening = Box::pin(async move { client.proxy(packets).await });
        let mut incoming = Incoming { opening: Some(opening), stream: None, measures: self.measures.clone() };
        self.counted.becomes("dialing");
        let request = DialRequest { protocol: "tcp".into(), address, random };
        say(&outgoing, Payload::DialRequest(request)).await;
        match dialled(&mut incoming, random, told).await {
            Ok((id, told)) => {
                self.counted.becomes("ok");
                connected(incoming, outgoing, id, told).await;
            }
            Err((failure, told)) => {
                self.measures.failed(failure.reason());
                if matches!(failure, Failure::Timeout | Failure::Context) {
                    // Whoever is connected yet is not waited for any more.
                    say(&outgoing, Payload::CloseDial(CloseDial { random })).await;
                    drop(outgoing);
                    let _ = told.send(Err(failure));
                    let over = async { while let Some(_late) = incoming.next().await {} };
                    let _ = timeout(CLOSE_LIMIT, over).await;
                } else {
                    let _ = told.send(Err(failure));
                }
            }
        }
    }
}

type Told = oneshot::Sender<Result<Stream, Failure>>;

/// Waits for the proxy's answer to a wish, for as long as there is somebody whose wish it is.
async fn dialled(
    incoming: &mut Incoming,
    random: i64,
    mut told: Told,
) -> Result<(i64, Told), (Failure, Told)> {
    let mut late = pin!(sleep(DIAL_LIMIT));
    let failure = loop {
        let payload = tokio::select! {
            payload = incoming.next() => payload,
            () = told.closed() => break Failure::Context,
            () = &mut late => break Failure::Timeout,
        };
        match payload {
            Some(Payload::DialResponse(DialResponse { error, connect_id, random: of })) if of == random => {
                match error.is_empty() {
                    true => return Ok((connect_id, told)),
                    false => break Failure::Endpoint(error),
                }
            }
            Some(Payload::CloseDial(_)) => break Failure::DialClosed,
            Some(Payload::DialResponse(_)) | None => break Failure::TunnelClosed,
            Some(_) => {}
        }
    };
    Err((failure, told))
}

/// Hands on what comes, until the proxy says that this is all, or nobody wants more.
async fn connected(mut incoming: Incoming, outgoing: mpsc::Sender<Packet>, id: i64, told: Told) {
    let (data, read) = mpsc::channel(INCOMING);
    let (closing, whole) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let stream = Stream::new(id, read, whole.clone(), outgoing.clone(), closing.clone());
    // Who has gone meanwhile drops it, which closes it.
    let _ = told.send(Ok(stream));
    let mut latest = None;
    loop {
        let late = async {
            match latest {
                Some(latest) => sleep_until(latest).await,
                None => std::future::pending().await,
            }
        };
        let payload = tokio::select! {
            payload = incoming.next() => payload,
            () = closing.cancelled(), if latest.is_none() => {
                latest = Some(Instant::now() + CLOSE_LIMIT);
                say(&outgoing, Payload::CloseRequest(CloseRequest { connect_id: id })).await;
                continue;
            }
            () = late => return,
        };
        match payload {
            Some(Payload::Data(received)) if received.connect_id == id => {
                // Who does not want it any more has closed the connection, of which the proxy is told.
                if timeout(READ_LIMIT, data.send(received.data.into())).await.is_err() {
                    tracing::error!(
                        id,
                        "nobody reads what comes through the proxy: the connection is closed"
                    );
                    return;
                }
            }
            Some(Payload::Data(other)) if other.connect_id != 0 => {
                say(&outgoing, Payload::CloseRequest(CloseRequest { connect_id: other.connect_id })).await;
            }
            Some(Payload::CloseResponse(closed)) if closed.connect_id == id => {
                return whole.store(true, Ordering::Release);
            }
            Some(Payload::CloseDial(_)) | None => return,
            Some(_) => {}
        }
    }
}

/// Sends a packet, unless the proxy takes none.
async fn say(outgoing: &mpsc::Sender<Packet>, payload: Payload) {
    let _ = timeout(CLOSE_LIMIT, outgoing.send(packet(payload))).await;
}

type Opened = Result<Response<Streaming<Packet>>, Status>;

/// What the proxy says. It begins to speak when it has something to say, not before.
struct Incoming {
    opening: Option<BoxFuture<'static, Opened>>,
    stream: Option<Streaming<Packet>>,
    measures: Measures,
}

impl Incoming {
    /// The next packet; nothing when there are no more. Nothing is lost when this is given up.
    async fn next(&mut self) -> Option<Payload> {
        loop {
            let received = match (&mut self.stream, &mut self.opening) {
                (Some(stream), _) => stream.message().await,
                (None, Some(opening)) => {
                    let opened = opening.await;
                    self.opening = None;
                    match opened {
                        Ok(stream) => {
                            self.stream = Some(stream.into_inner());
                            continue;
                        }
                        Err(status) => Err(status),
                    }
                }
                (None, None) => return None,
            };
            match received {
                Ok(Some(Packet { payload: Some(payload), .. })) => {
                    self.measures.received(&payload);
                    return Some(payload);
                }
                Ok(Some(Packet { payload: None, .. })) => {}
                Ok(None) => return None,
                Err(status) => {
                    self.measures.broken(status.code());
                    tracing::debug!(%status, "a tunnel through the proxy has broken");
                    return None;
                }
            }
        }
    }
}
