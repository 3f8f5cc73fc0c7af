//! Where objects are read and written: one path for every kind.
//!
//! A write is a loop: what the client asks for is a closure over the current object, run again on the fresh one after
//! every conflict, through mutating admission, the kind's strategy and validating admission. Graceful deletion and the
//! removal of the last finalizer are states of this room.

mod commit;
mod create;
mod delete;
mod managed;
mod meta_rules;
mod update;

pub use commit::{Asked, Change as StockChange, Companion, Stock};
pub(crate) use create::same_namespace;
pub use create::{CreateOptions, ensure_namespace};
pub use delete::{DeleteOutcome, delete_message};
pub use managed::{Ownership, merge};
pub(crate) use update::another;
pub use update::{Change, UpdateOptions};

use crate::admission::{Chain, Operation};
use crate::object;
use crate::resources::{Resources, Served};
use crate::storage::Encryption;
use crate::storage::measures;
use crate::user::User;
use apimachinery::clock::Clock;
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use schema::encode::{Body, TypeMeta};
use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;
use store::{Entry, Key, Life, Store};

/// Reads and writes objects of all resources.
pub struct Registry {
    pub store: Arc<dyn Store>,
    pub resources: Arc<Resources>,
    pub admission: Chain,
    /// What objects take from: addresses, ports.
    pub stocks: Vec<Arc<dyn Stock>>,
    /// What values at rest are encrypted by.
    pub encryption: Option<Arc<Encryption>>,
    pub clock: Arc<dyn Clock>,
    /// How long events live.
    pub event_ttl: std::time::Duration,
    /// Whether a feature gate is on.
    pub gates: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// What is asked of whom: the same for every write.
#[derive(Debug, Clone)]
pub struct WriteContext<'a> {
    pub user: &'a User,
    /// What was asked, as authorizers name it.
    pub verb: &'a str,
    pub resource: &'a Arc<Served>,
    pub namespace: &'a str,
    pub subresource: &'a str,
    pub dry_run: bool,
    pub field_manager: Cow<'a, str>,
    pub ownership: Ownership,
    /// What admission is shown in the object's place, of a subresource that has a kind of its own.
    pub side: Option<&'a dyn Side>,
}

/// One side of an object, as a kind of its own: the Scale of a Deployment.
pub trait Side: Send + Sync + std::fmt::Debug {
    /// What is seen of an object.
    fn shown(&self, object: &Value) -> Value;

    /// Takes over into the object what has become of it.
    fn take(&self, object: &mut Value, shown: &Value) -> Result<(), Status>;
}

impl<'a> WriteContext<'a> {
    /// Of a write of the server's own.
    pub fn own(user: &'a User, resource: &'a Arc<Served>, namespace: &'a str, subresource: &'a str) -> Self {
        WriteContext {
            user,
            verb: "update",
            resource,
            namespace,
            subresource,
            dry_run: false,
            field_manager: "kube-apiserver".into(),
            ownership: Ownership::default(),
            side: None,
        }
    }
}

impl WriteContext<'_> {
    pub(crate) fn hook_context<'a>(
        &'a self,
        now: Time,
        labels: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
        gates: &'a (dyn Fn(&str) -> bool + Send + Sync),
        judged: Option<&'a hooks::Judged>,
    ) -> hooks::Context<'a> {
        hooks::Context {
            user: &self.user.name,
            uid: &self.user.uid,
            groups: &self.user.groups,
            extra: &self.user.extra,
            now,
            namespace: hooks::NamespaceLabels(labels),
            gates: hooks::Gates(gates),
            api_version: &self.resource.api_version,
            subresource: (!self.subresource.is_empty()).then_some(self.subresource),
            judged,
        }
    }
}

/// An object as written or read: its tree in the hub version, and the stored form it has (or would have, on a dry run).
#[derive(Debug, Clone)]
pub struct Stored {
    pub value: Value,
    pub body: Body,
    pub revision: u64,
    /// Whether a write would change its form at rest, though not the object.
    pub stale: bool,
}

impl Registry {
    /// Notes the fields of an object that is not kept, as they are noted of one that is.
    pub async fn note_fields(&self, context: &WriteContext<'_>, value: &mut Value) -> Result<(), Status> {
        managed::track(&self.resources, context, None, value, self.now()).await
    }

    /// The same of what a subresource takes and which is no part of its object.
    pub(crate) fn note_fields_as(
        &self,
        context: &WriteContext<'_>,
        ty: (&schema::Table, schema::TypeId),
        named: (&str, &str),
        value: &mut Value,
    ) {
        managed::track_as(context, ty, named, value, self.now());
    }

