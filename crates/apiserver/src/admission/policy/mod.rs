//! Admission by policies in CEL: ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! Policies are compiled when a request first meets a new version of them. They are read from the store's own view, so
//! that a policy holds from the moment it is committed.

mod access;
mod authorizer;
mod evaluate;
mod measures;
mod mutating;
mod params;
mod patch;
mod validating;

pub(super) use access::ParamAccess;
pub(super) use authorizer::Asked;
pub(super) use evaluate::{Bindings, Request, conditions_hold};
pub(super) use hooks::expressions::{Expression, Variables};
pub(super) use mutating::MutatingAdmissionPolicy;
pub(super) use validating::ValidatingAdmissionPolicy;

use crate::resources::Served;
use apimachinery::decode::Decode;
use apimachinery::status::Status;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use store::Store;

/// The objects of one resource, each read and prepared once per version.
struct Prepared<T> {
    store: Arc<dyn Store>,
    served: Arc<Served>,
    prepared: RwLock<HashMap<Arc<str>, (u64, Arc<T>)>>,
}

impl<T> Prepared<T> {
    fn new(store: Arc<dyn Store>, served: Arc<Served>) -> Self {
        Prepared { store, served, prepared: RwLock::default() }
    }

    /// All of them, by name.
    fn all<O: Decode>(&self, prepare: impl Fn(O) -> T) -> Result<Vec<Arc<T>>, Status> {
        let entries = self.store.snapshot(&self.served.prefix).entries;
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries.values() {
            let known = self.prepared.read().get(&entry.name).cloned();
            if let Some((_, known)) = known.filter(|(revision, _)| *revision == entry.mod_revision.0) {
                all.push(known);
                continue;
            }
            let value = crate::registry::decode(&self.served, entry)?.value;
            let object = O::from_value(&value).map_err(|error| {
                Status::internal_error(format!("the stored object {} is damaged: {error}", entry.name))
            })?;
            let made = Arc::new(prepare(object));
            self.prepared.write().insert(entry.name.clone(), (entry.mod_revision.0, made.clone()));
            all.push(made);
        }
        let mut prepared = self.prepared.write();
        if prepared.len() > entries.len() {
            prepared.retain(|name, _| entries.contains_key(name));
        }
        Ok(all)
    }
}

/// What becomes of a request when a policy cannot be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailurePolicy {
    Fail,
    Ignore,
}

impl FailurePolicy {
    fn of(text: Option<&str>) -> Self {
        if text == Some("Ignore") { FailurePolicy::Ignore } else { FailurePolicy::Fail }
    }
}
