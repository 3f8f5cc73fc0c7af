//! Removes pods that nobody else will: those of nodes that are gone or out of service, those that were deleted before
//! they had a node, and ended ones beyond a number. Upstream: `pod-garbage-collector`, which looks every 20 seconds; here
//! changes say when to look.

mod plan;

use crate::placed_pods::{BY_NODE, ENDED, PlacedPod};
use crate::pod_end::{Disruption, How, end};
use crate::{Context, WallClock};
use api::core::v1::Node;
use client::controller::{Outcome, Writes, run as work};
use client::{Cached, Client, Error, Informer, ObjectKey, Projection, Queue};
use component::metrics::{CounterVec, Opts, Stability};
use plan::{Reason, TERMINATED_THRESHOLD};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 4;
/// How long a missing node is given to appear before its pods go.
const QUARANTINE: Duration = Duration::from_secs(40);
const ORPHANED: Disruption = ("DeletionByPodGC", "PodGC: node no longer exists");

/// What is kept of a node.
pub(super) struct NodeFacts {
    ready: bool,
    out_of_service: bool,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let out = |taint: &api::core::v1::Taint| taint.key == "node.kubernetes.io/out-of-service";
        NodeFacts {
            ready: node.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
            out_of_service: node.spec.taints.iter().any(out),
        }
    }
}

impl NodeFacts {
    fn lost(&self) -> bool {
        self.out_of_service && !self.ready
    }
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pod(ObjectKey),
    /// A node that is missing.
    Node(String),
    Ended,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Pod(key) => write!(f, "pod {key}"),
            Key::Node(name) => write!(f, "node {name}"),
            Key::Ended => f.write_str("ended pods"),
        }
    }
}

struct Loop {
    client: Client,
    clock: WallClock,
    pods: Informer<PlacedPod>,
    nodes: Informer<NodeFacts>,
    deleted: CounterVec,
    failed: CounterVec,
}

fn counter(context: &Context, name: &str, help: &str) -> CounterVec {
    let opts = Opts { name, help, stability: Stability::Alpha };
    context.metrics.counter_vec(opts, &["namespace", "reason"])
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let pods: Informer<PlacedPod> = context.informers.get();
    let nodes: Informer<NodeFacts> = context.informers.get();
    pods.synced().await;
    nodes.synced().await;
    let queue: Queue<Key> = Queue::default();
    subscribe(&pods, &nodes, &queue);
    let this = Arc::new(Loop {
        deleted: counter(
            &context,
            "pod_gc_collector_force_delete_pods_total",
            "Number of pods that are being forcefully deleted since the Pod GC Controller started.",
        ),
        failed: counter(
            &context,
            "pod_gc_collector_force_delete_pod_errors_total",
            "Number of errors encountered when forcefully deleting the pods since the Pod GC Controller started.",
        ),
        client: context.client,
        clock: context.clock,
        pods,
        nodes,
    });
    work("orphaned_pods_nodes", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

fn subscribe(pods: &Informer<PlacedPod>, nodes: &Informer<NodeFacts>, queue: &Queue<Key>) {
    let (known, changed, counted) = (nodes.clone(), queue.clone(), pods.clone());
    pods.subscribe(move |change| {
        let pod = change.object();
        if pod.deleting {
            changed.add(Key::Pod(pod.key().clone()));
        }
        if !pod.node.is_empty() && known.named("", &pod.node).is_none() {
            changed.add_after(Key::Node(pod.node.clone()), QUARANTINE);
        }
        if pod.ended && counted.len() > TERMINATED_THRESHOLD {
            changed.add(Key::Ended);
        }
    });
    let (placed, changed) = (pods.clone(), queue.clone());
    nodes.subscribe(move |change| {
        let node = change.object();
        if matches!(change, client::Change::Deleted(_)) {
            changed.add_after(Key::Node(node.name().to_owned()), QUARANTINE);
        } else if node.lost() {
            let here = placed.by_index(BY_NODE, node.name());
            here.iter().filter(|pod| pod.deleting).for_each(|pod| changed.add(Key::Pod(pod.key().clone())));
        }
    });
}

impl Loop {
    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        match key {
            Key::Pod(key) => {
                let Some(pod) = self.pods.get(key).filter(|pod| pod.deleting) else {
                    return Ok(Outcome::Done);
                };
                let lost = || self.nodes.named("", &pod.node).is_some_and(|node| node.lost());
                if pod.node.is_empty() {
                    self.remove(&pod, Reason::Unscheduled, None).await?;
                } else if lost() {
                    self.remove(&pod, Reason::OutOfService, None).await?;
                }
            }
            Key::Node(name) => {
                if self.nodes.named("", name).is_some() || self.pods.by_index(BY_NODE, name).is_empty() {
                    return Ok(Outcome::Done);
                }
                // The cache may not know it yet.
                if self.client.all::<Node>().get_opt(name).await?.is_some() {
                    return Ok(Outcome::Done);
                }
                for pod in self.pods.by_index(BY_NODE, name) {
                    self.remove(&pod, Reason::Orphaned, Some(ORPHANED)).await?;
                }
            }
            Key::Ended => {
                for pod in plan::surplus(self.pods.by_index(ENDED, ""), TERMINATED_THRESHOLD) {
                    self.remove(&pod, Reason::Terminated, None).await?;
                }
            }
        }
        Ok(Outcome::Done)
    }

    async fn remove(
        &self,
        pod: &Cached<PlacedPod>,
        reason: Reason,
        why: Option<Disruption>,
    ) -> Result<(), Error> {
        let labels = [pod.namespace(), reason.as_str()];
        self.deleted.with(&labels).inc();
        let ended = end(&self.client, &pod.decode()?, How::AtOnce, why, self.clock.now()).await;
        if ended.is_err() {
            self.failed.with(&labels).inc();
        }
        ended
    }
}
