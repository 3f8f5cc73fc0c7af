//! A local view of a resource: bytes and a declared projection per object, never typed objects or trees.
//!
//! A consumer declares a [`Projection`] (what it reads of every object) and its indices; the projection is taken once
//! per version. A reconcile decodes only the object it owns ([`Cached::decode`]). Handlers run in the informer's task:
//! they add keys to queues and return.

use crate::client::Client;
use crate::error::Result;
use crate::key::ObjectKey;
use crate::recent::Recent;
use crate::source::{Feed, Query, Raw, Source};
use crate::watch::ListWatch;
use api::Kind;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Names an index and computes an object's values in it.
pub type Index<P> = (&'static str, fn(&Cached<P>) -> Vec<String>);

/// What a consumer keeps of every object of a kind.
pub trait Projection: Sized + Send + Sync + 'static {
    type Kind: Kind;

    /// Extracts the projection, once per version of an object.
    fn project(object: &Self::Kind) -> Self;

    /// Indices kept over all objects.
    fn indices() -> &'static [Index<Self>] {
        &[]
    }
}

/// One object in an informer. Dereferences to its projection.
#[derive(Debug)]
pub struct Cached<P> {
    pub raw: Raw,
    pub uid: Arc<str>,
    pub projection: P,
}

impl<P> std::ops::Deref for Cached<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.projection
    }
}

impl<P: Projection> Cached<P> {
    pub fn key(&self) -> &ObjectKey {
        &self.raw.key
    }

    pub fn namespace(&self) -> &str {
        &self.raw.key.namespace
    }

    pub fn name(&self) -> &str {
        &self.raw.key.name
    }

    pub fn revision(&self) -> u64 {
        self.raw.revision
    }

    /// The whole typed object.
    pub fn decode(&self) -> Result<P::Kind> {
        self.raw.decode()
    }

    fn new(raw: Raw, recent: Option<&Recent>) -> Result<Self> {
        let object: Arc<P::Kind> = raw.shared(recent)?;
        Ok(Cached { uid: object.metadata().uid.as_str().into(), projection: P::project(&object), raw })
    }
}

/// What happened to an object.
#[derive(Debug)]
pub enum Change<P> {
    Added(Arc<Cached<P>>),
    Updated {
        old: Arc<Cached<P>>,
        new: Arc<Cached<P>>,
    },
    /// The last known state; its revision is that of the deletion when the deletion was seen.
    Deleted(Arc<Cached<P>>),
}

impl<P> Change<P> {
    /// The newest state.
    pub fn object(&self) -> &Arc<Cached<P>> {
        match self {
            Change::Added(o) | Change::Deleted(o) => o,
            Change::Updated { new, .. } => new,
        }
    }

    /// The state before, for an update.
    pub fn old(&self) -> Option<&Arc<Cached<P>>> {
        match self {
            Change::Updated { old, .. } => Some(old),
            _ => None,
        }
    }
}

type Handler<P> = Box<dyn Fn(&Change<P>) + Send + Sync>;

struct State<P> {
    objects: HashMap<ObjectKey, Arc<Cached<P>>>,
    /// Per index: value to the keys that have it.
    indices: Vec<HashMap<String, BTreeSet<ObjectKey>>>,
}

struct Inner<P> {
    query: Query,
    recent: Option<Arc<Recent>>,
    state: RwLock<State<P>>,
    handlers: Mutex<Vec<Handler<P>>>,
    /// The revision up to which everything was applied; zero until the first snapshot.
    revision: watch::Sender<u64>,
}

/// A local view of a resource. Cheap to clone.
pub struct Informer<P>(Arc<Inner<P>>);

impl<P> Clone for Informer<P> {
    fn clone(&self) -> Self {
        Informer(self.0.clone())
    }
}

impl<P> std::fmt::Debug for Informer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informer").field("query", &self.0.query).finish_non_exhaustive()
    }
}

