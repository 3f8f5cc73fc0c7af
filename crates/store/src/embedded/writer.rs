//! The writer's thread: takes the batch, appends it, syncs once, publishes, acknowledges. The only one that touches
//! the log. It also deletes what has expired and decides when a snapshot is due.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::head::{Batch, Changes, Head, Mode};
use super::lease::LeaseTable;
use super::log::{self, Failure, Log};
use super::snapshot::{self, State};
use super::{Core, Limits};
use crate::contract::{Error, Result};
use parking_lot::MutexGuard;

/// How long after a failed attempt the next one to get space back, or to write a snapshot, may come.
const RETRY: Duration = Duration::from_millis(200);

/// A disk that takes longer to answer held up what people do about expiry, too.
const STALL: Duration = Duration::from_secs(1);
/// The longest that expiry waits after a stall.
const LONGEST_GRACE: Duration = Duration::from_secs(60);

/// The longest that a batch waits for those who wrote in the last one.
const LONGEST_GATHERING: Duration = Duration::from_millis(1);
/// For how many batches nobody is waited for after most did not come back.
const HURRY: u32 = 16;

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
    /// A segment that is being written full of zeros, to be the next.
    preparing: Option<JoinHandle<std::io::Result<String>>>,
    /// How many wait with the next batch when all of the last one's writers are back, and how long its sync took.
    expected: usize,
    last_sync: Duration,
    /// Batches that nobody is waited for, after some did not come back.
    hurry: u32,
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
            preparing: None,
            expected: 0,
            last_sync: Duration::ZERO,
            hurry: 0,
        }
    }

    /// Runs until the store is closed.
    pub(super) fn run(mut self) {
        let (mut spare, mut emptied) = (Batch::default(), Changes::new());
        let core = self.core.clone();
        self.measure();
        loop {
            let mut head = core.head.lock();
            self.gather(&mut head);
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
            let mut batch = head.take(std::mem::take(&mut spare));
            let revision = head.revision;
            let leases = head.expiry.table().clone();
            if closing && batch.is_empty() {
                drop(head);
                self.finish();
                return;
            }
            drop(head);
            core.room.notify_waiters();
            let answered = batch.acks.len();
            if batch.has_frame() {
                match self.append(&mut batch, revision.0) {
                    Ok(()) => {
                        core.view.publish(revision, core.clock.now_ms(), &batch.events);
                        if let Some(compact) = batch.compact {
                            core.view.compact(compact);
                        }
                        // Only now: between the two a key must be found in one of them.
                        let mut head = core.head.lock();
                        emptied = head.settle(emptied);
                        // Some may turn to other things: seven of eight do.
                        self.expected = head.batch.acks.len() + answered - answered / 8;
                        drop(head);
                        self.leases = leases;
                        batch.answer(&Ok(()));
                    }
                    Err(failure) => self.fail(failure, &mut batch),
                }
            } else {
                // Everything before it is durable: that is all its waiters wait for.
                batch.answer(&Ok(()));
            }
            emptied.clear();
            batch.reset();
            spare = batch;
            self.core.begin_disk();
            self.collect_snapshot(false);
            self.consider_snapshot();
            self.consider_preparing();
            self.regain_space();
            self.core.end_disk();
            self.measure();
        }
    }

    /// Waits, a part of what a sync takes, for those who have just been answered: without them the next batch would be
    /// a smaller one, and they would all wait for its sync before theirs. Nobody waits for a single writer, and those who
    /// do not come back are not waited for for a while.
    fn gather(&mut self, head: &mut MutexGuard<'_, Head>) {
        let wanted = std::mem::take(&mut self.expected);
        if self.hurry > 0 {
            self.hurry -= 1;
            return;
        }
        let until = Instant::now() + (self.last_sync / 4).min(LONGEST_GATHERING);
        while wanted > 2 && head.batch.acks.len() < wanted && head.mode == Mode::Open {
            head.wanted = wanted;
            self.core.idle.store(true, Ordering::Release);
            let late = self.core.wake.wait_until(head, until).timed_out();
            self.core.idle.store(false, Ordering::Release);
            head.wanted = 0;
            if late {
                self.hurry = if head.batch.acks.len() < wanted / 2 { HURRY } else { 0 };
                return;
            }
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
        self.last_sync = took;
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
                head.roll_back(&self.leases, &Err(Error::NoSpace));
            }
            Failure::Broken(cause) => {
                let cause: Arc<str> = cause.into();
                self.broken = true;
                tracing::error!(%cause, "the store is read-only until it is opened again");
                if head.mode != Mode::Closed {
                    head.mode = Mode::ReadOnly(cause.clone());
                }
                batch.answer(&Err(Error::Uncertain { cause: cause.clone() }));
                head.roll_back(&self.leases, &Err(Error::ReadOnly { cause }));
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
        self.log.drop_spares(0);
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
            let written = snapshot::write(&*disk, &state, salt, &*transform)?;
            // Here, because to give back a large file's space takes a while.
            if let Err(error) = remove_older(&*disk, state.seq) {
                tracing::warn!(%error, "snapshots that a newer one made needless cannot be removed");
            }
            Ok(written)
        });
        match written {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => self.snapshot_failed(&error),
        }
    }

    fn snapshot_failed(&mut self, error: &std::io::Error) {
        tracing::warn!(%error, "a snapshot of the store could not be written");
        if log::is_full(error) {
            self.log.drop_spares(0);
        }
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
        self.log.truncate(self.snapshot_seq)?;
        // What the log may need before the next snapshot, and never more than the files' bound allows.
        let (live, _) = self.core.view.sizes();
        let allowed = self.limits.log_cap(live).saturating_sub(self.log.bytes());
        self.log.drop_spares((allowed / self.log.segment_bytes) as usize);
        Ok(())
    }

    /// Has a segment of zeros made when the next one would have to come from free space: to overwrite is quicker than
    /// to write for the first time, because the file system has nothing to note then.
    fn consider_preparing(&mut self) {
        if let Some(thread) = self.preparing.take_if(|thread| thread.is_finished()) {
            match thread.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread panicked"))) {
                Ok(name) => self.log.spares.push(name),
                Err(error) => {
                    tracing::warn!(%error, "a segment of the store's log could not be prepared");
                    self.not_before = Some(Instant::now() + RETRY * 5);
                }
            }
        }
        let (live, _) = self.core.view.sizes();
        let wanted = self.log.spares.is_empty()
            && self.log.active.offset > self.log.segment_bytes / 4
            && self.log.bytes() + self.log.segment_bytes <= self.limits.log_cap(live);
        let allowed = self.not_before.is_none_or(|at| Instant::now() >= at);
        if !wanted || !allowed || !self.log.has_reserve || self.preparing.is_some() || self.broken {
            return;
        }
        let (disk, size) = (self.log.disk.clone(), self.log.segment_bytes);
        let thread = std::thread::Builder::new().name("store-prepare".into());
        match thread.spawn(move || log::prepare(&*disk, size)) {
            Ok(thread) => self.preparing = Some(thread),
            Err(error) => tracing::warn!(%error, "a segment of the store's log could not be prepared"),
        }
    }

    fn measure(&self) {
        let reserve = if self.log.has_reserve { self.log.reserve_bytes } else { 0 };
        self.core.log_bytes.store(self.log.bytes(), Ordering::Relaxed);
        let files = self.log.bytes() + self.log.spare_bytes() + self.snapshot_bytes + reserve;
        self.core.file_bytes.store(files, Ordering::Relaxed);
    }

    /// Closing: an empty frame proves to the next process that the last one was complete.
    fn finish(&mut self) {
        self.collect_snapshot(true);
        if let Some(thread) = self.preparing.take() {
            // Whatever became of it: the next opening looks for what is there.
            let _ = thread.join();
        }
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

/// Removes the snapshots before the one that contains the log up to frame `seq`.
fn remove_older(disk: &dyn Disk, seq: u64) -> std::io::Result<()> {
    for name in disk.list()? {
        if snapshot::seq(&name).is_some_and(|older| older < seq) {
            disk.remove(&name)?;
        }
    }
    Ok(())
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
