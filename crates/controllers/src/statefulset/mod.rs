//! Pods with names of their own, made and ended in order, with claims that stay. Upstream: `statefulset-controller`.

mod act;
mod claims;
mod identity;
mod plan;

use crate::Context;
use crate::history::{History, REVISION_LABEL, RevisionFacts};
use crate::pod_control::{PodControl, Result};
use crate::pods::{BY_CONTROLLER, BY_NAMESPACE, Controller, ORPHANS, PodFacts, claims as sort_claims};
use crate::support::{WallClock, feed, queue};
use act::Act;
use api::apps::v1::StatefulSet;
use api::core::v1::PersistentVolumeClaim;
use apimachinery::labels::Selector;
use apimachinery::meta::OwnerReference;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Informer, ObjectKey, Projection, Recorder};
use plan::Observed;
use std::collections::BTreeSet;
use std::sync::Arc;

const WORKERS: usize = 5;
const KIND: &str = "StatefulSet";
const MAX_UNAVAILABLE: &str = "MaxUnavailableStatefulSet";

/// What is kept of a set.
struct SetFacts {
    selector: Selector,
}

impl Projection for SetFacts {
    type Kind = StatefulSet;

    fn project(set: &StatefulSet) -> Self {
        let selector = Selector::from_label_selector(set.spec.selector.as_ref());
        SetFacts { selector: selector.unwrap_or_else(|_| Selector::nothing()) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |set| vec![set.namespace().to_owned()])]
    }
}

/// What is kept of a claim.
struct ClaimFacts {
    owners: Vec<OwnerReference>,
    deleting: bool,
}

impl Projection for ClaimFacts {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        ClaimFacts {
            owners: claim.metadata.owner_references.clone(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The first ordinal of a set.
fn first_ordinal(set: &StatefulSet) -> i32 {
    set.spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start)
}

/// Whether a set of its size has this ordinal.
fn owns_ordinal(set: &StatefulSet, ordinal: i32) -> bool {
    let first = first_ordinal(set);
    (first..first.saturating_add(set.spec.replicas.unwrap_or(1))).contains(&ordinal)
}

/// The set's name and the ordinal in a pod's name.
fn parse_name(name: &str) -> Option<(&str, i32)> {
    let (set, ordinal) = name.rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    Some((set, ordinal.parse().ok().filter(|_| digits)?))
}

fn ordinal_of(name: &str) -> Option<i32> {
    parse_name(name).map(|(_, ordinal)| ordinal)
}

struct Loop {
    sets: Informer<SetFacts>,
    pods: Informer<PodFacts>,
    claims: Informer<ClaimFacts>,
    clock: WallClock,
    max_unavailable: bool,
    act: Act,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let sets: Informer<SetFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let claims: Informer<ClaimFacts> = context.informers.get();
    let revisions: Informer<RevisionFacts> = context.informers.get();
    sets.synced().await;
    let queue = queue();
    feed(&sets, &queue, |set| [set.key().clone()]);
    let near = sets.clone();
    feed(&pods, &queue, move |pod| keys_of_pod(&near, pod));
    pods.synced().await;
    claims.synced().await;
    revisions.synced().await;
    let writes = Writes::default();
    let control = PodControl {
        recorder: Recorder::new(context.client.clone(), "statefulset-controller", ""),
        client: context.client.clone(),
        writes: writes.clone(),
        pods: pods.clone(),
    };
    let history = History { client: context.client, writes: writes.clone(), revisions };
    let act = Act { control, history, sets: sets.clone(), claims: claims.clone() };
    let max_unavailable = context.gates.enabled(MAX_UNAVAILABLE);
    let this = Arc::new(Loop { sets, pods, claims, clock: context.clock, max_unavailable, act });
    work("statefulset", queue, writes, WORKERS, context.shutdown, move |key| {
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
        let revisions = self.act.history.list(&key.namespace, &cached.uid, &cached.selector);
        let orphans: Vec<_> = revisions.iter().filter(|r| r.controller.is_none()).cloned().collect();
        self.act.history.adopt(key, &set, &orphans).await?;

        let mut seen = self.pods.by_index(BY_CONTROLLER, &cached.uid);
        seen.extend(self.pods.by_index(ORPHANS, &key.namespace));
        // A pod whose name is not of the set is none of its pods, whatever its labels say.
        seen.retain(|pod| parse_name(pod.name()).is_some_and(|(name, _)| name == &*key.name));
        let deleting = set.metadata.deletion_timestamp.is_some();
        let sorted = sort_claims(seen, &cached.uid, deleting, &cached.selector);
        let pods = self.act.claim_pods(key, &set, sorted).await?;

        let Some(versions) = self.act.versions(key, &cached, &set, &revisions).await? else {
            return Ok(Outcome::Done);
        };
        let plan = plan::plan(&Observed {
            set: &set,
            current: &versions.current,
            update: &versions.update,
            collisions: versions.collisions,
            pods: &pods,
            mounted: &|pod, ordinal| pod.decode().is_ok_and(|pod| claims::mounted(&set, ordinal, &pod)),
            claims: &|name| Some(self.claims.named(&key.namespace, name)?.owners.clone()),
            max_unavailable: self.max_unavailable,
            now: self.clock.now(),
        });
        let again = plan.again;
        let done = self.act.take(key, &set, plan).await;
        let mut live: BTreeSet<String> =
            pods.iter().filter_map(|pod| pod.labels.get(REVISION_LABEL).cloned()).collect();
        live.extend([versions.current.name, versions.update.name]);
        self.act.truncate(key, &set, &revisions, &live).await?;
        done?;
        Ok(self.clock.outcome(again))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        for story in ["statefulset", "statefulset_parallel", "statefulset_claims"] {
            play(story, &[|c| Box::pin(super::run(c))]);
        }
    }
}
