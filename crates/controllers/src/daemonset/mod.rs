//! One pod on every node that fits. Upstream: `daemon-set-controller`.

mod act;
mod nodes;
mod plan;

use crate::Context;
use crate::history::{History, RevisionFacts};
use crate::pod_control::{PodControl, Result};
use crate::pods::{BY_CONTROLLER, BY_NAMESPACE, Controller, ORPHANS, PodFacts, claims, settle};
use crate::support::{WallClock, feed, queue};
use act::Act;
use api::apps::v1::DaemonSet;
use apimachinery::labels::Selector;
use apimachinery::time::{Duration, Time};
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Informer, ObjectKey, Projection, Recorder};
use nodes::{Judge, NodeFacts};
use parking_lot::Mutex;
use plan::Observed;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const WORKERS: usize = 2;
const KIND: &str = "DaemonSet";
/// How long failed pods are kept: the first time, and at most, in seconds.
const FIRST_BACKOFF: i64 = 1;
const LONGEST_BACKOFF: i64 = 15 * 60;

/// What is kept of a set.
struct SetFacts {
    selector: Selector,
}

impl Projection for SetFacts {
    type Kind = DaemonSet;

    fn project(set: &DaemonSet) -> Self {
        let selector = Selector::from_label_selector(set.spec.selector.as_ref());
        SetFacts { selector: selector.unwrap_or_else(|_| Selector::nothing()) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |set| vec![set.namespace().to_owned()])]
    }
}

/// Until when failed pods are left alone, so that a pod that cannot run does not come and go all the time: per set and
/// node, since when and for how long.
#[derive(Clone)]
struct Backoffs {
    held: Arc<Mutex<HashMap<(String, String), (Time, i64)>>>,
    clock: WallClock,
}

impl Backoffs {
    fn until(&self, set: &str, node: &str) -> Option<Time> {
        let held = self.held.lock();
        let (since, delay) = held.get(&(set.to_owned(), node.to_owned()))?;
        Some(since.plus(Duration::from_seconds(*delay))).filter(|then| *then > self.clock.now())
    }

    /// A failed pod is removed: the next is kept for twice as long, unless all went well for a while.
    fn failed(&self, set: &str, node: &str) {
        let now = self.clock.now();
        let mut held = self.held.lock();
        let long_ago = |since: Time| now.since(since) > Duration::from_seconds(2 * LONGEST_BACKOFF);
        held.retain(|_, (since, _)| !long_ago(*since));
        let entry = held.entry((set.to_owned(), node.to_owned()));
        entry
            .and_modify(|(since, delay)| (*since, *delay) = (now, (*delay * 2).min(LONGEST_BACKOFF)))
            .or_insert((now, FIRST_BACKOFF));
    }
}

struct Loop {
    sets: Informer<SetFacts>,
    pods: Informer<PodFacts>,
    nodes: Informer<NodeFacts>,
    clock: WallClock,
    act: Act,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let sets: Informer<SetFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let nodes: Informer<NodeFacts> = context.informers.get();
    let revisions: Informer<RevisionFacts> = context.informers.get();
    sets.synced().await;
    let queue = queue();
    feed(&sets, &queue, |set| [set.key().clone()]);
    let near = sets.clone();
    feed(&pods, &queue, move |pod| keys_of_pod(&near, pod));
    let (all, changed) = (sets.clone(), queue.clone());
    nodes.subscribe(move |change| {
        // Heartbeats change nothing that is kept of a node.
        if change.old().is_none_or(|old| old.projection != change.object().projection) {
            all.list().iter().for_each(|set| changed.add(set.key().clone()));
        }
    });
    pods.synced().await;
    nodes.synced().await;
    revisions.synced().await;
    let writes = Writes::default();
    let control = PodControl {
        recorder: Recorder::new(context.client.clone(), "daemonset-controller", ""),
        client: context.client.clone(),
        writes: writes.clone(),
        pods: pods.clone(),
    };
    let history = History { client: context.client, writes: writes.clone(), revisions };
    let backoffs = Backoffs { held: Arc::default(), clock: context.clock.clone() };
    let act = Act { control, history, sets: sets.clone(), backoffs };
    let this = Arc::new(Loop { sets, pods, nodes, clock: context.clock, act });
    work("daemonset", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// Whom a pod's change concerns: its controller, or all that might adopt it.
fn keys_of_pod(sets: &Informer<SetFacts>, pod: &Cached<PodFacts>) -> Vec<ObjectKey> {
    match &pod.controller {
        Some(Controller { kind, name, .. }) if kind == KIND => vec![ObjectKey::new(pod.namespace(), name)],
        Some(_) => Vec::new(),
        None => {
            let near = sets.by_index(BY_NAMESPACE, pod.namespace());
            near.iter().filter(|set| set.selector.matches(&pod.labels)).map(|set| set.key().clone()).collect()
        }
    }
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.sets.get(key) else { return Ok(Outcome::Done) };
        let set = cached.decode()?;
        if cached.selector.is_empty() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.act.control.recorder.warning(&set, "SelectingAll", text);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let revisions = self.act.history.list(&key.namespace, &cached.uid, &cached.selector);
        let orphans: Vec<_> = revisions.iter().filter(|r| r.controller.is_none()).cloned().collect();
        self.act.history.adopt(key, &set, &orphans).await?;

        let mut seen = self.pods.by_index(BY_CONTROLLER, &cached.uid);
        seen.extend(self.pods.by_index(ORPHANS, &key.namespace));
        let sorted = claims(seen, &cached.uid, false, &cached.selector);
        let pods = settle(&self.act.control, key, &set, sorted).await?;
        let versions = self.act.versions(key, &cached, &set, revisions, &pods).await?;

        let judge = Judge::new(&set);
        let nodes = self.nodes.list();
        let nodes = nodes.iter().map(|node| (node.name().to_owned(), judge.fit(node.name(), node))).collect();
        let mut by_node: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !(pod.terminal() && pod.deleting)) {
            if let Some(node) = pod.target_node() {
                by_node.entry(node.to_owned()).or_default().push(pod.clone());
            }
        }
        let plan = plan::plan(&Observed {
            set: &set,
            nodes: &nodes,
            pods: &by_node,
            hash: &versions.hash,
            held: &|node| self.act.backoffs.until(&cached.uid, node),
            now: self.clock.now(),
        });
        let again = plan.again;
        let done = self.act.take(key, &set, &versions.hash, plan).await;
        done?;
        self.act.truncate(key, &set, &versions.old, &pods).await?;
        Ok(self.clock.outcome(again))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        for story in ["daemonset", "daemonset_surge"] {
            play(story, &[|c| Box::pin(super::run(c))]);
        }
    }
}
