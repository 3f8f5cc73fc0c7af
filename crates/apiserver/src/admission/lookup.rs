//! What several plugins look up: objects of another kind, and whether a user may do a thing.

use crate::authz::{Attributes, Authorizer, Decision};
use crate::resources::Served;
use apimachinery::status::Status;
use apimachinery::value::Value;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Entry, Revision, Store};

/// How many objects of a kind are kept as they were read.
const KEPT: usize = 256;

/// The objects of one kind. Requests of one kind look up the same few objects over and over: what was read of a version
/// is kept beside its revision.
pub(super) struct Objects {
    pub store: Arc<dyn Store>,
    pub resource: Arc<Served>,
    read: Mutex<HashMap<Arc<str>, (Revision, Arc<Value>)>>,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn Store>, resource: Arc<Served>) -> Self {
        Objects { store, resource, read: Mutex::default() }
    }

    /// The object as everybody sees it.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Result<Option<Arc<Value>>, Status> {
        let entry = self.store.get(&self.resource.key(namespace, name));
        entry.map(|entry| self.read(&entry)).transpose()
    }

    /// The object as it will be when all is written that is under way.
    pub(super) fn pending(&self, namespace: &str, name: &str) -> Result<Option<Arc<Value>>, Status> {
        let entry = self.store.pending(&self.resource.key(namespace, name));
        entry.map(|entry| self.read(&entry)).transpose()
    }

    /// An object without its managed fields: half of many an object, and no plugin asks who owns what.
    fn decode(&self, entry: &Entry) -> Result<Arc<Value>, Status> {
        let mut value = crate::registry::decode(&self.resource, entry)?.value;
        crate::object::remove_meta(&mut value, "managedFields");
        Ok(Arc::new(value))
    }

    fn read(&self, entry: &Entry) -> Result<Arc<Value>, Status> {
        if let Some((revision, value)) = self.read.lock().get(&entry.name)
            && *revision == entry.mod_revision
        {
            return Ok(value.clone());
        }
        let value = self.decode(entry)?;
        let mut read = self.read.lock();
        if read.len() >= KEPT {
            read.clear();
        }
        read.insert(entry.name.clone(), (entry.mod_revision, value.clone()));
        Ok(value)
    }

    /// All objects of a namespace, or of the cluster when it is empty.
    pub(super) fn list(&self, namespace: &str) -> Result<Vec<Arc<Value>>, Status> {
        let scope = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let snapshot = self.store.snapshot(&self.resource.prefix);
        let entries: Vec<_> = snapshot.range(&scope, "").collect();
        // Of many (the pods of a namespace) few are asked for again: they are not kept.
        let few = entries.len() <= KEPT / 8;
        entries.into_iter().map(|entry| if few { self.read(entry) } else { self.decode(entry) }).collect()
    }

    /// The newest object that an annotation marks as the default.
    pub(super) fn default(&self, annotations: &[&str]) -> Result<Option<Arc<Value>>, Status> {
        let marked = |o: &Arc<Value>| annotations.iter().any(|a| o["metadata"]["annotations"][*a] == "true");
        let mut all: Vec<Arc<Value>> = self.list("")?.into_iter().filter(marked).collect();
        let created = |o: &Value| o["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        all.sort_by(|a, b| {
            let names = || crate::object::name(a).cmp(crate::object::name(b));
            created(b).cmp(&created(a)).then_with(names)
        });
        Ok(all.into_iter().next())
    }
}

/// Asks the authorizers in order. The reasons of those without an opinion come with the refusal.
pub(super) async fn authorize(
    authorizers: &[Arc<dyn Authorizer>],
    attributes: &Attributes<'_>,
) -> Result<(), String> {
    match crate::authz::decide(authorizers, attributes).await {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } | Decision::Error { reason, .. } => {
            Err(reason)
        }
    }
}
