//! Gives every node its ranges of pod addresses. Upstream: the range allocator of the node IPAM controller.

mod ranges;

use crate::Context;
use crate::support::{feed, queue};
use api::core::v1::Node;
use apimachinery::json;
use client::controller::{Outcome, Writes, run as work};
use client::{Change, Informer, Patch, PatchParams, Projection, Recorder};
use parking_lot::Mutex;
use ranges::Ranges;
use std::sync::Arc;

struct PodRanges {
    cidrs: Vec<String>,
}

impl Projection for PodRanges {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let cidrs = if node.spec.pod_cidrs.is_empty() && !node.spec.pod_cidr.is_empty() {
            vec![node.spec.pod_cidr.clone()]
        } else {
            node.spec.pod_cidrs.clone()
        };
        PodRanges { cidrs }
    }
}

/// Runs until shutdown. Keys are nodes.
pub(crate) async fn run(context: Context) {
    let nodes: Informer<PodRanges> = context.informers.get();
    nodes.synced().await;
    let cluster = context.cluster.pod_cidrs.iter();
    let ranges: Vec<Ranges> =
        cluster.map(|(network, prefix)| Ranges::new(*network, *prefix, context.cluster.node_mask)).collect();
    let ranges = Arc::new(Mutex::new(ranges));
    // What nodes have is known before anything is given away: handlers run for all of them here.
    let known = ranges.clone();
    nodes.subscribe(move |change| {
        let mut ranges = known.lock();
        for range in ranges.iter_mut() {
            match change {
                Change::Deleted(node) => node.cidrs.iter().for_each(|cidr| range.release(cidr)),
                _ => change.object().cidrs.iter().for_each(|cidr| range.take(cidr)),
            }
        }
    });
    let queue = queue();
    feed(&nodes, &queue, |node| node.cidrs.is_empty().then(|| node.key().clone()));
    let recorder = Recorder::new(context.client.clone(), "cidrAllocator", "");
    let client = context.client;
    let writes = Writes::default();
    let noted = writes.clone();
    work("node-ipam", queue, writes, 4, context.shutdown, move |key| {
        let (nodes, ranges, noted) = (nodes.clone(), ranges.clone(), noted.clone());
        let (client, recorder) = (client.clone(), recorder.clone());
        async move {
            let Some(node) = nodes.get(&key).filter(|node| node.cidrs.is_empty()) else {
                return Ok(Outcome::Done);
            };
            let given: Option<Vec<String>> = {
                let mut ranges = ranges.lock();
                let given: Option<Vec<String>> = ranges.iter_mut().map(Ranges::allocate).collect();
                given.filter(|given| !given.is_empty())
            };
            let Some(given) = given else {
                let node = node.decode().map_err(|error| error.to_string())?;
                let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
                recorder.normal(&node, "CIDRNotAvailable", text);
                return Err(format!("failed to allocate cidr for node {}", key.name));
            };
            let patch = Patch::Strategic(json!({"spec": {"podCIDR": given[0], "podCIDRs": given}}));
            match client.all::<Node>().patch(&key.name, &patch, &PatchParams::default()).await {
                Ok(written) => {
                    // Another change of the node may be seen before this one: it has its ranges all the same.
                    noted.note(&key, &nodes, &written.metadata.resource_version);
                    Ok(Outcome::Done)
                }
                Err(error) => {
                    // The write may have happened all the same; then the node's own event takes the ranges again.
                    let mut ranges = ranges.lock();
                    ranges.iter_mut().for_each(|range| given.iter().for_each(|cidr| range.release(cidr)));
                    if error.is_not_found() { Ok(Outcome::Done) } else { Err(error.to_string()) }
                }
            }
        }
    })
    .await;
}
