//! What several plugins look up: objects of another kind, and whether a user may do a thing.

use crate::authz::{Attributes, Authorizer, Decision};
use crate::resources::Served;
use apimachinery::status::Status;
use serde_json::Value;
use std::sync::Arc;
use store::Store;

/// The objects of one kind.
pub(super) struct Objects {
    pub store: Arc<dyn Store>,
    pub resource: Arc<Served>,
}

impl Objects {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
        let entry = self.store.get(&self.resource.key(namespace, name));
        entry.map(|e| crate::registry::decode(&self.resource, &e).map(|s| s.value)).transpose()
    }

    /// All objects of a namespace, or of the cluster when it is empty.
    pub(super) fn list(&self, namespace: &str) -> Result<Vec<Value>, Status> {
        let scope = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let snapshot = self.store.snapshot(&self.resource.prefix);
        snapshot
            .range(&scope, "")
            .map(|entry| crate::registry::decode(&self.resource, entry).map(|s| s.value))
            .collect()
    }

    /// The newest object that an annotation marks as the default.
    pub(super) fn default(&self, annotations: &[&str]) -> Result<Option<Value>, Status> {
        let marked = |o: &Value| annotations.iter().any(|a| o["metadata"]["annotations"][*a] == "true");
        let mut all: Vec<Value> = self.list("")?.into_iter().filter(marked).collect();
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
    let mut reasons = Vec::new();
    for authorizer in authorizers {
        match authorizer.authorize(attributes).await {
            Decision::Allow { .. } => return Ok(()),
            Decision::Deny { reason } => return Err(reason),
            Decision::NoOpinion { reason } => reasons.push(reason),
        }
    }
    reasons.retain(|r| !r.is_empty());
    Err(reasons.join("\n"))
}
