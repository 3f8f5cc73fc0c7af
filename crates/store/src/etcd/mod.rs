//! The engine over etcd v3: several API servers share one cluster of it, and upstream's may be among them.
//!
//! * `connect`: members, failover, TLS; `keys`: from our keys to etcd's; `core`: what the parts share, and reads.
//! * `feed`: one watch that feeds the view; `write`: transactions; `lease`, `compact`: as upstream does both.
//! * `error`: what refusals mean; `generated`: the protocol's messages (`cargo xtask codegen-etcd`).

mod compact;
mod connect;
mod core;
mod error;
mod feed;
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, reason = "generated")]
mod generated;
mod keys;
mod lease;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use connect::{BadEndpoint, Dial, Wire};
pub use keys::{ROOT, Split, split_by};

use crate::contract::{Error, Health, Result, Snapshot, Stats, Store};
use crate::model::{Entry, Event, Key, LeaseId, Pin, Revision, Write};
use crate::transform::{Identity, Transform};
use crate::view::{BucketImage, History, Image, View};
use crate::watch::Watch;
use core::{Core, now_ms};
use feed::Feed;
use generated::compare::{CompareResult, CompareTarget, TargetUnion};
use generated::{Compare, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest, request_op};
use keys::Keys;
use lease::Leases;

/// Without a watch for this long the store is unhealthy.
const STALLED: Duration = Duration::from_secs(3);
/// How long a consistent read waits for the view before it asks etcd itself.
const VIEW_FIRST: Duration = Duration::from_millis(250);
const VIEW_TRUSTED: Duration = Duration::from_secs(3);
/// How much history is replayed at the start, at most, so that watches of the time before resume.
const REPLAY: u64 = 20_000;

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An endpoint is none.
    #[error(transparent)]
    Endpoint(#[from] BadEndpoint),
    /// No member answers.
    #[error("loading the state from etcd: {0}")]
    Load(Box<tonic::Status>),
}

impl From<tonic::Status> for OpenError {
    fn from(status: tonic::Status) -> Self {
        Self::Load(Box::new(status))
    }
}

/// How an etcd store is reached and read.
#[derive(Clone)]
pub struct Options {
    /// `http[s]://host:port` of each member.
    pub servers: Vec<String>,
    /// For https endpoints.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// How connections are made; directly where nothing is said.
    pub dial: Option<Dial>,
    /// What stands for `/registry` in etcd.
    pub prefix: String,
    /// Where keys' buckets end.
    pub split: Split,
    /// What values look like in etcd.
    pub transform: Arc<dyn Transform>,
    /// How much history the view keeps.
    pub history: History,
    /// How often etcd is compacted; zero is never.
    pub compaction: Duration,
    /// Whether a member's progress reports are believed.
    pub progress: Progress,
}

/// Whether progress reports count: a consistent read waits for the view then, and ranges from etcd otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Of versions that report it rightly (3.4.31, 3.5.13 and later).
    #[default]
    ByVersion,
    /// Of none.
    Never,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            tls: None,
            dial: None,
            prefix: "/registry".into(),
            split: split_by(Vec::new()),
            transform: Arc::new(Identity),
            history: History::default(),
            compaction: Duration::from_secs(300),
            progress: Progress::default(),
        }
    }
}

/// See the module.
pub struct Etcd {
    core: Arc<Core>,
    leases: Leases,
    feed: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("revision", &self.core.view.visible()).finish_non_exhaustive()
    }
}

impl Etcd {
    /// Loads the state and follows it.
    pub async fn open(options: Options) -> Result<Arc<Self>, OpenError> {
        let core = Arc::new(Core {
            cluster: connect::Cluster::new(&options.servers, options.tls, options.dial)?,
            keys: Keys::new(&options.prefix, options.split),
            transform: options.transform,
            view: Arc::new(View::new(Image::default(), options.history, now_ms())),
            progress: Notify::new(),
            restart: Notify::new(),
            closed: CancellationToken::new(),
            progress_counts: options.progress,
            trusted: AtomicBool::new(false),
            full: AtomicBool::new(false),
            down: Mutex::new(Some(Instant::now())),
            database_bytes: AtomicU64::new(0),
            ranged: AtomicUsize::new(0),
        });
        let (current, compacted) = core.current().await?;
        let history = compacted.map(|at| Revision(at.max(current.0.saturating_sub(REPLAY))));
        let past = match history.filter(|at| at.0 > 0 && *at < current) {
            Some(at) => match core.load(Some(at)).await {
                Ok(loaded) => Some(loaded),
                Err(status) if error::is_compacted(&status) => None,
                Err(status) => return Err(status.into()),
            },
            None => None,
        };
        let (at, buckets) = match past {
            Some(loaded) => loaded,
            None => core.load(None).await?,
        };
        let prefixes = buckets.keys().cloned().collect();
        let images = buckets.into_iter().map(|(prefix, map)| BucketImage {
            prefix,
            map,
            events: Vec::new(),
            horizon: at,
        });
        let image = Image { revision: at, compacted: at, marks: Vec::new(), buckets: images.collect() };
        core.view.begin(image, now_ms());
        let feed = Feed::new(core.clone(), prefixes, at);
        let feed = tokio::spawn(feed.run());
        if !options.compaction.is_zero() {
            tokio::spawn(compact::run(core.clone(), options.compaction));
        }
        // The replayed history comes first; that it takes longer is no reason not to serve.
        let _ = core.reach(current, VIEW_TRUSTED).await;
        Ok(Arc::new(Self { core, leases: Leases::default(), feed: Mutex::new(Some(feed)) }))
    }

