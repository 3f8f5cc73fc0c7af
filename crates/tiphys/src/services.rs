//! What a node does for traffic: the routes to other nodes, the proxy for Services, and the cluster's DNS.

use crate::held_sockets;
use crate::node::Identity;
use crate::node_flags::ClusterFlags;
use crate::places::Places;
use anyhow::{Context as _, Result};
use apimachinery::validation::parse_cidr_sloppy;
use client::{Client, Informers};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time to live of the zone's records, in seconds, as in kubeadm's Corefile.
const TTL: u32 = 30;
/// As CoreDNS.
const STARTUP: Duration = Duration::from_secs(5);

/// As whom each of them reads.
pub(crate) struct Clients {
    pub network: Client,
    pub proxy: Client,
    pub dns: Client,
}

/// Starts all of them.
pub(crate) fn start(
    cluster: &ClusterFlags,
    places: &Places,
    identity: &Identity,
    clients: Clients,
    metrics: &component::metrics::Registry,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    if let IpAddr::V4(node_ip) = identity.ip {
        let config = network::Config { node_name: identity.name.clone(), node_ip };
        let informers = Informers::new(&clients.network, shutdown.clone());
        let running = network::run(config, informers, shutdown.clone());
        tasks.spawn(ending(running, "keeping the routes to other nodes", shutdown.clone()));
    }
    let mut config = proxy::Config::new(&identity.name);
    config.node_ips = vec![identity.ip];
    let pods = parse_cidr_sloppy(&cluster.cluster_cidr);
    config.cluster_cidrs = pods.map(|cidr| (cidr.network(), cidr.prefix)).into_iter().collect();
    let informers = Informers::new(&clients.proxy, shutdown.clone());
    let running = proxy::run(config, informers, clients.proxy, shutdown.clone());
    tasks.spawn(ending(running, "the service proxy", shutdown.clone()));
    let address = SocketAddr::new(identity.ip, cluster.dns_port);
    let config = dns::Config {
        zone: cluster.cluster_domain.clone(),
        listen: vec![address],
        resolv_conf: "/etc/resolv.conf".into(),
        patience: STARTUP,
        ttl: TTL,
    };
    let (sockets, held) = held_sockets::listen(places, address).context("listening for the cluster's DNS")?;
    let server = dns::Server::with_sockets(config, vec![sockets], metrics);
    let server = server.context("starting the cluster's DNS")?;
    let informers = Informers::new(&clients.dns, shutdown.clone());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        server.run(&informers, stop).await;
        // The holder stays as long as this is open, and a while longer.
        drop(held);
    });
    Ok(())
}

/// Runs what a node cannot be without.
async fn ending<E: std::fmt::Display>(
    running: impl Future<Output = Result<(), E>>,
    what: &str,
    shutdown: CancellationToken,
) {
    if let Err(error) = running.await {
        tracing::error!(%error, "{what} ended");
        shutdown.cancel();
    }
}
