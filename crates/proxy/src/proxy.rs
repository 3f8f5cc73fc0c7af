//! The loop: informers mark Services, a burst is gathered for a few milliseconds, marked Services are planned anew,
//! and what changed is written in one transaction. Idle, it does nothing.

use crate::conntrack::{Truth, clean};
use crate::facts::{BY_SERVICE, NodeFacts, ServiceFacts, SliceFacts};
use crate::health::{Failed, Health, ServiceHealth, tell_metrics};
use crate::http;
use crate::metrics::Metrics;
use crate::nft::{Options, Ruleset, remove};
use crate::plan::{Family, NodeView, Plan, plan};
use api::core::v1::{Node, ObjectReference};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Timestamp;
use apimachinery::validation::Cidr;
use client::recorder::EventType;
use client::source::Query;
use client::{Change, Client, Informer, Informers, ObjectKey, Recorder};
use component::metrics::Registry;
use linux::conntrack::Conntrack;
use linux::netns::Netns;
use linux::nft::Nft;
use linux::{netlink, sysctl};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
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

/// What has to be planned anew.
#[derive(Debug, Default)]
struct Waiting {
    services: HashSet<ObjectKey>,
    /// When the changes in slices were made.
    triggers: Vec<(Family, Timestamp)>,
}

/// What the informers' handlers share.
#[derive(Debug)]
struct Marked {
    waiting: Mutex<Waiting>,
    wake: Notify,
    health: Arc<Health>,
    metrics: Metrics,
    started: Timestamp,
}

impl Marked {
    fn add(&self, waiting: &mut Waiting, key: ObjectKey) {
        if waiting.services.insert(key) {
            self.health.queued();
            self.metrics.queued();
        }
        self.wake.notify_one();
    }

    fn service(&self, change: &Change<ServiceFacts>) {
        if change.old().is_some_and(|old| old.projection == change.object().projection) {
            return;
        }
        self.metrics.service_changes.inc();
        self.metrics.service_changes_pending.inc();
        self.add(&mut self.waiting.lock(), change.object().key().clone());
    }

    fn slice(&self, change: &Change<SliceFacts>) {
        let new = change.object();
        if change.old().is_some_and(|old| old.projection == new.projection) {
            return;
        }
        self.metrics.endpoint_changes.inc();
        self.metrics.endpoint_changes_pending.inc();
        let mut waiting = self.waiting.lock();
        let states = [Some(new), change.old()];
        for key in states.into_iter().flatten().filter_map(|s| SliceFacts::service_key(s)) {
            self.add(&mut waiting, key);
        }
        let known = change.old().and_then(|old| old.triggered);
        // What was made before this process says nothing about it.
        if let Some(time) = new.triggered.filter(|t| known != Some(*t) && *t > self.started)
            && !matches!(change, Change::Deleted(_))
        {
            waiting.triggers.push((if new.ipv4 { Family::V4 } else { Family::V6 }, time));
        }
    }

