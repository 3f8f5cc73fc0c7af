//! Notices nodes that fall silent: says so in their conditions, taints them, and tells their pods. Pods are evicted by
//! the taint eviction controller. Upstream: `node-lifecycle-controller`, which looks at all nodes every five seconds; here
//! a node is looked at when it changes, and when its time is over.

mod act;
mod plan;
mod zones;

use crate::Context;
use crate::placed_pods::{BY_NODE, PlacedPod};
use crate::support::queue;
use act::{Act, Metrics};
use api::coordination::v1::Lease;
use api::core::v1::Node;
use apimachinery::time::MicroTime;
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Change, Error, Informer, ObjectKey, Projection, Queue, Recorder};
use parking_lot::Mutex;
use plan::Evicting;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use zones::{Counts, Turn, Zones};

const WORKERS: usize = 8;
const LEASES: &str = "kube-node-lease";
/// `--node-monitor-grace-period`, and `--node-startup-grace-period` for a node that never said how it is.
const GRACE: Duration = Duration::from_secs(50);
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// What is kept of a node.
pub(super) struct NodeFacts {
    ready: Option<bool>,
    zone: String,
    /// Whether it does not count when a zone is judged.
    excluded: bool,
    /// When it last said how it is.
    heartbeat: Option<apimachinery::time::Time>,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        NodeFacts {
            ready: plan::ready(node).map(|status| status == "True"),
            zone: zone(node),
            excluded: node.metadata.labels.contains_key("node.kubernetes.io/exclude-disruption"),
            heartbeat: plan::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time),
        }
    }
}

/// Region and zone as one name, as metrics have it.
fn zone(node: &Node) -> String {
    let label = |names: [&str; 2]| names.iter().find_map(|name| node.metadata.labels.get(*name)).cloned();
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    match (region, zone) {
        (None, None) => String::new(),
        (region, zone) => format!("{}:\u{0}:{}", region.unwrap_or_default(), zone.unwrap_or_default()),
    }
}

/// What is kept of a lease.
struct LeaseFacts {
    renewed: Option<MicroTime>,
}

impl Projection for LeaseFacts {
    type Kind = Lease;

    fn project(lease: &Lease) -> Self {
        LeaseFacts { renewed: lease.spec.renew_time }
    }
}

/// What is remembered of a node.
struct Health {
    uid: Arc<str>,
    /// When it was last heard of: by this clock, for the node's may be wrong.
    heard: Instant,
    /// Its pods still have to be told.
    untold: bool,
    /// As what it was counted in its zone.
    counted: Option<(bool, String)>,
}

struct Loop {
    nodes: Informer<NodeFacts>,
    pods: Informer<PlacedPod>,
    queue: Queue<ObjectKey>,
    health: Arc<Mutex<HashMap<ObjectKey, Health>>>,
    zones: Mutex<Zones>,
    act: Act,
}

