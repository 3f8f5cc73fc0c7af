//! Questions that are not the cluster's, asked of the name servers in resolv.conf: in their order, but those that failed
//! last, until they answer a probe.
//!
//! An upstream may lead back to us (a resolv.conf that names the node's own resolver, which forwards to the cluster's
//! DNS). So the probe is a name of our making, as of CoreDNS' `loop` plugin, and each upstream is sent it at first; one
//! that brings it back to us is not asked until it stops.

use crate::cache::{Cache, Key};
use crate::metrics::Metrics;
use crate::resolv_conf::{Stamp, name_servers};
use crate::wire::{self, Asked, Stored};
use hickory_proto::rr::Name;
use parking_lot::Mutex;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long one upstream has to answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// How long a client waits for all of them.
const TOTAL: Duration = Duration::from_secs(5);
/// How often an upstream that failed is tried, without a client that waits for it.
const PROBE_FAILED: Duration = Duration::from_secs(2);
/// How often it is looked whether a loop is still there.
const PROBE_LOOPING: Duration = Duration::from_secs(30);
/// How often resolv.conf is looked at, at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Questions upstream at the same time, as the usual Corefile has it.
pub(crate) const MAX_CONCURRENT: usize = 1000;
/// Bytes of answers kept.
const CACHE: usize = 8 << 20;
/// HINFO, class IN: the question of a probe.
const PROBE_TAIL: [u8; 4] = [0, 13, 0, 1];

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No upstream is there, or none answered.
    Unreachable,
    /// Too many questions are under way.
    Busy,
}

/// The upstreams and what they said of late.
pub(crate) struct Forwarder {
    resolv_conf: PathBuf,
    /// The addresses we listen on, which are no upstreams.
    own: Vec<SocketAddr>,
    upstreams: Mutex<Upstreams>,
    permits: Semaphore,
    cache: Cache,
    metrics: Metrics,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

#[derive(Default)]
struct Upstreams {
    looked: Option<Instant>,
    stamp: Option<Stamp>,
    all: Vec<Arc<Upstream>>,
}

struct Upstream {
    address: SocketAddr,
    name: String,
    /// The question of its probe, which nobody else asks.
    probe: Vec<u8>,
    probed: Mutex<Option<Instant>>,
    /// The probe came back to us.
    seen: AtomicBool,
    /// It is not asked.
    looping: AtomicBool,
    /// It did not answer, and is asked after the others.
    failed: AtomicBool,
}

impl Forwarder {
    pub(crate) fn new(
        resolv_conf: PathBuf,
        own: Vec<SocketAddr>,
        metrics: Metrics,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    ) -> Forwarder {
        Forwarder {
            resolv_conf,
            own,
            upstreams: Mutex::default(),
            permits: Semaphore::new(MAX_CONCURRENT),
            cache: Cache::new(CACHE),
            metrics,
            tasks,
            shutdown,
        }
    }

    /// What is still known of an earlier answer, and its age.
    pub(crate) fn cached(&self, question: &[u8], asked: &Asked) -> Option<(Arc<Stored>, u32)> {
        self.cache.get(&Key::new(question, asked)?, Instant::now())
    }

    /// Asks the upstreams, one after the other.
    pub(crate) async fn ask(&self, question: &[u8], asked: &Asked) -> Result<Arc<Stored>, Failure> {
        let Ok(_permit) = self.permits.try_acquire() else {
            self.metrics.rejected.inc();
            return Err(Failure::Busy);
        };
        let mut order = self.order();
        if let [only] = order.as_slice() {
            // A lost datagram is no reason to fail.
            order.push(only.clone());
        }
        let deadline = Instant::now() + TOTAL;
        // A server that says it cannot is passed over, but believed if no other can.
        let mut last = None;
        for upstream in order {
            let attempt = deadline.min(Instant::now() + ATTEMPT);
            let start = std::time::Instant::now();
            let answer = match timeout_at(attempt, exchange(upstream.address, question, asked)).await {
                Ok(answer) => answer,
                Err(elapsed) => Err(elapsed.into()),
            };
            match answer.map(Stored::read) {
                Ok(Some(stored)) => {
                    self.metrics.upstream(&upstream.name, stored.code(), start);
                    upstream.failed.store(false, Ordering::Release);
                    // SERVFAIL, NOTIMP, REFUSED.
                    if matches!(stored.code(), 2 | 4 | 5) {
                        last = Some(stored);
                        continue;
                    }
                    let stored = Arc::new(stored);
                    if let Some(key) = Key::new(question, asked) {
                        self.cache.put(&key, stored.clone(), Instant::now());
                    }
                    return Ok(stored);
                }
                Ok(None) => tracing::debug!(upstream = upstream.name, "malformed answer"),
                Err(error) => tracing::debug!(upstream = upstream.name, %error, "no answer"),
            }
            upstream.failed.store(true, Ordering::Release);
            self.probe(&upstream, Instant::now());
            if Instant::now() >= deadline {
                break;
            }
        }
        last.map(Arc::new).ok_or(Failure::Unreachable)
    }

