//! The writes: adopt, release, create, delete, tell.

use super::Facts;
use super::owner::Owner;
use super::plan::Step;
use crate::pods::{PodFacts, adoption, from_template, patch_pod, release, slow_start};
use crate::support::delete_by_name;
use api::apps::v1::ReplicaSetStatus;
use api::core::v1::Pod;
use client::controller::Writes;
use client::recorder::{EventType, reference};
use client::{Cached, Client, Informer, ObjectKey, Recorder, Result};
use std::sync::Arc;

pub(super) struct Act<K: Owner> {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub pods: Informer<PodFacts>,
    pub owners: Informer<Facts<K>>,
}

impl<K: Owner> Act<K> {
    /// Adopts and releases pods; returns the adopted.
    pub(super) async fn claim(
        &self,
        key: &ObjectKey,
        owner: &K,
        adopt: Vec<Arc<Cached<PodFacts>>>,
        releases: Vec<Arc<Cached<PodFacts>>>,
    ) -> Result<Vec<Arc<Cached<PodFacts>>>> {
        for pod in releases {
            if let Some(pod) = patch_pod(&self.client, pod.key(), &release(owner, &pod.uid)).await? {
                self.writes.note(key, &self.pods, &pod.metadata.resource_version);
            }
        }
        if adopt.is_empty() {
            return Ok(adopt);
        }
        // An owner that is being deleted adopts nothing: ask the server, for the cache may not know yet.
        let fresh = self.client.namespaced::<K>(&key.namespace).get(&key.name).await?;
        let meta = fresh.metadata();
        if meta.uid != owner.metadata().uid || meta.deletion_timestamp.is_some() {
            return Ok(Vec::new());
        }
        let mut adopted = Vec::new();
        for pod in adopt {
            if let Some(new) = patch_pod(&self.client, pod.key(), &adoption(owner, &pod.uid)).await? {
                self.writes.note(key, &self.pods, &new.metadata.resource_version);
                adopted.push(pod);
            }
        }
        Ok(adopted)
    }

    /// Creates or deletes.
    pub(super) async fn take(&self, key: &ObjectKey, owner: &K, step: Step) -> Result<()> {
        if step.create > 0 {
            let pod = from_template(owner, &owner.template());
            slow_start(step.create, || self.create(key, owner, &pod)).await.1?;
        }
        let deletions = step.delete.iter().map(|name| self.delete(key, owner, name));
        futures::future::join_all(deletions).await.into_iter().collect()
    }

    async fn create(&self, key: &ObjectKey, owner: &K, pod: &Pod) -> Result<()> {
        let about = reference(owner);
        match self.client.namespaced::<Pod>(&key.namespace).create(pod).await {
            Ok(made) => {
                self.writes.note(key, &self.pods, &made.metadata.resource_version);
                let text = format!("Created pod: {}", made.metadata.name);
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let text = format!("Error creating: {error}");
                self.recorder.event(&about, EventType::Warning, "FailedCreate", text);
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, owner: &K, name: &str) -> Result<()> {
        let about = reference(owner);
        match delete_by_name::<Pod>(&self.client, &key.namespace, name).await {
            Ok(revision) => {
                self.writes.note(key, &self.pods, &revision);
                let text = format!("Deleted pod: {name}");
                self.recorder.event(&about, EventType::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {error}");
                self.recorder.event(&about, EventType::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }

    /// Writes the status if it says something new.
    pub(super) async fn write_status(
        &self,
        key: &ObjectKey,
        owner: &K,
        status: ReplicaSetStatus,
    ) -> Result<()> {
        if owner.status() == status {
            return Ok(());
        }
        let mut changed = owner.clone();
        changed.set_status(status);
        match self.client.namespaced::<K>(&key.namespace).update_status(&changed).await {
            Ok(written) => {
                self.writes.note(key, &self.owners, &written.metadata().resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }
}
