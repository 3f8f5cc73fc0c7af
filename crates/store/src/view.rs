//! The in-memory ordered view: one persistent map per bucket and the ring of its recent events.
//!
//! An engine publishes what is durable; readers take snapshots in O(1) and watch the rings. A bucket keeps its own
//! horizon, so that a busy one cannot push a quiet one's history out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use imbl::OrdMap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use crate::contract::{Error, Result, Snapshot};
use crate::model::{Entry, Event, EventKind, Revision};
use crate::ring::Ring;

/// The entries of a bucket by name.
pub(crate) type Map = OrdMap<Arc<str>, Arc<Entry>>;

/// How much history is kept. A bucket loses its oldest events when any limit is passed.
#[derive(Clone, Copy, Debug)]
pub struct History {
    /// Events older than this go.
    pub age: Duration,
    /// Events of one bucket.
    pub events: usize,
    /// Bytes held by the history of all buckets beyond what is live; the bucket that holds most gives first.
    pub bytes: usize,
}

impl Default for History {
    /// The age is the middle of upstream's: compacting every 5 minutes, it keeps a revision for 5 to 10, and clients
    /// wait at most 10 for the end of a continue token.
    fn default() -> Self {
        Self { age: Duration::from_secs(450), events: 100_000, bytes: 24 << 20 }
    }
}

/// A bucket's sizes and counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketStats {
    /// The bucket's prefix.
    pub prefix: Arc<str>,
    /// Its keys.
    pub keys: usize,
    /// Bytes of their names and values.
    pub bytes: u64,
    /// Events in its history.
    pub events: usize,
    /// Bytes the history holds beyond what is live, an estimate.
    pub history_bytes: usize,
    /// The oldest revision it can be read at and watched from.
    pub oldest: Revision,
    /// As many events as it keeps.
    pub capacity: usize,
    /// Events that came in since the store was opened.
    pub received: u64,
    /// How often it was read as a whole: when the store was opened, and when events had been missed.
    pub readings: u64,
}

/// A bucket's history and those who wait for it.
pub(crate) struct Bucket {
    pub(crate) prefix: Arc<str>,
    pub(crate) ring: RwLock<Ring>,
    pub(crate) notify: Notify,
}

struct Shelf {
    map: Map,
    bytes: u64,
    bucket: Arc<Bucket>,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    shelves: HashMap<Arc<str>, Shelf>,
    /// Bytes of all rings.
    history_bytes: usize,
    /// When revisions were published, coarsely, oldest first: for the history's age.
    marks: VecDeque<Mark>,
}

/// "This revision was the newest at this time."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) at_ms: u64,
    pub(crate) revision: Revision,
}

/// The time between two marks: how coarsely the history's age is kept.
pub(crate) const MARK_EVERY_MS: u64 = 5_000;

/// A bucket taken out of, or put into, the view whole.
#[derive(Clone)]
pub(crate) struct BucketImage {
    pub(crate) prefix: Arc<str>,
    pub(crate) map: Map,
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) horizon: Revision,
}

/// The whole view at one moment.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    pub(crate) marks: Vec<Mark>,
    pub(crate) buckets: Vec<BucketImage>,
}

/// See the module.
pub(crate) struct View {
    state: RwLock<State>,
    visible: AtomicU64,
    closed: AtomicBool,
    advanced: Notify,
    history: History,
}

impl View {
    /// A view that begins as `image`.
    pub(crate) fn new(image: Image, history: History, now_ms: u64) -> Self {
        let state = State::of(image, &history, now_ms);
        Self {
            visible: AtomicU64::new(state.revision.0),
            state: RwLock::new(state),
            closed: AtomicBool::new(false),
            advanced: Notify::new(),
            history,
        }
    }

    /// Takes the image that a view made empty begins with. Nobody has looked at it yet.
    pub(crate) fn begin(&self, image: Image, now_ms: u64) {
        let revision = image.revision;
        *self.state.write() = State::of(image, &self.history, now_ms);
        self.visible.store(revision.0, Ordering::Release);
    }

    /// The newest revision of which everything is visible, events included.
    pub(crate) fn visible(&self) -> Revision {
        Revision(self.visible.load(Ordering::Acquire))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends every watch and every wait.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for shelf in self.state.read().shelves.values() {
            shelf.bucket.notify.notify_waiters();
        }
        self.advanced.notify_waiters();
    }