    pub fn now(&self) -> Time {
        Time::from(self.clock.now())
    }

    /// The current object, as last committed, in the version of the resource.
    pub async fn read(&self, resource: &Served, namespace: &str, name: &str) -> Result<Stored, Status> {
        self.open(resource, self.entry(resource, namespace, name)?).await
    }

    /// A stored object with its tree in the hub version, and its form at rest.
    async fn open(&self, resource: &Served, entry: Arc<Entry>) -> Result<Stored, Status> {
        let at_rest = entry.clone();
        let presented = resource.present(entry).await?;
        let mut stored = decode(resource, &presented)?;
        let encryption = self.encryption.as_ref();
        stored.stale |= encryption.is_some_and(|e| e.is_outdated(&resource.prefix, stored.revision));
        if !Arc::ptr_eq(&presented, &at_rest) {
            stored.body = Body::from_stored(at_rest.value.clone()).map_err(|e| damaged(&at_rest, &e))?;
        }
        Ok(stored)
    }

    /// The current object of a built-in kind, as last committed.
    pub fn get(&self, resource: &Served, namespace: &str, name: &str) -> Result<Stored, Status> {
        let entry = self.store.get(&resource.key(namespace, name)).ok_or_else(|| resource.not_found(name))?;
        decode(resource, &entry)
    }

    /// A label of a namespace.
    fn namespace_label(&self, namespace: &str, key: &str) -> Option<String> {
        let namespaces = self.resources.get("", "v1", "namespaces")?;
        let found = self.get(&namespaces, "", namespace).ok()?;
        found.value["metadata"]["labels"][key].as_str().map(str::to_owned)
    }

    /// The entry of an object, for reads that only pass bytes on.
    pub fn entry(&self, resource: &Served, namespace: &str, name: &str) -> Result<Arc<Entry>, Status> {
        self.store.get(&resource.key(namespace, name)).ok_or_else(|| resource.not_found(name))
    }

    /// The entry of an object, no older than what anyone had committed when this was called.
    pub async fn latest(&self, resource: &Served, namespace: &str, name: &str) -> Result<Arc<Entry>, Status> {
        let began = Instant::now();
        let found = self.store.consistent_get(&resource.key(namespace, name)).await;
        read(resource, began, found.is_err());
        found.map_err(store_error)?.ok_or_else(|| resource.not_found(name))
    }

