//! What ends by itself: entries with a TTL of their own, and leases with the keys they keep.
//!
//! Nothing here deletes: `due` names what is over, and the writer deletes it by ordinary commits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;

use crate::model::{Entry, Key, LeaseId};
use crate::view::Map;

/// A lease's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) ttl_ms: u64,
    pub(super) expires_ms: u64,
}

/// The leases by id; cloned in O(1) for snapshots and for going back to what is committed.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseTable {
    pub(super) leases: OrdMap<LeaseId, Lease>,
    /// The id the next lease gets, less one.
    pub(super) last: u64,
}

impl LeaseTable {
    /// Records a lease granted or kept alive.
    pub(super) fn put(&mut self, id: LeaseId, lease: Lease) {
        self.last = self.last.max(id.0);
        self.leases.insert(id, lease);
    }
}

/// Something that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Entry(Key),
    Lease(LeaseId),
}

/// The table and its indexes by time and by lease.
#[derive(Default)]
pub(super) struct Expiry {
    table: LeaseTable,
    leases_by_time: BTreeSet<(u64, LeaseId)>,
    entries_by_time: BTreeSet<(u64, Key)>,
    keys: HashMap<LeaseId, BTreeSet<Key>>,
}

impl Expiry {
    /// The indexes of what is there.
    pub(super) fn new<'a>(
        table: LeaseTable,
        buckets: impl IntoIterator<Item = (&'a Arc<str>, &'a Map)>,
    ) -> Self {
        let leases_by_time = table.leases.iter().map(|(id, lease)| (lease.expires_ms, *id)).collect();
        let mut expiry = Self { table, leases_by_time, ..Self::default() };
        for (prefix, map) in buckets {
            for entry in map.values() {
                expiry.track(prefix, None, Some(entry));
            }
        }
        expiry
    }

    /// Follows a change of a key.
    pub(super) fn track(&mut self, prefix: &Arc<str>, previous: Option<&Entry>, current: Option<&Entry>) {
        let key = |entry: &Entry| Key { prefix: prefix.clone(), name: entry.name.clone() };
        if let Some(entry) = previous {
            if let Some(at) = entry.expires_ms {
                self.entries_by_time.remove(&(at, key(entry)));
            }
            if let Some(keys) = entry.lease.and_then(|lease| self.keys.get_mut(&lease)) {
                keys.remove(&key(entry));
            }
        }
        if let Some(entry) = current {
            if let Some(at) = entry.expires_ms {
                self.entries_by_time.insert((at, key(entry)));
            }
            if let Some(lease) = entry.lease {
                self.keys.entry(lease).or_default().insert(key(entry));
            }
        }
    }

    pub(super) fn table(&self) -> &LeaseTable {
        &self.table
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<Lease> {
        self.table.leases.get(&id).copied()
    }

    pub(super) fn grant(&mut self, lease: Lease) -> LeaseId {
        let id = LeaseId(self.table.last + 1);
        self.put(id, lease);
        id
    }

    pub(super) fn put(&mut self, id: LeaseId, lease: Lease) {
        if let Some(old) = self.get(id) {
            self.leases_by_time.remove(&(old.expires_ms, id));
        }
        self.leases_by_time.insert((lease.expires_ms, id));
        self.table.put(id, lease);
    }

    /// Takes a lease out and returns its keys.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<BTreeSet<Key>> {
        let lease = self.table.leases.remove(&id)?;
        self.leases_by_time.remove(&(lease.expires_ms, id));
        Some(self.keys.remove(&id).unwrap_or_default())
    }

    /// When the next thing is over.
    pub(super) fn next_ms(&self) -> Option<u64> {
        let entry = self.entries_by_time.first().map(|(at, _)| *at);
        let lease = self.leases_by_time.first().map(|(at, _)| *at);
        entry.into_iter().chain(lease).min()
    }

    /// One thing that is over by now.
    pub(super) fn due(&self, now_ms: u64) -> Option<Due> {
        if let Some((at, key)) = self.entries_by_time.first()
            && *at <= now_ms
        {
            return Some(Due::Entry(key.clone()));
        }
        let (at, id) = self.leases_by_time.first()?;
        (*at <= now_ms).then_some(Due::Lease(*id))
    }
}
