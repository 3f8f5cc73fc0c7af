//! What frames are made of. A log frame holds changes; a snapshot's frames hold the state and its history.

use std::sync::Arc;

use super::frame::{u16_at, u32_at, u64_at};
use crate::model::{Entry, EventKind, LeaseId, Revision};
use crate::view::Mark;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACT: u8 = 3;
const LEASE: u8 = 4;
const REVOKE: u8 = 5;
const BUCKET: u8 = 10;
const ENTRY: u8 = 11;
const EVENT: u8 = 12;
const MARK: u8 = 13;
const END: u8 = 14;

/// One decoded record; strings and values still lie in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Put {
        revision: Revision,
        lease: Option<LeaseId>,
        expires_ms: Option<u64>,
        prefix: &'a str,
        name: &'a str,
        value: &'a [u8],
    },
    Delete {
        revision: Revision,
        prefix: &'a str,
        name: &'a str,
    },
    Compact {
        revision: Revision,
    },
    /// A lease granted or kept alive.
    Lease {
        id: LeaseId,
        ttl_ms: u64,
        expires_ms: u64,
    },
    Revoke {
        id: LeaseId,
    },
    /// Begins a bucket; the entries and events after it are its own.
    Bucket {
        horizon: Revision,
        prefix: &'a str,
    },
    /// An entry, live or only part of the history; numbered from 0 throughout the snapshot.
    Entry {
        live: bool,
        create_revision: Revision,
        mod_revision: Revision,
        version: u64,
        lease: Option<LeaseId>,
        expires_ms: Option<u64>,
        name: &'a str,
        value: &'a [u8],
    },
    /// An event, its entries by number.
    Event {
        kind: EventKind,
        revision: Revision,
        entry: u32,
        previous: Option<u32>,
    },
    Mark(Mark),
    /// Closes a snapshot; `entries` is how many there were.
    End {
        entries: u64,
    },
}

fn long(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(&number.to_le_bytes());
}

fn int(into: &mut Vec<u8>, number: usize) {
    into.extend_from_slice(&u32::try_from(number).expect("a write is bounded far below 4 GiB").to_le_bytes());
}

fn text(into: &mut Vec<u8>, text: &str) {
    int(into, text.len());
    into.extend_from_slice(text.as_bytes());
}

/// The prefix's length stands beside the key, so that buckets can be rebuilt.
fn key(into: &mut Vec<u8>, prefix: &str, name: &str) {
    let length = u16::try_from(prefix.len()).expect("prefixes are checked when a write is taken");
    into.extend_from_slice(&length.to_le_bytes());
    int(into, prefix.len() + name.len());
    into.extend_from_slice(prefix.as_bytes());
    into.extend_from_slice(name.as_bytes());
}

/// The most bytes a put adds beside its key and value.
pub(super) const PUT_OVERHEAD: usize = 48;

pub(super) fn put(into: &mut Vec<u8>, prefix: &str, entry: &Entry, kept: &[u8]) {
    into.push(PUT);
    long(into, entry.mod_revision.0);
    long(into, entry.lease.map_or(0, |lease| lease.0));
    long(into, entry.expires_ms.unwrap_or(0));
    key(into, prefix, &entry.name);
    int(into, kept.len());
    into.extend_from_slice(kept);
}

pub(super) fn delete(into: &mut Vec<u8>, revision: Revision, prefix: &str, name: &str) {
    into.push(DELETE);
    long(into, revision.0);
    key(into, prefix, name);
}

pub(super) fn compact(into: &mut Vec<u8>, revision: Revision) {
    into.push(COMPACT);
    long(into, revision.0);
}

pub(super) fn lease(into: &mut Vec<u8>, id: LeaseId, ttl_ms: u64, expires_ms: u64) {
    into.push(LEASE);
    long(into, id.0);
    long(into, ttl_ms);
    long(into, expires_ms);
}

pub(super) fn revoke(into: &mut Vec<u8>, id: LeaseId) {
    into.push(REVOKE);
    long(into, id.0);
}

pub(super) fn bucket(into: &mut Vec<u8>, horizon: Revision, prefix: &str) {
    into.push(BUCKET);
    long(into, horizon.0);
    text(into, prefix);
}

