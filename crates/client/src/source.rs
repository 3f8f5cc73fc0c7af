//! A feed of one resource's objects, whatever carries it: the server's own commit path in one process, or a list and a
//! watch over the network ([`crate::watch`]).

use crate::error::{Error, Result};
use crate::key::{ObjectKey, Resource};
use api::Kind;
use bytes::Bytes;
use futures::stream::BoxStream;

/// Which objects a feed brings.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    pub resource: Resource,
    pub namespace: Option<String>,
    pub label_selector: String,
    pub field_selector: String,
}

impl Query {
    /// All objects of a resource.
    pub fn all(resource: Resource) -> Self {
        Query { resource, namespace: None, label_selector: String::new(), field_selector: String::new() }
    }

    /// All objects of kind `K`.
    pub fn of<K: Kind>() -> Self {
        Query::all(Resource::of::<K>())
    }

    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.field_selector = selector.into();
        self
    }

    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.label_selector = selector.into();
        self
    }

    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

/// One version of an object, as JSON that may lack `kind`, `apiVersion` and `metadata.resourceVersion`.
#[derive(Debug, Clone)]
pub struct Raw {
    pub key: ObjectKey,
    pub revision: u64,
    pub bytes: Bytes,
}

impl Raw {
    /// The typed object, its resourceVersion set.
    pub fn decode<K: Kind>(&self) -> Result<K> {
        let mut object: K = serde_json::from_slice(&self.bytes)
            .map_err(|source| Error::Decode { what: format!("{} {}", K::KIND, self.key), source })?;
        object.metadata_mut().resource_version = self.revision.to_string();
        Ok(object)
    }
}

/// What a feed brings, in order.
#[derive(Debug, Clone)]
pub enum Feed {
    /// The complete state: the first item, and again whenever the feed had to start over.
    Snapshot {
        objects: Vec<Raw>,
        revision: u64,
    },
    Put(Raw),
    /// The last state of a deleted object (or of one that left the selector), with the revision of that change.
    Delete(Raw),
    /// Nothing up to this revision is outstanding.
    Progress(u64),
}

/// Opens feeds. A feed ends with an error only when its caller must not retry (no permission to list).
pub trait Source: Send + Sync {
    fn open(&self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>>;
}