    /// The newest logged object, which a write is checked against.
    async fn newest(&self, resource: &Served, key: &Key) -> Result<Option<Stored>, Status> {
        let began = Instant::now();
        let newest = self.store.newest(key).await;
        read(resource, began, newest.is_err());
        match newest.map_err(store_error)? {
            Some(entry) => self.open(resource, entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// How long an object lives that is written now.
    fn life(&self, resource: &Served) -> Life {
        if resource.strategy.expires() { Life::Ttl(self.event_ttl) } else { Life::Forever }
    }

    /// The stored form of a tree in the hub version.
    async fn encode(&self, resource: &Served, value: &Value) -> Result<Body, Status> {
        match &resource.custom {
            Some(custom) => custom.conversion.to_rest(value).await,
            None => {
                let empties = crate::storage::empties(&resource.row.group);
                Ok(Body::encode_with(&resource.table, resource.hub_ty, value, empties))
            }
        }
    }

    /// Offers the typed form of what is about to be written to the informers of this process.
    fn offer(&self, body: &Body, typed: Option<Arc<dyn Any + Send + Sync>>) {
        if let Some(typed) = typed {
            self.resources.recent.offer(body.json_bytes(), typed);
        }
    }

    /// What a write came to: its tree has the revision, and what became of it on its way to another version at rest.
    async fn written(
        &self,
        resource: &Served,
        mut value: Value,
        body: Body,
        entry: &Arc<Entry>,
    ) -> Result<Stored, Status> {
        let revision = entry.mod_revision.0;
        if resource.custom.is_some() && !resource.is_own_form(&body) {
            return self.open(resource, entry.clone()).await;
        }
        object::set_meta(&mut value, "resourceVersion", revision.to_string());
        Ok(Stored { value, body, revision, stale: false })
    }

    /// Table defaults, then the kind's own.
    pub fn default(&self, resource: &Served, value: &mut Value) {
        // Of a custom kind, who says that it is another is told so, and nothing is made of it.
        if resource.custom.is_some() && value["kind"] != *resource.row.kind {
            return;
        }
        schema::defaults::apply(&resource.table, resource.hub_ty, value);
        resource.strategy.default(value);
    }

    /// Brings a tree that the server itself made into the form that decoding gives, with defaults.
    pub fn normalise(&self, resource: &Served, value: Value) -> Result<Value, Status> {
        let decoded = schema::decode::normalise(
            &resource.table,
            resource.hub_ty,
            value,
            schema::decode::FieldValidation::Ignore,
        )
        .map_err(|e| Status::bad_request(e.to_string()))?;
        let mut value = decoded.value;
        self.default(resource, &mut value);
        Ok(value)
    }

    /// Asks admission about a connection to an object, which its options describe.
    pub(crate) async fn connect(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        mut options: Value,
    ) -> Result<(), Status> {
        self.mutate(context, Operation::Connect, name, &mut options, None).await?;
        self.check(context, Operation::Connect, name, &mut options, None).await
    }

    async fn mutate(
        &self,
        context: &WriteContext<'_>,
        operation: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if let Some(side) = context.side {
            let (mut shown, old) = (side.shown(object), old.map(|old| side.shown(old)));
            let context = WriteContext { side: None, ..context.clone() };
            Box::pin(self.mutate(&context, operation, name, &mut shown, old.as_ref())).await?;
            return side.take(object, &shown);
        }
        self.admission.admit(&mut self.attributes(context, operation, name, Some(object), old)).await
    }

    async fn check(
        &self,
        context: &WriteContext<'_>,
        operation: Operation,
        name: &str,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        let mut shown = context.side.map(|side| (side.shown(object), old.map(|old| side.shown(old))));
        let (object, old) = match &mut shown {
            Some((object, old)) => (object, old.as_ref()),
            None => (object, old),
        };
        self.admission.validate(&self.attributes(context, operation, name, Some(object), old)).await
    }

    /// Both steps about a deletion, in which there is nothing to change.
    async fn check_deletion(
        &self,
        context: &WriteContext<'_>,
        name: &str,
        old: &Value,
    ) -> Result<(), Status> {
        let mut attributes = self.attributes(context, Operation::Delete, name, None, Some(old));
        self.admission.admit(&mut attributes).await?;
        self.admission.validate(&attributes).await
    }

    fn attributes<'a>(
        &'a self,
        context: &WriteContext<'a>,
        operation: Operation,
        name: &'a str,
        object: Option<&'a mut Value>,
        old: Option<&'a Value>,
    ) -> crate::admission::Attributes<'a> {
        crate::admission::Attributes {
            operation,
            verb: context.verb,
            user: context.user,
            resource: context.resource,
            namespace: context.namespace,
            name,
            subresource: context.subresource,
            object,
            old,
            dry_run: context.dry_run,
            registry: self,
        }
    }
}

/// Counts a read of one object.
fn read(resource: &Served, began: Instant, failed: bool) {
    if let Some(counted) = resource.measures.get() {
        counted.asked(measures::Operation::Get, began, failed);
    }
}

/// The tree of an entry, with type metadata of the hub version and its resourceVersion. One of a custom kind must be
/// presented.
pub fn decode(resource: &Served, entry: &Entry) -> Result<Stored, Status> {
    let body = Body::from_stored(entry.value.clone()).map_err(|e| damaged(entry, &e))?;
    let revision = entry.mod_revision.0;
    let value = body
        .value(Some(&TypeMeta::new(&resource.row.kind, &resource.hub_api_version)), revision)
        .map_err(|e| damaged(entry, &e))?;
    Ok(Stored { value, body, revision, stale: entry.stale })
}

/// The stored form of an entry, for reading.
pub fn body(entry: &Entry) -> Result<Body<&[u8]>, Status> {
    Body::from_stored(&entry.value[..]).map_err(|e| damaged(entry, &e))
}

fn damaged(entry: &Entry, why: &dyn std::fmt::Display) -> Status {
    Status::internal_error(format!("the stored object {} is damaged: {why}", entry.name))
}

/// A failed store as an answer.
pub(crate) fn store_error(error: store::Error) -> Status {
    match error {
        store::Error::Compacted { .. } => {
            Status::resource_expired("The resourceVersion for the provided list is too old.")
        }
        store::Error::Future { asked, current } => Status::too_large_resource_version(asked.0, current.0, 1),
        store::Error::TooLarge { .. } => Status::request_entity_too_large(error),
        store::Error::NoSpace
        | store::Error::ReadOnly { .. }
        | store::Error::Unavailable { .. }
        | store::Error::Closed => Status::service_unavailable(error.to_string()),
        other => Status::internal_error(other),
    }
}
