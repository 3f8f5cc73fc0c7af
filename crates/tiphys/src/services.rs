//! What a node does for Services: the proxy, and the cluster's DNS.

use crate::cli::Server as Flags;
use crate::control_plane::ControlPlane;
use crate::held_sockets;
use crate::node::Identity;
use crate::places::Places;
use anyhow::{Context as _, Result};
use apimachinery::validation::parse_cidr_sloppy;
use client::Informers;
use std::net::SocketAddr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time to live of the zone's records, in seconds, as in kubeadm's Corefile.
const TTL: u32 = 30;
/// As CoreDNS.
const STARTUP: Duration = Duration::from_secs(5);

/// Starts both; each reads as its own upstream's user.
pub(crate) async fn start(
    flags: &Flags,
    places: &Places,
    identity: &Identity,
    plane: &ControlPlane,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    let mut config = proxy::Config::new(&identity.name);
    config.node_ips = vec![identity.ip];
    let pods = parse_cidr_sloppy(&flags.cluster_cidr);
    config.cluster_cidrs = pods.map(|cidr| (cidr.network(), cidr.prefix)).into_iter().collect();
    let client = plane.component("system:kube-proxy", None);
    let informers = Informers::new(&client, shutdown.clone());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        if let Err(error) = proxy::run(config, informers, client, stop.clone()).await {
            tracing::error!(%error, "the service proxy ended");
            stop.cancel();
        }
    });
    let address = SocketAddr::new(identity.ip, flags.dns_port);
    let config = dns::Config {
        zone: flags.cluster_domain.clone(),
        listen: vec![address],
        resolv_conf: "/etc/resolv.conf".into(),
        patience: STARTUP,
        ttl: TTL,
    };
    let (sockets, held) = held_sockets::listen(places, address).context("listening for the cluster's DNS")?;
    let server = dns::Server::with_sockets(config, vec![sockets], &plane.server.metrics);
    let server = server.context("starting the cluster's DNS")?;
    let informers = Informers::new(&plane.controller("coredns", None), shutdown.clone());
    let stop = shutdown.clone();
    tasks.spawn(async move {
        server.run(&informers, stop).await;
        // The holder stays as long as this is open, and a while longer.
        drop(held);
    });
    Ok(())
}