/// Runs until shutdown. Keys are nodes.
pub(crate) async fn run(context: Context) {
    let nodes: Informer<NodeFacts> = context.informers.get();
    let pods: Informer<PlacedPod> = context.informers.get();
    let leases: Informer<LeaseFacts> = context.informers.query(Query::of::<Lease>().in_namespace(LEASES));
    nodes.synced().await;
    pods.synced().await;
    leases.synced().await;
    let queue = queue();
    let health: Arc<Mutex<HashMap<ObjectKey, Health>>> = Arc::default();
    let heard = |health: &Mutex<HashMap<ObjectKey, Health>>, key: &ObjectKey| {
        if let Some(known) = health.lock().get_mut(key) {
            known.heard = Instant::now();
        }
    };
    let (known, changed) = (health.clone(), queue.clone());
    nodes.subscribe(move |change| {
        if matches!(change, Change::Updated { old, new } if old.heartbeat != new.heartbeat) {
            heard(&known, change.object().key());
        }
        changed.add(change.object().key().clone());
    });
    // A renewal moves the time that a node is looked at, which is when it comes.
    let known = health.clone();
    leases.subscribe(move |change| {
        if !matches!(change, Change::Updated { old, new } if old.renewed == new.renewed) {
            heard(&known, &ObjectKey::new("", change.object().name()));
        }
    });
    let writes = Writes::default();
    let act = Act {
        recorder: Recorder::new(context.client.clone(), "node-controller", ""),
        client: context.client,
        clock: context.clock,
        writes: writes.clone(),
        nodes: nodes.clone(),
        metrics: Metrics::new(&context.metrics),
    };
    let this = Arc::new(Loop { nodes, pods, queue: queue.clone(), health, zones: Mutex::default(), act });
    work("node_lifecycle_controller", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let started = std::time::Instant::now();
        let Some(cached) = self.nodes.get(key) else {
            if let Some(known) = self.health.lock().remove(key) {
                self.act.tell(&key.name, &known.uid, "RemovingNode", "Removing Node {} from Controller");
            }
            self.judge_zones().await?;
            return Ok(Outcome::Done);
        };
        let mut node = cached.decode()?;
        let (new, heard, untold) = self.remember(key, &cached.uid, &node);
        if new {
            self.act.tell(&key.name, &cached.uid, "RegisteredNode", "Registered Node {} in Controller");
        }
        let was_ready = plan::ready(&node) == Some("True");
        let grace = if plan::ready(&node).is_none() { STARTUP_GRACE } else { GRACE };
        let left = (heard + grace).checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        let silent = left.is_none() && plan::mark_unknown(&mut node, self.act.clock.now());
        if silent {
            node = self.act.write_status(key, &node).await?;
        }
        self.act.metrics.update_node.observe_since(started);
        let is_ready = plan::ready(&node) == Some("True");
        if was_ready && !is_ready {
            self.act.status_changed(&node);
            self.set_untold(key, true);
        }
        if !is_ready && (was_ready || untold) {
            let pods = self.pods.by_index(BY_NODE, &key.name);
            self.act.mark_pods_not_ready(pods.iter().map(|pod| pod.key()), &key.name).await?;
            self.set_untold(key, false);
        }
        if silent {
            // What was written comes back as a change; until then the zone counts the node as it was.
            return Ok(Outcome::Done);
        }
        if self.counts_anew(key, &cached) {
            self.judge_zones().await?;
        }
        let waits = self.taint(key, &node).await?;
        Ok(match left.into_iter().chain(waits).min() {
            Some(after) => Outcome::After(after),
            None => Outcome::Done,
        })
    }

    /// Whether the node is new, when it was last heard of, and whether its pods still have to be told.
    fn remember(&self, key: &ObjectKey, uid: &Arc<str>, node: &Node) -> (bool, Instant, bool) {
        let mut health = self.health.lock();
        if let Some(known) = health.get(key).filter(|known| known.uid == *uid) {
            return (false, known.heard, known.untold);
        }
        let mut heard = Instant::now();
        if plan::ready(node).is_none() {
            // A node that never said anything is as old as it is.
            let age = self.act.clock.now().unix() - node.metadata.creation_timestamp.unix();
            let age = Duration::from_secs(age.max(0).unsigned_abs());
            heard = heard.checked_sub(age).unwrap_or(heard);
        }
        health.insert(key.clone(), Health { uid: uid.clone(), heard, untold: false, counted: None });
        (true, heard, false)
    }

    /// Whether its zone does not count the node as what it is.
    fn counts_anew(&self, key: &ObjectKey, node: &NodeFacts) -> bool {
        let is = Some((node.ready == Some(true), node.zone.clone()));
        let mut health = self.health.lock();
        let Some(known) = health.get_mut(key) else { return false };
        std::mem::replace(&mut known.counted, is.clone()) != is
    }

    fn set_untold(&self, key: &ObjectKey, untold: bool) {
        if let Some(known) = self.health.lock().get_mut(key) {
            known.untold = untold;
        }
    }

    /// Writes what the node's conditions ask for. Returns when to look again if evicting has to wait.
    async fn taint(&self, key: &ObjectKey, node: &Node) -> Result<Option<Duration>, Error> {
        let (mut evicting, waits) = plan::evicting(node);
        let mut again = None;
        if waits {
            let zone = zone(node);
            match self.zones.lock().take(&zone, Instant::now()) {
                Ok(()) => self.act.metrics.evictions.with(&[&zone]).inc(),
                Err(after) => {
                    evicting = Evicting::Keep;
                    again = after;
                }
            }
        }
        self.act
            .patch(key, node, plan::taints(node, evicting, self.act.clock.now()), plan::labels(node))
            .await?;
        Ok(again)
    }

    /// Counts the nodes of each zone, and does what that asks for.
    async fn judge_zones(&self) -> Result<(), Error> {
        let nodes = self.nodes.list();
        let mut counts = Counts::new();
        for node in nodes.iter().filter(|node| !node.excluded) {
            let (ready, not_ready) = counts.entry(node.zone.clone()).or_default();
            *(if node.ready == Some(true) { ready } else { not_ready }) += 1;
        }
        self.act.metrics.show(&counts);
        let turn = self.zones.lock().count(&counts, Instant::now());
        match turn {
            Turn::Nothing => return Ok(()),
            Turn::Rates => {}
            Turn::AllDisrupted => {
                tracing::info!("no node is ready any more: nothing is evicted until one is");
                for node in &nodes {
                    let node: Node = node.decode()?;
                    let key = ObjectKey::new("", &node.metadata.name);
                    self.act
                        .patch(&key, &node, plan::taints(&node, Evicting::None, self.act.clock.now()), None)
                        .await?;
                }
            }
            Turn::Recovered => {
                tracing::info!("some nodes are ready again");
                let now = Instant::now();
                self.health.lock().values_mut().for_each(|known| known.heard = now);
            }
        }
        nodes.iter().for_each(|node| self.queue.add(node.key().clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        play(
            "silent_nodes",
            &[
                |c| Box::pin(super::run(c)),
                |c| Box::pin(crate::taint_eviction::run(c)),
                |c| Box::pin(crate::pod_gc::run(c)),
            ],
        );
    }
}
