//! The loop: informers mark Services, a burst is gathered for a few milliseconds, marked Services are planned anew,
//! and what changed is written in one transaction. Idle, it does nothing.

use crate::facts::NodeFacts;
use crate::health::{Failed, Health, ServiceHealth, tell_metrics};
use crate::http;
use crate::marked::Marked;
use crate::metrics::Metrics;
use crate::nft::{is_ours, remove};
use crate::worker::{Views, Worker};
use api::core::v1::{Node, ObjectReference};
use apimachinery::validation::Cidr;
use client::recorder::EventType;
use client::source::Query;
use client::{Client, Informer, Informers, Recorder};
use component::metrics::Registry;
use linux::netlink;
use linux::nft::{Monitor, News, Nft};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// What comes within this time of a first change is written with it.
const GATHER: Duration = Duration::from_millis(3);
/// How long a failed write waits for its repetition, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How the proxy is to work.
#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    /// The pods' networks. Other sources are masqueraded on their way to a cluster IP; empty masquerades none.
    pub cluster_cidrs: Vec<(IpAddr, u8)>,
    /// Upstream's `--nodeport-addresses`; empty for every address of the node.
    pub node_port_addresses: Vec<(IpAddr, u8)>,
    /// Whether node ports are open on 127.0.0.1 too.
    pub localhost_node_ports: bool,
    /// Upstream's `--healthz-bind-address`.
    pub healthz_bind_address: Option<SocketAddr>,
    /// Upstream's `--metrics-bind-address`; the registry's metrics and `/proxyMode` are served there.
    pub metrics_bind_address: Option<SocketAddr>,
    /// Where the proxy's metrics are registered.
    pub registry: Registry,
    /// The network namespace to work in; none for the process's own.
    pub netns: Option<PathBuf>,
}

