//! Objects of custom kinds from version to version.
//!
//! The hub of a custom kind is the version of the request: what is stored in another one is converted when it is read
//! ([`Conversion::present`]) and before it is written ([`Conversion::to_rest`]); everything in between sees one version.
//! With the strategy `None` versions differ by their name and by what their schemas know; with `Webhook` somebody is
//! asked ([`webhook`]), once for each version of an object as long as the answer is remembered.

mod known;
mod measures;
mod review;
mod webhook;

pub use measures::Measures;
pub use webhook::{Means, Webhook};

use super::Source;
use crate::resources::Served;
use apimachinery::status::{Status, StatusReason};
use apimachinery::value::Value;
use bytes::Bytes;
use known::Known;
use schema::TypeId;
use schema::decode::FieldValidation;
use schema::encode::Body;
use std::sync::{Arc, OnceLock};
use store::{Entry, Event};

/// The versions of one definition.
#[derive(Debug)]
pub struct Conversion {
    /// The version in which objects are stored, with its group.
    storage: String,
    /// Every version, whether it is served or not.
    versions: Vec<Arc<Source>>,
    webhook: Option<Webhook>,
    known: Known,
}

/// A conversion that cannot be done. Upstream answers such errors without a reason.
fn failed(message: impl Into<String>) -> Status {
    let mut status = Status::internal_error("");
    status.reason = StatusReason::Unknown;
    status.details = None;
    status.message = message.into();
    status
}

/// A tree as a schema has it: without what it does not know.
fn prune(source: &Source, value: Value) -> Result<Value, Status> {
    let pruned = schema::decode::normalise(source, TypeId(0), value, FieldValidation::Ignore);
    pruned.map(|decoded| decoded.value).map_err(|e| failed(e.to_string()))
}

fn api_version(value: &Value) -> &str {
    value["apiVersion"].as_str().unwrap_or_default()
}

impl Conversion {
    pub fn new(storage: String, versions: Vec<Arc<Source>>, webhook: Option<Webhook>) -> Self {
        Conversion { storage, versions, webhook, known: Known::default() }
    }

    /// A version by its group and name.
    pub fn version(&self, api_version: &str) -> Option<&Arc<Source>> {
        self.versions.iter().find(|source| source.api_version == api_version)
    }

    /// The definition was written anew, its schemas being the same.
    pub(super) fn renew(&self, definition: &Bytes) {
        self.versions.iter().for_each(|source| source.renew(definition));
    }

    /// The name of the version in which objects are stored.
    pub fn storage_version(&self) -> &str {
        self.storage.split_once('/').map_or("", |(_, version)| version)
    }

    /// Whether somebody has to be asked for an answer.
    pub fn asks(&self) -> bool {
        self.webhook.is_some()
    }

    /// Objects of any of the versions in the version `to`.
    pub async fn convert(&self, mut objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
        let invalid = |way: &str, version: &str| {
            failed(format!("request to convert CR {way} an invalid group/version: {version}"))
        };
        let target = self.version(to).ok_or_else(|| invalid("to", to))?;
        let others: Vec<usize> = (0..objects.len()).filter(|i| api_version(&objects[*i]) != to).collect();
        for i in &others {
            let from = api_version(&objects[*i]);
            self.version(from).ok_or_else(|| invalid("from", from))?;
        }
        if others.is_empty() {
            return Ok(objects);
        }
        let originals: Vec<Value> = others.iter().map(|i| objects[*i].take()).collect();
        let converted = match &self.webhook {
            Some(webhook) => webhook.convert(originals, to).await.map_err(failed)?,
            None => originals
                .into_iter()
                .map(|mut object| {
                    object["apiVersion"] = to.into();
                    object
                })
                .collect(),
        };
        for (i, object) in others.into_iter().zip(converted) {
            objects[i] = prune(target, object)?;
        }
        Ok(objects)
    }

    /// One object in the version `to`.
    pub(crate) async fn convert_one(&self, object: Value, to: &str) -> Result<Value, Status> {
        Ok(self.convert(vec![object], to).await?.pop().unwrap_or_default())
    }

