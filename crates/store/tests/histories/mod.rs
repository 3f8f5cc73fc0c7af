//! What clients of a store saw, and whether one order of their operations explains it.
//!
//! Every write has a revision, and every read says at which revision it looked: that is the order. It explains a history
//! when writes begin from what the order says was there, reads find what it says, and no operation is ordered before one
//! that had ended when it began.

#![allow(clippy::unwrap_used, dead_code, reason = "tests; not every one uses all of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use store::{Error, EventKind, Expect, Key, Revision, Store, Write};

pub(crate) const PREFIX: &str = "/registry/histories/";

pub(crate) fn key(name: impl std::fmt::Display) -> Key {
    Key::new(PREFIX, format!("default/{name}"))
}

/// How often, said by the environment.
pub(crate) fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

#[derive(Clone, Debug)]
enum Done {
    /// At this revision, upon that of the key before (none when it was absent).
    Wrote {
        at: u64,
        before: Option<u64>,
    },
    /// The value, of that revision, in a state at `at`; a read of one key does not say at which.
    Read {
        at: Option<u64>,
        found: Option<(u64, Vec<u8>)>,
    },
    /// It may have happened, at any time from its beginning on.
    Unknown,
    Refused,
}

#[derive(Clone, Debug)]
struct Operation {
    key: u8,
    value: Vec<u8>,
    begun: Instant,
    ended: Instant,
    done: Done,
}

/// What the clients of one history did.
#[derive(Default)]
pub(crate) struct History(Vec<Operation>);

impl History {
    /// `clients` at a time do `each` operations on few keys.
    pub(crate) async fn record(stores: &[Arc<dyn Store>], clients: u64, each: u64, seed: u64) -> Self {
        let all = (0..clients).map(|client| {
            let store = stores[client as usize % stores.len()].clone();
            tokio::spawn(async move {
                let mut random = seed ^ (client << 40);
                let mut operations = Vec::new();
                for round in 0..each {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let (key_of, kind) = ((random >> 33) as u8 % 3, (random >> 41) % 3);
                    let value = format!("{seed}/{client}/{round}").into_bytes();
                    let begun = Instant::now();
                    let done = match kind {
                        0 => read(&*store, key_of).await,
                        1 => replace(&*store, key_of, &value).await,
                        _ => list(&*store, key_of).await,
                    };
                    operations.push(Operation { key: key_of, value, begun, ended: Instant::now(), done });
                }
                operations
            })
        });
        let all = join_all(all).await;
        History(all.into_iter().flat_map(|operations| operations.unwrap()).collect())
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// How many operations there are, and how many of them have no outcome.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.0.len(), self.0.iter().filter(|operation| matches!(operation.done, Done::Unknown)).count())
    }

    /// Panics when the order of revisions does not explain what was seen.
    pub(crate) fn check(&self, context: &str) {
        let mut writes: BTreeMap<(u8, u64), &Operation> = BTreeMap::new();
        for operation in &self.0 {
            if let Done::Wrote { at, .. } = operation.done {
                let twice = writes.insert((operation.key, at), operation);
                assert!(twice.is_none(), "{context}: revision {at} was given twice");
            }
        }
        let unknown: HashMap<&[u8], &Operation> = self
            .0
            .iter()
            .filter(|operation| matches!(operation.done, Done::Unknown))
            .map(|operation| (&*operation.value, operation))
            .collect();
        for operation in &self.0 {
            self.explain(operation, &writes, &unknown, context);
        }
        // Among all, by the revision of the state; among those of a key, by the revision of the key.
        self.in_order(context, |operation| match &operation.done {
            Done::Wrote { at, .. } => Some((*at, true)),
            Done::Read { at, .. } => at.map(|at| (at, false)),
            Done::Unknown | Done::Refused => None,
        });
        for of in 0..3 {
            self.in_order(context, |operation| match &operation.done {
                Done::Wrote { at, .. } if operation.key == of => Some((*at, true)),
                Done::Read { found, .. } if operation.key == of => {
                    Some((found.as_ref().map_or(0, |(at, _)| *at), false))
                }
                _ => None,
            });
        }
    }

    /// Whatever begins when another has ended is not ordered before it, and a write is ordered behind it. `place` says
    /// where an operation is, and whether it wrote.
    fn in_order(&self, context: &str, place: impl Fn(&Operation) -> Option<(u64, bool)>) {
        let placed = self.0.iter().filter_map(|operation| Some((operation, place(operation)?)));
        let mut begins: Vec<_> = placed.collect();
        let mut ends = begins.clone();
        begins.sort_by_key(|(operation, _)| operation.begun);
        ends.sort_by_key(|(operation, _)| operation.ended);
        let (mut ends, mut newest) = (ends.iter().peekable(), 0);
        for (operation, (at, wrote)) in &begins {
            while let Some((_, (at, _))) = ends.next_if(|(other, _)| other.ended < operation.begun) {
                newest = newest.max(*at);
            }
            let in_order = if *wrote { *at > newest } else { *at >= newest };
            assert!(in_order, "{context}: {operation:?} is ordered before {newest}, which had ended");
        }
    }

