//! What upstreams said, for as long as they allow and within a fixed budget of memory.
//!
//! Two generations: what is asked for moves to the young one; when that is half the budget, the old one is dropped and
//! the young one grows old. So what is in use stays, at constant cost and without a list to keep.

use crate::wire::{Asked, Stored};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest that anything is kept, as the usual Corefile has it (`cache 30`).
const MAX_AGE: u32 = 30;
/// What an entry costs besides its message and key: hash table, `Arc`, times.
const OVERHEAD: usize = 96;

/// A bounded cache of messages.
#[derive(Debug)]
pub(crate) struct Cache {
    generations: Mutex<Generations>,
    /// In bytes, for each generation.
    budget: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<[u8]>, Entry>,
    old: HashMap<Box<[u8]>, Entry>,
    young_size: usize,
}

#[derive(Debug)]
struct Entry {
    stored: Arc<Stored>,
    since: Instant,
    until: Instant,
}

/// A question as a key: in lower case, with the two flags that answers depend on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; Key::MAX],
    len: usize,
}

impl Key {
    /// A name, type and class, and the flags.
    const MAX: usize = 255 + 4 + 1;

    /// `None` for what is no question.
    pub(crate) fn new(question: &[u8], asked: &Asked) -> Option<Key> {
        let mut bytes = [0; Key::MAX];
        let name = question.len().checked_sub(4)?;
        bytes.get_mut(..question.len() + 1)?[..question.len()].copy_from_slice(question);
        bytes[..name].make_ascii_lowercase();
        bytes[question.len()] = u8::from(asked.dnssec_ok()) | u8::from(asked.checking_disabled) << 1;
        Some(Key { bytes, len: question.len() + 1 })
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Cache {
    /// A cache that holds at most about `budget` bytes.
    pub(crate) fn new(budget: usize) -> Cache {
        Cache { generations: Mutex::default(), budget: budget / 2 }
    }

    /// The message and its age in seconds, unless it is too old.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<(Arc<Stored>, u32)> {
        let mut generations = self.generations.lock();
        let generations = &mut *generations;
        let found = match generations.young.get(key.bytes()) {
            Some(entry) => (entry.until > now).then(|| (entry.stored.clone(), entry.since)),
            None => {
                let (key, entry) = generations.old.remove_entry(key.bytes())?;
                if entry.until <= now {
                    return None;
                }
                let found = (entry.stored.clone(), entry.since);
                self.insert(generations, key, entry);
                Some(found)
            }
        };
        found.map(|(stored, since)| (stored, now.duration_since(since).as_secs() as u32))
    }

    /// Keeps a message, if it allows it.
    pub(crate) fn put(&self, key: &Key, stored: Arc<Stored>, now: Instant) {
        let Some(seconds) = stored.keep.filter(|s| *s > 0) else { return };
        let until = now + Duration::from_secs(seconds.min(MAX_AGE).into());
        let mut generations = self.generations.lock();
        generations.old.remove(key.bytes());
        self.insert(&mut generations, key.bytes().into(), Entry { stored, since: now, until });
    }

    fn insert(&self, generations: &mut Generations, key: Box<[u8]>, entry: Entry) {
        let cost = |key: &[u8], entry: &Entry| key.len() + entry.stored.size() + OVERHEAD;
        let added = cost(&key, &entry);
        if added > self.budget {
            return;
        }
        if generations.young_size + added > self.budget {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_size = 0;
        }
        let key_cost = key.len();
        if let Some(replaced) = generations.young.insert(key, entry) {
            generations.young_size -= key_cost + replaced.stored.size() + OVERHEAD;
        }
        generations.young_size += added;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked =
        Asked { id: 7, recursion_desired: true, checking_disabled: false, edns: None, limit: 512 };

    fn question(n: u16) -> Vec<u8> {
        let [high, low] = n.to_be_bytes().map(|b| b'a' + (b & 0x0f));
        let third = b'a' + ((n >> 4) & 0x0f) as u8;
        vec![3, high, third, low, 0, 0, 1, 0, 1]
    }

    fn answer(n: u16, ttl: u32) -> Arc<Stored> {
        let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
        bytes.extend(question(n));
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend([0, 4, 10, 0, 0, 1]);
        Arc::new(Stored::read(bytes).unwrap())
    }

    #[test]
    fn keeps_what_it_is_told_for_as_long_as_allowed() {
        let cache = Cache::new(1 << 20);
        let now = Instant::now();
        let key = Key::new(&question(1), &ASKED).unwrap();
        for (ttl, lives) in [(0, 0), (10, 10), (3600, u64::from(MAX_AGE))] {
            cache.put(&key, answer(1, ttl), now);
            let at = |seconds| cache.get(&key, now + Duration::from_secs(seconds)).map(|(_, age)| age);
            assert_eq!(at(lives), None, "{ttl}");
            if lives > 0 {
                assert_eq!(at(lives - 1), Some(lives as u32 - 1), "{ttl}");
            }
        }
        let upper = Key::new(&question(1).to_ascii_uppercase(), &ASKED).unwrap();
        assert!(cache.get(&upper, now).is_some());
        let dnssec = Key::new(&question(1), &Asked { edns: Some(true), ..ASKED }).unwrap();
        assert!(cache.get(&dnssec, now).is_none());
    }

    #[test]
    fn holds_its_budget_and_what_is_in_use() {
        let cache = Cache::new(100_000);
        let now = Instant::now();
        let used = Key::new(&question(0), &ASKED).unwrap();
        cache.put(&used, answer(0, 60), now);
        for n in 1..4000 {
            cache.put(&Key::new(&question(n), &ASKED).unwrap(), answer(n, 60), now);
            assert!(cache.get(&used, now).is_some(), "after {n}");
        }
        let generations = cache.generations.lock();
        let held = generations.young.iter().chain(&generations.old);
        let held: usize = held.map(|(k, e)| k.len() + e.stored.size() + OVERHEAD).sum();
        assert!((25_000..=100_000).contains(&held), "{held}");
    }
}