    /// What is stored of an object, in the version it is stored in, as its schema has it now: what was written under
    /// another schema is pruned and defaulted.
    fn stored(&self, entry: &Entry) -> Result<Value, Status> {
        let body = crate::registry::body(entry)?;
        let value = body.value(None, 0).map_err(|e| failed(e.to_string()))?;
        // A version that is no more is told of by the conversion.
        let Some(source) = self.version(api_version(&value)) else { return Ok(value) };
        let mut value = prune(source, value)?;
        schema::defaults::apply(source, TypeId(0), &mut value);
        Ok(value)
    }

    /// Entries with their objects in the version of the resource, in the order in which they came.
    pub(crate) async fn present_all(
        &self,
        resource: &Served,
        mut entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, Status> {
        let to = &resource.api_version;
        let (mut open, mut objects) = (Vec::new(), Vec::new());
        for (i, entry) in entries.iter_mut().enumerate() {
            if resource.is_presented(entry) {
                continue;
            }
            if let Some(known) = self.asks().then(|| self.known.get(entry, to)).flatten() {
                *entry = known;
                continue;
            }
            objects.push(self.stored(entry)?);
            open.push(i);
        }
        if open.is_empty() {
            return Ok(entries);
        }
        for (i, object) in open.into_iter().zip(self.convert(objects, to).await?) {
            let made = with_object(&entries[i], &object);
            if self.asks() {
                self.known.put(&entries[i], to, &made);
            }
            entries[i] = made;
        }
        Ok(entries)
    }

    /// An entry with its object in the version of the resource. Who wants the same at the same time waits for one answer.
    pub(crate) async fn present(&self, resource: &Served, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        if resource.is_presented(entry) {
            return Ok(entry.clone());
        }
        let to = &resource.api_version;
        let make = async || {
            let mut converted = self.convert(vec![self.stored(entry)?], to).await?;
            Ok(with_object(entry, &converted.pop().unwrap_or_default()))
        };
        if !self.asks() {
            return make().await;
        }
        self.known.cell(entry, to).get_or_try_init(make).await.cloned()
    }

    /// A change with its objects in the version of the resource.
    pub(crate) async fn present_event(
        &self,
        resource: &Served,
        event: &Arc<Event>,
    ) -> Result<Arc<Event>, Status> {
        let previous = match &event.previous {
            Some(previous) => Some(self.present(resource, previous).await?),
            None => None,
        };
        let entry = match &event.previous {
            // A deletion brings the last version twice.
            Some(before) if Arc::ptr_eq(before, &event.entry) => previous.clone(),
            _ => None,
        };
        let entry = match entry {
            Some(entry) => entry,
            None => self.present(resource, &event.entry).await?,
        };
        let is_same = Arc::ptr_eq(&entry, &event.entry)
            && previous.as_ref().map(Arc::as_ptr) == event.previous.as_ref().map(Arc::as_ptr);
        if is_same {
            return Ok(event.clone());
        }
        Ok(Arc::new(Event {
            revision: event.revision,
            kind: event.kind,
            prefix: event.prefix.clone(),
            entry,
            previous,
        }))
    }

    /// The form at rest of an object in the version of the resource.
    pub(crate) async fn to_rest(&self, value: &Value) -> Result<Body, Status> {
        if api_version(value) == self.storage {
            return Ok(Body::encode_free(value));
        }
        let mut object = value.clone();
        // The revision is known at commit only, and nobody's business before.
        crate::object::remove_meta(&mut object, "resourceVersion");
        let mut converted = self.convert(vec![object], &self.storage).await?.pop().unwrap_or_default();
        // Whoever reads it is to find it as its version has it.
        if let Some(source) = self.version(&self.storage) {
            schema::defaults::apply(source, TypeId(0), &mut converted);
        }
        Ok(Body::encode_free(&converted))
    }
}

fn with_object(entry: &Entry, object: &Value) -> Arc<Entry> {
    Arc::new(Entry {
        name: entry.name.clone(),
        value: Body::encode_free(object).stored().clone(),
        create_revision: entry.create_revision,
        mod_revision: entry.mod_revision,
        version: entry.version,
        lease: entry.lease,
        expires_ms: entry.expires_ms,
        stale: entry.stale,
        projection: OnceLock::new(),
    })
}
