//! A feed of one resource's objects, whatever carries it: the server's own commit path in one process, or a list and a
//! watch over the network ([`crate::watch`]).

use crate::client::Client;
use crate::error::{Error, Result};
use crate::key::{ObjectKey, Resource};
use crate::recent::Recent;
use crate::watch::ListWatch;
use api::Kind;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;

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
        let mut object = K::from_json(&self.bytes)
            .map_err(|source| Error::Decode { what: format!("{} {}", K::KIND, self.key), source })?;
        object.metadata_mut().resource_version = self.revision.to_string();
        Ok(object)
    }

    /// The same, shared with whoever else looks at this version.
    pub fn shared<K: Kind>(&self, recent: Option<&Recent>) -> Result<Arc<K>> {
        match recent {
            Some(recent) => recent.decode(self),
            None => self.decode().map(Arc::new),
        }
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

    /// Where all feeds of this process share what they decode, if they bring the same bytes.
    fn recent(&self) -> Option<Arc<Recent>> {
        None
    }
}

/// The feeds that a client can open: those of its own process where there are any, over the network what these do not
/// carry (a resource that another server answers for) and everything else.
pub fn of(client: &Client) -> Arc<dyn Source> {
    let network = ListWatch(client.clone());
    match client.transport().source() {
        Some(near) => Arc::new(Nearest { near, network: Arc::new(network) }),
        None => Arc::new(network),
    }
}

/// What happens to objects after a revision, for those who may watch but not list: what is there already is not told of.
pub fn after(client: &Client, query: Query, revision: u64) -> BoxStream<'static, Result<Vec<Feed>>> {
    ListWatch(client.clone()).open_at(query, Some(revision))
}

struct Nearest {
    near: Arc<dyn Source>,
    network: Arc<ListWatch>,
}

impl Source for Nearest {
    fn open(&self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>> {
        let network = self.network.clone();
        let mut near = self.near.open(query.clone());
        let first = async move {
            match near.next().await {
                Some(Err(Error::Request(_))) | None => network.open(query),
                Some(item) => stream::once(std::future::ready(item)).chain(near).boxed(),
            }
        };
        stream::once(first).flatten().boxed()
    }

    fn recent(&self) -> Option<Arc<Recent>> {
        self.near.recent()
    }
}
