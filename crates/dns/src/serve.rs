//! The sockets: a few tasks per UDP socket answer in place, and only what waits for an upstream gets a task of its own;
//! TCP connections are bounded in number and in how long they may be silent.

use crate::answer::Zone;
use crate::forward::{Forwarder, MAX_CONCURRENT};
use crate::handle::{Handler, Step, Via};
use crate::metrics::{Metrics, ServerMetrics, Transport};
use crate::records::{NamespaceView, ServiceView, SliceView};
use crate::zone::Index;
use client::{Change, Informers};
use component::health::Latch;
use component::metrics::Registry;
use parking_lot::RwLock;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a TCP connection may take for its next request, or to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// TCP connections at the same time, per listener; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Requests are small; what is larger is cut, and then malformed.
const MAX_REQUEST: usize = 4096;
/// How long a listener rests after an error that would come again at once, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// What the cluster's DNS needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's domain, such as `cluster.local`.
    pub zone: String,
    /// Each is listened on over UDP and TCP. A port of zero takes one that is free for both. Of a wildcard, answers
    /// leave from the address that the route to the client has, which may not be the one that was asked.
    pub listen: Vec<SocketAddr>,
    /// Where the upstream name servers stand.
    pub resolv_conf: PathBuf,
    /// How long questions wait for the cluster to be seen, before they are answered by what is known. CoreDNS'
    /// `startup_timeout`.
    pub patience: Duration,
    /// Of all records of the zone, in seconds; CoreDNS has 5, the usual Corefile 30.
    pub ttl: u32,
}

/// What keeps the DNS from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster domain {0:?} is not a domain name")]
    Zone(String),
    #[error("listening for DNS on {address} over {transport}")]
    Listen { address: SocketAddr, transport: &'static str, source: io::Error },
    #[error("taking over sockets for DNS")]
    Adopt(#[source] io::Error),
}

/// A DNS server that has its addresses, and answers once it runs.
pub struct Server {
    config: Config,
    zone: Zone,
    sockets: Vec<(SocketAddr, UdpSocket, TcpListener)>,
    metrics: Metrics,
    ready: Latch,
}

/// Binds and serves until `shutdown`.
pub async fn run(
    config: Config,
    registry: &Registry,
    informers: &Informers,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Server::bind(config, registry).await?.run(informers, shutdown).await;
    Ok(())
}

impl Server {
    /// Takes the addresses.
    pub async fn bind(config: Config, registry: &Registry) -> Result<Server, Error> {
        let zone = zone(&config)?;
        let mut sockets = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            sockets.push(listen(*address).await?);
        }
        Ok(Server::new(config, zone, sockets, registry))
    }

    /// Takes over sockets in place of `config.listen`, of which each pair has one address: those of a supervisor keep
    /// what is asked while nobody serves.
    pub fn with_sockets(
        config: Config,
        sockets: Vec<(std::net::UdpSocket, std::net::TcpListener)>,
        registry: &Registry,
    ) -> Result<Server, Error> {
        let zone = zone(&config)?;
        let adopt = |(udp, tcp): (std::net::UdpSocket, std::net::TcpListener)| {
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp.local_addr()?, UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
        };
        let sockets: io::Result<Vec<_>> = sockets.into_iter().map(adopt).collect();
        Ok(Server::new(config, zone, sockets.map_err(Error::Adopt)?, registry))
    }

    fn new(
        config: Config,
        zone: Zone,
        sockets: Vec<(SocketAddr, UdpSocket, TcpListener)>,
        registry: &Registry,
    ) -> Server {
        Server { config, zone, sockets, metrics: Metrics::new(registry), ready: Latch::default() }
    }

    /// The addresses it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().map(|(address, ..)| *address).collect()
    }

    /// Done once everything of the cluster was seen. Until then, what is not found is a failure of the server, never
    /// said not to exist.
    pub fn ready(&self) -> Latch {
        self.ready.clone()
    }

    /// Serves until `shutdown`, and returns when its last task has ended.
    pub async fn run(self, informers: &Informers, shutdown: CancellationToken) {
        let own = self.addresses();
        let Server { config, zone, sockets, metrics, ready } = self;
        let index = Arc::new(RwLock::new(Index::default()));
        let tasks = TaskTracker::new();
        let forwarder =
            Forwarder::new(config.resolv_conf, own, metrics.clone(), tasks.clone(), shutdown.clone());
        let handler = Arc::new(Handler { zone, index, ready, forwarder, metrics });
        let (seen, all_seen) = tokio::sync::oneshot::channel();
        tasks.spawn(watch(handler.clone(), informers.clone(), seen, shutdown.clone()));
        // What was asked while nobody served waits in the sockets: better a late answer than none.
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = timeout(config.patience, all_seen) => {}
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        // A datagram that waits for an upstream holds its request; more than are asked are answered at once.
        let waiting = Arc::new(Semaphore::new(MAX_CONCURRENT * 2));
        for (address, udp, tcp) in sockets {
            let metrics = Arc::new(handler.metrics.server(address));
            let listener = Arc::new(Listener {
                handler: handler.clone(),
                metrics,
                tasks: tasks.clone(),
                shutdown: shutdown.clone(),
                waiting: waiting.clone(),
            });
            let udp = Arc::new(udp);
            for _ in 0..workers {
                tasks.spawn(listener.clone().datagrams(udp.clone()));
            }
            tasks.spawn(listener.connections(tcp));
        }
        tasks.close();
        tasks.wait().await;
    }
}

