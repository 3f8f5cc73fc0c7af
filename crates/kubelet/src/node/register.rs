//! Bringing the node into the API, and keeping a live copy of its object. Upstream: `registerWithAPIServer`.

use super::status;
use crate::context::Context;
use crate::metrics::startup;
use api::core::v1::{Node, NodeStatus};
use client::source::Query;
use client::{Informers, Patch, PatchParams, Projection};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Keeps nothing beside the bytes.
struct Bare;

impl Projection for Bare {
    type Kind = Node;

    fn project(_: &Node) -> Self {
        Bare
    }
}

/// Creates the node, or brings an existing one's labels up to date; tries until it succeeds.
/// Returns it with the status it had before, empty if it is new.
pub(crate) async fn register(context: &Context, status: NodeStatus) -> (Node, NodeStatus) {
    let mut pause = Duration::from_millis(100);
    loop {
        match try_register(context, &status).await {
            Ok(registered) => return registered,
            Err(error) => {
                tracing::warn!(node = %context.config.node_name, %error, "the node could not be registered")
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(7));
    }
}

async fn try_register(context: &Context, status: &NodeStatus) -> client::Result<(Node, NodeStatus)> {
    let nodes = context.client.all::<Node>();
    let wanted = status::initial(&context.config, &context.machine, status.clone());
    context.metrics.startup.attempted();
    match nodes.create(&wanted).await {
        Ok(node) => {
            tracing::info!(node = %node.metadata.name, "registered the node");
            context.metrics.startup.registered(startup::up());
            return Ok((node, NodeStatus::default()));
        }
        Err(error) if error.is_already_exists() => {}
        Err(error) => return Err(error),
    }
    let node = nodes.get(&wanted.metadata.name).await?;
    let before = node.status.clone();
    let missing: BTreeMap<&String, &String> =
        wanted.metadata.labels.iter().filter(|(k, v)| node.metadata.labels.get(*k) != Some(v)).collect();
    if missing.is_empty() {
        return Ok((node, before));
    }
    let patch = Patch::Strategic(apimachinery::json!({ "metadata": { "labels": missing } }));
    Ok((nodes.patch(&wanted.metadata.name, &patch, &PatchParams::default()).await?, before))
}

/// Follows the node's object; tells the runtime the pod network's range when it is known.
pub(crate) fn follow(context: &Arc<Context>, informers: &Informers) {
    let query = Query::of::<Node>().fields(format!("metadata.name={}", context.config.node_name));
    let context = context.clone();
    informers.query::<Bare>(query).subscribe(move |change| {
        if let client::Change::Deleted(_) = change {
            return;
        }
        let Ok(node) = change.object().decode() else { return };
        let cidrs = |node: &Node| {
            if node.spec.pod_cidrs.is_empty() {
                node.spec.pod_cidr.clone()
            } else {
                node.spec.pod_cidrs.join(",")
            }
        };
        let cidr = cidrs(&node);
        let before = context.node.send_replace(Arc::new(node));
        if !cidr.is_empty() && cidrs(&before) != cidr {
            let runtime = context.runtime.clone();
            tokio::spawn(async move {
                let network_config = Some(cri::v1::NetworkConfig { pod_cidr: cidr });
                let runtime_config = Some(cri::v1::RuntimeConfig { network_config });
                let request = cri::v1::UpdateRuntimeConfigRequest { runtime_config };
                if let Err(error) = runtime.update_runtime_config(request).await {
                    tracing::warn!(%error, "the runtime did not take the pod network's range");
                }
            });
        }
    });
}
