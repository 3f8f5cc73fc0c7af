//! The embedded engine: an append-only log with group commit, snapshots, and the view in memory.
//!
//! * `head`: the newest logged state and the batch under way; `writer`: the thread that makes batches durable.
//! * `log`, `snapshot`: the files; `frame`, `record`: what they are made of; `recover`, `ahead`: reading them back.
//! * `offline`: snapshots as files, and what is damaged; `still`: a snapshot to look at; `lease`: what ends by itself; `disk`: the disk and the clock, which tests replace.

mod ahead;
mod disk;
mod frame;
mod head;
mod lease;
mod log;
mod offline;
mod record;
mod recover;
mod snapshot;
mod still;
mod writer;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

pub use disk::{Clock, Directory, Disk, File, SystemClock};
pub use offline::{Contents, FileReport, Report, Saved, verify};
pub use recover::Damage;
pub use still::Still;

use crate::contract::{Error, Health, Result, Snapshot, Stats, Store};
use crate::model::{Entry, Event, Key, LeaseId, Pin, Revision, Write};
use crate::transform::{Identity, Transform};
use crate::view::{History, View};
use crate::watch::Watch;
use head::{Head, MAX_BATCH, Mode};
use recover::{Layout, Recovered};

/// A disk that does not answer for longer than this makes the store unhealthy.
const STALLED: Duration = Duration::from_secs(4);

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// What was acknowledged is damaged.
    #[error("{file} is damaged at byte {offset}: {detail}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The disk failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl OpenError {
    fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io { doing: doing.into(), source }
    }
}

/// How an embedded store is laid out.
#[derive(Clone)]
pub struct Options {
    /// How much history is kept.
    pub history: History,
    /// The size of a log segment.
    pub segment_bytes: u64,
    /// What is kept back for deletes on a full disk. A batch that is larger (12 MiB at most) is refused then.
    pub reserve_bytes: u64,
    /// A snapshot is due when the log is longer than this and half of what is live.
    pub log_bytes: u64,
    /// What to do about damage.
    pub damage: Damage,
    /// What values look like in the files.
    pub transform: Arc<dyn Transform>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers, which tell this log's frames from any others'.
    pub entropy: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("history", &self.history)
            .field("segment_bytes", &self.segment_bytes)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("log_bytes", &self.log_bytes)
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: History::default(),
            segment_bytes: 8 << 20,
            reserve_bytes: 16 << 20,
            log_bytes: 32 << 20,
            damage: Damage::Refuse,
            transform: Arc::new(Identity),
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(random_salt),
        }
    }
}

fn random_salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// When the log is long enough for a snapshot, and when it is too long to go on without.
#[derive(Clone, Copy, Debug)]
struct Limits {
    log_bytes: u64,
}

impl Limits {
    fn log_trigger(self, live: u64) -> u64 {
        self.log_bytes + live / 2
    }

    fn log_cap(self, live: u64) -> u64 {
        self.log_bytes + self.log_bytes / 2 + live
    }
}

/// What the store and its writer share.
struct Core {
    head: Mutex<Head>,
    /// Wakes the writer; goes with `head`.
    wake: Condvar,
    /// The writer waits on `wake`. Written under `head`.
    idle: AtomicBool,
    /// The batch has been taken: there is room again.
    room: Notify,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
    transform: Arc<dyn Transform>,
    /// A write was refused for want of space: look whether there is some.
    wants_space: AtomicBool,
    /// The snapshot under way is complete, or has failed.
    snapshot_done: AtomicBool,
    epoch: Instant,
    /// Milliseconds since `epoch` at which the writer turned to the disk, plus one; 0 when it is not there.
    at_disk: AtomicU64,
    syncs: AtomicU64,
    log_bytes: AtomicU64,
    file_bytes: AtomicU64,
}

impl Core {
    fn begin_disk(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.at_disk.store(now + 1, Ordering::Release);
    }

    fn end_disk(&self) {
        self.at_disk.store(0, Ordering::Release);
    }

