//! Evicts pods from nodes with `NoExecute` taints, when their tolerations end. Upstream: `taint-eviction-controller`.

mod plan;

use crate::placed_pods::{BY_NODE, PlacedPod};
use crate::pod_end::{Disruption, Evictions, How, end};
use crate::support::queue;
use crate::{Context, WallClock};
use api::core::v1::{Node, ObjectReference, Pod, Taint};
use client::controller::{Outcome, Writes, run as work};
use client::recorder::EventType;
use client::{Change, Client, Error, Informer, ObjectKey, Projection, Queue, Recorder};
use parking_lot::Mutex;
use plan::{Scheduled, Step};
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;
const WHY: Disruption = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");

/// What is kept of a node: the taints that evict.
struct NodeFacts {
    taints: Vec<Taint>,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let evict = |taint: &&Taint| taint.effect == rules::taints::NO_EXECUTE;
        NodeFacts { taints: node.spec.taints.iter().filter(evict).cloned().collect() }
    }
}

/// How far the eviction of a pod is.
enum Eviction {
    Scheduled(Scheduled),
    Done(Arc<str>),
}

struct Loop {
    client: Client,
    clock: WallClock,
    recorder: Recorder,
    pods: Informer<PlacedPod>,
    nodes: Informer<NodeFacts>,
    evictions: Mutex<HashMap<ObjectKey, Eviction>>,
    metrics: Evictions,
}

/// Runs until shutdown. Keys are pods.
pub(crate) async fn run(context: Context) {
    let pods: Informer<PlacedPod> = context.informers.get();
    let nodes: Informer<NodeFacts> = context.informers.get();
    pods.synced().await;
    nodes.synced().await;
    let queue = queue();
    subscribe(&pods, &nodes, &queue);
    let deletions = (
        "taint_eviction_controller_pod_deletions_total",
        "Total number of Pods deleted by TaintEvictionController since its start.",
    );
    let latency = (
        "taint_eviction_controller_pod_deletion_duration_seconds",
        "Latency, in seconds, between the time when a taint effect has been activated for the Pod and its deletion via TaintEvictionController.",
    );
    let this = Arc::new(Loop {
        recorder: Recorder::new(context.client.clone(), NAME, ""),
        client: context.client,
        clock: context.clock,
        pods,
        nodes,
        evictions: Mutex::default(),
        metrics: Evictions::new(&context.metrics, deletions, latency),
    });
    work("noexec_taint_pod", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

fn subscribe(pods: &Informer<PlacedPod>, nodes: &Informer<NodeFacts>, queue: &Queue<ObjectKey>) {
    let (known, changed) = (nodes.clone(), queue.clone());
    pods.subscribe(move |change| {
        let pod = change.object();
        let tainted = || known.named("", &pod.node).is_some_and(|node| !node.taints.is_empty());
        // Where nothing evicts, a pod may change as it likes.
        if matches!(change, Change::Deleted(_)) || (!pod.node.is_empty() && tainted()) {
            changed.add(pod.key().clone());
        }
    });
    let (placed, changed) = (pods.clone(), queue.clone());
    nodes.subscribe(move |change| match change {
        Change::Updated { old, new } if old.taints == new.taints => {}
        // What was decided on goes on: the node is gone, and its pods are the pod collector's.
        Change::Deleted(_) => {}
        _ => {
            let here = placed.by_index(BY_NODE, change.object().name());
            here.iter().for_each(|pod| changed.add(pod.key().clone()));
        }
    });
}

impl Loop {
    fn tell(&self, key: &ObjectKey, what: &str) {
        let pod = ObjectReference {
            kind: "Pod".into(),
            api_version: "v1".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            ..Default::default()
        };
        self.recorder.event(&pod, EventType::Normal, "TaintManagerEviction", format!("{what} Pod {key}"));
    }

    fn cancel(&self, key: &ObjectKey) {
        if let Some(Eviction::Scheduled(_)) = self.evictions.lock().remove(key) {
            self.tell(key, "Cancelling deletion of");
        }
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key) else {
            self.cancel(key);
            return Ok(Outcome::Done);
        };
        let scheduled = match self.evictions.lock().get(key) {
            Some(Eviction::Done(uid)) if *uid == pod.uid => return Ok(Outcome::Done),
            Some(Eviction::Scheduled(scheduled)) => Some(*scheduled),
            _ => None,
        };
        let now = self.clock.now();
        let step = match self.nodes.named("", &pod.node) {
            Some(node) if node.taints.is_empty() => Step::Stay,
            Some(node) => plan::decide(&node.taints, &pod.decode()?.spec.tolerations, scheduled, now),
            None => match scheduled {
                Some(scheduled) if scheduled.due <= now => Step::Leave,
                Some(scheduled) => Step::LeaveAt(scheduled.due),
                None => Step::Stay,
            },
        };
        match step {
            Step::Stay => {
                self.cancel(key);
                Ok(Outcome::Done)
            }
            Step::LeaveAt(due) => {
                self.evictions.lock().insert(key.clone(), Eviction::Scheduled(Scheduled { due }));
                Ok(Outcome::After(self.clock.until(due)))
            }
            Step::Leave => {
                if scheduled.is_some_and(|scheduled| scheduled.due > now) {
                    self.cancel(key);
                }
                self.tell(key, "Marking for deletion");
                let live = self.client.namespaced::<Pod>(&key.namespace).get_opt(&key.name).await?;
                if let Some(live) = live.filter(|live| live.metadata.uid == *pod.uid) {
                    end(&self.client, &live, How::Gracefully, Some(WHY), self.clock.now()).await?;
                }
                self.evictions.lock().insert(key.clone(), Eviction::Done(pod.uid.clone()));
                self.metrics.evicted(scheduled.map_or(now, |scheduled| scheduled.due), now);
                Ok(Outcome::Done)
            }
        }
    }
}
