//! The way from pods of this node to those of others: routes where the other node is on the same link, VXLAN (RFC 7348)
//! where it is not.
//!
//! Nodes tell their addresses and ranges by their objects, and nothing else is agreed on: the hardware address of a node's
//! end of the tunnel follows from its IP address. [`plan`] is pure; [`edge`] alone touches the kernel.

mod edge;
mod nodes;
mod plan;

pub use edge::{DEVICE, cleanup};

use client::Informers;
use edge::Edge;
use linux::netns::Netns;
use nodes::NodeFacts;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What is waited for after a change, for others to come with it.
const GATHER: Duration = Duration::from_millis(20);
/// The pause after the kernel refused, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Whose routes these are.
#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    /// The node's address, of which the other nodes know.
    pub node_ip: Ipv4Addr,
}

/// Why there are no routes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("routes between nodes: {0}")]
    Netlink(#[from] linux::netlink::Error),
    #[error("routes between nodes: {0}")]
    Io(#[from] std::io::Error),
}

/// Keeps the routes to the pods of all other nodes until shutdown. `informers` are those of who may watch nodes.
pub async fn run(config: Config, informers: Informers, shutdown: CancellationToken) -> Result<(), Error> {
    let nodes = informers.get::<NodeFacts>();
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    nodes.subscribe(move |change| {
        if change.old().is_none_or(|old| old.projection != change.object().projection) {
            notify.notify_one();
        }
    });
    let netns = Netns::current()?;
    let links = linux::netlink::route::LinkMonitor::open_in(&netns)?;
    // SAFETY: the monitor owns its descriptor, which stays open and the same until the monitor is dropped.
    let links = unsafe { AsyncFd::register_with_interest(links, Interest::READABLE) };
    let links = links.map_err(std::io::Error::from)?;
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = nodes.synced() => {}
    }
    let mut edge = Edge::open_in(&netns)?;
    let mut retry: Option<Duration> = None;
    loop {
        let peers: Vec<_> = nodes
            .list()
            .iter()
            .filter(|node| node.name() != config.node_name)
            .filter_map(|node| node.projection.peer())
            .collect();
        let own = nodes.named("", &config.node_name).map(|node| node.projection.ranges.clone());
        let written = edge.apply(config.node_ip, own.as_deref().unwrap_or_default(), &peers);
        retry = match written {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(%error, "the routes to other nodes are not as they should be");
                Some(retry.map_or(RETRY.0, |before| (before * 2).min(RETRY.1)))
            }
        };
        let again = async {
            match retry {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changed.notified() => tokio::time::sleep(GATHER).await,
            heard = hear(&links, &edge) => heard?,
            () = again => {}
        }
    }
}

/// Returns when a link that routes lead over has changed: with a link that goes down the kernel drops its routes.
async fn hear(links: &AsyncFd<linux::netlink::route::LinkMonitor>, edge: &Edge) -> Result<(), Error> {
    loop {
        let mut ready = links.readable().await?;
        // Cleared before it is read: what comes meanwhile makes it readable again.
        ready.clear_ready();
        if links.get_ref().take()?.is_none_or(|changed| changed.iter().any(|link| edge.uses(*link))) {
            return Ok(());
        }
    }
}
