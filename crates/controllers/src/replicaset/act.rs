//! The writes: adopt, release, create, delete, tell.

use super::Facts;
use super::owner::Owner;
use super::plan::Step;
use crate::pod_control::{PodControl, Result};
use crate::pods::{PodFacts, from_template, slow_start};
use api::apps::v1::ReplicaSetStatus;
use client::recorder::reference;
use client::{Informer, ObjectKey};

pub(super) struct Act<K: Owner> {
    pub control: PodControl<PodFacts>,
    pub owners: Informer<Facts<K>>,
}

impl<K: Owner> Act<K> {
    /// Creates or deletes.
    pub(super) async fn take(&self, key: &ObjectKey, owner: &K, step: Step) -> Result<()> {
        let about = reference(owner);
        if step.create > 0 {
            let pod = from_template(owner, &owner.template());
            slow_start(step.create, || self.control.create(key, &about, &pod)).await.1?;
        }
        let deletions = step.delete.iter().map(|name| self.control.delete(key, &about, name));
        futures::future::join_all(deletions).await.into_iter().collect()
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
        match self.control.client.namespaced::<K>(&key.namespace).update_status(&changed).await {
            Ok(written) => {
                self.control.writes.note(key, &self.owners, &written.metadata().resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
