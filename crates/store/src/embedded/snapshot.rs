//! Snapshots: the whole state at one log frame, with its history, in a file that is complete or absent.
//!
//! Written off the writer's thread from an image of the view; the rename that follows the sync makes it count.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::OpenError;
use super::ahead::Ahead;
use super::disk::{Disk, File};
use super::frame::{self, FILE_HEADER, FileHeader, HEADER};
use super::lease::{Lease, LeaseTable};
use super::record::{self, Record, Records};
use crate::model::{Entry, Event, Key, Revision};
use crate::transform::{self, Loaded, Transform};
use crate::view::{BucketImage, Image, Map};

/// `TIPHYSNP`.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TIPHYSNP");
const NEW: &str = "snapshot.new";
/// The payload of one frame, give or take its last record.
const CHUNK: usize = 512 << 10;
/// Frames between two syncs: one large sync at the end would hold up the log's for as long as it lasts.
const SYNC_EVERY: u64 = 4;

/// The name of the snapshot that contains the log up to frame `seq`.
pub(super) fn name(seq: u64) -> String {
    format!("snapshot-{seq:016x}")
}

/// The last log frame in the snapshot of this name, if it is one.
pub(super) fn seq(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("snapshot-")?, 16).ok()
}

/// What a snapshot holds.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) image: Image,
    pub(super) leases: LeaseTable,
    /// The last log frame it contains, and its CRC.
    pub(super) seq: u64,
    pub(super) chain: u32,
}

struct Writer<'a> {
    file: &'a dyn File,
    salt: u64,
    offset: u64,
    seq: u64,
    chain: u32,
    frame: Vec<u8>,
}

impl Writer<'_> {
    fn flush(&mut self) -> io::Result<()> {
        self.chain = frame::seal(&mut self.frame, (self.salt, self.offset), self.seq, 0, 0, self.chain);
        self.file.write_at(&self.frame, self.offset)?;
        self.offset += self.frame.len() as u64;
        if self.seq.is_multiple_of(SYNC_EVERY) {
            self.file.sync()?;
        }
        self.seq += 1;
        self.frame.clear();
        self.frame.resize(HEADER, 0);
        Ok(())
    }

    fn record(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        write(&mut self.frame);
        if self.frame.len() >= CHUNK { self.flush() } else { Ok(()) }
    }
}

/// Writes a snapshot and makes it count; returns its size. After an error nothing has changed.
pub(super) fn write(disk: &dyn Disk, state: &State, salt: u64, transform: &dyn Transform) -> io::Result<u64> {
    let written = write_new(disk, state, salt, transform).and_then(|size| {
        disk.rename(NEW, &name(state.seq))?;
        disk.sync_directory()?;
        Ok(size)
    });
    if written.is_err() {
        let _ = disk.remove(NEW);
    }
    written
}

fn write_new(disk: &dyn Disk, state: &State, salt: u64, transform: &dyn Transform) -> io::Result<u64> {
    let file = disk.create(NEW)?;
    let image = &state.image;
    let header = FileHeader {
        magic: MAGIC,
        salt,
        seq: state.seq,
        revision: image.revision.0,
        extra: [image.compacted.0, state.leases.last],
        chain: state.chain,
    };
    file.write_at(&header.encode(), 0)?;
    let mut writer =
        Writer { file: &*file, salt, offset: FILE_HEADER as u64, seq: 1, chain: 0, frame: vec![0; HEADER] };
    for (id, lease) in &state.leases.leases {
        writer.record(|into| record::lease(into, *id, lease.ttl_ms, lease.expires_ms))?;
    }
    for mark in &image.marks {
        writer.record(|into| record::mark(into, *mark))?;
    }
    let mut entries = 0;
    for bucket in &image.buckets {
        writer.record(|into| record::bucket(into, bucket.horizon, &bucket.prefix))?;
        write_bucket(&mut writer, bucket, &mut entries, transform)?;
    }
    writer.record(|into| record::end(into, u64::from(entries)))?;
    writer.flush()?;
    let size = writer.offset;
    file.sync()?;
    Ok(size)
}

fn write_bucket(
    writer: &mut Writer<'_>,
    bucket: &BucketImage,
    entries: &mut u32,
    transform: &dyn Transform,
) -> io::Result<()> {
    let kept = |entry: &Entry| {
        let key = Key { prefix: bucket.prefix.clone(), name: entry.name.clone() };
        transform.save(&key, &entry.value).map_err(|error| io::Error::other(format!("{key}: {error}")))
    };
    // Numbers are needed only for the entries that the history mentions.
    let mut numbers: HashMap<*const Entry, Option<u32>> = HashMap::new();
    for event in &bucket.events {
        numbers.insert(Arc::as_ptr(&event.entry), None);
        numbers.extend(event.previous.as_ref().map(|previous| (Arc::as_ptr(previous), None)));
    }
    for entry in bucket.map.values() {
        if let Some(number) = numbers.get_mut(&Arc::as_ptr(entry)) {
            *number = Some(*entries);
        }
        let value = kept(entry)?;
        writer.record(|into| record::entry(into, true, entry, &value))?;
        *entries += 1;
    }
    for event in &bucket.events {
        let mut number = |entry: &Arc<Entry>| -> io::Result<u32> {
            let slot = numbers.entry(Arc::as_ptr(entry)).or_default();
            if let Some(number) = slot {
                return Ok(*number);
            }
            let next = *slot.insert(*entries);
            let value = kept(entry)?;
            writer.record(|into| record::entry(into, false, entry, &value))?;
            *entries += 1;
            Ok(next)
        };
        let entry = number(&event.entry)?;
        let previous = event.previous.as_ref().map(&mut number).transpose()?;
        writer.record(|into| record::event(into, event.kind, event.revision, entry, previous))?;
    }
    Ok(())
}