    pub(crate) async fn until_closed(&self) {
        // No revision is that new: the wait ends with the store.
        let _ = self.wait_for(Revision(u64::MAX)).await;
    }

    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<()> {
        loop {
            let woken = self.advanced.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            // Closed is looked at first: what was published before it is visible by then.
            let closed = self.is_closed();
            if self.visible() >= revision {
                return Ok(());
            }
            if closed {
                return Err(Error::Closed);
            }
            woken.await;
        }
    }

    pub(crate) fn snapshot(&self, prefix: &str) -> Snapshot {
        let state = self.state.read();
        let entries = state.shelves.get(prefix).map(|shelf| shelf.map.clone()).unwrap_or_default();
        Snapshot { revision: state.revision, entries }
    }

    pub(crate) fn get(&self, prefix: &str, name: &str) -> Option<Arc<Entry>> {
        self.state.read().shelves.get(prefix)?.map.get(name).cloned()
    }

    /// The bucket at an older revision: today's map with the newer events undone.
    pub(crate) fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Snapshot> {
        let (mut entries, undo) = {
            let state = self.state.read();
            if revision > state.revision {
                return Err(Error::Future { asked: revision, current: state.revision });
            }
            let Some(shelf) = state.shelves.get(prefix) else {
                if revision < state.compacted {
                    return Err(Error::Compacted { oldest: state.compacted });
                }
                return Ok(Snapshot { revision, entries: Map::new() });
            };
            // The state's lock is held: map and ring are of the same revision.
            let ring = shelf.bucket.ring.read();
            let from = (ring.position_after(revision)? - ring.first) as usize;
            (shelf.map.clone(), ring.events.range(from..).cloned().collect::<Vec<_>>())
        };
        for event in undo.iter().rev() {
            match &event.previous {
                Some(previous) => entries.insert(previous.name.clone(), previous.clone()),
                None => entries.remove(&*event.entry.name),
            };
        }
        Ok(Snapshot { revision, entries })
    }

    /// The bucket's history, made if this is the first time anyone asks.
    pub(crate) fn bucket(&self, prefix: &str) -> Arc<Bucket> {
        if let Some(shelf) = self.state.read().shelves.get(prefix) {
            return shelf.bucket.clone();
        }
        self.state.write().shelf(&Arc::from(prefix)).bucket.clone()
    }

    pub(crate) fn oldest(&self, prefix: &str) -> Revision {
        let state = self.state.read();
        state.shelves.get(prefix).map_or(state.compacted, |shelf| shelf.bucket.ring.read().horizon)
    }

    /// Makes durable changes visible, in order: their effect on the maps, and the events themselves.
    ///
    /// The maps are changed in place; what a reader's snapshot shares with them is copied then, and only that. Readers
    /// wait for a piece of the changes at most, which ends where a revision does.
    pub(crate) fn publish(&self, revision: Revision, now_ms: u64, events: &[Arc<Event>]) {
        let mut gone = Vec::new();
        let mut woken: Vec<Arc<Bucket>> = Vec::new();
        let mut rest = events;
        loop {
            let (now, later) = rest.split_at(piece(rest));
            rest = later;
            let mut state = self.state.write();
            state.publish(now, self.history.events, &mut woken, &mut gone);
            if rest.is_empty() {
                state.revision = revision;
                state.keep_within(&self.history, now_ms, &mut gone);
                drop(state);
                self.visible.store(revision.0, Ordering::Release);
                break;
            }
            let reached = state.revision;
            drop(state);
            self.visible.store(reached.0, Ordering::Release);
        }
        for bucket in woken {
            bucket.notify.notify_waiters();
        }
        self.advanced.notify_waiters();
        // Old entries and events are freed outside the lock.
        drop(gone);
    }

