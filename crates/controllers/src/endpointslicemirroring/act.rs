//! The writes: slices made, changed and removed, and what could not be mirrored told.

use super::SliceFacts;
use super::plan::{MOST, Plan};
use crate::support::delete_by_name;
use api::core::v1::Endpoints;
use api::discovery::v1::EndpointSlice;
use client::controller::Writes;
use client::{Client, Informer, ObjectKey, Recorder, Result};
use component::metrics::CounterVec;

pub(super) struct Act {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub slices: Informer<SliceFacts>,
    pub changes: CounterVec,
}

impl Act {
    pub(super) async fn take(&self, key: &ObjectKey, endpoints: &Endpoints, plan: Plan) -> Result<()> {
        let Plan { create, update, delete, invalid, skipped } = plan;
        if invalid > 0 {
            let text = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            self.recorder.warning(endpoints, "InvalidIPAddress", text);
        }
        if skipped > invalid {
            let text = format!(
                "A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            );
            self.recorder.warning(endpoints, "TooManyAddressesToMirror", text);
        }
        let api = self.client.namespaced::<EndpointSlice>(&key.namespace);
        for slice in &create {
            match api.create(slice).await {
                Ok(made) => self.writes.note(key, &self.slices, &made.metadata.resource_version),
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => return Err(error),
            }
            self.changes.with(&["create"]).inc();
        }
        for slice in &update {
            let written = api.update(slice).await?;
            self.writes.note(key, &self.slices, &written.metadata.resource_version);
            self.changes.with(&["update"]).inc();
        }
        self.delete(key, delete.iter().map(String::as_str)).await
    }

    pub(super) async fn delete(&self, key: &ObjectKey, names: impl Iterator<Item = &str>) -> Result<()> {
        for name in names {
            match delete_by_name::<EndpointSlice>(&self.client, &key.namespace, name).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => self.changes.with(&["delete"]).inc(),
            }
        }
        Ok(())
    }
}