    /// Waits with the batch, and has the writer see to it.
    fn join(&self, head: &mut Head) -> oneshot::Receiver<Result<()>> {
        let outcome = head.wait();
        // Once: whoever comes between this and the writer's waking need not call again.
        if head.batch.acks.len() >= head.wanted && self.idle.swap(false, Ordering::AcqRel) {
            self.wake.notify_one();
        }
        outcome
    }

    fn stalled(&self) -> Option<Duration> {
        let since = self.at_disk.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.epoch.elapsed().saturating_sub(Duration::from_millis(since))).filter(|long| *long > STALLED)
    }

    /// Wakes the writer whatever it waits for.
    fn wake_writer(&self) {
        // With the lock, so that it cannot fall between the writer's look and its wait.
        let _head = self.head.lock();
        self.wake.notify_one();
    }
}

/// See the module.
pub struct Embedded {
    core: Arc<Core>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("revision", &self.core.view.visible()).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the store in a directory, made if need be. Reads all of it: call it where blocking is allowed.
    pub fn open(directory: impl Into<PathBuf>, options: Options) -> Result<Arc<Self>, OpenError> {
        let path = directory.into();
        let disk = Directory::lock(&path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(path.clone()),
            _ => OpenError::io(format!("opening {}", path.display()), source),
        })?;
        Self::open_on(disk, options)
    }

    /// Opens the store on any disk.
    pub fn open_on(disk: Arc<dyn Disk>, options: Options) -> Result<Arc<Self>, OpenError> {
        let layout = Layout {
            segment_bytes: options.segment_bytes,
            reserve_bytes: options.reserve_bytes,
            entropy: options.entropy,
        };
        let Recovered { image, leases, log, snapshot_bytes } =
            recover::recover(disk, layout, options.damage, &options.transform)?;
        let view = Arc::new(View::new(image, options.history, options.clock.now_ms()));
        let mut head = Head::new(view.clone(), leases.clone(), options.transform.clone());
        if !log.has_reserve {
            head.mode = Mode::NoSpace;
        }
        let core = Arc::new(Core {
            head: Mutex::new(head),
            wake: Condvar::new(),
            idle: AtomicBool::new(false),
            room: Notify::new(),
            view,
            clock: options.clock,
            transform: options.transform,
            wants_space: AtomicBool::new(false),
            snapshot_done: AtomicBool::new(false),
            epoch: Instant::now(),
            at_disk: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&core);
        core.clock.on_jump(Box::new(move || {
            if let Some(core) = weak.upgrade() {
                core.wake_writer();
            }
        }));
        let limits = Limits { log_bytes: options.log_bytes };
        let writer = writer::Writer::new(core.clone(), log, limits, leases, snapshot_bytes);
        let thread =
            writer::spawn(writer).map_err(|source| OpenError::io("starting the store's writer", source))?;
        Ok(Arc::new(Self { core, writer: Mutex::new(Some(thread)) }))
    }

    /// Stages something with the head's lock, waits until it is durable, and returns what was staged.
    async fn stage<T>(&self, mut stage: impl FnMut(&mut Head, u64) -> Result<T>) -> Result<T> {
        loop {
            let room = self.core.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if let Some((staged, durable)) = self.try_stage(&mut stage)? {
                if let Some(durable) = durable {
                    durable.await.unwrap_or(Err(Error::Closed))?;
                }
                return staged;
            }
            room.await;
        }
    }

    /// Nothing when the batch is full. The outcome to wait for is absent when a refusal rests on what is durable.
    fn try_stage<T>(
        &self,
        stage: &mut impl FnMut(&mut Head, u64) -> Result<T>,
    ) -> Result<Option<(Result<T>, Option<oneshot::Receiver<Result<()>>>)>> {
        let core = &*self.core;
        let mut head = core.head.lock();
        if head.batch.frame.len() > MAX_BATCH {
            return Ok(None);
        }
        let staged = stage(&mut head, core.clock.now_ms());
        let durable = match &staged {
            Ok(_) => core.join(&mut head),
            // The conflict may be with a write that is not durable yet; nobody may learn of that one before it is.
            Err(Error::Conflict { .. } | Error::LeaseNotFound(_)) if head.revision > core.view.visible() => {
                core.join(&mut head)
            }
            Err(Error::NoSpace) => {
                core.wants_space.store(true, Ordering::Release);
                core.wake.notify_one();
                return Ok(Some((staged, None)));
            }
            Err(_) => return Ok(Some((staged, None))),
        };
        Ok(Some((staged, Some(durable))))
    }

    fn shut(&self) {
        self.core.head.lock().close();
        self.core.wake_writer();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shut();
        if let Some(writer) = self.writer.lock().take() {
            // A panic there has been reported by the thread; the log's tail is recovered at the next opening.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    fn revision(&self) -> Revision {
        self.core.view.visible()
    }

    fn snapshot(&self, prefix: &str) -> Snapshot {
        self.core.view.snapshot(prefix)
    }

    async fn consistent_snapshot(&self, prefix: &str) -> Result<Snapshot> {
        // The view is the store: every acknowledged write is in it.
        Ok(self.core.view.snapshot(prefix))
    }

    async fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Snapshot> {
        self.core.view.snapshot_at(prefix, revision)
    }

    async fn wait_for(&self, revision: Revision) -> Result<()> {
        self.core.view.wait_for(revision).await
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.core.view.get(&key.prefix, &key.name)
    }

    async fn consistent_get(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        Ok(self.get(key))
    }

    fn pending(&self, key: &Key) -> Option<Arc<Entry>> {
        self.core.head.lock().get(key)
    }

    async fn newest(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        Ok(self.pending(key))
    }

    async fn settled(&self, key: &Key) -> Result<()> {
        let durable = {
            let mut head = self.core.head.lock();
            if !head.changes(key) {
                return Ok(());
            }
            self.core.join(&mut head)
        };
        durable.await.unwrap_or(Err(Error::Closed))
    }

    async fn commit(&self, write: Write) -> Result<Arc<Event>> {
        self.stage(|head, now_ms| head.commit(&write, now_ms)).await
    }

    async fn commit_pinned(&self, writes: Vec<Write>, pin: Option<&Pin>) -> Result<Vec<Arc<Event>>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.stage(|head, now_ms| head.commit_many(&writes, pin, now_ms)).await
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        Watch::new(self.core.view.clone(), self.core.view.bucket(prefix), after)
    }

    fn oldest(&self, prefix: &str) -> Revision {
        self.core.view.oldest(prefix)
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let (current, compacted) = (self.revision(), self.core.view.compacted());
        if revision > current {
            return Err(Error::Future { asked: revision, current });
        }
        if revision < compacted {
            return Err(Error::Compacted { oldest: compacted });
        }
        self.stage(|head, _| head.compact(revision)).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.stage(|head, now_ms| head.grant(ttl_ms, now_ms)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<()> {
        self.stage(|head, now_ms| head.keep_alive(lease, now_ms)).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<()> {
        self.stage(|head, now_ms| head.revoke(lease, now_ms)).await
    }

    fn stats(&self) -> Stats {
        let (revision, compacted, buckets) = self.core.view.stats();
        Stats {
            revision,
            compacted,
            buckets,
            file_bytes: self.core.file_bytes.load(Ordering::Relaxed),
            log_bytes: self.core.log_bytes.load(Ordering::Relaxed),
            syncs: self.core.syncs.load(Ordering::Relaxed),
        }
    }

    fn health(&self) -> Health {
        if let Some(long) = self.core.stalled() {
            return Health::Stalled(long);
        }
        match &self.core.head.lock().mode {
            Mode::Open => Health::Ok,
            Mode::NoSpace => Health::NoSpace,
            Mode::ReadOnly(cause) => Health::ReadOnly(cause.clone()),
            Mode::Closed => Health::Closed,
        }
    }

    async fn probe(&self) -> Result<()> {
        self.stage(|head, _| head.probe()).await
    }

    async fn close(&self) {
        self.shut();
        // The view is closed once everything that was accepted is durable.
        self.core.view.until_closed().await;
    }
}
