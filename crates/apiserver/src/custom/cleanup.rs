//! A definition that goes takes its instances with it: they are deleted first, then the finalizer that held it.

use super::controller::Definitions;
use crate::registry::{Change, UpdateOptions, WriteContext};
use crate::resources::Served;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use hooks::apiextensions::{CLEANUP_FINALIZER, set_condition};
use std::sync::Arc;
use std::time::Duration;

const TERMINATING: &str = "Terminating";
/// How long after a failed attempt the next one comes, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Definitions {
    /// Deletes the instances of `served` (none if the definition was never established), then lets the definition go.
    pub(super) async fn clean(self: Arc<Self>, name: String, served: Option<Arc<Served>>) {
        let mut wait = PATIENCE.0;
        loop {
            match self.attempt(&name, served.as_ref()).await {
                Ok(()) => return,
                Err(status) if status.is_not_found() => return,
                Err(status) => {
                    tracing::warn!(definition = name, %status, "deleting the instances of a definition");
                    let message = format!("could not issue all deletes: {}", status.message);
                    let why = ("True", "InstanceDeletionFailed", message.as_str());
                    if self.note(&name, why).await.is_err_and(|s| s.is_not_found()) {
                        return;
                    }
                }
            }
            tokio::select! {
                () = self.server.shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(PATIENCE.1),
            }
        }
    }

    async fn attempt(&self, name: &str, served: Option<&Arc<Served>>) -> Result<(), Status> {
        match served {
            Some(served) => {
                let message = "CustomResource deletion is in progress";
                self.note(name, ("True", "InstanceDeletionInProgress", message)).await?;
                self.delete_instances(served).await?;
                self.note(name, ("False", "InstanceDeletionCompleted", "removed all instances")).await?;
            }
            None => {
                let message = "resource was never established";
                self.note(name, ("False", "NeverEstablished", message)).await?;
            }
        }
        let registry = &self.server.registry;
        let change = |current: Option<&Value>| {
            let mut value = current.cloned().unwrap_or_default();
            if let Some(list) = value.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
                list.retain(|f| f != CLEANUP_FINALIZER);
            }
            crate::object::remove_meta(&mut value, "resourceVersion");
            Box::pin(std::future::ready(Ok(value))) as BoxFuture<'_, _>
        };
        let change: &Change<'_> = &change;
        registry.update(&self.context("status"), name, UpdateOptions::default(), change).await.map(|_| ())
    }

    /// Deletes every instance and waits until the last is gone: finalizers may hold some.
    async fn delete_instances(&self, served: &Arc<Served>) -> Result<(), Status> {
        let registry = &self.server.registry;
        let snapshot = registry.store.snapshot(&served.prefix);
        let watch = registry.store.watch(&served.prefix, snapshot.revision);
        let mut watch = watch.map_err(crate::registry::store_error)?;
        for entry in snapshot.entries.values() {
            let (namespace, name) = entry.name.split_once('/').unwrap_or(("", &entry.name));
            let context = WriteContext { resource: served, namespace, ..self.context("") };
            match registry.delete(&context, name, &DeleteOptions::default()).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        while !registry.store.snapshot(&served.prefix).is_empty() {
            match watch.next_batch().await {
                Ok(_) => {}
                Err(error) => return Err(crate::registry::store_error(error)),
            }
        }
        Ok(())
    }

    /// Writes the condition that says how far the deletion is.
    async fn note(&self, name: &str, (status, reason, message): (&str, &str, &str)) -> Result<(), Status> {
        let registry = &self.server.registry;
        let now = registry.now().to_string();
        let edit = |definition: &mut Value| {
            set_condition(definition, &now, TERMINATING, status, reason, message);
            Ok(())
        };
        registry.edit(&self.context("status"), name, &edit).await.map(|_| ())
    }
}