    /// Goes on from another state after changes that nobody saw: every watch ends with `Compacted`.
    pub(crate) fn replace(&self, revision: Revision, buckets: &HashMap<Arc<str>, Map>) {
        let (mut gone, mut old, mut woken) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut state = self.state.write();
            state.revision = revision;
            state.compacted = state.compacted.max(revision);
            for prefix in buckets.keys() {
                state.shelf(prefix);
            }
            for (prefix, shelf) in &mut state.shelves {
                let map = buckets.get(prefix).cloned().unwrap_or_default();
                shelf.bytes = map.values().map(size).sum();
                old.push(std::mem::replace(&mut shelf.map, map));
                shelf.bucket.ring.write().break_off(revision, &mut gone);
                woken.push(shelf.bucket.clone());
            }
            state.history_bytes = 0;
        }
        self.visible.fetch_max(revision.0, Ordering::AcqRel);
        for bucket in woken {
            bucket.notify.notify_waiters();
        }
        self.advanced.notify_waiters();
        drop((old, gone));
    }

    /// The event of a key at a revision, while the history has it.
    pub(crate) fn event_at(&self, prefix: &str, name: &str, revision: Revision) -> Option<Arc<Event>> {
        let bucket = self.bucket(prefix);
        let ring = bucket.ring.read();
        let from = ring.position_after(Revision(revision.0 - 1)).ok()? - ring.first;
        let mut events = ring.events.range(from as usize..).take_while(|event| event.revision == revision);
        events.find(|event| &*event.entry.name == name).cloned()
    }

    /// The events of a key after a revision; `Compacted` when the history does not reach back to it.
    pub(crate) fn events_of(&self, prefix: &str, name: &str, after: Revision) -> Result<Vec<Arc<Event>>> {
        let bucket = self.bucket(prefix);
        let ring = bucket.ring.read();
        let from = ring.position_after(after)? - ring.first;
        let events = ring.events.range(from as usize..);
        Ok(events.filter(|event| &*event.entry.name == name).cloned().collect())
    }

    /// Forgets the history up to `revision`.
    pub(crate) fn compact(&self, revision: Revision) {
        let mut gone = Vec::new();
        let mut state = self.state.write();
        state.compacted = state.compacted.max(revision);
        state.trim_to(revision, &mut gone);
        drop(state);
        drop(gone);
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.state.read().compacted
    }

    /// The whole view, for an engine's snapshot.
    pub(crate) fn image(&self) -> Image {
        let state = self.state.read();
        let mut buckets: Vec<_> = state
            .shelves
            .values()
            .map(|shelf| {
                let ring = shelf.bucket.ring.read();
                BucketImage {
                    prefix: shelf.bucket.prefix.clone(),
                    map: shelf.map.clone(),
                    events: ring.events.iter().cloned().collect(),
                    horizon: ring.horizon,
                }
            })
            .collect();
        buckets.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        Image {
            revision: state.revision,
            compacted: state.compacted,
            marks: state.marks.iter().copied().collect(),
            buckets,
        }
    }

    pub(crate) fn stats(&self) -> (Revision, Revision, Vec<BucketStats>) {
        let state = self.state.read();
        let mut buckets: Vec<_> = state
            .shelves
            .values()
            .map(|shelf| {
                let ring = shelf.bucket.ring.read();
                BucketStats {
                    prefix: shelf.bucket.prefix.clone(),
                    keys: shelf.map.len(),
                    bytes: shelf.bytes,
                    events: ring.events.len(),
                    history_bytes: ring.bytes,
                    oldest: ring.horizon,
                    capacity: self.history.events,
                    received: ring.received(),
                    readings: 1 + ring.breaks,
                }
            })
            .collect();
        buckets.sort_by(|a, b| a.prefix.cmp(&b.prefix));
        (state.revision, state.compacted, buckets)
    }

    /// Bytes of live names and values, and of the history.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.shelves.values().map(|shelf| shelf.bytes).sum(), state.history_bytes as u64)
    }
}

/// How many of these changes are made visible at once: as many as take little time, to the end of a revision.
fn piece(events: &[Arc<Event>]) -> usize {
    const PIECE: usize = 64;
    let Some(last) = events.get(PIECE - 1) else { return events.len() };
    let same = events[PIECE..].iter().take_while(|event| event.revision == last.revision).count();
    PIECE + same
}