    fn node(&self, change: &Change<NodeFacts>) {
        let gone = matches!(change, Change::Deleted(_));
        self.health.set_eligible(!gone && change.object().eligible);
        if change.old().is_none_or(|old| old.zone != change.object().zone) {
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Waiting {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        self.metrics.service_changes_pending.set(0.0);
        self.metrics.endpoint_changes_pending.set(0.0);
        waiting
    }
}

/// The views the plans are made from.
#[derive(Debug, Clone)]
struct Views {
    services: Informer<ServiceFacts>,
    slices: Informer<SliceFacts>,
}

impl Views {
    fn plan(&self, key: &ObjectKey, node: &NodeView) -> Plan {
        let cached = self.services.get(key);
        let Some(service) = cached.as_ref().and_then(|c| c.0.as_ref()) else { return Plan::default() };
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let slices: Vec<&SliceFacts> = slices.iter().map(|s| &s.projection).collect();
        plan(key, service, &slices, node)
    }
}

/// The half that talks to the kernel; it works on blocking threads.
#[derive(Debug)]
struct Worker {
    ruleset: Ruleset,
    conntrack: Conntrack,
    plans: HashMap<ObjectKey, Plan>,
    /// The kernel may differ from what was set: write the difference to what it lists.
    unsure: bool,
    /// Services whose flows wait for the rules to be written.
    unclean: HashSet<ObjectKey>,
    /// When the changes that wait for the rules to be written were made.
    triggers: Vec<(Family, Timestamp)>,
    node: NodeView,
    metrics: Metrics,
}

impl Worker {
    fn open(config: &Config, ipv6: bool, metrics: Metrics) -> Result<Self, Error> {
        let cidrs = |list: &[(IpAddr, u8)]| -> Vec<Cidr> {
            list.iter().map(|(address, prefix)| Cidr { address: *address, prefix: *prefix }).collect()
        };
        let options = Options {
            cluster_cidrs: cidrs(&config.cluster_cidrs),
            node_port_addresses: cidrs(&config.node_port_addresses),
            localhost_node_ports: config.localhost_node_ports,
            ipv6,
        };
        let netns = match &config.netns {
            Some(path) => Netns::open(path).map_err(Error::Netns)?,
            None => Netns::current().map_err(Error::Netns)?,
        };
        if config.localhost_node_ports {
            let key: &[&str] = &["net", "ipv4", "conf", "all", "route_localnet"];
            if let Err(error) = sysctl::write_in(&netns, &[(key, "1")]) {
                tracing::warn!(%error, "node ports will not be open on 127.0.0.1");
            }
        }
        let nft = Nft::open_in(&netns).map_err(Error::Nftables)?;
        Ok(Worker {
            ruleset: Ruleset::open(nft, &options).map_err(Error::Nftables)?,
            conntrack: Conntrack::open_in(&netns).map_err(Error::Conntrack)?,
            plans: HashMap::new(),
            unsure: true,
            unclean: HashSet::new(),
            triggers: Vec::new(),
            metrics,
            node: NodeView {
                name: config.node_name.clone(),
                zone: String::new(),
                ips: config.node_ips.clone(),
            },
        })
    }

    /// Plans the Services and writes what changed; returns those whose plan is another.
    fn sync(&mut self, views: &Views, waiting: Waiting) -> (Vec<ObjectKey>, netlink::Result<()>) {
        let started = Instant::now();
        let mut changed = Vec::new();
        let nothing = Plan::default();
        self.triggers.extend(waiting.triggers);
        for key in waiting.services {
            let new = views.plan(&key, &self.node);
            let old = self.plans.get(&key).unwrap_or(&nothing);
            if *old == new {
                continue;
            }
            self.ruleset.set(&key, old, &new);
            self.metrics.replaced(old, &new);
            if new == nothing {
                self.plans.remove(&key);
            } else {
                self.plans.insert(key.clone(), new);
            }
            changed.push(key);
        }
        self.unclean.extend(changed.iter().cloned());
        let written = self.write();
        if written.is_ok() {
            let (services, elapsed) = (changed.len(), started.elapsed());
            tracing::debug!(services, ?elapsed, "SyncProxyRules complete");
            self.metrics.synced(elapsed, &std::mem::take(&mut self.triggers));
            self.clean_flows();
        }
        (changed, written)
    }

    fn write(&mut self) -> netlink::Result<()> {
        if !self.unsure {
            match self.ruleset.commit() {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.metrics.failed();
                    tracing::warn!(%error, "nftables sync failed; comparing with the kernel");
                }
            }
        }
        self.unsure = true;
        self.ruleset.reconcile().inspect_err(|_| self.metrics.failed())?;
        self.unsure = false;
        Ok(())
    }

    /// After the rules: a flow that ends now must not be made again by the old ones.
    fn clean_flows(&mut self) {
        let changed = std::mem::take(&mut self.unclean);
        let ports = changed.iter().filter_map(|key| self.plans.get(key)).flat_map(|plan| &plan.udp);
        let truth = Truth::new(ports, &self.node.ips);
        match clean(&mut self.conntrack, &truth) {
            Ok(deleted) => deleted.iter().for_each(|family| self.metrics.deleted_flow(*family)),
            Err(error) => tracing::warn!(%error, "Failed to clear all conntrack entries"),
        }
    }
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
    let marked = Arc::new(Marked {
        waiting: Mutex::default(),
        wake: Notify::new(),
        health: health.clone(),
        metrics,
        started: SystemClock::default().now(),
    });
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
