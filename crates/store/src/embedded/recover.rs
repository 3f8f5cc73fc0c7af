//! Opening: the newest snapshot, then the log after it, frame by frame.
//!
//! A frame that is not valid is the torn end of the log if no later frame is valid: nothing after it was ever
//! acknowledged. If one is, the damage is in the middle of what was acknowledged, and the store does not open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;

use super::OpenError;
use super::disk::{Disk, File};
use super::frame::{self, FILE_HEADER, FileHeader, HEADER};
use super::head::successor;
use super::lease::{Lease, LeaseTable};
use super::log::{self, Active, Log, Sealed, Source};
use super::record::{Record, Records};
use super::snapshot::{self, State};
use crate::model::{Entry, Event, EventKind, Key, Revision};
use crate::transform::{self, Loaded, Transform};
use crate::view::{BucketImage, Image, MARK_EVERY_MS, Map, Mark, apply};

/// What to do about damage in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Refuse to open.
    Refuse,
    /// Open with everything before it, and lose what is after.
    Salvage,
}

/// How many spare segments an opening takes over; the first snapshot finds out how many there may be.
const MOST_SPARES: usize = 4;

/// How the log is laid out.
pub(super) struct Layout {
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    pub(super) entropy: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What was found.
pub(super) struct Recovered {
    pub(super) image: Image,
    pub(super) leases: LeaseTable,
    pub(super) log: Log,
    /// The size of the snapshot the store began from.
    pub(super) snapshot_bytes: u64,
}

/// Opens what is on the disk, or begins anew on an empty one.
pub(super) fn recover(
    disk: Arc<dyn Disk>,
    layout: Layout,
    damage: Damage,
    transform: &Arc<dyn Transform>,
) -> Result<Recovered, OpenError> {
    let mut names = disk.list().map_err(|source| OpenError::io("listing the store's files", source))?;
    names.sort();
    let remove =
        |name: &str| disk.remove(name).map_err(|source| OpenError::io(format!("removing {name}"), source));
    for name in names.iter().filter(|name| log::is_unfinished(name)) {
        remove(name)?;
    }
    let mut snapshots: Vec<u64> = names.iter().filter_map(|name| snapshot::seq(name)).collect();
    let newest = snapshots.pop();
    let mut snapshot_bytes = 0;
    let state = match newest {
        Some(seq) => {
            let name = snapshot::name(seq);
            let file = disk.open(&name).map_err(|source| OpenError::io(format!("opening {name}"), source))?;
            file.forget();
            snapshot_bytes =
                file.size().map_err(|source| OpenError::io(format!("opening {name}"), source))?;
            snapshot::read(&*disk, &name, transform)?
        }
        None => State::default(),
    };
    let segments: Vec<u64> = names.iter().filter_map(|name| log::segment_seq(name)).collect();
    // The segment that holds the frame after the snapshot's last, or would.
    let first = segments.iter().rposition(|seq| *seq <= state.seq + 1);
    let Some(first) = first else {
        if newest.is_none() && segments.is_empty() {
            return begin(disk, layout);
        }
        return Err(OpenError::Corrupt {
            file: log::segment_name(state.seq + 1),
            offset: 0,
            detail: "the log that follows the snapshot is missing".into(),
        });
    };
    let mut replay = Replay::new(state, transform.clone());
    let sealed_and_active = replay.run(&*disk, &segments[first..], damage)?;
    // What is served must be durable, also what the last process had written and not yet synced.
    let (sealed, active) = sealed_and_active;
    // After damage that was let pass: later segments would contradict what is logged from here on.
    for seq in segments.iter().filter(|seq| **seq > active.seq) {
        remove(&log::segment_name(*seq))?;
    }
    active.file.sync().map_err(|source| OpenError::io("syncing the log", source))?;
    disk.sync_directory().map_err(|source| OpenError::io("syncing the store's directory", source))?;
    for seq in snapshots {
        remove(&snapshot::name(seq))?;
    }
    for seq in &segments[..first] {
        remove(&log::segment_name(*seq))?;
    }
    let has_reserve = names.iter().any(|name| log::is_reserve(name))
        || log::make_reserve(&*disk, layout.reserve_bytes)
            .map_err(|source| OpenError::io("making the reserve", source))?;
    let mut spares = Vec::new();
    for name in names.iter().filter(|name| log::is_spare(name)) {
        // A disk with its reserve only: on a full one they are better free.
        let file = disk.open(name).map_err(|source| OpenError::io(format!("opening {name}"), source))?;
        let size = file.size().map_err(|source| OpenError::io(format!("opening {name}"), source))?;
        if size == layout.segment_bytes && has_reserve && spares.len() < MOST_SPARES {
            spares.push(name.clone());
        } else {
            remove(name)?;
        }
    }
    let (image, leases, next_seq, chain) = replay.finish();
    let log = Log {
        disk,
        spares,
        sealed,
        active,
        next_seq,
        chain,
        entropy: layout.entropy,
        segment_bytes: layout.segment_bytes,
        reserve_bytes: layout.reserve_bytes,
        has_reserve,
    };
    Ok(Recovered { image, leases, log, snapshot_bytes })
}

/// The state on a disk that is only read, perhaps while a store writes to it.
pub(super) fn read(
    disk: &dyn Disk,
    damage: Damage,
    transform: &Arc<dyn Transform>,
) -> Result<State, OpenError> {
    let mut names = disk.list().map_err(|source| OpenError::io("listing the store's files", source))?;
    names.sort();
    let newest = names.iter().filter_map(|name| snapshot::seq(name)).next_back();
    let state = match newest {
        Some(seq) => snapshot::read(disk, &snapshot::name(seq), transform)?,
        None => State::default(),
    };
    let segments: Vec<u64> = names.iter().filter_map(|name| log::segment_seq(name)).collect();
    let first = segments.iter().rposition(|seq| *seq <= state.seq + 1);
    let Some(first) = first else {
        return Err(OpenError::Corrupt {
            file: log::segment_name(state.seq + 1),
            offset: 0,
            detail: "the log that follows the snapshot is missing".into(),
        });
    };
    let mut replay = Replay::new(state, transform.clone());
    replay.run(disk, &segments[first..], damage)?;
    // A segment that went away meanwhile may have been written anew while it was read.
    let left = disk.list().map_err(|source| OpenError::io("listing the store's files", source))?;
    if let Some(gone) =
        segments[first..].iter().map(|seq| log::segment_name(*seq)).find(|name| !left.contains(name))
    {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(OpenError::io(format!("reading {gone}, which was replaced meanwhile"), source));
    }
    let (image, leases, next_seq, chain) = replay.finish();
    Ok(State { image, leases, seq: next_seq - 1, chain })
}

fn begin(disk: Arc<dyn Disk>, layout: Layout) -> Result<Recovered, OpenError> {
    let doing = |source| OpenError::io("making the first log segment", source);
    let source = Source::Free { size: layout.segment_bytes };
    let active = log::create_segment(&*disk, 1, 0, 0, (layout.entropy)(), source).map_err(doing)?;
    let has_reserve = log::make_reserve(&*disk, layout.reserve_bytes).map_err(doing)?;
    let log = Log {
        disk,
        spares: Vec::new(),
        sealed: Vec::new(),
        active,
        next_seq: 1,
        chain: 0,
        entropy: layout.entropy,
        segment_bytes: layout.segment_bytes,
        reserve_bytes: layout.reserve_bytes,
        has_reserve,
    };
    Ok(Recovered { image: Image::default(), leases: LeaseTable::default(), log, snapshot_bytes: 0 })
}

/// The state that the log is being applied to.
struct Replay {
    transform: Arc<dyn Transform>,
    image: Image,
    buckets: HashMap<Arc<str>, BucketImage>,
    leases: LeaseTable,
    /// Frames up to here are in the snapshot.
    contained: (u64, u32),
    next_seq: u64,
    chain: u32,
}

impl Replay {
    fn new(mut state: State, transform: Arc<dyn Transform>) -> Self {
        let buckets = std::mem::take(&mut state.image.buckets);
        Self {
            transform,
            image: state.image,
            buckets: buckets.into_iter().map(|bucket| (bucket.prefix.clone(), bucket)).collect(),
            leases: state.leases,
            contained: (state.seq, state.chain),
            next_seq: 0,
            chain: 0,
        }
    }

