//! Keeps as many pods of a template as a ReplicaSet or a ReplicationController wants. Upstream: `replicaset` and
//! `replication` controllers, which are one there, too.

mod act;
mod owner;
mod plan;
mod status;

use crate::Context;
use crate::pod_control::{PodControl, Result};
use crate::pods::{BY_CONTROLLER, BY_NAMESPACE, Controller, ORPHANS, PodFacts, claims, settle};
use crate::support::{WallClock, feed, queue};
use act::Act;
use api::apps::v1::ReplicaSet;
use api::core::v1::ReplicationController;
use apimachinery::labels::Selector;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Informer, ObjectKey, Projection, Recorder};
use owner::Owner;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

const WORKERS: usize = 5;

/// What is kept of an owner.
pub(crate) struct Facts<K> {
    selector: Selector,
    controller: Option<Controller>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Owner> Projection for Facts<K> {
    type Kind = K;

    fn project(owner: &K) -> Self {
        Facts {
            selector: owner.selector(),
            controller: Controller::of(&owner.metadata().owner_references),
            kind: PhantomData,
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_NAMESPACE, |owner| vec![owner.namespace().to_owned()]),
            (BY_CONTROLLER, |owner| owner.controller.iter().map(|c| c.uid.clone()).collect()),
        ]
    }
}

/// Runs the ReplicaSet controller until shutdown.
pub(crate) async fn run(context: Context) {
    serve::<ReplicaSet>(context, "replicaset").await;
}

/// Runs the ReplicationController controller until shutdown.
pub(crate) async fn run_replication(context: Context) {
    serve::<ReplicationController>(context, "replicationmanager").await;
}

struct Loop<K: Owner> {
    owners: Informer<Facts<K>>,
    pods: Informer<PodFacts>,
    clock: WallClock,
    act: Act<K>,
}

async fn serve<K: Owner>(context: Context, name: &'static str) {
    let owners: Informer<Facts<K>> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let queue = queue();
    feed(&owners, &queue, |owner| [owner.key().clone()]);
    let by_pod = owners.clone();
    feed(&pods, &queue, move |pod| keys_of_pod(&by_pod, pod));
    owners.synced().await;
    pods.synced().await;
    let writes = Writes::default();
    let control = PodControl {
        recorder: Recorder::new(context.client.clone(), K::COMPONENT, ""),
        client: context.client,
        writes: writes.clone(),
        pods: pods.clone(),
    };
    let act = Act { control, owners: owners.clone() };
    let this = Arc::new(Loop { owners, pods, clock: context.clock, act });
    work(name, queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// Whom a pod's change concerns: its controller, or all that might adopt it.
fn keys_of_pod<K: Owner>(owners: &Informer<Facts<K>>, pod: &Cached<PodFacts>) -> Vec<ObjectKey> {
    match &pod.controller {
        Some(controller) if controller.kind == K::KIND => {
            vec![ObjectKey::new(pod.namespace(), &controller.name)]
        }
        Some(_) => Vec::new(),
        None => {
            let near = owners.by_index(BY_NAMESPACE, pod.namespace());
            let matching = near.iter().filter(|owner| owner.selector.matches(&pod.labels));
            matching.map(|owner| owner.key().clone()).collect()
        }
    }
}

impl<K: Owner> Loop<K> {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.owners.get(key) else { return Ok(Outcome::Done) };
        let owner = cached.decode()?;
        let mut seen = self.pods.by_index(BY_CONTROLLER, &cached.uid);
        seen.extend(self.pods.by_index(ORPHANS, &key.namespace));
        let deleting = owner.metadata().deletion_timestamp.is_some();
        let mut claims = claims(seen, &cached.uid, deleting, &cached.selector);
        // Pods that ended or are ending are neither taken nor let go.
        claims.adopt.retain(|pod| pod.active());
        claims.release.retain(|pod| pod.active());
        let ours = settle(&self.act.control, key, &owner, claims).await?;
        let now = self.clock.now();
        let active: Vec<_> = ours.iter().filter(|pod| pod.active()).cloned().collect();
        let terminating = ours.iter().filter(|pod| pod.deleting && !pod.terminal()).count();
        let managed = if deleting {
            Ok(())
        } else {
            let step = plan::step(&active, owner.replicas(), &self.crowds(&cached), now);
            self.act.take(key, &owner, step).await
        };
        let status = status::calculate(&owner, &active, terminating, managed.as_ref().err(), now);
        self.act.write_status(key, &owner, status).await?;
        managed?;
        let soon = active.iter().filter_map(|pod| pod.available_from(owner.min_ready_seconds()));
        Ok(self.clock.outcome(soon.filter(|then| *then > now).min()))
    }

    /// Active pods per node, of this owner and of those that share its controller.
    fn crowds(&self, owner: &Cached<Facts<K>>) -> HashMap<String, usize> {
        let siblings = match &owner.controller {
            Some(controller) => self.owners.by_index(BY_CONTROLLER, &controller.uid),
            None => Vec::new(),
        };
        let mut uids: Vec<&str> = siblings.iter().map(|owner| &*owner.uid).collect();
        if uids.is_empty() {
            uids.push(&owner.uid);
        }
        let mut crowds = HashMap::new();
        for uid in uids {
            for pod in self.pods.by_index(BY_CONTROLLER, uid) {
                if pod.active() {
                    *crowds.entry(pod.node.clone()).or_default() += 1;
                }
            }
        }
        crowds
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        play("replicaset", &[|c| Box::pin(super::run(c))]);
    }
}
