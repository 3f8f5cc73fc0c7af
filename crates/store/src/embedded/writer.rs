//! The writer's thread: takes the batch, appends it, syncs once, publishes, acknowledges. The only one that touches
//! the log. It also deletes what has expired and decides when a snapshot is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::head::{Batch, Head, Mode};
use super::lease::LeaseTable;
use super::log::{Failure, Log};
use super::snapshot::{self, State};
use super::{Core, Limits};
use crate::contract::{Error, Result};

/// How long after a failed attempt the next one to get space back, or to write a snapshot, may come.
const RETRY: Duration = Duration::from_millis(200);

/// A disk that takes longer to answer held up what people do about expiry, too.
const STALL: Duration = Duration::from_secs(1);
/// The longest that expiry waits after a stall.
const LONGEST_GRACE: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    core: Arc<Core>,
    log: Log,
    limits: Limits,
    /// The leases as committed.
    leases: LeaseTable,
    snapshot: Option<JoinHandle<std::io::Result<u64>>>,
    /// What the snapshot under way contains.
    snapshot_seq: u64,
    snapshot_bytes: u64,
    /// No snapshot before this time, after one failed.
    not_before: Option<Instant>,
    /// When the last attempt to leave `NoSpace` was made.
    tried: Option<Instant>,
    /// Nothing expires before this time, after a deletion found no room or the disk did not answer.
    expire_after: Option<Instant>,
    /// What is on disk is not known: nothing more is written.
    broken: bool,
}

/// Says that the snapshot's thread is over, also when it panics.
struct Done(Arc<Core>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.snapshot_done.store(true, Ordering::Release);
        self.0.wake_writer();
    }
}

impl Writer {
    pub(super) fn new(
        core: Arc<Core>,
        log: Log,
        limits: Limits,
        leases: LeaseTable,
        snapshot_bytes: u64,
    ) -> Self {
        Self {
            core,
            log,
            limits,
            leases,
            snapshot: None,
            snapshot_seq: 0,
            snapshot_bytes,
            not_before: None,
            tried: None,
            expire_after: None,
            broken: false,
        }
    }

    /// Runs until the store is closed.
    pub(super) fn run(mut self) {
        let mut spare = Batch::default();
        let core = self.core.clone();
        self.measure();
        loop {
            let mut head = core.head.lock();
            let closing = loop {
                let now = core.clock.now_ms();
                let paused = self.expire_after.and_then(|at| at.checked_duration_since(Instant::now()));
                if paused.is_none() {
                    head.expire(now);
                }
                if !head.batch.is_empty() {
                    break head.mode == Mode::Closed;
                }
                if head.mode == Mode::Closed {
                    break true;
                }
                if core.wants_space.swap(false, Ordering::AcqRel)
                    || core.snapshot_done.load(Ordering::Acquire)
                {
                    break false;
                }
                core.idle.store(true, Ordering::Release);
                match head.expiry.next_ms().filter(|_| !matches!(head.mode, Mode::ReadOnly(_))) {
                    Some(at) => {
                        let wait = Duration::from_millis(at.saturating_sub(now).max(1));
                        let wait = wait.max(paused.unwrap_or_default());
                        core.wake.wait_for(&mut head, wait);
                    }
                    None => core.wake.wait(&mut head),
                }
                core.idle.store(false, Ordering::Release);
            };
            let (mut batch, roots) = head.take(std::mem::take(&mut spare));
            let revision = head.revision;
            let leases = head.expiry.table().clone();
            if closing && batch.is_empty() {
                drop(head);
                self.finish();
                return;
            }
            drop(head);
            core.room.notify_waiters();
            if batch.has_frame() {
                match self.append(&mut batch, revision.0) {
                    Ok(()) => {
                        core.view.publish(revision, core.clock.now_ms(), roots, &batch.events);
                        if let Some(compact) = batch.compact {
                            core.view.compact(compact);
                        }
                        self.leases = leases;
                        batch.answer(&Ok(()));
                    }
                    Err(failure) => self.fail(failure, &mut batch),
                }
            } else {
                // Everything before it is durable: that is all its waiters wait for.
                batch.answer(&Ok(()));
            }
            batch.reset();
            spare = batch;
            self.core.begin_disk();
            self.collect_snapshot(false);
            self.consider_snapshot();
            self.regain_space();
            self.core.end_disk();
            self.measure();
        }
    }

    fn append(&mut self, batch: &mut Batch, revision: u64) -> Result<(), Failure> {
        let (live, _) = self.core.view.sizes();
        if self.snapshot.is_some() && self.log.bytes() > self.limits.log_cap(live) {
            // The log outruns the snapshot that will shorten it: the files' bound is kept by waiting.
            self.collect_snapshot(true);
        }
        let had_reserve = self.log.has_reserve;
        let begun = Instant::now();
        self.core.begin_disk();
        let appended = self.log.append(&mut batch.frame, revision, self.core.clock.now_ms());
        self.core.end_disk();
        self.core.syncs.fetch_add(1, Ordering::Relaxed);
        let took = begun.elapsed();
        if took > STALL {
            // Nobody could renew anything meanwhile: they get as long as they had to wait.
            self.expire_after = Some(Instant::now() + took.min(LONGEST_GRACE));
        }
        if had_reserve && !self.log.has_reserve {
            self.enter(Mode::NoSpace);
        }
        appended
    }

    /// Changes the mode; what is final stays.
    fn enter(&self, mode: Mode) {
        let mut head = self.core.head.lock();
        if matches!(head.mode, Mode::Open | Mode::NoSpace) && head.mode != mode {
            tracing::warn!(?mode, "the store changes its mode");
            head.mode = mode;
        }
    }

