//! The contract every engine keeps. One suite runs unchanged on all of them.
//!
//! Revisions are one global, strictly increasing sequence. A write is acknowledged only when it is durable. Reads and
//! watches see only what is durable; a compare-and-write is checked against the newest logged state.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use imbl::OrdMap;

use crate::model::{Entry, Event, Key, LeaseId, Pin, Revision, Write};
use crate::transform::TransformError;
use crate::view::BucketStats;
use crate::watch::Watch;

/// What a store can fail with.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The write's expectation does not hold. `current` is durable when this is returned.
    #[error("{key}: the expected revision is not the current one")]
    Conflict {
        /// The key whose expectation failed.
        key: Key,
        /// What is there instead; absent when the key does not exist.
        current: Option<Arc<Entry>>,
    },
    /// The history no longer reaches back to the revision asked for.
    #[error("mvcc: required revision has been compacted (the oldest available is {oldest})")]
    Compacted {
        /// The oldest revision that can still be read or watched from.
        oldest: Revision,
    },
    /// The revision asked for has not happened.
    #[error("revision {asked} is newer than the newest, {current}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest.
        current: Revision,
    },
    /// The disk is full: puts are refused until there is room, deletes pass.
    #[error("no space left for the store: deletes are accepted, writes are not")]
    NoSpace,
    /// The store takes no writes until it is opened again.
    #[error("the store is read-only: {cause}")]
    ReadOnly {
        /// Why.
        cause: Arc<str>,
    },
    /// The store failed while the write was on its way: it may or may not be there after a restart.
    #[error("the outcome of the write is unknown: {cause}")]
    Uncertain {
        /// Why.
        cause: Arc<str>,
    },
    /// The store's servers cannot be reached, or have no majority.
    #[error("the store is unavailable: {cause}")]
    Unavailable {
        /// What they, or the network, said.
        cause: Arc<str>,
    },
    /// A value cannot be brought into the form it has at rest.
    #[error("{key}: {source}")]
    Transform {
        /// The key.
        key: Key,
        /// Why.
        source: TransformError,
    },
    /// A write is larger than the store takes.
    #[error("{key}: {size} bytes are more than the store's limit of {limit}")]
    TooLarge {
        /// The key.
        key: Key,
        /// The size of the write.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A key occurs twice in one atomic write.
    #[error("{0}: duplicate key given in one write")]
    DuplicateKey(Key),
    /// The lease does not exist, or no longer.
    #[error("requested lease not found: {0}")]
    LeaseNotFound(LeaseId),
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}

/// A store's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One bucket as it was at a revision: immutable, O(1) to take and to keep while someone reads it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The store's revision: every change up to it is in, none after it.
    pub revision: Revision,
    /// The entries by name.
    pub entries: OrdMap<Arc<str>, Arc<Entry>>,
}

impl Snapshot {
    /// The entry of one name.
    pub fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.entries.get(name)
    }

    /// The entries whose name begins with `scope`, in order, from `start` (inclusive) on. An empty scope is the whole
    /// bucket; a start before the scope is its beginning. The page after a name starts at that name followed by `\0`.
    pub fn range<'a>(&'a self, scope: &'a str, start: &str) -> impl Iterator<Item = &'a Arc<Entry>> + 'a {
        let from = if start > scope { start } else { scope };
        self.entries
            .range::<_, str>((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(scope))
            .map(|(_, entry)| entry)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ok,
    /// Puts are refused for want of space.
    NoSpace,
    /// A sync has not returned for this long.
    Stalled(Duration),
    /// It takes none until it is opened again.
    ReadOnly(Arc<str>),
    /// It is shut down.
    Closed,
}

/// Sizes and counts.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// The newest committed revision.
    pub revision: Revision,
    /// The newest revision given to `compact`.
    pub compacted: Revision,
    /// One row per bucket, by prefix.
    pub buckets: Vec<BucketStats>,
    /// What the engine's files occupy, all of them.
    pub file_bytes: u64,
    /// Of that, the log.
    pub log_bytes: u64,
    /// Syncs since the store was opened.
    pub syncs: u64,
}

