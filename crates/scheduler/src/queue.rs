//! Pods that wait: those to be tried now, by priority and age; those that failed, until something happens that may help
//! them; and of these, those for which it did, in the order of their back-off. Upstream: the active, unschedulable and
//! back-off queues.

use crate::facts::{ClaimUse, PodFacts};
use crate::framework::Event;
use crate::plugins::PluginSet;
use client::{Cached, ObjectKey};
use rules::volumes::Claim;
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

/// Why a pod failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// These plugins refused all nodes. When something happens that may help, it is tried as soon as nobody else waits
    /// (`SchedulerPopFromBackoffQ`).
    Refused(PluginSet),
    /// The API failed; it is tried when the back-off is over, not before.
    Error,
}

/// A pod that is put back, with what of it says which events may help.
#[derive(Debug)]
pub struct Waiter {
    pub key: ObjectKey,
    pub priority: i32,
    pub claims: Box<[ClaimUse]>,
}

impl Waiter {
    pub fn of(pod: &Cached<PodFacts>) -> Self {
        Waiter { key: pod.key().clone(), priority: pod.priority, claims: pod.claims.clone() }
    }

    /// Whether the claim is among those it uses.
    pub fn uses(&self, claim: &Claim) -> bool {
        *self.key.namespace == claim.namespace && self.claims.iter().any(|used| used.name == claim.name)
    }

    /// Whether it and another pod use a claim of one name, or a disk.
    pub fn shares(&self, pod: &PodFacts) -> bool {
        let shared = |used: &ClaimUse| pod.claims.iter().any(|other| other.name == used.name);
        self.claims.iter().any(shared) || !pod.disks.is_empty()
    }
}

#[derive(Debug)]
struct Failed {
    waiter: Waiter,
    cause: Cause,
    until: Instant,
    since: Instant,
    /// Something happened meanwhile.
    woken: bool,
    /// Room is being made for it: not to be tried before that is done.
    held: bool,
}

/// The scheduling queue.
#[derive(Debug, Default)]
pub struct Queue {
    active: BTreeMap<Rank, ObjectKey>,
    ranks: HashMap<ObjectKey, Rank>,
    failed: HashMap<ObjectKey, Failed>,
    /// Failed pods that were woken, by the end of their back-off.
    woken: BTreeMap<(Instant, ObjectKey), ()>,
    attempts: HashMap<ObjectKey, u32>,
    arrivals: u64,
}

impl Queue {
    /// Adds or refreshes a pod that is to be tried now.
    pub fn add(&mut self, key: ObjectKey, priority: i32) {
        if self.failed.get(&key).is_some_and(|f| f.held) {
            self.wake(&key);
            return;
        }
        self.drop_failed(&key);
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
        self.drop_failed(key);
        self.attempts.remove(key);
    }

    fn drop_failed(&mut self, key: &ObjectKey) {
        if let Some(failed) = self.failed.remove(key) {
            self.woken.remove(&(failed.until, key.clone()));
        }
    }

    /// The next pod to try: an active one, or else one of those that were woken.
    pub fn pop(&mut self) -> Option<ObjectKey> {
        let key = match self.active.pop_first() {
            Some((_, key)) => {
                self.ranks.remove(&key);
                key
            }
            None => {
                let ready = |key: &ObjectKey| match self.failed.get(key) {
                    Some(failed) => !failed.held && failed.cause != Cause::Error,
                    None => false,
                };
                let key = self.woken.keys().map(|(_, key)| key).find(|key| ready(key))?.clone();
                self.drop_failed(&key);
                key
            }
        };
        *self.attempts.entry(key.clone()).or_default() += 1;
        Some(key)
    }

    /// Puts a pod that failed to sleep. With `held`, until [`Queue::unhold`] at least.
    pub fn put_back(&mut self, waiter: Waiter, cause: Cause, held: bool, now: Instant) {
        let key = waiter.key.clone();
        let attempts = self.attempts.get(&key).copied().unwrap_or(1);
        let backoff =
            INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        let failed = Failed { waiter, cause, until: now + backoff, since: now, woken: false, held };
        self.failed.insert(key.clone(), failed);
        if cause == Cause::Error {
            self.wake(&key);
        }
    }

    fn wake(&mut self, key: &ObjectKey) {
        if let Some(failed) = self.failed.get_mut(key) {
            failed.woken = true;
            self.woken.insert((failed.until, key.clone()), ());
        }
    }

    /// Room was made for a pod; `now` it may be tried, if the pods that went have woken it, or if making room failed.
    pub fn unhold(&mut self, key: &ObjectKey, failed: bool) {
        if let Some(waiting) = self.failed.get_mut(key) {
            waiting.held = false;
            if failed {
                self.wake(key);
            }
        }
    }