impl<P: Projection> Informer<P> {
    fn new(query: Query, recent: Option<Arc<Recent>>) -> Self {
        let indices = P::indices().iter().map(|_| HashMap::new()).collect();
        Informer(Arc::new(Inner {
            query,
            recent,
            state: RwLock::new(State { objects: HashMap::new(), indices }),
            handlers: Mutex::new(Vec::new()),
            revision: watch::Sender::new(0),
        }))
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Cached<P>>> {
        self.0.state.read().objects.get(key).cloned()
    }

    /// The object with this namespace (empty for none) and name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<Cached<P>>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Cached<P>>> {
        self.0.state.read().objects.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.0.state.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects with `value` in the index called `name`, ordered by key.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<Cached<P>>> {
        let Some(i) = P::indices().iter().position(|(n, _)| *n == name) else {
            debug_assert!(false, "no index {name}");
            return Vec::new();
        };
        let state = self.0.state.read();
        let keys = state.indices[i].get(value);
        keys.into_iter().flatten().filter_map(|k| state.objects.get(k).cloned()).collect()
    }

    /// Calls `handler` for every object now (as added) and for every change from now on.
    pub fn subscribe(&self, handler: impl Fn(&Change<P>) + Send + Sync + 'static) {
        // Holding the handlers keeps changes out until the objects at hand were told.
        let mut handlers = self.0.handlers.lock();
        for object in self.list() {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// The revision up to which everything was applied; zero before the first snapshot.
    pub fn revision(&self) -> u64 {
        *self.0.revision.borrow()
    }

    pub fn has_synced(&self) -> bool {
        self.revision() > 0
    }

    /// Waits for the first snapshot.
    pub async fn synced(&self) {
        self.reached(1).await;
    }

    /// Waits until everything up to `revision` was applied.
    pub async fn reached(&self, revision: u64) {
        let mut seen = self.0.revision.subscribe();
        // The sender lives as long as `self`.
        let _ = seen.wait_for(|at| *at >= revision).await;
    }

    fn apply(&self, feeds: Vec<Feed>) {
        let handlers = self.0.handlers.lock();
        let mut reached = self.revision();
        for feed in feeds {
            match feed {
                Feed::Snapshot { objects, revision } => {
                    let fresh: HashMap<ObjectKey, u64> =
                        objects.iter().map(|o| (o.key.clone(), o.revision)).collect();
                    let gone: Vec<_> =
                        self.list().into_iter().filter(|o| !fresh.contains_key(o.key())).collect();
                    for object in gone {
                        self.remove(&handlers, object.raw.clone());
                    }
                    for object in objects {
                        self.put(&handlers, object);
                    }
                    reached = reached.max(revision).max(1);
                }
                Feed::Put(raw) => {
                    reached = reached.max(raw.revision);
                    self.put(&handlers, raw);
                }
                Feed::Delete(raw) => {
                    reached = reached.max(raw.revision);
                    self.remove(&handlers, raw);
                }
                Feed::Progress(revision) => reached = reached.max(revision),
            }
        }
        drop(handlers);
        self.0.revision.send_if_modified(|at| std::mem::replace(at, reached) != reached);
    }

    fn put(&self, handlers: &[Handler<P>], raw: Raw) {
        let old = self.get(&raw.key);
        if old.as_ref().is_some_and(|o| o.raw.revision == raw.revision) {
            return;
        }
        let new = match Cached::new(raw, self.0.recent.as_deref()) {
            Ok(new) => Arc::new(new),
            Err(error) => {
                // One unreadable object must not hide the others.
                tracing::error!(resource = %self.0.query.resource, %error, "skipping an object");
                return;
            }
        };
        {
            let mut state = self.0.state.write();
            for (i, (_, values)) in P::indices().iter().enumerate() {
                let (was, is) = (old.as_deref().map(values).unwrap_or_default(), values(&new));
                // Most changes leave an object where it stands.
                if was == is {
                    continue;
                }
                let index = &mut state.indices[i];
                unindex(index, was, new.key());
                for value in is {
                    index.entry(value).or_default().insert(new.key().clone());
                }
            }
            state.objects.insert(new.key().clone(), new.clone());
        }
        let change = match old {
            // Deleted and created again between two looks: two objects, two changes.
            Some(old) if old.uid != new.uid => {
                tell(handlers, &Change::Deleted(old));
                Change::Added(new)
            }
            Some(old) => Change::Updated { old, new },
            None => Change::Added(new),
        };
        tell(handlers, &change);
    }

    fn remove(&self, handlers: &[Handler<P>], raw: Raw) {
        let Some(old) = self.get(&raw.key) else { return };
        {
            let mut state = self.0.state.write();
            for (i, (_, values)) in P::indices().iter().enumerate() {
                unindex(&mut state.indices[i], values(&old), old.key());
            }
            state.objects.remove(&raw.key);
        }
        // The last state may be newer than what was cached; if it cannot be read, the cached one is told.
        let last = Cached::new(raw, self.0.recent.as_deref()).map_or(old, Arc::new);
        tell(handlers, &Change::Deleted(last));
    }

    async fn run(self, source: Arc<dyn Source>, shutdown: CancellationToken) {
        let mut feed = source.open(self.0.query.clone());
        loop {
            let item = tokio::select! {
                () = shutdown.cancelled() => return,
                item = feed.next() => item,
            };
            match item {
                Some(Ok(feeds)) => self.apply(feeds),
                Some(Err(error)) => {
                    tracing::error!(resource = %self.0.query.resource, %error, "the feed failed; opening it again");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                    }
                    feed = source.open(self.0.query.clone());
                }
                None => feed = source.open(self.0.query.clone()),
            }
        }
    }
}

fn unindex(index: &mut HashMap<String, BTreeSet<ObjectKey>>, values: Vec<String>, key: &ObjectKey) {
    for value in values {
        if let Some(keys) = index.get_mut(&value) {
            keys.remove(key);
            if keys.is_empty() {
                index.remove(&value);
            }
        }
    }
}

fn tell<P>(handlers: &[Handler<P>], change: &Change<P>) {
    for handler in handlers {
        handler(change);
    }
}

/// Anything that can say when a revision was reached: what a reconcile waits for before it reads its own writes.
pub trait Reached: Send + Sync {
    fn reached(&self, revision: u64) -> BoxFuture<'static, ()>;
}

impl<P: Projection> Reached for Informer<P> {
    fn reached(&self, revision: u64) -> BoxFuture<'static, ()> {
        let informer = self.clone();
        Box::pin(async move { Informer::reached(&informer, revision).await })
    }
}

/// The informers of one user; one per projection and query, shared by who asks for it.
#[derive(Clone)]
pub struct Informers {
    source: Arc<dyn Source>,
    running: Arc<Mutex<HashMap<(TypeId, Query), Arc<dyn Any + Send + Sync>>>>,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Informers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informers").field("running", &self.running.lock().len()).finish_non_exhaustive()
    }
}

