//! What a node does for Services: the proxy, and the cluster's DNS.

use crate::cli::Server as Flags;
use crate::control_plane::ControlPlane;
use crate::node::Identity;
use anyhow::{Context as _, Result};
use apimachinery::validation::parse_cidr_sloppy;
use client::Informers;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The time to live of the zone's records, in seconds, as in kubeadm's Corefile.
const TTL: u32 = 30;

/// Starts both; each reads as its own upstream's user.
pub(crate) async fn start(
    flags: &Flags,
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
    let config = dns::Config {
        zone: flags.cluster_domain.clone(),
        listen: vec![SocketAddr::new(identity.ip, flags.dns_port)],
        resolv_conf: "/etc/resolv.conf".into(),
        ttl: TTL,
    };
    let server =
        dns::Server::bind(config, &plane.server.metrics).await.context("starting the cluster's DNS")?;
    let informers = Informers::new(&plane.controller("coredns", None), shutdown.clone());
    let stop = shutdown.clone();
    tasks.spawn(async move { server.run(&informers, stop).await });
    Ok(())
}