    /// Something happened that may let pods in.
    pub fn happened(&mut self, event: &Event<'_>) {
        let helped = self.failed.iter().filter(|(_, failed)| match failed.cause {
            Cause::Refused(plugins) => !failed.woken && plugins.helped_by(event, &failed.waiter),
            Cause::Error => false,
        });
        let helped: Vec<ObjectKey> = helped.map(|(key, _)| key.clone()).collect();
        for key in helped {
            self.wake(&key);
        }
    }

    /// Moves pods whose time has come to the active ones.
    pub fn release(&mut self, now: Instant) {
        let due: Vec<(ObjectKey, i32)> = self
            .failed
            .iter()
            .filter(|(_, f)| !f.held && (f.woken && f.until <= now || f.since + STALE <= now))
            .map(|(k, f)| (k.clone(), f.waiter.priority))
            .collect();
        for (key, priority) in due {
            self.add(key, priority);
        }
    }

    /// When [`Queue::release`] will next have something to do.
    pub fn next_release(&self) -> Option<Instant> {
        let waiting = self.failed.values().filter(|f| !f.held);
        waiting.map(|f| if f.woken { f.until.min(f.since + STALE) } else { f.since + STALE }).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Projection as _;

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop()).map(|key| key.name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age_and_waking() {
        let mut queue = Queue::default();
        let key = |name: &str| ObjectKey::new("ns", name);
        queue.add(key("old"), 0);
        queue.add(key("new"), 0);
        queue.add(key("high"), 10);
        assert_eq!(names(&mut queue), ["high", "old", "new"]);

        let now = Instant::now();
        let waiter = |name: &str| Waiter { key: key(name), priority: 0, claims: Box::default() };
        let by = |name: &str| {
            let mut plugins = PluginSet::default();
            let at = crate::plugins::PLUGINS.iter().position(|p| p.name() == name);
            plugins.insert(at.unwrap_or_default());
            Cause::Refused(plugins)
        };
        queue.put_back(waiter("old"), by("NodeResourcesFit"), false, now);
        queue.put_back(waiter("new"), by("NodeAffinity"), false, now);
        queue.release(now + Duration::from_secs(100));
        assert_eq!(names(&mut queue), [""; 0], "nothing happened that could help");
        let gone = PodFacts::project(&api::core::v1::Pod::default());
        queue.happened(&Event::PodGone(&gone));
        assert_eq!(queue.next_release(), Some(now + INITIAL_BACKOFF));
        assert_eq!(names(&mut queue), ["old"], "room helps who lacked room, at once when nobody else waits");
        queue.release(now + STALE);
        assert_eq!(names(&mut queue), ["new"], "but nobody is forgotten");

        queue.put_back(waiter("old"), Cause::Error, false, now);
        assert_eq!(names(&mut queue), [""; 0], "an error waits for its back-off");
        queue.release(now + MAX_BACKOFF);
        assert_eq!(names(&mut queue), ["old"]);

        queue.put_back(waiter("old"), by("NodeResourcesFit"), true, now);
        queue.happened(&Event::PodGone(&gone));
        queue.add(key("old"), 0);
        queue.release(now + STALE);
        assert_eq!(names(&mut queue), [""; 0], "room is being made");
        queue.unhold(&key("old"), false);
        assert_eq!(names(&mut queue), ["old"]);
    }

    /// What happens to a claim helps the pods that use it, and no others.
    #[tokio::test(start_paused = true)]
    async fn a_claim_wakes_its_own() {
        let mut queue = Queue::default();
        let at = crate::plugins::PLUGINS.iter().position(|p| p.name() == "VolumeBinding");
        let mut plugins = PluginSet::default();
        plugins.insert(at.unwrap_or_default());
        for (pod, claim) in [("db-0", "data-0"), ("db-1", "data-1")] {
            let claims = Box::new([ClaimUse { name: claim.into(), ephemeral: false }]);
            let waiter = Waiter { key: ObjectKey::new("ns", pod), priority: 0, claims };
            queue.put_back(waiter, Cause::Refused(plugins), false, Instant::now());
        }
        let claim = |namespace: &str| Claim {
            namespace: namespace.into(),
            name: "data-1".into(),
            ..Default::default()
        };
        queue.happened(&Event::Claim { old: None, new: &claim("other") });
        assert_eq!(names(&mut queue), [""; 0]);
        queue.happened(&Event::Claim { old: None, new: &claim("ns") });
        assert_eq!(names(&mut queue), ["db-1"]);
    }
}