    fn finish(mut self) -> (Image, LeaseTable, u64, u32) {
        self.image.buckets = self.buckets.into_values().collect();
        (self.image, self.leases, self.next_seq, self.chain)
    }

    /// Applies the segments in order; returns those that are complete and the one to go on with.
    fn run(
        &mut self,
        disk: &dyn Disk,
        segments: &[u64],
        damage: Damage,
    ) -> Result<(Vec<Sealed>, Active), OpenError> {
        // The next one is read while one is applied.
        let (sealed, last) = std::thread::scope(|scope| {
            let (sender, loaded) = sync_channel(1);
            scope.spawn(move || {
                for seq in segments {
                    let segment = load(disk, *seq);
                    let failed = segment.is_err();
                    if sender.send(segment).is_err() || failed {
                        return;
                    }
                }
            });
            self.apply_all(&loaded, segments, damage)
        })?;
        let active = last.ok_or_else(|| OpenError::Corrupt {
            file: "log".into(),
            offset: 0,
            detail: "there is no segment that can be read".into(),
        })?;
        let (contained, _) = self.contained;
        if self.next_seq <= contained {
            return Err(OpenError::Corrupt {
                file: log::segment_name(active.seq),
                offset: active.offset,
                detail: format!("the log ends before frame {contained}, which the snapshot contains"),
            });
        }
        Ok((sealed, active))
    }

