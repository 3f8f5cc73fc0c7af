//! Follows the definitions in the order in which they were written. What a definition brings is served before the write
//! that says so, so that nobody who sees it established finds it missing.

use super::conversion::{Means, Measures};
use super::definition::{served, stored as stored_version};
use super::status::{self, Taken};
use crate::outbound::Outbound;
use crate::registry::{WriteContext, store_error};
use crate::resources::Served;
use crate::server::Server;
use crate::user::{MASTERS, User};
use apimachinery::status::Status;
use apimachinery::value::Value;
use hooks::apiextensions::{CLEANUP_FINALIZER, condition};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Entry, EventKind, Watch};

/// What is remembered of a definition.
#[derive(Debug, Clone)]
struct Known {
    group: String,
    accepted: Value,
    fingerprint: Value,
    /// Whether it could not get all its names.
    waits: bool,
    /// The definition whose instances are being deleted.
    cleaning: Option<String>,
}

/// The definitions of the cluster.
pub struct Definitions {
    pub(super) server: Arc<Server>,
    resource: Arc<Served>,
    user: User,
    /// How webhooks that convert are reached.
    means: Means,
    known: Mutex<BTreeMap<String, Known>>,
}

impl Definitions {
    /// Serves what the stored definitions bring, then follows them until the server's shutdown.
    pub async fn start(server: Arc<Server>, outbound: Arc<Outbound>) -> Result<(), Status> {
        let resources = &server.registry.resources;
        let found = resources.get("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        let Some(resource) = found else { return Ok(()) };
        let user = User::new("system:apiserver", &[MASTERS]);
        let measures = Arc::new(Measures::new(&server.metrics));
        let means = Means { outbound, measures };
        let definitions =
            Arc::new(Definitions { server, resource, user, means, known: Mutex::new(BTreeMap::new()) });
        let watch = definitions.clone().resync().await?;
        tokio::spawn(async move {
            let shutdown = definitions.server.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = definitions.follow(watch) => {}
            }
        });
        Ok(())
    }

    pub(super) fn context<'a>(&'a self, subresource: &'a str) -> WriteContext<'a> {
        WriteContext::own(&self.user, &self.resource, "", subresource)
    }

    /// Takes the definitions as they are, and a watch of what comes next.
    async fn resync(self: Arc<Self>) -> Result<Watch, Status> {
        let store = &self.server.registry.store;
        let snapshot = store.consistent_snapshot(&self.resource.prefix).await.map_err(store_error)?;
        let watch = store.watch(&self.resource.prefix, snapshot.revision).map_err(store_error)?;
        let gone: Vec<String> =
            self.known.lock().keys().filter(|name| snapshot.get(name).is_none()).cloned().collect();
        for name in gone {
            self.forget(&name);
        }
        let entries: Vec<Arc<Entry>> = snapshot.entries.values().cloned().collect();
        // All names first: who holds a name keeps it.
        for entry in &entries {
            if let Ok(stored) = crate::registry::decode(&self.resource, entry) {
                self.remember(&entry.name, &stored.value);
            }
        }
        for entry in &entries {
            self.clone().reconcile(entry).await;
        }
        Ok(watch)
    }

    async fn follow(self: Arc<Self>, mut watch: Watch) {
        loop {
            match watch.next_batch().await {
                Ok(events) => {
                    for event in events {
                        if event.kind == EventKind::Put {
                            self.clone().reconcile(&event.entry).await;
                        } else {
                            self.forget(&event.entry.name);
                            self.clone().retry(&event.entry.name).await;
                        }
                    }
                }
                Err(store::Error::Compacted { .. }) => match self.clone().resync().await {
                    Ok(fresh) => watch = fresh,
                    Err(status) => {
                        tracing::error!(%status, "the custom resource definitions cannot be read");
                        return;
                    }
                },
                Err(_) => return,
            }
        }
    }

    fn remember(&self, name: &str, definition: &Value) {
        let mut known = self.known.lock();
        let before = known.remove(name);
        let fresh = Known {
            group: definition["spec"]["group"].as_str().unwrap_or_default().to_owned(),
            accepted: definition["status"]["acceptedNames"].clone(),
            fingerprint: before.as_ref().map_or(Value::Null, |k| k.fingerprint.clone()),
            waits: condition(definition, "NamesAccepted") == "False",
            cleaning: before.and_then(|k| k.cleaning),
        };
        known.insert(name.to_owned(), fresh);
    }