fn zone(config: &Config) -> Result<Zone, Error> {
    Zone::new(&config.zone, config.ttl).ok_or_else(|| Error::Zone(config.zone.clone()))
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, UdpSocket, TcpListener), Error> {
    let failed = |transport| move |source| Error::Listen { address, transport, source };
    let mut attempts = 0;
    loop {
        let udp = UdpSocket::bind(address).await.map_err(failed("UDP"))?;
        let bound = udp.local_addr().map_err(failed("UDP"))?;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((bound, udp, tcp)),
            // A free port for UDP may be taken for TCP.
            Err(error)
                if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && attempts < 16 =>
            {
                attempts += 1;
            }
            Err(error) => return Err(failed("TCP")(error)),
        }
    }
}

/// Keeps the index up with the informers.
async fn watch(
    handler: Arc<Handler>,
    informers: Informers,
    seen: tokio::sync::oneshot::Sender<()>,
    shutdown: CancellationToken,
) {
    let namespaces = informers.get::<NamespaceView>();
    let services = informers.get::<ServiceView>();
    let slices = informers.get::<SliceView>();
    let index = handler.index.clone();
    namespaces.subscribe(move |change| {
        let mut index = index.write();
        let object = change.object();
        match change {
            Change::Deleted(_) => index.remove_namespace(object.name()),
            _ => index.put_namespace(object.name()),
        }
        index.reached(object.revision());
    });
    let index = handler.index.clone();
    services.subscribe(move |change| {
        let mut index = index.write();
        let (object, key) = (change.object(), change.object().key());
        match change {
            Change::Deleted(_) => index.remove_service(&key.namespace, &key.name),
            _ => index.put_service(&key.namespace, &key.name, object.projection.0.clone()),
        }
        index.reached(object.revision());
    });
    let index = handler.index.clone();
    slices.subscribe(move |change| {
        let mut index = index.write();
        let (object, key) = (change.object(), change.object().key());
        let facts = match change {
            Change::Deleted(_) => None,
            _ => object.projection.0.clone(),
        };
        index.put_slice(&key.namespace, &key.name, facts);
        index.reached(object.revision());
    });
    let synced = async {
        namespaces.synced().await;
        services.synced().await;
        slices.synced().await;
    };
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = synced => handler.ready.done(),
    }
    // Who does not wait any more need not be told.
    let _ = seen.send(());
    tracing::info!(services = services.len(), slices = slices.len(), "the cluster's DNS is ready");
    // The informers serve this until shutdown.
    shutdown.cancelled().await;
}

/// One address.
struct Listener {
    handler: Arc<Handler>,
    metrics: Arc<ServerMetrics>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    waiting: Arc<Semaphore>,
}

impl Listener {
    fn via(&self, transport: Transport, peer: SocketAddr) -> Via<'_> {
        Via { transport, peer, metrics: &self.metrics, start: Instant::now() }
    }

    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; MAX_REQUEST];
        let mut out = Vec::with_capacity(MAX_REQUEST);
        loop {
            let received = tokio::select! {
                () = self.shutdown.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, peer) = match received {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!(%error, "receiving DNS requests");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let via = self.via(Transport::Udp, peer);
            match self.handler.handle(&buffer[..length], via, &mut out) {
                Step::Drop => {}
                Step::Reply => send(&socket, &out, peer).await,
                Step::Forward(pending) => {
                    // Beyond this, clients ask again.
                    let Ok(permit) = self.waiting.clone().try_acquire_owned() else { continue };
                    let (this, socket, start) = (self.clone(), socket.clone(), via.start);
                    self.tasks.spawn(async move {
                        let via = Via { start, ..this.via(Transport::Udp, peer) };
                        let mut out = Vec::with_capacity(512);
                        tokio::select! {
                            () = this.shutdown.cancelled() => return,
                            () = this.handler.finish(*pending, via, &mut out) => {}
                        }
                        send(&socket, &out, peer).await;
                        drop(permit);
                    });
                }
            }
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, accepted) = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = accepted => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting DNS connections");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            };
            let this = self.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = this.shutdown.cancelled() => {}
                    ended = this.connection(stream, peer) => {
                        if let Err(error) = ended {
                            tracing::debug!(%peer, %error, "a DNS connection ended");
                        }
                    }
                }
                drop(slot);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let (mut request, mut out, mut framed) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let read = async {
                let length = match stream.read_u16().await {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    Err(error) => return Err(error),
                };
                request.resize(length.into(), 0);
                stream.read_exact(&mut request).await?;
                Ok(true)
            };
            // Silence ends a connection without a word.
            match timeout(IDLE, read).await {
                Ok(Ok(true)) => {}
                Ok(ended) => return ended.map(drop),
                Err(_) => return Ok(()),
            }
            let via = self.via(Transport::Tcp, peer);
            match self.handler.handle(&request, via, &mut out) {
                Step::Drop => return Ok(()),
                Step::Reply => {}
                Step::Forward(pending) => self.handler.finish(*pending, via, &mut out).await,
            }
            framed.clear();
            framed.extend_from_slice(&(out.len() as u16).to_be_bytes());
            framed.extend_from_slice(&out);
            timeout(IDLE, stream.write_all(&framed)).await??;
            // What one large request took is not held for as long as the connection.
            for buffer in [&mut request, &mut out, &mut framed] {
                buffer.clear();
                buffer.shrink_to(MAX_REQUEST);
            }
        }
    }
}

async fn send(socket: &UdpSocket, out: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(out, peer).await {
        tracing::debug!(%peer, %error, "sending a DNS answer");
    }
}