    /// Whether a question is a probe of ours that came back; notes the loop.
    pub(crate) fn is_probe(&self, question: &[u8]) -> bool {
        if !question.ends_with(&PROBE_TAIL) {
            return false;
        }
        let upstreams = self.upstreams.lock();
        let found = upstreams.all.iter().find(|u| wire::same_question(&u.probe, question));
        if let Some(upstream) = found {
            upstream.seen.store(true, Ordering::Release);
            if !upstream.looping.swap(true, Ordering::AcqRel) {
                tracing::error!(
                    upstream = upstream.name,
                    resolv_conf = %self.resolv_conf.display(),
                    "a name server forwards to the cluster's DNS, which forwards to it; it is not asked"
                );
            }
        }
        found.is_some()
    }

    /// The upstreams in the order in which to ask them.
    fn order(&self) -> Vec<Arc<Upstream>> {
        let now = Instant::now();
        let mut upstreams = self.upstreams.lock();
        self.look(&mut upstreams, now);
        for upstream in &upstreams.all {
            self.probe(upstream, now);
        }
        let usable = upstreams.all.iter().filter(|u| !u.looping.load(Ordering::Acquire));
        let (failed, mut order): (Vec<_>, Vec<_>) =
            usable.cloned().partition(|u| u.failed.load(Ordering::Acquire));
        order.extend(failed);
        order
    }

    /// Reads resolv.conf if it changed.
    fn look(&self, upstreams: &mut Upstreams, now: Instant) {
        if upstreams.looked.is_some_and(|at| now < at + LOOK_AGAIN) {
            return;
        }
        upstreams.looked = Some(now);
        let stamp = match Stamp::of(&self.resolv_conf) {
            Ok(stamp) => Some(stamp),
            // A file that is being replaced may be missing for a moment; what it said holds until it says otherwise.
            Err(error) => {
                tracing::debug!(path = %self.resolv_conf.display(), %error, "no resolv.conf");
                return;
            }
        };
        if upstreams.stamp == stamp {
            return;
        }
        let text = match std::fs::read(&self.resolv_conf) {
            Ok(text) => text,
            Err(error) => {
                tracing::warn!(path = %self.resolv_conf.display(), %error, "cannot read resolv.conf");
                return;
            }
        };
        upstreams.stamp = stamp;
        let mut servers = name_servers(&String::from_utf8_lossy(&text));
        servers.retain(|server| {
            let own = self.is_own(*server);
            if own {
                tracing::error!(%server, "resolv.conf names the cluster's DNS itself; it is not asked");
            }
            !own
        });
        tracing::info!(path = %self.resolv_conf.display(), ?servers, "upstream name servers");
        let old = std::mem::take(&mut upstreams.all);
        let kept = |address| old.iter().find(|u: &&Arc<Upstream>| u.address == address).cloned();
        upstreams.all =
            servers.into_iter().map(|s| kept(s).unwrap_or_else(|| Arc::new(Upstream::new(s)))).collect();
    }

    fn is_own(&self, server: SocketAddr) -> bool {
        let same = |own: &SocketAddr| {
            own.ip() == server.ip() || (own.ip().is_unspecified() && server.ip().is_loopback())
        };
        self.own.iter().any(|own| own.port() == server.port() && same(own))
    }

