//! When a quota may be counted. Admission writes what an object will use before the object is there: a count between the
//! two would take that away again, and more would be let in than may be. So quotas are counted when no request has been
//! charged to them for a while, or when somebody waits for the count.

use super::SETTLE;
use client::ObjectKey;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Calm(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    charged: HashMap<ObjectKey, Instant>,
    urgent: HashSet<ObjectKey>,
}

impl Calm {
    /// Something was charged to the quota, or its usage changed otherwise.
    pub(super) fn charged(&self, key: &ObjectKey) {
        self.0.lock().charged.insert(key.clone(), Instant::now());
    }

    /// The next count of the quota does not wait: it is new, or something of it is free.
    pub(super) fn hurry(&self, key: &ObjectKey) {
        self.0.lock().urgent.insert(key.clone());
    }

    /// Forgets a quota that is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut notes = self.0.lock();
        notes.charged.remove(key);
        notes.urgent.remove(key);
    }

    /// How long the quota must not be counted yet.
    pub(super) fn wait(&self, key: &ObjectKey) -> Option<Duration> {
        let mut notes = self.0.lock();
        if notes.urgent.remove(key) {
            return None;
        }
        let left = notes.charged.get(key)?.checked_add(SETTLE)?.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn counts_wait_for_calm() {
        let (calm, key) = (Calm::default(), ObjectKey::new("ns", "quota"));
        assert_eq!(calm.wait(&key), None, "nobody was charged");
        calm.charged(&key);
        assert_eq!(calm.wait(&key), Some(SETTLE));
        tokio::time::advance(SETTLE / 2).await;
        calm.charged(&key);
        tokio::time::advance(SETTLE / 2).await;
        assert_eq!(calm.wait(&key), Some(SETTLE / 2), "the last charge counts");
        calm.hurry(&key);
        assert_eq!(calm.wait(&key), None, "something is free");
        assert_eq!(calm.wait(&key), Some(SETTLE / 2), "once");
        tokio::time::advance(SETTLE).await;
        assert_eq!(calm.wait(&key), None);
    }
}