    fn apply_all(
        &mut self,
        loaded: &Receiver<Result<(Box<dyn File>, Vec<u8>), OpenError>>,
        segments: &[u64],
        damage: Damage,
    ) -> Result<(Vec<Sealed>, Option<Active>), OpenError> {
        let mut sealed = Vec::new();
        let mut last: Option<Active> = None;
        for (index, seq) in segments.iter().enumerate() {
            let name = log::segment_name(*seq);
            // Its reader ends with an error or with the last one.
            let Ok(segment) = loaded.recv() else { break };
            let (file, bytes) = segment?;
            let size = bytes.len() as u64;
            let corrupt =
                |offset: u64, detail: String| OpenError::Corrupt { file: name.clone(), offset, detail };
            let header = match FileHeader::decode(&bytes, log::MAGIC) {
                Ok(header) if header.seq == *seq => header,
                Ok(_) => return Err(corrupt(0, "the segment has another one's name".into())),
                Err(detail) if damage == Damage::Refuse || last.is_none() => return Err(corrupt(0, detail)),
                Err(_) => break,
            };
            if let Some(before) = last.take() {
                if (header.seq, header.chain) != (self.next_seq, self.chain) {
                    if damage == Damage::Salvage {
                        last = Some(before);
                        break;
                    }
                    return Err(OpenError::Corrupt {
                        file: log::segment_name(before.seq),
                        offset: before.offset,
                        detail: format!(
                            "frame {} is damaged, and {name} shows that it was complete",
                            self.next_seq
                        ),
                    });
                }
                sealed.push(Sealed { seq: before.seq, size: before.size });
            } else {
                (self.next_seq, self.chain) = (header.seq, header.chain);
            }
            let offset = self.segment(&bytes, header.salt).map_err(|(at, detail)| corrupt(at, detail))?;
            let tail = &bytes[(offset as usize).min(bytes.len())..];
            let is_last = index + 1 == segments.len();
            if is_last
                && damage == Damage::Refuse
                && let Some(later) = later_frame(tail, header.salt, offset, self.next_seq)
            {
                let detail =
                    format!("frame {} is damaged, but frame {later} after it is whole", self.next_seq);
                return Err(corrupt(offset, detail));
            }
            // Behind a reused segment's frames there are always some; those of its own, whole ones, were looked for
            // above, unless damage was let pass.
            let reused = header.extra[0] == log::REUSED && damage == Damage::Refuse;
            let closed = !reused && tail.iter().any(|byte| *byte != 0);
            last = Some(Active { file, seq: *seq, salt: header.salt, offset, size, closed });
        }
        Ok((sealed, last))
    }