/// Reads the snapshot of this name, verifying all of it.
pub(super) fn read(
    disk: &dyn Disk,
    file_name: &str,
    transform: &Arc<dyn Transform>,
) -> Result<State, OpenError> {
    let doing = |source| OpenError::io(format!("reading {file_name}"), source);
    let damaged = |offset, detail: String| OpenError::Corrupt { file: file_name.to_owned(), offset, detail };
    let file = disk.open(file_name).map_err(doing)?;
    let size = file.size().map_err(doing)?;
    let mut head = [0; FILE_HEADER];
    if size < FILE_HEADER as u64 {
        return Err(damaged(0, "the file is shorter than its header".into()));
    }
    file.read_at(&mut head, 0).map_err(doing)?;
    let header = FileHeader::decode(&head, MAGIC).map_err(|detail| damaged(0, detail))?;
    let mut loader = Loader::new(transform.clone());
    std::thread::scope(|scope| {
        let mut ahead = Ahead::of(scope, &*file, FILE_HEADER as u64, size);
        let (mut offset, mut seq, mut chain) = (FILE_HEADER as u64, 1, 0);
        while offset < size {
            let length = frame::claimed_length(ahead.peek(HEADER).map_err(doing)?);
            let length = length.map(|length| (HEADER + length) as u64);
            let Some(length) = length.filter(|length| *length <= size - offset) else {
                return Err(damaged(offset, "a frame's header is damaged".into()));
            };
            // With its padding, which only the last frame may lack.
            let occupied = length.next_multiple_of(8).min(size - offset);
            let bytes = ahead.peek(occupied as usize).map_err(doing)?;
            let valid = frame::open(bytes, header.salt, offset)
                .filter(|(frame, _)| frame.seq == seq && frame.previous == chain);
            let Some((frame, payload)) = valid else {
                return Err(damaged(offset, "a frame's checksum is wrong".into()));
            };
            for record in Records::new(payload) {
                record
                    .and_then(|record| loader.take(record))
                    .map_err(|detail| damaged(offset, detail.to_string()))?;
            }
            (seq, chain) = (seq + 1, frame.crc);
            ahead.skip(occupied as usize);
            offset += occupied;
        }
        Ok(())
    })?;
    let mut state =
        loader.finish().ok_or_else(|| damaged(size, "the file ends before the snapshot does".into()))?;
    state.image.revision = Revision(header.revision);
    state.image.compacted = Revision(header.extra[0]);
    state.leases.last = header.extra[1];
    (state.seq, state.chain) = (header.seq, header.chain);
    Ok(state)
}

/// Builds the state from a snapshot's records.
struct Loader {
    transform: Arc<dyn Transform>,
    state: State,
    entries: Vec<Arc<Entry>>,
    live: Vec<(Arc<str>, Arc<Entry>)>,
    ended: bool,
}

impl Loader {
    fn new(transform: Arc<dyn Transform>) -> Self {
        Self { transform, state: State::default(), entries: Vec::new(), live: Vec::new(), ended: false }
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), Arc<str>> {
        if self.ended {
            return Err("there are records after the end".into());
        }
        match record {
            Record::Lease { id, ttl_ms, expires_ms } => {
                self.state.leases.put(id, Lease { ttl_ms, expires_ms })
            }
            Record::Mark(mark) => self.state.image.marks.push(mark),
            Record::Bucket { horizon, prefix } => {
                self.close_bucket();
                self.state.image.buckets.push(BucketImage {
                    prefix: prefix.into(),
                    map: Map::new(),
                    events: Vec::new(),
                    horizon,
                });
            }
            Record::Entry {
                live,
                create_revision,
                mod_revision,
                version,
                lease,
                expires_ms,
                name,
                value,
            } => {
                let bucket = self.state.image.buckets.last().ok_or("an entry is outside of a bucket")?;
                let key = Key { prefix: bucket.prefix.clone(), name: name.into() };
                let Loaded { value, stale } =
                    transform::load(&*self.transform, &key, Bytes::copy_from_slice(value));
                let entry = Arc::new(Entry {
                    name: key.name,
                    value,
                    create_revision,
                    mod_revision,
                    version,
                    lease,
                    expires_ms,
                    stale,
                    projection: OnceLock::new(),
                });
                if live {
                    self.live.push((entry.name.clone(), entry.clone()));
                }
                self.entries.push(entry);
            }
            Record::Event { kind, revision, entry, previous } => {
                let entry_of = |number: u32| {
                    self.entries
                        .get(number as usize)
                        .cloned()
                        .ok_or("an event names an entry that is not there")
                };
                let (entry, previous) = (entry_of(entry)?, previous.map(entry_of).transpose()?);
                let bucket = self.state.image.buckets.last_mut().ok_or("an event is outside of a bucket")?;
                let prefix = bucket.prefix.clone();
                bucket.events.push(Arc::new(Event { revision, kind, prefix, entry, previous }));
            }
            Record::End { entries } => {
                if entries != self.entries.len() as u64 {
                    return Err("entries are missing".into());
                }
                self.close_bucket();
                self.ended = true;
            }
            Record::Put { .. } | Record::Delete { .. } | Record::Compact { .. } | Record::Revoke { .. } => {
                return Err("a record of the log is in a snapshot".into());
            }
        }
        Ok(())
    }

    fn close_bucket(&mut self) {
        if let Some(bucket) = self.state.image.buckets.last_mut() {
            bucket.map = self.live.drain(..).collect();
        }
    }

    fn finish(self) -> Option<State> {
        self.ended.then_some(self.state)
    }
}
