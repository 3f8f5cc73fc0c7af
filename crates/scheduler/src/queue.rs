//! Pods that wait: those to be tried now, by priority and age; those that failed, until their back-off is over and
//! something happened that may help them.

use client::ObjectKey;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Upstream's pod back-off: 1 s doubling to 10 s.
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// After this long a pod is tried again even if nothing happened.
const STALE: Duration = Duration::from_secs(300);

/// Orders active pods: higher priority first, then the one that waits longer.
type Rank = (i64, u64);

#[derive(Debug)]
struct Failed {
    priority: i32,
    until: Instant,
    since: Instant,
    /// Something happened meanwhile: try when the back-off is over.
    woken: bool,
}

/// The scheduling queue.
#[derive(Debug, Default)]
pub struct Queue {
    active: BTreeMap<Rank, ObjectKey>,
    ranks: HashMap<ObjectKey, Rank>,
    failed: HashMap<ObjectKey, Failed>,
    attempts: HashMap<ObjectKey, u32>,
    arrivals: u64,
    /// Counts what may help pods; a pod in flight that missed one is not put to sleep.
    moves: u64,
}

impl Queue {
    /// Adds or refreshes a pod that is to be tried now.
    pub fn add(&mut self, key: ObjectKey, priority: i32) {
        self.failed.remove(&key);
        if self.ranks.contains_key(&key) {
            return;
        }
        self.arrivals += 1;
        let rank = (-i64::from(priority), self.arrivals);
        self.active.insert(rank, key.clone());
        self.ranks.insert(key, rank);
    }

    /// Forgets a pod: it is gone, or has its node.
    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(rank) = self.ranks.remove(key) {
            self.active.remove(&rank);
        }
        self.failed.remove(key);
        self.attempts.remove(key);
    }

    /// The next pod to try, and the count of moves at that moment.
    pub fn pop(&mut self) -> Option<(ObjectKey, u64)> {
        let (_, key) = self.active.pop_first()?;
        self.ranks.remove(&key);
        *self.attempts.entry(key.clone()).or_default() += 1;
        Some((key, self.moves))
    }

    /// Puts a pod that found no node to sleep.
    pub fn put_back(&mut self, key: ObjectKey, priority: i32, seen_moves: u64, now: Instant) {
        let attempts = self.attempts.get(&key).copied().unwrap_or(1);
        let backoff =
            INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        let woken = seen_moves != self.moves;
        self.failed.insert(key, Failed { priority, until: now + backoff, since: now, woken });
    }

    /// Something happened that may let pods in: a node came or changed, a pod went.
    pub fn wake_all(&mut self, now: Instant) {
        self.moves += 1;
        for failed in self.failed.values_mut() {
            failed.woken = true;
        }
        self.release(now);
    }

    /// Moves pods whose time has come to the active ones.
    pub fn release(&mut self, now: Instant) {
        let due: Vec<(ObjectKey, i32)> = self
            .failed
            .iter()
            .filter(|(_, f)| f.woken && f.until <= now || f.since + STALE <= now)
            .map(|(k, f)| (k.clone(), f.priority))
            .collect();
        for (key, priority) in due {
            self.add(key, priority);
        }
    }

    /// When [`Queue::release`] will next have something to do.
    pub fn next_release(&self) -> Option<Instant> {
        self.failed.values().map(|f| if f.woken { f.until } else { f.since + STALE }).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn priority_then_age_and_back_off() {
        let mut queue = Queue::default();
        let key = |name: &str| ObjectKey::new("ns", name);
        queue.add(key("old"), 0);
        queue.add(key("new"), 0);
        queue.add(key("high"), 10);
        let mut order = Vec::new();
        while let Some((k, _)) = queue.pop() {
            order.push(k.name.to_string());
        }
        assert_eq!(order, ["high", "old", "new"]);

        let now = Instant::now();
        let moves = queue.moves;
        queue.put_back(key("old"), 0, moves, now);
        queue.release(now + Duration::from_secs(100));
        assert!(queue.pop().is_none(), "nothing happened that could help");
        queue.wake_all(now);
        assert!(queue.pop().is_none(), "still backing off");
        assert_eq!(queue.next_release(), Some(now + INITIAL_BACKOFF));
        queue.release(now + INITIAL_BACKOFF);
        assert!(queue.pop().is_some());
    }
}
