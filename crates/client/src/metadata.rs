//! Objects of whatever kind, by their metadata alone (upstream's metadata client).

use crate::client::Dynamic;
use crate::error::{Error, Result};
use crate::params::ListParams;
use crate::source::Raw;
use apimachinery::meta::{ListMeta, ObjectMeta};
use serde::Deserialize;

/// What is read of an object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Partial {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

#[derive(Deserialize)]
struct PartialList {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Partial>>,
}

/// How many objects one answer carries.
const PAGE: u64 = 500;

/// The metadata of every object.
pub async fn list(objects: &Dynamic) -> Result<Vec<ObjectMeta>> {
    let objects = objects.clone().metadata();
    let mut params = ListParams { limit: Some(PAGE), ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page: PartialList = objects.list(&params).await?;
        all.extend(page.items.into_iter().flatten().map(|item| item.metadata));
        if page.metadata.continue_token.is_empty() {
            return Ok(all);
        }
        params.continue_ = page.metadata.continue_token;
    }
}

impl Raw {
    /// The metadata alone: nothing else is decoded.
    pub fn metadata(&self) -> Result<ObjectMeta> {
        let partial: Partial = serde_json::from_slice(&self.bytes)
            .map_err(|source| Error::Decode { what: format!("the metadata of {}", self.key), source })?;
        Ok(partial.metadata)
    }
}
