//! Answers of webhooks, as long as they are wanted: a change is converted once for all its watchers.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use store::Entry;
use tokio::sync::OnceCell;

/// How many bytes of answers are kept; half is forgotten when it is full.
const BUDGET: usize = 4 << 20;

/// Name and revision of an object, and the version it is wanted in.
type Key = (Arc<str>, u64, String);
type Answer = Arc<OnceCell<Arc<Entry>>>;

/// Two generations: what was not asked for during one is forgotten.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Answer>,
    old: HashMap<Key, Answer>,
    size: usize,
}

fn key(entry: &Entry, to: &str) -> Key {
    (entry.name.clone(), entry.mod_revision.0, to.to_owned())
}

impl Known {
    /// Where the answer is, or will be.
    pub(super) fn cell(&self, entry: &Entry, to: &str) -> Answer {
        self.0.lock().cell(key(entry, to), entry.value.len())
    }

    pub(super) fn get(&self, entry: &Entry, to: &str) -> Option<Arc<Entry>> {
        let mut generations = self.0.lock();
        let key = key(entry, to);
        let known = generations.young.contains_key(&key) || generations.old.contains_key(&key);
        if !known {
            return None;
        }
        generations.cell(key, entry.value.len()).get().cloned()
    }

    pub(super) fn put(&self, entry: &Entry, to: &str, answer: &Arc<Entry>) {
        // Whoever was faster has the same answer.
        let _ = self.cell(entry, to).set(answer.clone());
    }
}

impl Generations {
    fn cell(&mut self, key: Key, size: usize) -> Answer {
        if let Some(cell) = self.young.get(&key) {
            return cell.clone();
        }
        let cell = self.old.remove(&key).unwrap_or_default();
        // An answer is about as large as what it is made from.
        self.size += 2 * size + 256;
        self.young.insert(key, cell.clone());
        if self.size > BUDGET / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
        cell
    }
}
