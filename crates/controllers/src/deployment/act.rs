//! The writes: sets, their adoption, the Deployment's status and revision.

use super::plan::Plan;
use super::rollback::Rollback;
use super::sets::{REVISION, same_template, size};
use super::{DeploymentFacts, SetFacts, status};
use crate::pods::{adoption, release};
use crate::support::{WallClock, delete_by_name};
use api::apps::v1::{Deployment, ReplicaSet};
use client::controller::{Outcome, Writes};
use client::recorder::{EventType, reference};
use client::{Cached, Client, Informer, ObjectKey, PatchParams, Recorder, Result};

pub(super) struct Act {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub deployments: Informer<DeploymentFacts>,
    pub sets: Informer<SetFacts>,
    pub clock: WallClock,
}

impl Act {
    /// Makes a plan true.
    pub(super) async fn take(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        sets: &[ReplicaSet],
        plan: Plan,
    ) -> Result<Outcome> {
        if let Some(new) = &plan.create {
            self.create(key, deployment, new).await?;
        }
        for set in &plan.update {
            let before = sets.iter().find(|old| old.metadata.uid == set.metadata.uid);
            self.update(key, deployment, set, before.map_or(0, size)).await?;
        }
        for name in &plan.delete {
            match delete_by_name::<ReplicaSet>(&self.client, &key.namespace, name).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        if let Some(Rollback { deployment, tell: (normal, reason, text) }) = plan.rollback {
            let kind = if normal { EventType::Normal } else { EventType::Warning };
            let written = self.client.namespaced::<Deployment>(&key.namespace).update(&deployment).await?;
            self.writes.note(key, &self.deployments, &written.metadata.resource_version);
            self.recorder.event(&reference(&deployment), kind, reason, text);
            return Ok(Outcome::Done);
        }
        let mut changed = deployment.clone();
        changed.status = plan.status;
        if let Some(revision) = plan.revision {
            changed.metadata.annotations.insert(REVISION.into(), revision.to_string());
        }
        self.write(key, deployment, changed).await?;
        Ok(self.clock.outcome(plan.again))
    }

    /// Writes status and annotations if they say something new.
    async fn write(&self, key: &ObjectKey, old: &Deployment, new: Deployment) -> Result<()> {
        if new == *old {
            return Ok(());
        }
        match self.client.namespaced::<Deployment>(&key.namespace).update_status(&new).await {
            Ok(written) => {
                self.writes.note(key, &self.deployments, &written.metadata.resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, key: &ObjectKey, deployment: &Deployment, new: &ReplicaSet) -> Result<()> {
        let api = self.client.namespaced::<ReplicaSet>(&key.namespace);
        let name = &new.metadata.name;
        match api.create(new).await {
            Ok(made) => {
                self.writes.note(key, &self.sets, &made.metadata.resource_version);
                if size(new) > 0 {
                    let text = format!("Scaled up replica set {name} from 0 to {}", size(new));
                    self.recorder.normal(deployment, "ScalingReplicaSet", text);
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => {
                let there = api.get(name).await?;
                let uid = &deployment.metadata.uid;
                let ours = there
                    .metadata
                    .owner_references
                    .iter()
                    .any(|o| o.controller == Some(true) && o.uid == *uid);
                if ours && same_template(&there.spec.template, &deployment.spec.template) {
                    self.writes.note(key, &self.sets, &there.metadata.resource_version);
                    return Ok(());
                }
                // Another set has the name: the next try hashes with another number.
                let mut changed = deployment.clone();
                changed.status.collision_count = Some(changed.status.collision_count.unwrap_or(0) + 1);
                self.write(key, deployment, changed).await?;
                Err(error)
            }
            Err(error) if error.is_namespace_terminating() => Err(error),
            Err(error) => {
                let text = format!("Failed to create new replica set {name:?}: {error}");
                self.recorder.warning(deployment, "ReplicaSetCreateError", text.clone());
                if let Some(status) = status::creation_failed(deployment, text, self.clock.now()) {
                    let mut changed = deployment.clone();
                    changed.status = status;
                    self.write(key, deployment, changed).await?;
                }
                Err(error)
            }
        }
    }

    async fn update(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &ReplicaSet,
        before: i32,
    ) -> Result<()> {
        let written = self.client.namespaced::<ReplicaSet>(&key.namespace).update(set).await?;
        self.writes.note(key, &self.sets, &written.metadata.resource_version);
        let after = size(set);
        if after != before {
            let way = if after > before { "up" } else { "down" };
            let name = &set.metadata.name;
            let text = format!("Scaled {way} replica set {name} from {before} to {after}");
            self.recorder.normal(deployment, "ScalingReplicaSet", text);
        }
        Ok(())
    }

    pub(super) async fn adopt(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &Cached<SetFacts>,
    ) -> Result<Option<ReplicaSet>> {
        // An owner that is being deleted adopts nothing: ask the server, for the cache may not know yet.
        let fresh = self.client.namespaced::<Deployment>(&key.namespace).get(&key.name).await?;
        if fresh.metadata.uid != deployment.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let patch = adoption(deployment, &set.uid);
        self.patch(key, set, &patch).await
    }

    pub(super) async fn release(
        &self,
        key: &ObjectKey,
        deployment: &Deployment,
        set: &Cached<SetFacts>,
    ) -> Result<()> {
        self.patch(key, set, &release(deployment, &set.uid)).await.map(drop)
    }

    async fn patch(
        &self,
        key: &ObjectKey,
        set: &Cached<SetFacts>,
        patch: &client::Patch,
    ) -> Result<Option<ReplicaSet>> {
        let api = self.client.namespaced::<ReplicaSet>(&key.namespace);
        match api.patch(set.name(), patch, &PatchParams::default()).await {
            Ok(new) => {
                self.writes.note(key, &self.sets, &new.metadata.resource_version);
                Ok(Some(new))
            }
            Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells that a Deployment that selects everything does nothing.
    pub(super) async fn refuse_everything(&self, key: &ObjectKey, deployment: Deployment) -> Result<()> {
        let text = "This deployment is selecting all pods. A non-empty selector is required.";
        self.recorder.warning(&deployment, "SelectingAll", text);
        let mut changed = deployment.clone();
        changed.status.observed_generation = deployment.metadata.generation;
        self.write(key, &deployment, changed).await
    }
}
