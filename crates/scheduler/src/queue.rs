//! Pods that wait: those to be tried now, by priority and age; those that failed, until something happens that may help
//! them; and of these, those for which it did, in the order of their back-off. Upstream: the active, unschedulable and
//! back-off queues.

use crate::devices::rows::Claim as DeviceClaim;
use crate::facts::{ClaimUse, PodFacts};
use crate::framework::Event;
use crate::plugins::PluginSet;
use client::{Cached, ObjectKey};
use rules::resource_claim::Wanted;
use rules::volumes::Claim;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
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
    pub devices: Box<[Wanted]>,
    pub uid: Arc<str>,
}

impl Waiter {
    pub fn of(pod: &Cached<PodFacts>) -> Self {
        Waiter {
            key: pod.key().clone(),
            priority: pod.priority,
            claims: pod.claims.clone(),
            devices: pod.devices.clone(),
            uid: pod.uid.clone(),
        }
    }

    /// Whether the claim to devices is among those it uses.
    pub fn claims_devices(&self, claim: &DeviceClaim) -> bool {
        let named = self.devices.iter().any(|wanted| wanted.claim() == Some(&claim.name));
        *self.key.namespace == claim.namespace && (named || claim.controller.as_deref() == Some(&*self.uid))
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

/// A try of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub began: Instant,
    /// When the first began.
    pub first: Instant,
    /// Which one it is, from 1.
    pub count: u32,
    /// It waited so long, earlier or now, that it was tried though nothing had happened.
    pub flushed: bool,
}

/// Where a pod waits, as upstream names the queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Active,
    Backoff,
    Unschedulable,
}

impl Place {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Place::Active => "active",
            Place::Backoff => "backoff",
            Place::Unschedulable => "unschedulable",
        }
    }
}

/// How many pods wait where.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
}

/// What brings pods into a queue beside what happens in the cluster, as upstream labels it.
pub const POD_ADDED: &str = "UnschedulablePodAdd";
pub const POD_UPDATED: &str = "UnschedulablePodUpdate";
const FAILED: &str = "ScheduleAttemptFailure";
const BACKOFF_OVER: &str = "BackoffComplete";
const TAKEN_EARLY: &str = "PopFromBackoffQ";
const FLUSHED: &str = "UnschedulableTimeout";
const FORCED: &str = "ForceActivate";

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
    attempts: HashMap<ObjectKey, Attempt>,
    arrivals: u64,
    /// How many pods came into each queue, and by what.
    incoming: BTreeMap<(Place, &'static str), u64>,
}

impl Queue {
    /// Adds or refreshes a pod that is to be tried now, and by what it came.
    pub fn add(&mut self, key: ObjectKey, priority: i32, by: &'static str) {
        if self.failed.get(&key).is_some_and(|f| f.held) {
            self.wake(&key, by);
            return;
        }
        self.drop_failed(&key);
        if self.ranks.contains_key(&key) {
            return;
        }
        self.came(Place::Active, by);
        self.arrivals += 1;
        let rank = (-i64::from(priority), self.arrivals);
        self.active.insert(rank, key.clone());
        self.ranks.insert(key, rank);
    }