pub(super) fn entry(into: &mut Vec<u8>, live: bool, entry: &Entry, kept: &[u8]) {
    into.push(ENTRY);
    into.push(u8::from(live));
    long(into, entry.create_revision.0);
    long(into, entry.mod_revision.0);
    long(into, entry.version);
    long(into, entry.lease.map_or(0, |lease| lease.0));
    long(into, entry.expires_ms.unwrap_or(0));
    text(into, &entry.name);
    int(into, kept.len());
    into.extend_from_slice(kept);
}

pub(super) fn event(
    into: &mut Vec<u8>,
    kind: EventKind,
    revision: Revision,
    entry: u32,
    previous: Option<u32>,
) {
    into.push(EVENT);
    into.push(match kind {
        EventKind::Put => 0,
        EventKind::Delete => 1,
    });
    long(into, revision.0);
    into.extend_from_slice(&entry.to_le_bytes());
    into.extend_from_slice(&previous.unwrap_or(u32::MAX).to_le_bytes());
}

pub(super) fn mark(into: &mut Vec<u8>, mark: Mark) {
    into.push(MARK);
    long(into, mark.at_ms);
    long(into, mark.revision.0);
}

pub(super) fn end(into: &mut Vec<u8>, entries: u64) {
    into.push(END);
    long(into, entries);
}

/// Reads records off a payload. Its checksum has been verified: what does not parse was written by another version
/// or has collided, and is reported as damage.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    fn long(&mut self) -> Option<u64> {
        u64_at(self.bytes(8)?, 0)
    }

    fn revision(&mut self) -> Option<Revision> {
        self.long().map(Revision)
    }

    fn int(&mut self) -> Option<usize> {
        u32_at(self.bytes(4)?, 0).map(|number| number as usize)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = self.int()?;
        self.bytes(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized()?).ok()
    }

    fn key(&mut self) -> Option<(&'a str, &'a str)> {
        let prefix = u16_at(self.bytes(2)?, 0)? as usize;
        self.text()?.split_at_checked(prefix)
    }

    fn lease(&mut self) -> Option<Option<LeaseId>> {
        Some(Some(self.long()?).filter(|id| *id != 0).map(LeaseId))
    }

    fn expires(&mut self) -> Option<Option<u64>> {
        Some(Some(self.long()?).filter(|at| *at != 0))
    }

    fn record(&mut self) -> Option<Record<'a>> {
        Some(match self.byte()? {
            PUT => {
                let (revision, lease, expires_ms) = (self.revision()?, self.lease()?, self.expires()?);
                let (prefix, name) = self.key()?;
                Record::Put { revision, lease, expires_ms, prefix, name, value: self.sized()? }
            }
            DELETE => {
                let revision = self.revision()?;
                let (prefix, name) = self.key()?;
                Record::Delete { revision, prefix, name }
            }
            COMPACT => Record::Compact { revision: self.revision()? },
            LEASE => {
                Record::Lease { id: LeaseId(self.long()?), ttl_ms: self.long()?, expires_ms: self.long()? }
            }
            REVOKE => Record::Revoke { id: LeaseId(self.long()?) },
            BUCKET => Record::Bucket { horizon: self.revision()?, prefix: self.text()? },
            ENTRY => Record::Entry {
                live: self.byte()? != 0,
                create_revision: self.revision()?,
                mod_revision: self.revision()?,
                version: self.long()?,
                lease: self.lease()?,
                expires_ms: self.expires()?,
                name: self.text()?,
                value: self.sized()?,
            },
            EVENT => Record::Event {
                kind: if self.byte()? == 0 { EventKind::Put } else { EventKind::Delete },
                revision: self.revision()?,
                entry: u32_at(self.bytes(4)?, 0)?,
                previous: u32_at(self.bytes(4)?, 0).map(|number| Some(number).filter(|n| *n != u32::MAX))?,
            },
            MARK => Record::Mark(Mark { at_ms: self.long()?, revision: self.revision()? }),
            END => Record::End { entries: self.long()? },
            _ => return None,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    /// An error says that the rest cannot be read.
    type Item = Result<Record<'a>, Arc<str>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let before = self.rest.len();
        Some(self.record().ok_or_else(|| {
            self.rest = &[];
            format!("a record {before} bytes before the end of its frame does not parse").into()
        }))
    }
}
