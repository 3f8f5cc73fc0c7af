//! What selectors need of an object: labels and selectable fields, extracted once per version.

use crate::resources::Served;
use schema::encode::Body;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Entry;

/// The part of an object that selectors look at.
#[derive(Debug, Default)]
pub struct Projected {
    pub labels: BTreeMap<String, String>,
    /// In the order of the kind's selectable fields.
    pub fields: Vec<(Cow<'static, str>, String)>,
}

/// The projection of an entry, made on first use and kept beside it.
pub fn projected(resource: &Served, entry: &Entry) -> Arc<Projected> {
    entry.project(|entry| {
        let body = Body::from_stored(entry.value.clone());
        let value: Value = body.ok().and_then(|b| serde_json::from_slice(b.json()).ok()).unwrap_or_default();
        let labels = value["metadata"]["labels"].as_object();
        Projected {
            labels: labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            fields: resource.strategy.selected(&value),
        }
    })
}