impl Informers {
    /// Feeds come from the client's transport; they end with `shutdown`.
    pub fn new(client: &Client, shutdown: CancellationToken) -> Self {
        let source = client.transport().source().unwrap_or_else(|| Arc::new(ListWatch(client.clone())));
        Informers::from_source(source, shutdown)
    }

    /// Feeds come from `source`.
    pub fn from_source(source: Arc<dyn Source>, shutdown: CancellationToken) -> Self {
        Informers { source, running: Arc::default(), shutdown }
    }

    /// The informer over all objects of the projection's kind. Must be called within a tokio runtime.
    pub fn get<P: Projection>(&self) -> Informer<P> {
        self.query(Query::of::<P::Kind>())
    }

    /// The informer over a part of the objects of the projection's kind.
    pub fn query<P: Projection>(&self, query: Query) -> Informer<P> {
        let mut running = self.running.lock();
        let any = running.entry((TypeId::of::<P>(), query.clone())).or_insert_with(|| {
            let informer = Informer::<P>::new(query, self.source.recent());
            tokio::spawn(informer.clone().run(self.source.clone(), self.shutdown.clone()));
            Arc::new(informer)
        });
        match any.clone().downcast::<Informer<P>>() {
            Ok(informer) => Informer::clone(&informer),
            Err(_) => unreachable!("the key holds the projection's type"),
        }
    }
}
