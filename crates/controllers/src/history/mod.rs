//! ControllerRevisions as StatefulSets and DaemonSets keep them: what is kept of each, how they are claimed, made,
//! renumbered and forgotten. Upstream: `controller/history`.

pub(crate) mod data;

use crate::pods::{BY_CONTROLLER, Controller, ORPHANS, adoption};
use api::Kind;
use api::apps::v1::ControllerRevision;
use apimachinery::labels::Selector;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Time;
use client::controller::Writes;
use client::informer::Index;
use client::{Cached, Client, Informer, ObjectKey, PatchParams, Projection, Result};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// The label that holds a revision's hash.
pub(crate) const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// The label of pods, and of a DaemonSet's revisions, that names the revision.
pub(crate) const REVISION_LABEL: &str = "controller-revision-hash";

/// What is kept of a revision.
pub(crate) struct RevisionFacts {
    pub controller: Option<Controller>,
    pub labels: BTreeMap<String, String>,
    pub revision: i64,
    pub created: Time,
    /// Tells data apart without keeping it.
    sum: u64,
}

fn sum(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

impl Projection for RevisionFacts {
    type Kind = ControllerRevision;

    fn project(revision: &ControllerRevision) -> Self {
        RevisionFacts {
            controller: Controller::of(&revision.metadata.owner_references),
            labels: revision.metadata.labels.clone(),
            revision: revision.revision,
            created: revision.metadata.creation_timestamp,
            sum: sum(&data::text(&revision.data)),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CONTROLLER, |revision| revision.controller.iter().map(|c| c.uid.clone()).collect()),
            (ORPHANS, |revision| match revision.controller {
                None => vec![revision.namespace().to_owned()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

pub(crate) type Revision = Arc<Cached<RevisionFacts>>;

/// Writes revisions for one controller.
pub(crate) struct History {
    pub client: Client,
    pub writes: Writes<ObjectKey>,
    pub revisions: Informer<RevisionFacts>,
}

impl History {
    /// The owner's revisions and those without an owner that match, oldest number first.
    pub(crate) fn list(&self, namespace: &str, uid: &str, selector: &Selector) -> Vec<Revision> {
        let mut all = self.revisions.by_index(BY_CONTROLLER, uid);
        all.extend(self.revisions.by_index(ORPHANS, namespace));
        all.retain(|revision| selector.matches(&revision.labels));
        all.sort_by(|a, b| (a.revision, a.created, a.name()).cmp(&(b.revision, b.created, b.name())));
        all
    }

    /// Makes the owner the controller of revisions that have none.
    pub(crate) async fn adopt<K: Kind>(
        &self,
        key: &ObjectKey,
        owner: &K,
        orphans: &[Revision],
    ) -> Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        // An owner that is being deleted adopts nothing: ask the server, for the cache may not know yet.
        let fresh = self.client.namespaced::<K>(&key.namespace).get(&key.name).await?;
        if fresh.metadata().uid != owner.metadata().uid || fresh.metadata().deletion_timestamp.is_some() {
            return Ok(());
        }
        let api = self.client.namespaced::<ControllerRevision>(&key.namespace);
        for orphan in orphans {
            match api.patch(orphan.name(), &adoption(owner, &orphan.uid), &PatchParams::default()).await {
                Ok(new) => self.writes.note(key, &self.revisions, &new.metadata.resource_version),
                Err(error) if error.is_not_found() || error.is_invalid() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) async fn create(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
    ) -> Result<ControllerRevision> {
        let made = self.client.namespaced::<ControllerRevision>(&key.namespace).create(revision).await?;
        self.writes.note(key, &self.revisions, &made.metadata.resource_version);
        Ok(made)
    }

    pub(crate) async fn get(&self, key: &ObjectKey, name: &str) -> Result<ControllerRevision> {
        self.client.namespaced::<ControllerRevision>(&key.namespace).get(name).await
    }

    /// Writes a changed revision.
    pub(crate) async fn update(
        &self,
        key: &ObjectKey,
        revision: &ControllerRevision,
    ) -> Result<ControllerRevision> {
        let api = self.client.namespaced::<ControllerRevision>(&key.namespace);
        let written = api.update(revision).await?;
        self.writes.note(key, &self.revisions, &written.metadata.resource_version);
        Ok(written)
    }

    pub(crate) async fn delete(&self, key: &ObjectKey, name: &str) -> Result<()> {
        let api = self.client.namespaced::<ControllerRevision>(&key.namespace);
        match api.delete(name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a revision holds this data.
pub(crate) fn holds(revision: &Revision, text: &str) -> bool {
    revision.sum == sum(text)
}

/// The name of an owner's revision. Upstream: `ControllerRevisionName`.
pub(crate) fn name(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(223);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}