    /// A pod came into a queue, and by what. One that is gated is in none here, and unschedulable by upstream's count.
    pub fn came(&mut self, place: Place, by: &'static str) {
        *self.incoming.entry((place, by)).or_default() += 1;
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
    pub fn pop(&mut self, now: Instant) -> Option<(ObjectKey, Attempt)> {
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
                self.came(Place::Active, TAKEN_EARLY);
                key
            }
        };
        let none = Attempt { began: now, first: now, count: 0, flushed: false };
        let attempt = self.attempts.entry(key.clone()).or_insert(none);
        attempt.began = now;
        attempt.count += 1;
        let attempt = *attempt;
        Some((key, attempt))
    }

    /// Puts a pod that failed to sleep. With `held`, until [`Queue::unhold`] at least.
    pub fn put_back(&mut self, waiter: Waiter, cause: Cause, held: bool, now: Instant) {
        let key = waiter.key.clone();
        let attempts = self.attempts.get(&key).map_or(1, |attempt| attempt.count);
        let backoff =
            INITIAL_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF);
        let failed = Failed { waiter, cause, until: now + backoff, since: now, woken: false, held };
        self.failed.insert(key.clone(), failed);
        match cause {
            Cause::Error => self.wake(&key, FAILED),
            Cause::Refused(_) => self.came(Place::Unschedulable, FAILED),
        }
    }

    fn wake(&mut self, key: &ObjectKey, by: &'static str) {
        if let Some(failed) = self.failed.get_mut(key) {
            let first = !std::mem::replace(&mut failed.woken, true);
            self.woken.insert((failed.until, key.clone()), ());
            if first {
                self.came(Place::Backoff, by);
            }
        }
    }

    /// Room was made for a pod; `now` it may be tried, if the pods that went have woken it, or if making room failed.
    pub fn unhold(&mut self, key: &ObjectKey, failed: bool) {
        if let Some(waiting) = self.failed.get_mut(key) {
            waiting.held = false;
            if failed {
                self.wake(key, FORCED);
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
            self.wake(&key, event.label());
        }
    }

    /// Moves pods whose time has come to the active ones.
    pub fn release(&mut self, now: Instant) {
        let due: Vec<(ObjectKey, i32, bool)> = self
            .failed
            .iter()
            .filter(|(_, f)| !f.held && (f.woken && f.until <= now || f.since + STALE <= now))
            .map(|(k, f)| (k.clone(), f.waiter.priority, f.woken))
            .collect();
        for (key, priority, woken) in due {
            if !woken && let Some(attempt) = self.attempts.get_mut(&key) {
                attempt.flushed = true;
            }
            self.add(key, priority, if woken { BACKOFF_OVER } else { FLUSHED });
        }
    }

    /// How many pods wait where.
    pub fn waiting(&self) -> Waiting {
        let backoff = self.failed.values().filter(|failed| failed.woken).count();
        Waiting { active: self.active.len(), backoff, unschedulable: self.failed.len() - backoff }
    }

    /// How many pods came into each queue so far, and by what.
    pub fn incoming(&self) -> &BTreeMap<(Place, &'static str), u64> {
        &self.incoming
    }

    /// The plugins that refused each pod that failed.
    pub fn refused(&self) -> impl Iterator<Item = PluginSet> + '_ {
        self.failed.values().filter_map(|failed| match failed.cause {
            Cause::Refused(plugins) => Some(plugins),
            Cause::Error => None,
        })
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

    fn waits(key: ObjectKey) -> Waiter {
        Waiter { key, priority: 0, claims: Box::default(), devices: Box::default(), uid: "".into() }
    }

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(Instant::now())).map(|(key, _)| key.name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn priority_then_age_and_waking() {
        let mut queue = Queue::default();
        let key = |name: &str| ObjectKey::new("ns", name);
        queue.add(key("old"), 0, POD_ADDED);
        queue.add(key("new"), 0, POD_ADDED);
        queue.add(key("high"), 10, POD_ADDED);
        assert_eq!(names(&mut queue), ["high", "old", "new"]);

        let now = Instant::now();
        let waiter = |name: &str| waits(key(name));
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
        queue.add(key("old"), 0, POD_UPDATED);
        queue.release(now + STALE);
        assert_eq!(names(&mut queue), [""; 0], "room is being made");
        queue.unhold(&key("old"), false);
        assert_eq!(names(&mut queue), ["old"]);
    }

    /// What waits is counted where it waits, and what came by what brought it.
    #[tokio::test(start_paused = true)]
    async fn counted() {
        let mut queue = Queue::default();
        let key = |name: &str| ObjectKey::new("ns", name);
        let waiter = |name: &str| waits(key(name));
        ["a", "b"].into_iter().for_each(|name| queue.add(key(name), 0, POD_ADDED));
        assert_eq!(queue.waiting(), Waiting { active: 2, ..Waiting::default() });
        let began = Instant::now();
        let (_, attempt) = queue.pop(began).unwrap();
        assert_eq!(attempt, Attempt { began, first: began, count: 1, flushed: false });
        queue.put_back(waiter("a"), Cause::Refused(PluginSet::default()), false, began);
        queue.pop(began).unwrap();
        queue.put_back(waiter("b"), Cause::Error, false, began);
        assert_eq!(queue.waiting(), Waiting { active: 0, backoff: 1, unschedulable: 1 });
        queue.release(began + MAX_BACKOFF);
        assert_eq!(queue.waiting(), Waiting { active: 1, backoff: 0, unschedulable: 1 });
        queue.release(began + STALE);
        let later = began + STALE;
        queue.pop(later).unwrap();
        let (_, again) = queue.pop(later).unwrap();
        assert_eq!(again, Attempt { began: later, first: began, count: 2, flushed: true });
        let came: Vec<String> = queue
            .incoming()
            .iter()
            .map(|((place, by), count)| format!("{} {by} {count}", place.name()))
            .collect();
        assert_eq!(
            came,
            [
                "active BackoffComplete 1",
                "active UnschedulablePodAdd 2",
                "active UnschedulableTimeout 1",
                "backoff ScheduleAttemptFailure 1",
                "unschedulable ScheduleAttemptFailure 1",
            ]
        );
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
            let waiter = Waiter { claims, ..waits(ObjectKey::new("ns", pod)) };
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
