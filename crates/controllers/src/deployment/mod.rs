//! Rolls templates out: one ReplicaSet per template, scaled against each other. Upstream: `deployment-controller`.

mod act;
mod plan;
mod rollback;
mod sets;
mod status;

use crate::Context;
use crate::pods::{BY_CONTROLLER, Claim, Controller, ORPHANS, PodFacts};
use crate::support::{WallClock, feed, queue};
use act::Act;
use api::apps::v1::{Deployment, ReplicaSet};
use apimachinery::labels::Selector;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Informer, ObjectKey, Projection, Recorder};
use plan::Observed;
use std::collections::BTreeMap;
use std::sync::Arc;

const WORKERS: usize = 5;
const KIND: &str = "Deployment";

/// What is kept of a Deployment.
struct DeploymentFacts {
    selector: Selector,
}

impl Projection for DeploymentFacts {
    type Kind = Deployment;

    fn project(deployment: &Deployment) -> Self {
        let selector = Selector::from_label_selector(deployment.spec.selector.as_ref());
        DeploymentFacts { selector: selector.unwrap_or_else(|_| Selector::nothing()) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[("namespace", |deployment| vec![deployment.namespace().to_owned()])]
    }
}

/// What is kept of a ReplicaSet.
struct SetFacts {
    controller: Option<Controller>,
    labels: BTreeMap<String, String>,
    deleting: bool,
}

impl Projection for SetFacts {
    type Kind = ReplicaSet;

    fn project(set: &ReplicaSet) -> Self {
        SetFacts {
            controller: Controller::of(&set.metadata.owner_references),
            labels: set.metadata.labels.clone(),
            deleting: set.metadata.deletion_timestamp.is_some(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CONTROLLER, |set| set.controller.iter().map(|c| c.uid.clone()).collect()),
            (ORPHANS, |set| match set.controller {
                None => vec![set.namespace().to_owned()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

impl SetFacts {
    fn claim(&self, uid: &str, owner_deleting: bool, selector: &Selector) -> Claim {
        let matches = selector.matches(&self.labels);
        match &self.controller {
            Some(controller) if controller.uid != uid => Claim::Others,
            Some(_) if matches => Claim::Ours,
            Some(_) if owner_deleting => Claim::Others,
            Some(_) => Claim::Release,
            None if owner_deleting || !matches || self.deleting => Claim::Others,
            None => Claim::Adopt,
        }
    }
}

struct Loop {
    deployments: Informer<DeploymentFacts>,
    sets: Informer<SetFacts>,
    pods: Informer<PodFacts>,
    clock: WallClock,
    act: Act,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let deployments: Informer<DeploymentFacts> = context.informers.get();
    let sets: Informer<SetFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let queue = queue();
    feed(&deployments, &queue, |deployment| [deployment.key().clone()]);
    let near = deployments.clone();
    feed(&sets, &queue, move |set| keys_of_set(&near, set));
    // A Recreate rollout waits for the last old pod to be gone; nothing else here looks at pods.
    let (known, changed) = (sets.clone(), queue.clone());
    pods.subscribe(move |change| {
        let pod = change.object();
        let ended = matches!(change, client::Change::Deleted(_)) || pod.terminal();
        let set = pod.controller.as_ref().filter(|c| ended && c.kind == "ReplicaSet");
        let set = set.and_then(|c| known.named(pod.namespace(), &c.name));
        if let Some(owner) = set.as_ref().and_then(|set| set.controller.as_ref()).filter(|c| c.kind == KIND) {
            changed.add(ObjectKey::new(pod.namespace(), &owner.name));
        }
    });
    deployments.synced().await;
    sets.synced().await;
    pods.synced().await;
    let writes = Writes::default();
    let act = Act {
        recorder: Recorder::new(context.client.clone(), "deployment-controller", ""),
        client: context.client,
        writes: writes.clone(),
        deployments: deployments.clone(),
        sets: sets.clone(),
        clock: context.clock.clone(),
    };
    let this = Arc::new(Loop { deployments, sets, pods, clock: context.clock, act });
    work("deployment", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// Whom a set's change concerns: its controller, or all that might adopt it.
fn keys_of_set(deployments: &Informer<DeploymentFacts>, set: &Cached<SetFacts>) -> Vec<ObjectKey> {
    match &set.controller {
        Some(controller) if controller.kind == KIND => {
            vec![ObjectKey::new(set.namespace(), &controller.name)]
        }
        Some(_) => Vec::new(),
        None => {
            let near = deployments.by_index("namespace", set.namespace());
            near.iter().filter(|d| d.selector.matches(&set.labels)).map(|d| d.key().clone()).collect()
        }
    }
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> client::Result<Outcome> {
        let Some(cached) = self.deployments.get(key) else { return Ok(Outcome::Done) };
        let deployment = cached.decode()?;
        if cached.selector.is_empty() {
            self.act.refuse_everything(key, deployment).await?;
            return Ok(Outcome::Done);
        }
        let sets = self.claimed(key, &cached, &deployment).await?;
        let plan = plan::plan(&Observed {
            deployment: &deployment,
            sets: &sets,
            old_pods_run: &|newest| {
                let others = sets.iter().filter(|set| newest != Some(set.metadata.uid.as_str()));
                let mut pods = others.flat_map(|set| self.pods.by_index(BY_CONTROLLER, &set.metadata.uid));
                pods.any(|pod| !pod.terminal())
            },
            now: self.clock.now(),
        });
        self.act.take(key, &deployment, &sets, plan).await
    }

    /// The sets that are the Deployment's, adopted ones included.
    async fn claimed(
        &self,
        key: &ObjectKey,
        cached: &Cached<DeploymentFacts>,
        deployment: &Deployment,
    ) -> client::Result<Vec<ReplicaSet>> {
        let deleting = deployment.metadata.deletion_timestamp.is_some();
        let mut seen = self.sets.by_index(BY_CONTROLLER, &cached.uid);
        seen.extend(self.sets.by_index(ORPHANS, &key.namespace));
        let mut ours = Vec::new();
        for set in seen {
            match set.claim(&cached.uid, deleting, &cached.selector) {
                Claim::Ours => ours.push(set.decode()?),
                Claim::Adopt => ours.extend(self.act.adopt(key, deployment, &set).await?),
                Claim::Release => self.act.release(key, deployment, &set).await?,
                Claim::Others => {}
            }
        }
        Ok(ours)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        for story in ["deployment", "deployment_recreate"] {
            play(story, &[|c| Box::pin(super::run(c)), |c| Box::pin(crate::replicaset::run(c))]);
        }
    }
}
