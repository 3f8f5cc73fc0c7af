//! Keys that wait to be reconciled (upstream's workqueue): each key waits at most once, is worked on by one worker at a
//! time, and comes back with an exponential delay when its reconcile fails.

use crate::measures::{self, Queues};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Delays of failed keys.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub base: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    /// Upstream's default controller rate limiter: 5 ms doubling to 1,000 s.
    fn default() -> Self {
        Backoff { base: Duration::from_millis(5), max: Duration::from_secs(1000) }
    }
}

/// Keys by when they are due, each once.
struct Delayed<K> {
    due: HashMap<K, (Instant, u64)>,
    /// In the order in which they are due, and were added.
    order: BTreeMap<(Instant, u64), K>,
    added: u64,
}

impl<K: Hash + Eq + Clone> Delayed<K> {
    fn new() -> Self {
        Delayed { due: HashMap::new(), order: BTreeMap::new(), added: 0 }
    }

    fn remove(&mut self, key: &K) {
        if let Some(at) = self.due.remove(key) {
            self.order.remove(&at);
        }
    }

    fn add(&mut self, key: K, at: Instant) {
        if self.due.get(&key).is_some_and(|(earlier, _)| *earlier <= at) {
            return;
        }
        self.remove(&key);
        self.added += 1;
        self.due.insert(key.clone(), (at, self.added));
        self.order.insert((at, self.added), key);
    }

    fn next(&self) -> Option<Instant> {
        self.order.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a key that is due.
    fn pop(&mut self, now: Instant) -> Option<K> {
        self.next().filter(|at| *at <= now)?;
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}

struct State<K> {
    waiting: VecDeque<K>,
    /// Keys in `waiting`, and keys that were added again while being worked on.
    dirty: HashSet<K>,
    working: HashSet<K>,
    /// Keys that become due later; a key is kept with its earliest time.
    delayed: Delayed<K>,
    failures: HashMap<K, u32>,
    /// Since when keys wait, and are worked on; where somebody wants to know.
    added: HashMap<K, Instant>,
    taken: HashMap<K, Instant>,
    closed: bool,
}

struct Inner<K> {
    state: Mutex<State<K>>,
    /// Something is due, or may be due earlier than thought.
    changed: Notify,
    backoff: Backoff,
    measures: OnceLock<measures::Queue>,
}

/// A work queue. Cheap to clone.
pub struct Queue<K>(Arc<Inner<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue(self.0.clone())
    }
}

impl<K> std::fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.0.state.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + Send + 'static> Default for Queue<K> {
    fn default() -> Self {
        Queue::new(Backoff::default())
    }
}