    /// What an operation found was the newest of its key before it.
    fn explain(
        &self,
        operation: &Operation,
        writes: &BTreeMap<(u8, u64), &Operation>,
        unknown: &HashMap<&[u8], &Operation>,
        context: &str,
    ) {
        let last = |upto: u64| writes.range((operation.key, 0)..=(operation.key, upto)).next_back();
        match &operation.done {
            Done::Wrote { at, before } => {
                let known = last(at - 1).map(|((_, at), _)| *at);
                // One without an outcome may lie between.
                assert!(
                    *before == known || *before > known && !unknown.is_empty(),
                    "{context}: {operation:?} was written upon {before:?}, not {known:?}"
                );
            }
            Done::Read { at, found } => {
                let found = found.as_ref().map(|(at, value)| (*at, &**value));
                let upto = at.unwrap_or_else(|| found.map_or(0, |(at, _)| at));
                let known = last(upto).map(|((_, at), write)| (*at, &*write.value));
                if found != known {
                    let value = found.map(|(_, value)| value).unwrap_or_default();
                    let late = unknown.get(value).is_some_and(|write| write.begun < operation.ended);
                    assert!(
                        late && found.map(|(at, _)| at) > known.map(|(at, _)| at),
                        "{context}: {operation:?} found {found:?}, not {known:?}"
                    );
                }
            }
            Done::Unknown | Done::Refused => {}
        }
    }
}

async fn read(store: &dyn Store, key_of: u8) -> Done {
    match store.consistent_get(&key(key_of)).await {
        Ok(entry) => {
            Done::Read { at: None, found: entry.map(|entry| (entry.mod_revision.0, entry.value.to_vec())) }
        }
        Err(_) => Done::Refused,
    }
}

async fn list(store: &dyn Store, key_of: u8) -> Done {
    match store.consistent_snapshot(PREFIX).await {
        Ok(snapshot) => {
            let entry = snapshot.get(&key(key_of).name);
            let found = entry.map(|entry| (entry.mod_revision.0, entry.value.to_vec()));
            Done::Read { at: Some(snapshot.revision.0), found }
        }
        Err(_) => Done::Refused,
    }
}

async fn replace(store: &dyn Store, key_of: u8, value: &[u8]) -> Done {
    let newest = match store.newest(&key(key_of)).await {
        Ok(newest) => newest.map(|entry| entry.mod_revision),
        Err(_) => return Done::Refused,
    };
    let expect = newest.map_or(Expect::Absent, Expect::Revision);
    match store.commit(Write::put(key(key_of), value.to_vec(), expect)).await {
        Ok(event) => Done::Wrote { at: event.revision.0, before: newest.map(|revision| revision.0) },
        Err(Error::Conflict { .. } | Error::Closed) => Done::Refused,
        Err(_) => Done::Unknown,
    }
}