    /// Applies the valid frames of one segment and returns where they end.
    fn segment(&mut self, bytes: &[u8], salt: u64) -> Result<u64, (u64, String)> {
        let mut offset = FILE_HEADER as u64;
        while let Some(rest) = bytes.get(offset as usize..) {
            let valid = frame::open(rest, salt, offset)
                .filter(|(frame, _)| frame.seq == self.next_seq && frame.previous == self.chain);
            let Some((frame, payload)) = valid else { break };
            let (contained, crc) = self.contained;
            if frame.seq == contained && frame.crc != crc {
                return Err((offset, "the log and the snapshot are not of one history".into()));
            }
            if frame.seq > contained {
                for record in Records::new(payload) {
                    record
                        .and_then(|record| self.apply(record))
                        .map_err(|detail| (offset, detail.to_string()))?;
                }
                self.image.revision = Revision(frame.revision);
                if self.image.marks.last().is_none_or(|mark| mark.at_ms + MARK_EVERY_MS <= frame.time_ms) {
                    self.image.marks.push(Mark { at_ms: frame.time_ms, revision: self.image.revision });
                }
            }
            (self.next_seq, self.chain) = (frame.seq + 1, frame.crc);
            offset += frame::occupied(frame.length);
        }
        Ok(offset)
    }

    fn apply(&mut self, record: Record<'_>) -> Result<(), Arc<str>> {
        let transform = self.transform.clone();
        match record {
            Record::Put { revision, lease, expires_ms, prefix, name, value } => {
                let bucket = self.bucket(prefix);
                let previous = bucket.map.get(name).cloned();
                let key = Key { prefix: bucket.prefix.clone(), name: name.into() };
                let Loaded { value, stale } =
                    transform::load(&*transform, &key, Bytes::copy_from_slice(value));
                let next = successor(previous.as_deref(), &key.name, value, revision);
                let entry = Arc::new(Entry { lease, expires_ms, stale, ..next });
                push(bucket, revision, EventKind::Put, entry, previous);
            }
            Record::Delete { revision, prefix, name } => {
                let bucket = self.bucket(prefix);
                let previous = bucket.map.get(name).cloned().ok_or("a delete of what is not there")?;
                push(bucket, revision, EventKind::Delete, previous.clone(), Some(previous));
            }
            Record::Compact { revision } => {
                self.image.compacted = self.image.compacted.max(revision);
                for bucket in self.buckets.values_mut() {
                    bucket.horizon = bucket.horizon.max(revision);
                    bucket.events.retain(|event| event.revision > revision);
                }
            }
            Record::Lease { id, ttl_ms, expires_ms } => self.leases.put(id, Lease { ttl_ms, expires_ms }),
            Record::Revoke { id } => {
                self.leases.leases.remove(&id);
            }
            Record::Bucket { .. }
            | Record::Entry { .. }
            | Record::Event { .. }
            | Record::Mark(_)
            | Record::End { .. } => return Err("a record of a snapshot is in the log".into()),
        }
        Ok(())
    }

    fn bucket(&mut self, prefix: &str) -> &mut BucketImage {
        if !self.buckets.contains_key(prefix) {
            let prefix: Arc<str> = prefix.into();
            let horizon = self.image.compacted;
            let bucket = BucketImage { prefix: prefix.clone(), map: Map::new(), events: Vec::new(), horizon };
            self.buckets.insert(prefix, bucket);
        }
        self.buckets.get_mut(prefix).expect("inserted above")
    }
}

/// A segment's file and its bytes, as the device has them.
fn load(disk: &dyn Disk, seq: u64) -> Result<(Box<dyn File>, Vec<u8>), OpenError> {
    let name = log::segment_name(seq);
    let doing = |source| OpenError::io(format!("reading {name}"), source);
    let file = disk.open(&name).map_err(doing)?;
    file.forget();
    let size = file.size().map_err(doing)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    file.read_at(&mut bytes, 0).map_err(doing)?;
    Ok((file, bytes))
}

fn push(
    bucket: &mut BucketImage,
    revision: Revision,
    kind: EventKind,
    entry: Arc<Entry>,
    previous: Option<Arc<Entry>>,
) {
    let event = Event { revision, kind, prefix: bucket.prefix.clone(), entry, previous };
    apply(&mut bucket.map, &event);
    bucket.events.push(Arc::new(event));
}

/// The sequence number of a whole frame in `tail`, which lies at `offset`, that is later than the one expected there.
pub(super) fn later_frame(tail: &[u8], salt: u64, offset: u64, expected: u64) -> Option<u64> {
    let starts = (0..tail.len().saturating_sub(HEADER)).step_by(8);
    starts
        .filter(|start| frame::claimed_length(&tail[*start..]).is_some())
        .filter_map(|start| frame::open(&tail[start..], salt, offset + start as u64))
        .map(|(frame, _)| frame.seq)
        .find(|seq| *seq > expected)
}