    /// How many consistent reads etcd had to answer itself, because the view could not be waited for.
    pub fn ranged(&self) -> usize {
        self.core.ranged.load(Ordering::Relaxed)
    }

    /// Whether the member that is watched is believed when it reports progress.
    pub fn trusts_progress(&self) -> bool {
        self.core.trusted.load(Ordering::Acquire)
    }

    /// Whether the view has everything that was committed when this was called. It is asked to catch up.
    async fn caught_up(&self) -> Result<bool> {
        if self.core.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let current = self.core.current().await.map_err(|status| error::general(&status))?;
        let trusted = self.core.trusted.load(Ordering::Acquire);
        self.core.reach(current.0, if trusted { VIEW_TRUSTED } else { VIEW_FIRST }).await
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.core.closed.cancel();
    }
}

#[async_trait]
impl Store for Etcd {
    fn revision(&self) -> Revision {
        self.core.view.visible()
    }

    fn snapshot(&self, prefix: &str) -> Snapshot {
        self.core.view.snapshot(prefix)
    }

    async fn consistent_snapshot(&self, prefix: &str) -> Result<Snapshot> {
        if self.caught_up().await? {
            return Ok(self.core.view.snapshot(prefix));
        }
        self.core.range_bucket(prefix, None).await
    }

    async fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Snapshot> {
        match self.core.view.snapshot_at(prefix, revision) {
            Err(Error::Compacted { .. } | Error::Future { .. }) => {
                self.core.range_bucket(prefix, Some(revision)).await
            }
            other => other,
        }
    }

    async fn wait_for(&self, revision: Revision) -> Result<()> {
        loop {
            // Bounded, so that progress is asked for again; the caller bounds the whole.
            if self.core.reach(revision, VIEW_TRUSTED).await? {
                return Ok(());
            }
        }
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.core.view.get(&key.prefix, &key.name)
    }

    async fn consistent_get(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        if self.core.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        let request = RangeRequest { key: self.core.keys.key(key), limit: 1, ..Default::default() };
        let answer = self.core.range(request).await.map_err(|status| error::general(&status))?;
        let known = self.get(key);
        Ok(answer.kvs.into_iter().next().map(|kv| self.core.entry(key, kv, known.as_ref())))
    }

    fn pending(&self, key: &Key) -> Option<Arc<Entry>> {
        self.get(key)
    }

    async fn newest(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        self.consistent_get(key).await
    }

    /// What etcd answers is committed, and everybody who asks it sees it.
    async fn settled(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    async fn commit(&self, write: Write) -> Result<Arc<Event>> {
        let events = write::commit(&self.core, &self.leases, std::slice::from_ref(&write), None).await?;
        events.into_iter().next().ok_or(Error::Closed)
    }

    async fn commit_pinned(&self, writes: Vec<Write>, pin: Option<&Pin>) -> Result<Vec<Arc<Event>>> {
        let mut keys = HashSet::with_capacity(writes.len());
        if let Some(twice) = writes.iter().find(|write| !keys.insert(&write.key)) {
            return Err(Error::DuplicateKey(twice.key.clone()));
        }
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        write::commit(&self.core, &self.leases, &writes, pin).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        Watch::new(self.core.view.clone(), self.core.view.bucket(prefix), after)
    }

    fn oldest(&self, prefix: &str) -> Revision {
        self.core.view.oldest(prefix)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        match compact::compact(&self.core, revision).await {
            Ok(()) => {
                self.core.view.compact(revision);
                Ok(())
            }
            Err(status) => Err(self.core.refusal(&status, Some(revision))),
        }
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        lease::grant(&self.core, ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        lease::keep_alive(&self.core, lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        lease::revoke(&self.core, lease).await
    }

    fn stats(&self) -> Stats {
        let (revision, compacted, buckets) = self.core.view.stats();
        let file_bytes = self.core.database_bytes.load(Ordering::Relaxed);
        Stats { revision, compacted, buckets, file_bytes, log_bytes: 0, syncs: 0 }
    }

    fn health(&self) -> Health {
        if self.core.closed.is_cancelled() {
            return Health::Closed;
        }
        let down = self.core.down.lock().map(|since| since.elapsed());
        if let Some(long) = down.filter(|long| *long > STALLED) {
            return Health::Stalled(long);
        }
        if self.core.full.load(Ordering::Acquire) { Health::NoSpace } else { Health::Ok }
    }

    async fn probe(&self) -> Result<()> {
        // A transaction with a put in it goes through the members' agreement; its comparison never holds.
        let key = Bytes::from_static(compact::KEY.as_bytes());
        let put = PutRequest { key: key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Less.into(),
                target: CompareTarget::Version.into(),
                key,
                target_union: Some(TargetUnion::Version(0)),
            }],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: Vec::new(),
        };
        let agreed = write::attempt(&self.core, txn).await;
        self.core.full.store(agreed.as_ref().is_err_and(error::is_no_space), Ordering::Release);
        agreed.map_err(|status| error::general(&status))?;
        let status = self.core.cluster.attempt(|channel| async move {
            generated::maintenance_client::MaintenanceClient::new(channel).status(StatusRequest {}).await
        });
        if let Ok(status) = status.await {
            let bytes = u64::try_from(status.into_inner().db_size).unwrap_or_default();
            self.core.database_bytes.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn close(&self) {
        self.core.closed.cancel();
        let feed = self.feed.lock().take();
        if let Some(feed) = feed {
            // A panic there has been reported; the view is closed below in any case.
            let _ = feed.await;
        }
        self.core.view.close();
    }
}
