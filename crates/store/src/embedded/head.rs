//! The pending head: the newest logged state, against which writes are checked, and the batch that will make it
//! durable. Callers stage their writes here; the writer takes the batch.
//!
//! The newest state is the view under what is not visible yet: the changes of the batch being filled, and those of the
//! batch that is on its way to the disk. So the maps stand once, in the view, and change in place.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::frame;
use super::lease::{Due, Expiry, Lease, LeaseTable};
use super::record;
use crate::contract::{Error, Result};
use crate::model::{Entry, Event, EventKind, Expect, Key, LeaseId, Life, Op, Pin, Revision, Write};
use crate::transform::Transform;
use crate::view::View;

/// The most bytes that one atomic write may carry.
pub(super) const MAX_WRITE: usize = 8 << 20;
/// A batch takes no more writes once it is this large.
pub(super) const MAX_BATCH: usize = 4 << 20;
/// The longest prefix.
const MAX_PREFIX: usize = 4096;

/// Whether writes are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Open,
    NoSpace,
    ReadOnly(Arc<str>),
    Closed,
}

/// Tells a caller what became of the batch it waits for.
pub(super) type Ack = oneshot::Sender<Result<()>>;

/// Writes on their way to the disk.
pub(super) struct Batch {
    /// The frame being built; its header comes last.
    pub(super) frame: Vec<u8>,
    pub(super) events: Vec<Arc<Event>>,
    /// Those who wait for it.
    pub(super) acks: Vec<Ack>,
    pub(super) compact: Option<Revision>,
    /// A frame is wanted even if it is empty.
    pub(super) probe: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            frame: vec![0; frame::HEADER],
            events: Vec::new(),
            acks: Vec::new(),
            compact: None,
            probe: false,
        }
    }
}

impl Batch {
    /// Whether there is something to write.
    pub(super) fn has_frame(&self) -> bool {
        self.probe || self.frame.len() > frame::HEADER
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_frame() && self.acks.is_empty()
    }

    /// Empties it, keeping its memory within reason.
    pub(super) fn reset(&mut self) {
        if self.frame.capacity() > 2 * MAX_BATCH {
            self.frame = Vec::new();
        }
        self.frame.clear();
        self.frame.resize(frame::HEADER, 0);
        self.events.clear();
        self.acks.clear();
        (self.compact, self.probe) = (None, false);
    }

    pub(super) fn answer(&mut self, outcome: &Result<()>) {
        for ack in self.acks.drain(..) {
            // A caller that has gone no longer wants to know.
            let _ = ack.send(outcome.clone());
        }
    }
}

/// The newest entries of keys that are not visible yet; nothing for one that is deleted.
pub(super) type Changes = HashMap<Key, Option<Arc<Entry>>>;

/// See the module.
pub(super) struct Head {
    pub(super) mode: Mode,
    pub(super) batch: Batch,
    pub(super) expiry: Expiry,
    /// The last revision given out.
    pub(super) revision: Revision,
    /// Not before so many wait with the batch is the writer woken.
    pub(super) wanted: usize,
    /// What the batch changes.
    pending: Changes,
    /// What the batch before it changes, which the writer has.
    logging: Changes,
    /// Each bucket's one `Arc` of its prefix, which its events share.
    prefixes: HashSet<Arc<str>>,
    view: Arc<View>,
    /// What values look like in the log.
    transform: Arc<dyn Transform>,
}

impl Head {
    /// The head as committed: nothing pending.
    pub(super) fn new(view: Arc<View>, leases: LeaseTable, transform: Arc<dyn Transform>) -> Self {
        let image = view.image();
        let buckets = image.buckets.iter().map(|bucket| (&bucket.prefix, &bucket.map));
        Self {
            mode: Mode::Open,
            batch: Batch::default(),
            expiry: Expiry::new(leases, buckets),
            revision: image.revision,
            wanted: 0,
            pending: Changes::new(),
            logging: Changes::new(),
            prefixes: image.buckets.iter().map(|bucket| bucket.prefix.clone()).collect(),
            view,
            transform,
        }
    }

    /// Forgets what is pending and answers those who wait for it.
    pub(super) fn roll_back(&mut self, leases: &LeaseTable, outcome: &Result<()>) {
        self.batch.answer(outcome);
        let (view, transform) = (self.view.clone(), self.transform.clone());
        *self = Self { mode: self.mode.clone(), ..Self::new(view, leases.clone(), transform) };
    }

