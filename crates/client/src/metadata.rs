//! Objects of whatever kind, by their metadata alone (upstream's metadata client).

use crate::client::Dynamic;
use crate::error::{Error, Result};
use crate::params::{ListParams, ListResult};
use crate::source::Raw;
use apimachinery::decode::Decode as _;
use apimachinery::meta::ObjectMeta;
use serde::Deserialize;

/// What is read of an object.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Partial {
    #[serde(default)]
    pub metadata: ObjectMeta,
}

apimachinery::decode!(Partial);

/// How many objects one answer carries.
const PAGE: u64 = 500;

/// The metadata of every object.
pub async fn list(objects: &Dynamic) -> Result<Vec<ObjectMeta>> {
    let objects = objects.clone().metadata();
    let mut params = ListParams { limit: Some(PAGE), ..Default::default() };
    let mut all = Vec::new();
    loop {
        let page: ListResult<Partial> = objects.list(&params).await?;
        all.extend(page.items.into_iter().map(|item| item.metadata));
        if page.metadata.continue_token.is_empty() {
            return Ok(all);
        }
        params.continue_ = page.metadata.continue_token;
    }
}

impl Raw {
    /// The metadata alone: nothing else is decoded.
    pub fn metadata(&self) -> Result<ObjectMeta> {
        let partial = Partial::from_json(&self.bytes)
            .map_err(|source| Error::Decode { what: format!("the metadata of {}", self.key), source })?;
        Ok(partial.metadata)
    }
}