    fn forget(&self, name: &str) {
        self.known.lock().remove(name);
        self.server.registry.resources.install(name, Vec::new());
        self.publish();
    }

    fn publish(&self) {
        self.server.documents.publish(self.server.registry.resources.installed());
    }

    fn taken(&self, name: &str, group: &str) -> Taken {
        let mut taken = Taken::default();
        let known = self.known.lock();
        let others = known.iter().filter(|(other, k)| *other != name && k.group == group);
        others.for_each(|(_, k)| taken.add(&k.accepted));
        taken
    }

    /// Looks again at the definitions that wait for a name, now that another one of their group may have let go of it.
    async fn retry(self: Arc<Self>, name: &str) {
        let group = name.split_once('.').map_or("", |(_, group)| group);
        let waiting: Vec<String> = {
            let known = self.known.lock();
            known.iter().filter(|(_, k)| k.waits && k.group == group).map(|(name, _)| name.clone()).collect()
        };
        for name in waiting {
            if let Some(entry) = self.server.registry.store.get(&self.resource.key("", &name)) {
                Box::pin(self.clone().reconcile(&entry)).await;
            }
        }
    }

    /// Brings one definition's status and what is served into line.
    async fn reconcile(self: Arc<Self>, entry: &Entry) {
        let stored = match crate::registry::decode(&self.resource, entry) {
            Ok(stored) => stored,
            Err(status) => {
                tracing::error!(definition = %entry.name, %status, "a definition cannot be read");
                return;
            }
        };
        let name: &str = &entry.name;
        let group = stored.value["spec"]["group"].as_str().unwrap_or_default().to_owned();
        let before = self.known.lock().get(name).map(|k| k.accepted.clone());
        self.remember(name, &stored.value);
        let registry = &self.server.registry;
        let now = registry.now().to_string();
        let taken = self.taken(name, &group);
        let planned = status::plan(&stored.value, &taken, &now);
        let definition = planned.as_ref().unwrap_or(&stored.value);
        self.install(name, definition, stored.body.json_bytes());
        if planned.is_some() {
            let edit = |current: &mut Value| {
                if let Some(planned) = status::plan(current, &taken, &now) {
                    *current = planned;
                }
                Ok(())
            };
            match registry.edit(&self.context("status"), name, &edit).await {
                Ok(stored) => self.remember(name, &stored.value),
                Err(status) if status.is_not_found() => return,
                Err(status) => tracing::warn!(definition = name, %status, "writing a definition's status"),
            }
        }
        self.clone().begin_cleanup(name, &stored.value, &stored.body.json_bytes());
        let after = self.known.lock().get(name).map(|k| k.accepted.clone());
        if before.is_some() && before != after {
            self.retry(name).await;
        }
    }

    /// Serves what the definition brings, if that is not what is served already.
    fn install(&self, name: &str, definition: &Value, bytes: bytes::Bytes) {
        let fingerprint = status::fingerprint(definition);
        {
            let mut known = self.known.lock();
            let Some(known) = known.get_mut(name) else { return };
            if known.fingerprint == fingerprint {
                if let Some(conversion) = self.server.registry.resources.conversion(name) {
                    conversion.renew(&bytes);
                }
                return;
            }
            known.fingerprint = fingerprint;
        }
        self.server.registry.resources.install(name, served(definition, &bytes, &self.means));
        self.publish();
    }

    fn begin_cleanup(self: Arc<Self>, name: &str, definition: &Value, bytes: &bytes::Bytes) {
        let finalizers = crate::object::finalizers(definition);
        if !crate::object::is_being_deleted(definition) || !finalizers.contains(&CLEANUP_FINALIZER) {
            return;
        }
        let uid = crate::object::uid(definition).to_owned();
        {
            let mut known = self.known.lock();
            let Some(known) = known.get_mut(name) else { return };
            if known.cleaning.as_ref() == Some(&uid) {
                return;
            }
            known.cleaning = Some(uid);
        }
        let established = condition(definition, "Established") == "True";
        // In the version in which they are stored: nobody need be asked to convert them.
        let served = established.then(|| stored_version(definition, bytes, &self.means)).flatten();
        tokio::spawn(self.clean(name.to_owned(), served));
    }
}
