//! What the engine's parts share, and the reads that go to etcd itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Progress;
use super::connect::{self, Cluster};
use super::error;
use super::generated::{KeyValue, RangeRequest, RangeResponse};
use super::keys::{Keys, end_of};
use crate::contract::{Error, Result, Snapshot};
use crate::model::{Entry, Key, LeaseId, Revision};
use crate::transform::{self, Loaded, Transform};
use crate::view::{Map, View};

/// Keys in one page of a range.
const PAGE: i64 = 2_000;
/// How long requests are tried, at one member after another.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How often progress is asked for while somebody waits for it.
const PROGRESS: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Core {
    pub(super) cluster: Cluster,
    pub(super) keys: Keys,
    pub(super) transform: Arc<dyn Transform>,
    pub(super) view: Arc<View>,
    /// Somebody waits for a revision that may belong to a key outside of the watch.
    pub(super) progress: Notify,
    /// The watch is suspected of being dead.
    pub(super) restart: Notify,
    pub(super) closed: CancellationToken,
    /// Which members' progress reports count.
    pub(super) progress_counts: Progress,
    /// Whether those of the member that is watched do.
    pub(super) trusted: AtomicBool,
    /// Whether etcd has said that it is full.
    pub(super) full: AtomicBool,
    /// Since when there is no watch.
    pub(super) down: Mutex<Option<Instant>>,
    pub(super) database_bytes: AtomicU64,
    /// Consistent reads that had to range, for tests and statistics.
    pub(super) ranged: AtomicUsize,
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

/// One bucket of the cluster's state.
pub(super) type Buckets = HashMap<Arc<str>, Map>;

impl Core {
    /// Tries a read at one member after another.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = request.clone();
            let answer = self
                .cluster
                .attempt(|channel| async move {
                    connect::kv(channel).range(connect::led(request)).await.map(tonic::Response::into_inner)
                })
                .await;
            match answer {
                Err(status) if error::is_members(&status) && Instant::now() < deadline => {
                    tracing::debug!(%status, "a read is tried at another member");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// The newest revision of the cluster, and the value of `compact_rev_key`.
    pub(super) async fn current(&self) -> Result<(Revision, Option<u64>), Status> {
        let key = Bytes::from_static(super::compact::KEY.as_bytes());
        let answer = self.range(RangeRequest { key, limit: 1, ..Default::default() }).await?;
        let compacted = answer.kvs.first().and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
        Ok((revision(answer.header.map_or(0, |header| header.revision)), compacted))
    }

    /// All keys that begin with `prefix` (etcd's), at a revision or now, page by page.
    pub(super) async fn pages(
        &self,
        prefix: Bytes,
        at: Option<Revision>,
        mut take: impl FnMut(KeyValue),
    ) -> Result<Revision, Status> {
        let range_end = end_of(&prefix);
        let mut at = at.map_or(0, |at| at.0 as i64);
        let mut key = prefix;
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: PAGE,
                revision: at,
                ..Default::default()
            };
            let page = self.range(request).await?;
            if at == 0 {
                at = page.header.map_or(0, |header| header.revision);
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            page.kvs.into_iter().for_each(&mut take);
            match last {
                Some(last) if page.more => key = [&last[..], &[0]].concat().into(),
                _ => return Ok(revision(at)),
            }
        }
    }

    /// An entry of what etcd holds; the view's own when it is of the same version.
    pub(super) fn entry(&self, key: &Key, kv: KeyValue, known: Option<&Arc<Entry>>) -> Arc<Entry> {
        let mod_revision = revision(kv.mod_revision);
        if let Some(known) = known.filter(|known| known.mod_revision == mod_revision) {
            return known.clone();
        }
        let Loaded { value, stale } = transform::load(&*self.transform, key, kv.value);
        Arc::new(Entry {
            name: known.map_or_else(|| key.name.clone(), |known| known.name.clone()),
            value,
            create_revision: revision(kv.create_revision),
            mod_revision,
            version: u64::try_from(kv.version).unwrap_or_default(),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease as u64)),
            expires_ms: None,
            stale,
            projection: Default::default(),
        })
    }

    /// Everything, at a revision or now.
    pub(super) async fn load(&self, at: Option<Revision>) -> Result<(Revision, Buckets), Status> {
        let mut buckets = Buckets::new();
        let root = Bytes::copy_from_slice(self.keys.root().as_bytes());
        let at = self
            .pages(root, at, |kv| {
                let Some(key) = self.keys.inner(&kv.key) else { return };
                let known = self.view.get(&key.prefix, &key.name);
                let entry = self.entry(&key, kv, known.as_ref());
                buckets.entry(key.prefix).or_default().insert(entry.name.clone(), entry);
            })
            .await?;
        Ok((at, buckets))
    }

    /// One bucket, from etcd.
    pub(super) async fn range_bucket(&self, prefix: &str, at: Option<Revision>) -> Result<Snapshot> {
        self.ranged.fetch_add(1, Ordering::Relaxed);
        let known = self.view.snapshot(prefix);
        let mut entries = Map::new();
        let ranged = self.pages(self.keys.outer(prefix), at, |kv| {
            // A longer prefix of another bucket may begin with this one.
            if let Some(key) = self.keys.inner(&kv.key).filter(|key| &*key.prefix == prefix) {
                let entry = self.entry(&key, kv, known.get(&key.name));
                entries.insert(entry.name.clone(), entry);
            }
        });
        match ranged.await {
            Ok(revision) => Ok(Snapshot { revision, entries }),
            Err(status) => Err(self.refusal(&status, at)),
        }
    }

    /// A refused read.
    pub(super) fn refusal(&self, status: &Status, at: Option<Revision>) -> Error {
        if error::is_compacted(status) {
            return Error::Compacted { oldest: self.view.compacted().max(at.map_or(Revision(0), next)) };
        }
        if let Some(asked) = at.filter(|_| error::is_future(status)) {
            return Error::Future { asked, current: self.view.visible() };
        }
        error::general(status)
    }

    /// Waits until the view has `revision`; false when it cannot be waited for.
    pub(super) async fn reach(&self, revision: Revision, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            if self.view.visible() >= revision {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.progress.notify_one();
            match tokio::time::timeout(left.min(PROGRESS), self.view.wait_for(revision)).await {
                Ok(reached) => return reached.map(|()| true),
                Err(_) if self.closed.is_cancelled() => return Err(Error::Closed),
                Err(_) => {}
            }
        }
    }
}

fn next(revision: Revision) -> Revision {
    Revision(revision.0 + 1)
}