impl<K: Hash + Eq + Clone + Send + 'static> Queue<K> {
    pub fn new(backoff: Backoff) -> Self {
        Queue(Arc::new(Inner {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                dirty: HashSet::new(),
                working: HashSet::new(),
                delayed: Delayed::new(),
                failures: HashMap::new(),
                added: HashMap::new(),
                taken: HashMap::new(),
                closed: false,
            }),
            changed: Notify::new(),
            backoff,
            measures: OnceLock::new(),
        }))
    }

    /// From now on it is told what becomes of keys, under this name.
    pub(crate) fn observe(&self, queues: &Queues, name: &'static str)
    where
        K: Sync,
    {
        let weak = Arc::downgrade(&self.0);
        let running = move || {
            let inner = weak.upgrade()?;
            let now = Instant::now();
            let state = inner.state.lock();
            Some(state.taken.values().map(|since| now.saturating_duration_since(*since)).collect())
        };
        let measures = queues.queue(name, running);
        let mut state = self.0.state.lock();
        let (waiting, now) = (state.dirty.len(), Instant::now());
        measures.adds.add(waiting as u64);
        measures.depth.set(waiting as f64);
        let keys: Vec<K> = state.dirty.iter().cloned().collect();
        state.added.extend(keys.into_iter().map(|key| (key, now)));
        let _ = self.0.measures.set(measures);
    }

    /// Adds a key to be worked on now.
    pub fn add(&self, key: K) {
        let mut state = self.0.state.lock();
        state.delayed.remove(&key);
        self.push(&mut state, key);
        drop(state);
        self.0.changed.notify_one();
    }

    fn push(&self, state: &mut State<K>, key: K) {
        if state.closed || !state.dirty.insert(key.clone()) {
            return;
        }
        if let Some(measures) = self.0.measures.get() {
            measures.adds.inc();
            measures.depth.set(state.dirty.len() as f64);
            state.added.insert(key.clone(), Instant::now());
        }
        if !state.working.contains(&key) {
            state.waiting.push_back(key);
        }
    }

    /// Adds a key to be worked on after `delay`; an earlier time that is already set stays.
    pub fn add_after(&self, key: K, delay: Duration) {
        if let Some(measures) = self.0.measures.get() {
            measures.retries.inc();
        }
        if delay.is_zero() {
            return self.add(key);
        }
        let due = Instant::now() + delay;
        let mut state = self.0.state.lock();
        state.delayed.add(key, due);
        drop(state);
        self.0.changed.notify_one();
    }

    /// Adds a key after the delay that its number of failures asks for.
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.0.state.lock();
            let n = state.failures.entry(key.clone()).or_default();
            *n += 1;
            *n - 1
        };
        let delay =
            self.0.backoff.base.saturating_mul(1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX));
        self.add_after(key, delay.min(self.0.backoff.max));
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No key is handed out any more.
    pub fn close(&self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_waiters();
        self.0.changed.notify_one();
    }

    /// The next due key, which then belongs to the caller until [`Queue::done`]; `None` once closed.
    pub async fn get(&self) -> Option<K> {
        loop {
            let changed = self.0.changed.notified();
            let next_due = {
                let mut state = self.0.state.lock();
                if state.closed {
                    drop(state);
                    self.0.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                while let Some(key) = state.delayed.pop(now) {
                    self.push(&mut state, key);
                }
                if let Some(key) = state.waiting.pop_front() {
                    state.dirty.remove(&key);
                    state.working.insert(key.clone());
                    if let Some(measures) = self.0.measures.get() {
                        measures.depth.set(state.dirty.len() as f64);
                        if let Some(since) = state.added.remove(&key) {
                            measures.waited.observe((now - since).as_secs_f64());
                        }
                        state.taken.insert(key.clone(), now);
                    }
                    // Another worker may be asleep while more is waiting.
                    if !state.waiting.is_empty() || state.delayed.next().is_some() {
                        self.0.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.next()
            };
            match next_due {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// The caller is done with a key; it is handed out again if it was added meanwhile.
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        state.working.remove(key);
        if let Some(since) = state.taken.remove(key)
            && let Some(measures) = self.0.measures.get()
        {
            measures.worked.observe(since.elapsed().as_secs_f64());
        }
        if state.dirty.contains(key) {
            state.waiting.push_back(key.clone());
            drop(state);
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_returns_when_added_while_worked_on() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.get().await, Some("b"));
        queue.done(&"b");
        assert!(queue.is_empty(), "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
        queue.done(&"a");
        queue.close();
        assert_eq!(queue.get().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay() {
        let queue = Queue::new(Backoff { base: Duration::from_secs(1), max: Duration::from_secs(3) });
        let start = Instant::now();
        for expected in [1, 3, 6, 9] {
            queue.add_rate_limited("k");
            assert_eq!(queue.get().await, Some("k"));
            queue.done(&"k");
            assert_eq!(start.elapsed().as_secs(), expected);
        }
        queue.forget(&"k");
        queue.add_rate_limited("k");
        queue.get().await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_wins() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("k", Duration::from_secs(5));
        queue.add_after("k", Duration::from_secs(2));
        queue.add_after("k", Duration::from_secs(9));
        queue.get().await;
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
