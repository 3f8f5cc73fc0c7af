//! `tiphys agent`: a node of a cluster whose API server is elsewhere: kubelet, proxy, DNS and the routes to other nodes.

use crate::foreground;
use crate::join::{self, Invitation, Member};
use crate::node::{self, Identity, Membership};
use crate::node_flags::NodeFlags;
use crate::places::Places;
use crate::services;
use anyhow::{Context as _, Result};
use clap::Args;
use client::https::Https;
use client::{Client, Informers};
use kubelet::certificates::Calling;
use pki::tls::{Slot, Trust};
use std::sync::Arc;
use std::time::Duration;
use store::embedded::Directory;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long tasks may take to stop.
const STOP: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub node: NodeFlags,
    /// The API server, https://host:port.
    #[arg(long)]
    pub server: String,
    #[command(flatten)]
    pub invitation: Invitation,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(flags: Agent) -> Result<()> {
    foreground::run(|shutdown| serve(flags, shutdown))
}

async fn serve(flags: Agent, shutdown: CancellationToken) -> Result<()> {
    let places = Places::of(&flags.node.data_dir, flags.node.root_dir.as_deref()).context("--data-dir")?;
    let identity = Identity::of(&flags.node)?;
    pki::files::private_dir(&places.data_dir)
        .with_context(|| format!("making {}", places.data_dir.display()))?;
    // One server or agent at a time.
    let lock = Directory::lock(&places.data_dir.join("store"));
    let _lock = lock.with_context(|| format!("{} is in use", places.data_dir.display()))?;
    let joining = join::member(&flags.server, &flags.invitation, &identity, &places);
    let Some(joined) = shutdown.run_until_cancelled(joining).await else { return Ok(()) };
    let Member { authority, cluster, calling } = joined?;
    let slot = Slot::of(&calling)?;
    let tls =
        pki::tls::client_config(&Trust::pem(authority.to_pem().as_bytes())?, Some(slot.clone()), &[b"h2"])?;
    let server = Https::new(&flags.server, tls, None).context("--server")?;
    let called = |agent: &str| Client::new(Arc::new(server.clone()), agent);
    let kubelet = called("kubelet");
    let renewed = server.clone();
    let membership = Membership {
        informers: Informers::new(&kubelet, shutdown.clone()),
        client: kubelet,
        serving: None,
        client_authorities: vec![authority],
        bootstrap: None,
        calling: Some(Calling { slot, renewed: Arc::new(move || renewed.reconnect()) }),
    };
    let tasks = TaskTracker::new();
    node::start((&flags.node, &cluster), &places, &identity, membership, &tasks, &shutdown).await?;
    let clients = services::Clients {
        proxy: called("kube-proxy"),
        dns: called("coredns"),
        network: called("tiphys-network"),
    };
    let metrics = component::metrics::Registry::new();
    services::start(&cluster, &places, &identity, clients, &metrics, &tasks, &shutdown)?;
    tracing::info!(node = identity.name, server = flags.server, "the node is part of the cluster");
    tasks.close();
    shutdown.cancelled().await;
    tracing::info!("stopping");
    if tokio::time::timeout(STOP, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not stop in time");
    }
    Ok(())
}