/// Writers of few keys, a compaction every hundred milliseconds, and watchers that go away and come back: each sees all
/// there is, in order and once, or is told that it was compacted. Returns the events told.
pub(crate) async fn watch_under_compaction(store: Arc<dyn Store>, watchers: usize, events: u64) -> u64 {
    let start = store.revision();
    let told = Arc::new(AtomicU64::new(0));
    let writers = (0..4_u64).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut log = Vec::new();
            for round in 0..events / 4 {
                let name = format!("{writer}-{}", round % 25);
                let exists = store.pending(&key(&name)).is_some();
                let write = match round % 7 {
                    6 if exists => Write::delete(key(&name), Expect::Any),
                    _ => Write::put(key(&name), format!("{round}"), Expect::Any),
                };
                log.push(store.commit(write).await.unwrap().revision);
            }
            log
        })
    });
    let writers: Vec<_> = writers.collect();
    let stop = tokio_util::sync::CancellationToken::new();
    let compactor = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            let mut every = tokio::time::interval(Duration::from_millis(100));
            while stop.run_until_cancelled(every.tick()).await.is_some() {
                let to = store.revision();
                match store.compact(to).await {
                    Ok(()) | Err(Error::Compacted { .. } | Error::Future { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    let end = Arc::new(AtomicU64::new(u64::MAX));
    let watching: Vec<_> = (0..watchers as u64)
        .map(|watcher| {
            let (store, told, end) = (store.clone(), told.clone(), end.clone());
            tokio::spawn(async move { follow(&*store, start, watcher, &told, &end).await })
        })
        .collect();
    let mut revisions: Vec<Revision> = Vec::new();
    for log in join_all(writers).await {
        revisions.extend(log.unwrap());
    }
    end.store(revisions.iter().max().unwrap().0, Ordering::Release);
    // Wakes those who wait for more.
    store.commit(Write::put(key("end"), "", Expect::Any)).await.unwrap();
    for state in join_all(watching).await {
        let (state, at) = state.unwrap();
        let then = store.snapshot(PREFIX);
        let then: BTreeMap<_, _> = then.range("", "").map(|e| (e.name.clone(), e.mod_revision)).collect();
        assert!(at.0 >= end.load(Ordering::Acquire));
        assert_eq!(state, then, "a watcher's state is not the store's");
    }
    stop.cancel();
    compactor.await.unwrap();
    told.load(Ordering::Relaxed)
}

/// Follows the bucket, with a new watch every so often, until the end.
async fn follow(
    store: &dyn Store,
    start: Revision,
    watcher: u64,
    told: &AtomicU64,
    end: &AtomicU64,
) -> (BTreeMap<Arc<str>, Revision>, Revision) {
    let (mut state, mut at) = (BTreeMap::new(), start);
    let mut watch = store.watch(PREFIX, at).ok();
    let mut batches = 0;
    loop {
        let next = match &mut watch {
            Some(watch) => watch.next_batch().await,
            None => Err(Error::Compacted { oldest: Revision(0) }),
        };
        match next {
            Ok(events) => {
                for event in events {
                    assert!(event.revision > at, "{} came after {at}", event.revision);
                    let had = state.get(&event.entry.name).copied();
                    assert_eq!(
                        had,
                        event.previous.as_ref().map(|e| e.mod_revision),
                        "a gap before {}",
                        event.revision
                    );
                    at = event.revision;
                    match event.kind {
                        EventKind::Put => state.insert(event.entry.name.clone(), at),
                        EventKind::Delete => state.remove(&event.entry.name),
                    };
                    told.fetch_add(1, Ordering::Relaxed);
                }
                batches += 1;
                if batches % (50 + watcher) == 0 {
                    // Gone, and back where it was, if that is still there.
                    watch = store.watch(PREFIX, at).ok();
                }
            }
            Err(Error::Compacted { oldest }) => {
                assert!(oldest.0 == 0 || oldest > at, "{at} is said to be compacted, the oldest is {oldest}");
                let listed = store.snapshot(PREFIX);
                state = listed.range("", "").map(|e| (e.name.clone(), e.mod_revision)).collect();
                at = listed.revision;
                watch = store.watch(PREFIX, at).ok();
            }
            Err(error) => panic!("{error}"),
        }
        if at.0 > end.load(Ordering::Acquire) {
            return (state, at);
        }
    }
}

/// Writes that were acknowledged and that the watcher has not told of.
struct Untold {
    told: Revision,
    /// When the first of them was acknowledged.
    since: Option<Instant>,
    longest: Duration,
}

/// Ten writers fight over one key for `span`, and a watcher is told of every write. Returns the writes, how long the
/// watcher lagged at the 99th percentile, and how long it was silent at most although a write had been acknowledged.
pub(crate) async fn conflict_storm(store: Arc<dyn Store>, span: Duration) -> (usize, Duration, Duration) {
    let begun = Instant::now();
    let untold = Untold { told: store.revision(), since: None, longest: Duration::ZERO };
    let mut watch = store.watch(PREFIX, untold.told).unwrap();
    let untold = Arc::new(Mutex::new(untold));
    let writers: Vec<_> = (0..10)
        .map(|writer| {
            let (store, untold) = (store.clone(), untold.clone());
            tokio::spawn(async move {
                let mut wrote = 0_usize;
                while begun.elapsed() < span {
                    let newest = store.newest(&key("storm")).await.unwrap().map(|entry| entry.mod_revision);
                    let value = format!("{}/{writer}", begun.elapsed().as_nanos());
                    let expect = newest.map_or(Expect::Absent, Expect::Revision);
                    match store.commit(Write::put(key("storm"), value, expect)).await {
                        Ok(event) => {
                            wrote += 1;
                            let mut untold = untold.lock().unwrap();
                            if event.revision > untold.told {
                                untold.since.get_or_insert_with(Instant::now);
                            }
                        }
                        Err(Error::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                wrote
            })
        })
        .collect();
    let watching = tokio::spawn(async move {
        let mut lags = Vec::new();
        while begun.elapsed() < span {
            let Ok(events) = tokio::time::timeout(Duration::from_secs(2), watch.next_batch()).await else {
                // A disk that stands still keeps the writers waiting, too.
                assert!(untold.lock().unwrap().since.is_none(), "the watch is silent while writes commit");
                continue;
            };
            let events = events.unwrap();
            {
                let mut untold = untold.lock().unwrap();
                untold.told = events.last().map_or(untold.told, |event| event.revision);
                // What was acknowledged behind these is told next, at once: it waits from now.
                let waited = untold.since.take().map_or(Duration::ZERO, |since| since.elapsed());
                untold.longest = untold.longest.max(waited);
            }
            for event in events {
                let text = String::from_utf8_lossy(&event.entry.value);
                let at: u64 = text.split('/').next().unwrap().parse().unwrap();
                lags.push(begun.elapsed().saturating_sub(Duration::from_nanos(at)));
            }
        }
        lags.sort();
        let longest = untold.lock().unwrap().longest;
        (lags[lags.len() * 99 / 100], longest)
    });
    let wrote: usize = join_all(writers).await.into_iter().map(|wrote| wrote.unwrap()).sum();
    let (lag, silence) = watching.await.unwrap();
    (wrote, lag, silence)
}