    /// Sends a new upstream its probe, and from time to time one that failed or loops.
    fn probe(&self, upstream: &Arc<Upstream>, now: Instant) {
        let mut probed = upstream.probed.lock();
        let due = match *probed {
            None => true,
            Some(at) if upstream.looping.load(Ordering::Acquire) => now >= at + PROBE_LOOPING,
            Some(at) => upstream.failed.load(Ordering::Acquire) && now >= at + PROBE_FAILED,
        };
        if !due || self.shutdown.is_cancelled() {
            return;
        }
        *probed = Some(now);
        let (upstream, shutdown) = (upstream.clone(), self.shutdown.clone());
        self.tasks.spawn(async move {
            upstream.seen.store(false, Ordering::Release);
            let asked =
                Asked { id: 0, recursion_desired: true, checking_disabled: false, edns: None, limit: 512 };
            let answer = timeout(ATTEMPT, exchange(upstream.address, &upstream.probe, &asked));
            let answered = tokio::select! {
                () = shutdown.cancelled() => return,
                answer = answer => matches!(answer, Ok(Ok(_))),
            };
            if answered && !upstream.seen.load(Ordering::Acquire) {
                upstream.looping.store(false, Ordering::Release);
                upstream.failed.store(false, Ordering::Release);
            }
        });
    }
}

impl Upstream {
    fn new(address: SocketAddr) -> Upstream {
        let mut probe = Vec::new();
        for _ in 0..2 {
            let label = random().to_string();
            probe.push(label.len() as u8);
            probe.extend_from_slice(label.as_bytes());
        }
        probe.push(0);
        probe.extend_from_slice(&PROBE_TAIL);
        Upstream {
            address,
            name: address.to_string(),
            probe,
            probed: Mutex::default(),
            seen: AtomicBool::new(false),
            looping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }
}

/// The question for a name that was not the client's own.
pub(crate) fn question(name: &Name, tail: &[u8]) -> Vec<u8> {
    let mut question = Vec::with_capacity(name.len() + 5);
    for label in name.iter() {
        question.push(label.len() as u8);
        question.extend_from_slice(label);
    }
    question.push(0);
    question.extend_from_slice(tail);
    question
}

/// One question and its answer, over UDP and, if that is cut, TCP. Each has a socket, and so a port, of its own.
async fn exchange(server: SocketAddr, question: &[u8], asked: &Asked) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let id = random() as u16;
    let mut query = Vec::with_capacity(512);
    wire::query(id, question, asked, &mut query);
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Others are forged, or late.
        if wire::answers(&answer[..length], id, question) {
            answer.truncate(length);
            break;
        }
    }
    if !wire::is_truncated(&answer) {
        return Ok(answer);
    }
    drop(socket);
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = (query.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&query);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    answer.resize(length.into(), 0);
    stream.read_exact(&mut answer).await?;
    if !wire::answers(&answer, id, question) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"));
    }
    Ok(answer)
}

/// A number nobody can guess: the standard library's hash keys are random.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use component::metrics::Registry;

    #[tokio::test(start_paused = true)]
    async fn resolv_conf_is_read_again_when_it_changed() {
        let dir = tempfile::TempDir::new().unwrap();
        let (path, shutdown) = (dir.path().join("resolv.conf"), CancellationToken::new());
        // Nothing is sent: a probe is for who serves.
        shutdown.cancel();
        let own = vec!["0.0.0.0:5300".parse().unwrap(), "192.0.2.9:53".parse().unwrap()];
        let metrics = Metrics::new(&Registry::new());
        let forwarder = Forwarder::new(path.clone(), own, metrics, TaskTracker::new(), shutdown);
        let mut at = Instant::now();
        let mut check = |expected: &[&str]| {
            at += LOOK_AGAIN;
            let mut upstreams = forwarder.upstreams.lock();
            forwarder.look(&mut upstreams, at);
            let found: Vec<_> = upstreams.all.iter().map(|u| u.name.as_str()).collect();
            assert_eq!(found, expected);
        };
        check(&[]);
        std::fs::write(&path, "nameserver 192.0.2.1\nnameserver 192.0.2.9\nnameserver [127.0.0.1]:5300\n")
            .unwrap();
        check(&["192.0.2.1:53"]);
        std::fs::write(dir.path().join("b"), "nameserver 192.0.2.2\nnameserver 192.0.2.1\n").unwrap();
        std::fs::rename(dir.path().join("b"), &path).unwrap();
        check(&["192.0.2.2:53", "192.0.2.1:53"]);
        // One that failed comes last, and is still known after the next change.
        forwarder.upstreams.lock().all[0].failed.store(true, Ordering::Release);
        std::fs::write(&path, "nameserver 192.0.2.2\nnameserver 192.0.2.1\nnameserver 192.0.2.3\n").unwrap();
        check(&["192.0.2.2:53", "192.0.2.1:53", "192.0.2.3:53"]);
        let order: Vec<_> = forwarder.order().iter().map(|u| u.name.clone()).collect();
        assert_eq!(order, ["192.0.2.1:53", "192.0.2.3:53", "192.0.2.2:53"]);
        std::fs::remove_file(&path).unwrap();
        check(&["192.0.2.2:53", "192.0.2.1:53", "192.0.2.3:53"]);
        std::fs::write(&path, "search a\n").unwrap();
        check(&[]);
    }
}
