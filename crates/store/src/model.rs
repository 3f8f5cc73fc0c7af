//! What a store holds and says: keys, immutable entries, events and the writes that cause them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

/// A point in the store's one global, strictly increasing sequence of commits. Zero is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A key, split where its bucket ends: `prefix` is the resource's key prefix with its closing slash
/// (`/registry/pods/`), `name` the rest (`default/web-0`). No bucket's prefix may begin another's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The resource's key prefix; names the bucket.
    pub prefix: Arc<str>,
    /// The key inside its bucket.
    pub name: Arc<str>,
}

impl Key {
    /// A key in the bucket of `prefix`.
    pub fn new(prefix: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { prefix: prefix.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.name)
    }
}

/// What a reader extracts from an entry's bytes once per version (labels, selectable fields).
pub type Projection = Arc<dyn Any + Send + Sync>;

/// One version of one key: immutable, shared by the view, the history and every reader.
#[derive(Debug)]
pub struct Entry {
    /// The key inside its bucket.
    pub name: Arc<str>,
    /// The bytes as written; they do not contain the revision, which is known only at commit.
    pub value: Bytes,
    /// The revision that created the key (the last time it was absent before).
    pub create_revision: Revision,
    /// The revision of this version.
    pub mod_revision: Revision,
    /// How many versions the key has had since it was created; 1 for the first.
    pub version: u64,
    /// The lease that keeps the entry alive.
    pub lease: Option<LeaseId>,
    /// When the entry expires by its own TTL, in milliseconds since the Unix epoch.
    pub expires_ms: Option<u64>,
    /// Whether the bytes at rest are of an older form than a write would give them: an unchanged object is written then.
    pub stale: bool,
    /// Where a reader keeps what it extracts from `value`, so that there is one copy.
    pub projection: OnceLock<Projection>,
}

impl Entry {
    /// The projection of type `T`, made by `make` at most once while all readers agree on `T`. A reader that wants
    /// another type gets a fresh, uncached one.
    pub fn project<T: Any + Send + Sync>(&self, make: impl FnOnce(&Entry) -> T) -> Arc<T> {
        if let Some(have) = self.projection.get() {
            return match have.clone().downcast::<T>() {
                Ok(typed) => typed,
                Err(_) => Arc::new(make(self)),
            };
        }
        let made = Arc::new(make(self));
        match self.projection.get_or_init(|| made.clone()).clone().downcast::<T>() {
            Ok(first) => first,
            Err(_) => made,
        }
    }
}

/// Whether an event stored a version or removed the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A version was written. The key is new when the event has no `previous`.
    Put,
    /// The key was removed.
    Delete,
}

/// One committed change of one key. Changes committed together share a revision.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change; for a delete, the revision of the deletion.
    pub revision: Revision,
    /// Put or delete.
    pub kind: EventKind,
    /// The key's bucket.
    pub prefix: Arc<str>,
    /// The version written; for a delete, the last version there was.
    pub entry: Arc<Entry>,
    /// The version before the change: absent for a create, and `entry` itself for a delete.
    pub previous: Option<Arc<Entry>>,
}

impl Event {
    /// The changed key.
    pub fn key(&self) -> Key {
        Key { prefix: self.prefix.clone(), name: self.entry.name.clone() }
    }

    /// Whether the key did not exist before.
    pub fn is_create(&self) -> bool {
        self.previous.is_none()
    }

    /// The entry at the key after the change.
    pub fn current(&self) -> Option<&Arc<Entry>> {
        match self.kind {
            EventKind::Put => Some(&self.entry),
            EventKind::Delete => None,
        }
    }
}

/// How long a put lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Until it is deleted.
    #[default]
    Forever,
    /// Until the time is over; every put of the key starts it anew.
    Ttl(Duration),
    /// As long as the lease.
    Lease(LeaseId),
}

/// What a write does to its key.
#[derive(Clone, Debug)]
pub enum Op {
    /// Stores a version.
    Put {
        /// The bytes.
        value: Bytes,
        /// How long they live.
        life: Life,
    },
    /// Removes the key. A delete of an absent key is a conflict with no current entry.
    Delete,
}

/// What must hold of the key's newest state, else the write is a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and its mod revision is this one.
    Revision(Revision),
}

/// A compare-and-write of one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do.
    pub op: Op,
    /// On which condition.
    pub expect: Expect,
}

/// A key that must still be at a revision for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The key, which the write itself does not touch.
    pub key: Key,
    /// Its mod revision.
    pub revision: Revision,
}

impl Write {
    /// A put that lives until it is deleted.
    pub fn put(key: Key, value: impl Into<Bytes>, expect: Expect) -> Self {
        Self { key, op: Op::Put { value: value.into(), life: Life::Forever }, expect }
    }

    /// A delete.
    pub fn delete(key: Key, expect: Expect) -> Self {
        Self { key, op: Op::Delete, expect }
    }

    /// The same write with another life; no change for a delete.
    pub fn living(mut self, with: Life) -> Self {
        if let Op::Put { life, .. } = &mut self.op {
            *life = with;
        }
        self
    }
}