    /// The newest logged entry of a key.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.pending.get(key).or_else(|| self.logging.get(key)) {
            Some(newest) => newest.clone(),
            None => self.view.get(&key.prefix, &key.name),
        }
    }

    /// Whether a change of a key is not visible yet.
    pub(super) fn changes(&self, key: &Key) -> bool {
        self.pending.contains_key(key) || self.logging.contains_key(key)
    }

    /// Whether a write that frees, or does not, is taken at all.
    fn admit(&self, frees: bool) -> Result<()> {
        match &self.mode {
            Mode::Open => Ok(()),
            Mode::NoSpace if frees => Ok(()),
            Mode::NoSpace => Err(Error::NoSpace),
            Mode::ReadOnly(cause) => Err(Error::ReadOnly { cause: cause.clone() }),
            Mode::Closed => Err(Error::Closed),
        }
    }

    /// Waits with the batch.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<()>> {
        let (ack, outcome) = oneshot::channel();
        self.batch.acks.push(ack);
        outcome
    }

    /// Whether a write may be staged: what its value looks like in the log, and what it supersedes.
    fn check(&self, write: &Write) -> Result<(Bytes, Option<Arc<Entry>>)> {
        if let Op::Put { value, life } = &write.op {
            let size = value.len() + write.key.name.len() + record::PUT_OVERHEAD;
            if size > MAX_WRITE || write.key.prefix.len() > MAX_PREFIX {
                return Err(Error::TooLarge { key: write.key.clone(), size, limit: MAX_WRITE });
            }
            if let Life::Lease(id) = life
                && self.expiry.get(*id).is_none()
            {
                return Err(Error::LeaseNotFound(*id));
            }
        }
        let current = self.get(&write.key);
        let holds = match (write.expect, &current) {
            (Expect::Any, Some(_)) => true,
            (Expect::Any | Expect::Absent, None) => matches!(write.op, Op::Put { .. }),
            (Expect::Revision(wanted), Some(current)) => current.mod_revision == wanted,
            (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
        };
        if !holds {
            return Err(Error::Conflict { key: write.key.clone(), current });
        }
        let Op::Put { value, .. } = &write.op else { return Ok((Bytes::new(), current)) };
        let kept = self.transform.save(&write.key, value);
        let kept = kept.map_err(|source| Error::Transform { key: write.key.clone(), source })?;
        Ok((kept, current))
    }

    /// Stages one write at a revision of its own.
    pub(super) fn commit(&mut self, write: &Write, now_ms: u64) -> Result<Arc<Event>> {
        self.admit(matches!(write.op, Op::Delete))?;
        let checked = self.check(write)?;
        self.revision.0 += 1;
        Ok(self.stage(write, checked, self.revision, now_ms))
    }

    /// Stages several writes at one revision, or none.
    pub(super) fn commit_many(
        &mut self,
        writes: &[Write],
        pin: Option<&Pin>,
        now_ms: u64,
    ) -> Result<Vec<Arc<Event>>> {
        self.admit(writes.iter().all(|write| matches!(write.op, Op::Delete)))?;
        if let Some(pin) = pin {
            let current = self.get(&pin.key);
            if current.as_ref().map(|entry| entry.mod_revision) != Some(pin.revision) {
                return Err(Error::Conflict { key: pin.key.clone(), current });
            }
        }
        let mut keys = HashSet::with_capacity(writes.len());
        let mut size = 0;
        let mut checked = Vec::with_capacity(writes.len());
        for write in writes {
            if !keys.insert(&write.key) {
                return Err(Error::DuplicateKey(write.key.clone()));
            }
            checked.push(self.check(write)?);
            size += write.key.prefix.len() + write.key.name.len() + record::PUT_OVERHEAD;
            if let Op::Put { value, .. } = &write.op {
                size += value.len();
            }
            if size > MAX_WRITE {
                return Err(Error::TooLarge { key: write.key.clone(), size, limit: MAX_WRITE });
            }
        }
        self.revision.0 += 1;
        let both = writes.iter().zip(checked);
        Ok(both.map(|(write, checked)| self.stage(write, checked, self.revision, now_ms)).collect())
    }

    /// Applies a checked write to the head and appends it to the batch.
    fn stage(
        &mut self,
        write: &Write,
        (kept, previous): (Bytes, Option<Arc<Entry>>),
        revision: Revision,
        now_ms: u64,
    ) -> Arc<Event> {
        let prefix = self.prefix(&write.key.prefix);
        let (kind, entry) = match &write.op {
            Op::Put { value, life } => {
                let (lease, expires_ms) = match life {
                    Life::Forever => (None, None),
                    Life::Lease(id) => (Some(*id), None),
                    Life::Ttl(ttl) => (
                        None,
                        Some(now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))),
                    ),
                };
                let next = successor(previous.as_deref(), &write.key.name, value.clone(), revision);
                (EventKind::Put, Arc::new(Entry { lease, expires_ms, ..next }))
            }
            Op::Delete => {
                (EventKind::Delete, previous.clone().expect("checked: a delete has something to delete"))
            }
        };
        match kind {
            EventKind::Put => record::put(&mut self.batch.frame, &prefix, &entry, &kept),
            EventKind::Delete => record::delete(&mut self.batch.frame, revision, &prefix, &entry.name),
        }
        let event = Arc::new(Event { revision, kind, prefix, entry, previous });
        self.pending.insert(event.key(), event.current().cloned());
        self.expiry.track(&event.prefix, event.previous.as_deref(), event.current().map(|entry| &**entry));
        self.batch.events.push(event.clone());
        event
    }

    /// The bucket's own `Arc` of its prefix.
    fn prefix(&mut self, prefix: &Arc<str>) -> Arc<str> {
        if let Some(own) = self.prefixes.get(prefix) {
            return own.clone();
        }
        self.prefixes.insert(prefix.clone());
        prefix.clone()
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        self.admit(true)?;
        record::compact(&mut self.batch.frame, revision);
        self.batch.compact = self.batch.compact.max(Some(revision));
        Ok(())
    }

    pub(super) fn grant(&mut self, ttl_ms: u64, now_ms: u64) -> Result<LeaseId> {
        self.admit(false)?;
        let lease = Lease { ttl_ms, expires_ms: now_ms.saturating_add(ttl_ms) };
        let id = self.expiry.grant(lease);
        record::lease(&mut self.batch.frame, id, lease.ttl_ms, lease.expires_ms);
        Ok(id)
    }

    pub(super) fn keep_alive(&mut self, id: LeaseId, now_ms: u64) -> Result<()> {
        self.admit(true)?;
        let old = self.expiry.get(id).ok_or(Error::LeaseNotFound(id))?;
        let lease = Lease { expires_ms: now_ms.saturating_add(old.ttl_ms), ..old };
        self.expiry.put(id, lease);
        record::lease(&mut self.batch.frame, id, lease.ttl_ms, lease.expires_ms);
        Ok(())
    }

    /// Ends a lease; its keys go at one revision.
    pub(super) fn revoke(&mut self, id: LeaseId, now_ms: u64) -> Result<()> {
        self.admit(true)?;
        let keys = self.expiry.remove(id).ok_or(Error::LeaseNotFound(id))?;
        record::revoke(&mut self.batch.frame, id);
        if !keys.is_empty() {
            self.revision.0 += 1;
        }
        for key in keys {
            // The index of leases follows the head: the key is there.
            let current = self.get(&key);
            let checked = (Bytes::new(), current);
            self.stage(&Write::delete(key, Expect::Any), checked, self.revision, now_ms);
        }
        Ok(())
    }

    /// An empty frame that has to reach the disk.
    pub(super) fn probe(&mut self) -> Result<()> {
        self.admit(false)?;
        self.batch.probe = true;
        Ok(())
    }

    /// Stages the deletion of what is over, as far as the batch has room.
    pub(super) fn expire(&mut self, now_ms: u64) {
        while self.admit(true).is_ok() && self.batch.frame.len() < MAX_BATCH {
            let staged = match self.expiry.due(now_ms) {
                Some(Due::Entry(key)) => self.commit(&Write::delete(key, Expect::Any), now_ms).map(drop),
                Some(Due::Lease(id)) => self.revoke(id, now_ms),
                None => return,
            };
            // What is due exists: the indexes follow every change of the head.
            debug_assert!(staged.is_ok());
        }
    }

    /// Takes the batch, leaving `spare` in its place. What it changes counts until `settle`.
    pub(super) fn take(&mut self, spare: Batch) -> Batch {
        debug_assert!(self.logging.is_empty());
        std::mem::swap(&mut self.logging, &mut self.pending);
        self.wanted = 0;
        std::mem::replace(&mut self.batch, spare)
    }

    /// What the batch that was taken changed is in the view. Returns what is to be emptied, elsewhere, and given back.
    pub(super) fn settle(&mut self, emptied: Changes) -> Changes {
        std::mem::replace(&mut self.logging, emptied)
    }
}

/// The version that follows `previous` at a key, without lease or expiry.
pub(super) fn successor(
    previous: Option<&Entry>,
    name: &Arc<str>,
    value: Bytes,
    revision: Revision,
) -> Entry {
    Entry {
        name: previous.map_or_else(|| name.clone(), |previous| previous.name.clone()),
        value,
        create_revision: previous.map_or(revision, |previous| previous.create_revision),
        mod_revision: revision,
        version: previous.map_or(1, |previous| previous.version + 1),
        lease: None,
        expires_ms: None,
        stale: false,
        projection: OnceLock::new(),
    }
}