    /// The batch did not reach the disk: the pending head is dropped.
    fn fail(&mut self, failure: Failure, batch: &mut Batch) {
        let mut head = self.core.head.lock();
        match failure {
            Failure::NoSpace => {
                if head.mode == Mode::Open {
                    head.mode = Mode::NoSpace;
                }
                self.expire_after = Some(Instant::now() + RETRY * 5);
                batch.answer(&Err(Error::NoSpace));
                head.roll_back(&self.core.view, &self.leases, &Err(Error::NoSpace));
            }
            Failure::Broken(cause) => {
                let cause: Arc<str> = cause.into();
                self.broken = true;
                tracing::error!(%cause, "the store is read-only until it is opened again");
                if head.mode != Mode::Closed {
                    head.mode = Mode::ReadOnly(cause.clone());
                }
                batch.answer(&Err(Error::Uncertain { cause: cause.clone() }));
                head.roll_back(&self.core.view, &self.leases, &Err(Error::ReadOnly { cause }));
            }
        }
    }

    /// Tries to leave `NoSpace` when someone has asked for it.
    fn regain_space(&mut self) {
        let full = self.core.head.lock().mode == Mode::NoSpace;
        if !full || self.tried.is_some_and(|tried| tried.elapsed() < RETRY) {
            return;
        }
        self.tried = Some(Instant::now());
        match self.log.restore_reserve() {
            Ok(true) => self.enter(Mode::Open),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the store's reserve cannot be made"),
        }
    }

    fn consider_snapshot(&mut self) {
        let (live, history) = self.core.view.sizes();
        let full = !self.log.has_reserve;
        // On a full disk a snapshot is worth its while as soon as it frees anything.
        let frees = !self.log.sealed.is_empty() || self.snapshot_bytes > 2 * live + history + (1 << 20);
        // After much was deleted the last snapshot is what occupies the disk.
        let outgrown = self.snapshot_bytes > 2 * (live + history) + self.limits.log_bytes;
        let due = self.log.used() > self.limits.log_trigger(live) || outgrown || (full && frees);
        let allowed = self.not_before.is_none_or(|at| Instant::now() >= at);
        if !due || !allowed || self.snapshot.is_some() || self.broken {
            return;
        }
        // On a full disk the log stays where it is: a new segment cannot be had.
        if !full && let Err(failure) = self.log.rotate(0, self.core.view.visible().0) {
            if let Failure::Broken(cause) = failure {
                let mut nothing = Batch::default();
                self.fail(Failure::Broken(cause), &mut nothing);
            }
            return;
        }
        let state = State {
            image: self.core.view.image(),
            leases: self.leases.clone(),
            seq: self.log.next_seq - 1,
            chain: self.log.chain,
        };
        self.snapshot_seq = state.seq;
        let (core, disk, salt) = (self.core.clone(), self.log.disk.clone(), (self.log.entropy)());
        let transform = core.transform.clone();
        core.snapshot_done.store(false, Ordering::Release);
        let written = std::thread::Builder::new().name("store-snapshot".into()).spawn(move || {
            let _done = Done(core);
            snapshot::write(&*disk, &state, salt, &*transform)
        });
        match written {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => self.snapshot_failed(&error),
        }
    }

    fn snapshot_failed(&mut self, error: &std::io::Error) {
        tracing::warn!(%error, "a snapshot of the store could not be written");
        self.not_before = Some(Instant::now() + RETRY * 5);
    }

    /// Takes over a snapshot that is complete: the log before it goes.
    fn collect_snapshot(&mut self, wait: bool) {
        if !wait && !self.core.snapshot_done.load(Ordering::Acquire) {
            return;
        }
        let Some(thread) = self.snapshot.take() else { return };
        let written =
            thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the snapshot's thread panicked")));
        // After the join: the thread sets it last of all.
        self.core.snapshot_done.store(false, Ordering::Release);
        let size = match written {
            Ok(size) => size,
            Err(error) => return self.snapshot_failed(&error),
        };
        (self.snapshot_bytes, self.not_before) = (size, None);
        if let Err(error) = self.remove_needless() {
            // They are removed when the store is opened next.
            tracing::warn!(%error, "files that a snapshot made needless cannot be removed");
        }
    }

    fn remove_needless(&mut self) -> std::io::Result<()> {
        for name in self.log.disk.list()? {
            if snapshot::seq(&name).is_some_and(|seq| seq < self.snapshot_seq) {
                self.log.disk.remove(&name)?;
            }
        }
        self.log.truncate(self.snapshot_seq)?;
        Ok(())
    }

    fn measure(&self) {
        let reserve = if self.log.has_reserve { self.log.reserve_bytes } else { 0 };
        self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
        self.core.file_bytes.store(self.log.bytes() + self.snapshot_bytes + reserve, Ordering::Relaxed);
    }

    /// Closing: an empty frame proves to the next process that the last one was complete.
    fn finish(&mut self) {
        self.collect_snapshot(true);
        if !self.broken {
            let mut frame = Batch::default().frame;
            let revision = self.core.view.visible().0;
            if let Err(failure) = self.log.append(&mut frame, revision, self.core.clock.now_ms()) {
                tracing::warn!(?failure, "the store's log could not be closed");
            }
        }
        self.core.view.close();
    }
}

/// Makes the writer's thread.
pub(super) fn spawn(writer: Writer) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run())
}

impl Head {
    /// No writes from now on.
    pub(super) fn close(&mut self) {
        if self.mode != Mode::Closed {
            self.mode = Mode::Closed;
        }
    }
}
