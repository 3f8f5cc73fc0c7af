//! Hollow nodes: thousands of simulated kubelets against any API server. What they say is what kubelets say; nothing runs.
//!
//! - [`node`]: pure: the objects of a node, and its heartbeat.
//! - [`pod`]: pure: what a kubelet would do about a pod next.
//! - `heartbeat`: registers nodes, renews leases and statuses, spread evenly in time.
//! - `pods`: one informer for all nodes; brings their pods to Running and lets deleted ones go.

mod heartbeat;
pub mod node;
pub mod pod;
mod pods;

use api::core::v1::Taint;
use client::Client;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Config {
    pub nodes: u32,
    /// What the nodes' names begin with.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    /// What every node has: `cpu`, `memory`, `pods`, …
    pub capacity: BTreeMap<String, apimachinery::quantity::Quantity>,
    /// Between two renewals of a node's lease. Upstream's kubelet: 10 s.
    pub lease_period: Duration,
    /// Between two status reports of a node. Upstream's kubelet: 5 min.
    pub status_period: Duration,
    /// Whether pods are run, or left as they were bound.
    pub run_pods: bool,
}

impl Config {
    /// This many nodes as upstream's hollow nodes are: many small pods fit.
    pub fn new(nodes: u32) -> Self {
        let quantity = |text: &str| text.parse().unwrap_or_default();
        Config {
            nodes,
            name: "hollow-node".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: BTreeMap::from([
                ("cpu".to_owned(), quantity("32")),
                ("memory".to_owned(), quantity("256Gi")),
                ("ephemeral-storage".to_owned(), quantity("1Ti")),
                ("pods".to_owned(), quantity("110")),
            ]),
            lease_period: Duration::from_secs(10),
            status_period: Duration::from_secs(300),
            run_pods: true,
        }
    }
}

/// Simulates until `shutdown`. Each client is a connection; the nodes share them evenly.
pub async fn run(config: Config, clients: Vec<Client>, shutdown: CancellationToken) {
    if clients.is_empty() {
        return;
    }
    let config = Arc::new(config);
    let beating = heartbeat::run(config.clone(), clients.clone(), shutdown.clone());
    let running = async {
        if config.run_pods {
            pods::run(config.clone(), clients, shutdown.clone()).await;
        }
    };
    tokio::join!(beating, running);
}
