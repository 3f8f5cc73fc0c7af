//! The writes: slices made, changed and removed.

use super::SliceFacts;
use super::metrics::Metrics;
use super::plan::Plan;
use crate::support::delete_by_name;
use api::discovery::v1::EndpointSlice;
use client::controller::Writes;
use client::{Client, Informer, ObjectKey, Result};

pub(super) struct Act {
    pub client: Client,
    pub writes: Writes<ObjectKey>,
    pub slices: Informer<SliceFacts>,
    pub metrics: Metrics,
}

impl Act {
    pub(super) async fn take(&self, key: &ObjectKey, plan: Plan) -> Result<()> {
        let api = self.client.namespaced::<EndpointSlice>(&key.namespace);
        for slice in &plan.create {
            match api.create(slice).await {
                Ok(made) => self.writes.note(key, &self.slices, &made.metadata.resource_version),
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => return Err(error),
            }
            self.metrics.change("create");
        }
        for slice in &plan.update {
            let written = api.update(slice).await?;
            self.writes.note(key, &self.slices, &written.metadata.resource_version);
            self.metrics.change("update");
        }
        for name in &plan.delete {
            match delete_by_name::<EndpointSlice>(&self.client, &key.namespace, name).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => self.metrics.change("delete"),
            }
        }
        Ok(())
    }
}