impl Stats {
    /// Keys in all buckets.
    pub fn keys(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.keys).sum()
    }

    /// Bytes of names and values in all buckets.
    pub fn bytes(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.bytes).sum()
    }
}

/// Revisioned keys and bytes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest committed revision this process has seen.
    fn revision(&self) -> Revision;

    /// The bucket of `prefix` as last committed. O(1); never waits.
    fn snapshot(&self, prefix: &str) -> Snapshot;

    /// The bucket at a revision no older than the newest committed by anyone when the call was made.
    async fn consistent_snapshot(&self, prefix: &str) -> Result<Snapshot>;

    /// The bucket as it was at `revision`. `Compacted` when the history no longer reaches it, `Future` when it has
    /// not happened.
    async fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Snapshot>;

    /// Waits until `revision` is committed and visible. The caller bounds the wait.
    async fn wait_for(&self, revision: Revision) -> Result<()>;

    /// The committed entry of a key.
    fn get(&self, key: &Key) -> Option<Arc<Entry>>;

    /// The entry of a key, no older than the newest committed by anyone when the call was made.
    async fn consistent_get(&self, key: &Key) -> Result<Option<Arc<Entry>>>;

    /// The newest logged entry of a key that this process knows, durable or not.
    fn pending(&self, key: &Key) -> Option<Arc<Entry>>;

    /// The newest logged entry of a key, whoever wrote it: the state a compare-and-write is checked against.
    async fn newest(&self, key: &Key) -> Result<Option<Arc<Entry>>>;

    /// Waits until the newest logged entry of a key is committed and visible. Who tells a client of it without writing, be it
    /// in a refusal, waits first: nobody may learn of what is not durable, nor find less than what was told.
    async fn settled(&self, key: &Key) -> Result<()>;

    /// Writes one key. Returns, once durable and visible, the event that watchers see.
    async fn commit(&self, write: Write) -> Result<Arc<Event>>;

    /// Writes several keys at one revision, all or none; the events are in the order of the writes. An empty list is
    /// no write and returns no event.
    async fn commit_many(&self, writes: Vec<Write>) -> Result<Vec<Arc<Event>>> {
        self.commit_pinned(writes, None).await
    }

    /// As [`Store::commit_many`], while the pin holds: it is compared in the same transaction, so that a write that is on
    /// its way when the pinned key changes never arrives. A pin that does not hold is a conflict of its key.
    async fn commit_pinned(&self, writes: Vec<Write>, pin: Option<&Pin>) -> Result<Vec<Arc<Event>>>;

    /// The changes of a bucket after `after`: ordered, no gap, no repeat. `Compacted` when the history no longer
    /// reaches back to it. A revision to come is waited for.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch>;

    /// The oldest revision from which the bucket can be watched and read.
    fn oldest(&self, prefix: &str) -> Revision;

    /// Forgets the history up to `revision`: it stays readable itself, older ones do not.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// Makes a lease that lasts `ttl` from now, and from every `keep_alive`.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId>;

    /// Starts a lease's time anew.
    async fn keep_alive(&self, lease: LeaseId) -> Result<()>;

    /// Ends a lease and deletes its keys.
    async fn revoke(&self, lease: LeaseId) -> Result<()>;

    /// Sizes and counts.
    fn stats(&self) -> Stats;

    /// Whether the store takes writes, from what it knows already; never waits.
    fn health(&self) -> Health;

    /// Whether the store takes writes, found out by a real one that changes nothing. The caller bounds the wait.
    async fn probe(&self) -> Result<()>;

    /// Stops taking writes, makes durable what was accepted and ends every watch with `Closed`.
    async fn close(&self);
}
