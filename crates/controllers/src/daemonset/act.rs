//! The writes: revisions, pods, the status.

use super::nodes::{for_node, pod};
use super::plan::Plan;
use super::{Backoffs, SetFacts};
use crate::history::{self, History, REVISION_LABEL, Revision, data};
use crate::pod_control::{PodControl, Result};
use crate::pods::{PodFacts, controller_reference, slow_start};
use api::apps::v1::{ControllerRevision, DaemonSet};
use apimachinery::json;
use apimachinery::value::Value;
use client::recorder::reference;
use client::{Cached, Informer, ObjectKey, Patch};
use rules::template_hash::template_hash;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct Act {
    pub control: PodControl<PodFacts>,
    pub history: History,
    pub sets: Informer<SetFacts>,
    pub backoffs: Backoffs,
}

/// The set's template as the server wrote it.
fn template(raw: &[u8]) -> Value {
    let set: Value = serde_json::from_slice(raw).unwrap_or_default();
    set["spec"]["template"].clone()
}

/// A set's present revision, and those before it.
pub(super) struct Versions {
    pub hash: String,
    pub old: Vec<Revision>,
}

impl Act {
    /// Finds or makes the revision of the set's template.
    pub(super) async fn versions(
        &self,
        key: &ObjectKey,
        cached: &Cached<SetFacts>,
        set: &DaemonSet,
        revisions: Vec<Revision>,
        pods: &[Arc<Cached<PodFacts>>],
    ) -> Result<Versions> {
        let wanted = data::of_template(&template(&cached.raw.bytes));
        let text = data::text(&wanted);
        for revision in revisions.iter().filter(|r| !r.labels.contains_key(REVISION_LABEL)) {
            let mut labelled = revision.decode()?;
            labelled.metadata.labels.insert(REVISION_LABEL.into(), revision.name().to_owned());
            self.history.update(key, &labelled).await?;
        }
        let (current, old): (Vec<_>, Vec<_>) =
            revisions.into_iter().partition(|revision| history::holds(revision, &text));
        let number = old.iter().map(|revision| revision.revision).max().unwrap_or(0) + 1;
        // They are sorted: the last has the highest number.
        let Some((kept, twins)) = current.split_last() else {
            let made = self.snapshot(key, set, wanted, &text, number).await?;
            return Ok(Versions { hash: hash_of(&made), old });
        };
        let hash = kept.labels.get(REVISION_LABEL).cloned().unwrap_or_else(|| kept.name().to_owned());
        if !twins.is_empty() {
            self.merge(key, twins, &hash, pods).await?;
        }
        if kept.revision < number {
            let mut renumbered = kept.decode()?;
            renumbered.revision = number;
            renumbered.metadata.labels.insert(REVISION_LABEL.into(), hash.clone());
            self.history.update(key, &renumbered).await?;
        }
        Ok(Versions { hash, old })
    }

    /// Gives the pods of revisions with the same data one hash, and forgets the others.
    async fn merge(
        &self,
        key: &ObjectKey,
        twins: &[Revision],
        hash: &str,
        pods: &[Arc<Cached<PodFacts>>],
    ) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": {REVISION_LABEL: hash}}}));
        let theirs: BTreeSet<&String> =
            twins.iter().filter_map(|twin| twin.labels.get(REVISION_LABEL)).collect();
        for pod in pods {
            if pod.labels.get(REVISION_LABEL).is_some_and(|label| theirs.contains(label)) {
                self.control.patch(key, pod.key(), &patch).await?;
            }
        }
        for twin in twins {
            self.history.delete(key, twin.name()).await?;
        }
        Ok(())
    }

    async fn snapshot(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        wanted: Value,
        text: &str,
        number: i64,
    ) -> Result<ControllerRevision> {
        let hash = template_hash(&set.spec.template, set.status.collision_count);
        let mut revision = <ControllerRevision as api::Kind>::new();
        let meta = &mut revision.metadata;
        meta.name = format!("{}-{hash}", set.metadata.name);
        meta.namespace.clone_from(&set.metadata.namespace);
        meta.labels.clone_from(&set.spec.template.metadata.labels);
        meta.labels.insert(REVISION_LABEL.into(), hash);
        meta.annotations.clone_from(&set.metadata.annotations);
        meta.owner_references = vec![controller_reference(set)];
        revision.data = wanted;
        revision.revision = number;
        match self.history.create(key, &revision).await {
            Err(error) if error.is_already_exists() => {
                let there = self.history.get(key, &revision.metadata.name).await?;
                if data::text(&there.data) == text {
                    return Ok(there);
                }
                // Another template has the name: the next try hashes with another number.
                let mut changed = set.clone();
                changed.status.collision_count = Some(changed.status.collision_count.unwrap_or(0) + 1);
                self.write_status(key, set, changed).await?;
                Err(error.into())
            }
            other => Ok(other?),
        }
    }

    /// Makes a plan true.
    pub(super) async fn take(&self, key: &ObjectKey, set: &DaemonSet, hash: &str, plan: Plan) -> Result<()> {
        let about = reference(set);
        for (kind, reason, text) in plan.tell {
            self.control.recorder.event(&about, kind, reason, text);
        }
        for node in &plan.failed {
            self.backoffs.failed(&set.metadata.uid, node);
        }
        let template = pod(set, hash);
        let next = AtomicUsize::new(0);
        let created = slow_start(plan.create.len(), || {
            let node = &plan.create[next.fetch_add(1, Ordering::Relaxed)];
            let (pod, about) = (for_node(template.clone(), node), &about);
            async move { self.control.create(key, about, &pod).await }
        });
        let created = created.await.1;
        let deletions = plan.delete.iter().map(|name| self.control.delete(key, &about, name));
        let deleted: Result<()> = futures::future::join_all(deletions).await.into_iter().collect();
        let mut changed = set.clone();
        changed.status = plan.status;
        self.write_status(key, set, changed).await?;
        created?;
        deleted
    }

    /// Forgets revisions beyond the limit that no pod is of, the oldest first.
    pub(super) async fn truncate(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        old: &[Revision],
        pods: &[Arc<Cached<PodFacts>>],
    ) -> Result<()> {
        let Ok(limit) = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)) else { return Ok(()) };
        let live: BTreeSet<&String> = pods.iter().filter_map(|pod| pod.labels.get(REVISION_LABEL)).collect();
        let surplus = old.len().saturating_sub(limit);
        let dead =
            old.iter().filter(|r| r.labels.get(REVISION_LABEL).is_none_or(|hash| !live.contains(hash)));
        for revision in dead.take(surplus) {
            self.history.delete(key, revision.name()).await?;
        }
        Ok(())
    }

    async fn write_status(&self, key: &ObjectKey, old: &DaemonSet, new: DaemonSet) -> Result<()> {
        if new.status == old.status {
            return Ok(());
        }
        match self.control.client.namespaced::<DaemonSet>(&key.namespace).update_status(&new).await {
            Ok(written) => {
                self.control.writes.note(key, &self.sets, &written.metadata.resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn hash_of(revision: &ControllerRevision) -> String {
    revision.metadata.labels.get(REVISION_LABEL).cloned().unwrap_or_else(|| revision.metadata.name.clone())
}