impl State {
    /// Applies changes to the maps and appends them to the rings.
    fn publish(
        &mut self,
        events: &[Arc<Event>],
        most: usize,
        woken: &mut Vec<Arc<Bucket>>,
        gone: &mut Vec<Arc<Event>>,
    ) {
        let mut rest = events;
        while let Some(first) = rest.first() {
            // Runs of events of one bucket look it up once.
            let run = rest.iter().take_while(|event| Arc::ptr_eq(&event.prefix, &first.prefix)).count();
            let (now, later) = rest.split_at(run);
            rest = later;
            let (mut added, mut freed) = (0, 0);
            let shelf = self.shelf(&first.prefix);
            let mut ring = shelf.bucket.ring.write();
            for event in now {
                apply(&mut shelf.map, event);
                shelf.bytes += event.current().map_or(0, size);
                shelf.bytes -= event.previous.as_ref().map_or(0, size);
                added += ring.push(event.clone());
            }
            while ring.events.len() > most {
                freed += ring.pop(gone);
            }
            drop(ring);
            if !woken.iter().any(|known| Arc::ptr_eq(known, &shelf.bucket)) {
                woken.push(shelf.bucket.clone());
            }
            self.history_bytes = self.history_bytes + added - freed;
        }
        if let Some(last) = events.last() {
            self.revision = last.revision;
        }
    }

    fn of(image: Image, history: &History, now_ms: u64) -> Self {
        let mut state = State { revision: image.revision, compacted: image.compacted, ..State::default() };
        state.marks.extend(image.marks);
        let mut gone = Vec::new();
        for BucketImage { prefix, map, events, horizon } in image.buckets {
            let mut ring = Ring { horizon, ..Ring::default() };
            for event in events {
                state.history_bytes += ring.push(event);
                ring.restored += 1;
            }
            while ring.events.len() > history.events {
                state.history_bytes -= ring.pop(&mut gone);
            }
            let bytes = map.values().map(size).sum();
            let bucket =
                Arc::new(Bucket { prefix: prefix.clone(), ring: RwLock::new(ring), notify: Notify::new() });
            state.shelves.insert(prefix, Shelf { map, bytes, bucket });
        }
        state.keep_within(history, now_ms, &mut gone);
        state
    }

    fn shelf(&mut self, prefix: &Arc<str>) -> &mut Shelf {
        let horizon = self.compacted;
        self.shelves.entry(prefix.clone()).or_insert_with(|| Shelf {
            map: Map::new(),
            bytes: 0,
            bucket: Arc::new(Bucket {
                prefix: prefix.clone(),
                ring: RwLock::new(Ring { horizon, ..Ring::default() }),
                notify: Notify::new(),
            }),
        })
    }

    fn keep_within(&mut self, history: &History, now_ms: u64, gone: &mut Vec<Arc<Event>>) {
        if self.marks.back().is_none_or(|mark| mark.at_ms.saturating_add(MARK_EVERY_MS) <= now_ms) {
            self.marks.push_back(Mark { at_ms: now_ms, revision: self.revision });
            let age = u64::try_from(history.age.as_millis()).unwrap_or(u64::MAX);
            let mut until = None;
            while self.marks.front().is_some_and(|mark| mark.at_ms.saturating_add(age) < now_ms) {
                until = self.marks.pop_front();
            }
            if let Some(mark) = until {
                self.trim_to(mark.revision, gone);
            }
        }
        if self.history_bytes <= history.bytes {
            return;
        }
        // A sixteenth below the limit, so that this is not every batch's work.
        let goal = history.bytes - history.bytes / 16;
        while self.history_bytes > goal {
            let Some(largest) = self.shelves.values().max_by_key(|shelf| shelf.bucket.ring.read().bytes)
            else {
                return;
            };
            let mut ring = largest.bucket.ring.write();
            let stop = ring.bytes / 2;
            let mut freed = 0;
            while self.history_bytes - freed > goal && ring.bytes > stop {
                freed += ring.pop(gone);
            }
            drop(ring);
            if freed == 0 {
                return;
            }
            self.history_bytes -= freed;
        }
    }

    fn trim_to(&mut self, revision: Revision, gone: &mut Vec<Arc<Event>>) {
        let mut freed = 0;
        for shelf in self.shelves.values() {
            freed += shelf.bucket.ring.write().trim_to(revision, gone);
        }
        self.history_bytes -= freed;
    }
}

/// Bytes of an entry's name and value.
pub(crate) fn size(entry: &Arc<Entry>) -> u64 {
    (entry.name.len() + entry.value.len()) as u64
}

/// Applies an event to a map.
pub(crate) fn apply(map: &mut Map, event: &Event) {
    match event.kind {
        EventKind::Put => map.insert(event.entry.name.clone(), event.entry.clone()),
        EventKind::Delete => map.remove(&*event.entry.name),
    };
}