impl Config {
    /// Upstream's defaults for a node.
    pub fn new(node_name: impl Into<String>) -> Self {
        Config {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            cluster_cidrs: Vec::new(),
            node_port_addresses: Vec::new(),
            localhost_node_ports: true,
            healthz_bind_address: Some(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 10256)),
            metrics_bind_address: Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 10249)),
            registry: Registry::new(),
            netns: None,
        }
    }
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("opening the node's network namespace")]
    Netns(#[source] io::Error),
    #[error("setting up nftables")]
    Nftables(#[source] netlink::Error),
    #[error("opening the connection table")]
    Conntrack(#[source] netlink::Error),
    #[error("the task that writes the rules ended")]
    Task(#[source] tokio::task::JoinError),
}

/// Removes everything the proxy ever put into the kernel.
pub fn cleanup() -> Result<(), Error> {
    let mut nft = Nft::open().map_err(Error::Nftables)?;
    remove(&mut nft).map_err(Error::Nftables)
}

/// Whether the kernel's network has IPv6.
fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Serves the node's Services until `shutdown`. What is in the kernel stays there: connections go on while the
/// process is replaced.
pub async fn run(
    config: Config,
    informers: Informers,
    client: Client,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let ipv6 = has_ipv6();
    let metrics = Metrics::new(&config.registry, ipv6);
    let (opening, counting) = (config.clone(), metrics.clone());
    let blocking = tokio::task::spawn_blocking(move || Worker::open(&opening, ipv6, counting));
    let mut worker = blocking.await.map_err(Error::Task)??;
    let health = Arc::new(Health::new(ipv6, metrics.clone()));
    if let Some(address) = config.healthz_bind_address {
        let health = health.clone();
        http::serve("healthz", address, Arc::new(move |path| health.answer(path)), shutdown.clone());
    }
    if let Some(address) = config.metrics_bind_address {
        let registry = config.registry.clone();
        let respond = Arc::new(move |path: &str| tell_metrics(&registry, path));
        http::serve("metrics", address, respond, shutdown.clone());
    }
    let recorder = Recorder::new(client, "kube-proxy", &config.node_name);
    let mut checks = ServiceHealth::new(check_addresses(&config, ipv6), health.clone(), shutdown.clone());
    let marked = Arc::new(Marked::new(health.clone(), metrics));
    if let Some(monitor) = worker.monitor.take() {
        tokio::spawn(watch_tables(monitor, marked.clone(), shutdown.clone()));
    }
    let views = Views { services: informers.get(), slices: informers.get() };
    let node: Informer<NodeFacts> =
        informers.query(Query::of::<Node>().fields(format!("metadata.name={}", config.node_name)));
    let mark = marked.clone();
    views.services.subscribe(move |change| mark.service(change));
    let mark = marked.clone();
    views.slices.subscribe(move |change| mark.slice(change));
    let mark = marked.clone();
    node.subscribe(move |change| mark.node(change));
    let synced = async {
        tokio::join!(views.services.synced(), views.slices.synced(), node.synced());
    };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = synced => {}
    }
    // A first pass even without Services: what an earlier process left is removed.
    marked.wake.notify_one();
    let mut retry = None;
    loop {
        let again = async {
            match retry {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = marked.wake.notified() => tokio::time::sleep(GATHER).await,
            () = again => {}
        }
        let zone = node.named("", &config.node_name).map(|n| n.zone.to_string()).unwrap_or_default();
        let since = Instant::now();
        let mut waiting = marked.take();
        if zone != worker.node.zone {
            worker.node.zone = zone;
            waiting.services.extend(views.services.list().iter().map(|s| s.key().clone()));
        }
        let reading = views.clone();
        let work = tokio::task::spawn_blocking(move || {
            let (changed, written) = worker.sync(&reading, waiting);
            (worker, changed, written)
        });
        let (back, changed, written) = work.await.map_err(Error::Task)?;
        worker = back;
        retry = match written {
            Ok(()) => {
                health.updated(since);
                None
            }
            Err(error) => {
                tracing::error!(%error, "nftables sync failed");
                Some(retry.map_or(RETRY.0, |before: Duration| (before * 2).min(RETRY.1)))
            }
        };
        for key in changed {
            let check = worker.plans.get(&key).and_then(|plan| plan.health_check);
            if let Err(failed) = checks.set(&key, check).await {
                tell_failure(&recorder, &config.node_name, &failed);
            }
        }
    }
}

/// Tells when somebody deletes the tables, as a reload of the host's firewall does.
async fn watch_tables(monitor: Monitor, marked: Arc<Marked>, shutdown: CancellationToken) {
    // SAFETY: the monitor owns its descriptor, which stays open and the same until the monitor is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(monitor, Interest::READABLE) };
    let watched = match registered {
        Ok(watched) => watched,
        Err(error) => return tracing::error!(%error, "the proxy's tables are not watched"),
    };
    loop {
        let readable = tokio::select! {
            () = shutdown.cancelled() => return,
            readable = watched.readable() => readable,
        };
        let Ok(mut ready) = readable else { return };
        // Cleared before it is read: what comes meanwhile makes it readable again.
        ready.clear_ready();
        match watched.get_ref().take() {
            Ok(News::Deleted(tables)) if !tables.iter().any(is_ours) => {}
            Ok(News::Deleted(_) | News::Lost) => marked.suspect(),
            Err(error) => return tracing::error!(%error, "the proxy's tables are no longer watched"),
        }
    }
}

/// Where health checks of Services are answered.
fn check_addresses(config: &Config, ipv6: bool) -> Vec<IpAddr> {
    if config.node_port_addresses.is_empty() {
        // The IPv6 socket takes IPv4 as well.
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        return vec![any];
    }
    let open = |ip: &&IpAddr| {
        let cidrs = config.node_port_addresses.iter();
        cidrs.map(|(address, prefix)| Cidr { address: *address, prefix: *prefix }).any(|c| c.contains(**ip))
    };
    config.node_ips.iter().filter(open).copied().collect()
}

fn tell_failure(recorder: &Recorder, node: &str, failed: &Failed) {
    let Failed { service, port, error } = failed;
    let message = format!("node {node} failed to start healthcheck \"{service}\" on port {port}: {error}");
    let about = ObjectReference {
        api_version: "v1".into(),
        kind: "Service".into(),
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        ..Default::default()
    };
    recorder.event(&about, EventType::Warning, "FailedToStartServiceHealthcheck", message);
    tracing::error!(%service, port, %error, "Failed to start healthcheck");
}
