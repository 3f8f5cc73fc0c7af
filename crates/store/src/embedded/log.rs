//! The append-only log: preallocated segments of frames, a reserve for the day the disk is full.
//!
//! A segment becomes the log by the rename that follows its synced header; it never grows and is never reused. The
//! reserve is a segment's worth of space that is taken when no other can be had, so that deletes still go through.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, File};
use super::frame::{self, FILE_HEADER, FileHeader};

/// `TIPHYLOG`.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TIPHYLOG");
const RESERVE: &str = "reserve";
const RESERVE_NEW: &str = "reserve.new";
const SEGMENT_NEW: &str = "log.new";

/// Why an append did not happen.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing was written: there is no room.
    NoSpace,
    /// What is on disk is not known.
    Broken(String),
}

/// The name of a segment whose first frame is `seq`.
pub(super) fn segment_name(seq: u64) -> String {
    format!("log-{seq:016x}")
}

/// The first frame of the segment of this name, if it is one.
pub(super) fn segment_seq(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()
}

/// Whether a file was being made when the process ended.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new")
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A segment that is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    /// Its first frame.
    pub(super) seq: u64,
    pub(super) size: u64,
}

/// The segment that is being written.
pub(super) struct Active {
    pub(super) file: Box<dyn File>,
    pub(super) seq: u64,
    pub(super) salt: u64,
    /// Where the next frame goes.
    pub(super) offset: u64,
    pub(super) size: u64,
    /// No frame goes here any more, although there may be room: the tail holds the remains of a torn one.
    pub(super) closed: bool,
}

/// See the module. Owned by the writer's thread.
pub(super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) sealed: Vec<Sealed>,
    pub(super) active: Active,
    /// The next frame's sequence number.
    pub(super) next_seq: u64,
    /// The last frame's CRC.
    pub(super) chain: u32,
    /// A source of salts.
    pub(super) entropy: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(super) segment_bytes: u64,
    pub(super) reserve_bytes: u64,
    pub(super) has_reserve: bool,
}

/// Makes the segment that starts at frame `seq`, from the reserve or from free space.
pub(super) fn create_segment(
    disk: &dyn Disk,
    seq: u64,
    chain: u32,
    revision: u64,
    salt: u64,
    source: Source,
) -> io::Result<Active> {
    let (file, from, size) = match source {
        Source::Free { size } => {
            let file = disk.create(SEGMENT_NEW)?;
            file.allocate(size)?;
            (file, SEGMENT_NEW, size)
        }
        Source::Reserve => {
            let file = disk.open(RESERVE)?;
            let size = file.size()?;
            (file, RESERVE, size)
        }
    };
    let header = FileHeader { magic: MAGIC, salt, seq, revision, extra: [0; 2], chain };
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(from, &segment_name(seq))?;
    disk.sync_directory()?;
    Ok(Active { file, seq, salt, offset: FILE_HEADER as u64, size, closed: false })
}

/// Where a segment's space comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Free { size: u64 },
    Reserve,
}

impl Log {
    /// Appends one frame, whose header is left for this, and makes it durable.
    pub(super) fn append(&mut self, frame: &mut Vec<u8>, revision: u64, now_ms: u64) -> Result<(), Failure> {
        let size = frame::occupied(frame.len() - frame::HEADER);
        if self.active.closed || self.active.offset + size > self.active.size {
            self.rotate(size, revision)?;
        }
        let active = &mut self.active;
        let crc =
            frame::seal(frame, (active.salt, active.offset), self.next_seq, revision, now_ms, self.chain);
        if let Err(error) = active.file.write_at(frame, active.offset) {
            return Err(Failure::Broken(format!("writing {}: {error}", segment_name(active.seq))));
        }
        if let Err(error) = active.file.sync() {
            return Err(Failure::Broken(format!("syncing {}: {error}", segment_name(active.seq))));
        }
        active.offset += size;
        self.chain = crc;
        self.next_seq += 1;
        Ok(())
    }

    /// Seals the active segment and begins one that has room for `frame` bytes.
    pub(super) fn rotate(&mut self, frame: u64, revision: u64) -> Result<(), Failure> {
        let size = self.segment_bytes.max(frame + FILE_HEADER as u64);
        let source = Source::Free { size };
        let salt = (self.entropy)();
        let made = create_segment(&*self.disk, self.next_seq, self.chain, revision, salt, source);
        let active = match made {
            Ok(active) => active,
            Err(error) if is_full(&error) => {
                // Give back what the attempt may have taken.
                let _ = self.disk.remove(SEGMENT_NEW);
                if !self.has_reserve || frame + FILE_HEADER as u64 > self.reserve_bytes {
                    return Err(Failure::NoSpace);
                }
                self.has_reserve = false;
                create_segment(&*self.disk, self.next_seq, self.chain, revision, salt, Source::Reserve)
                    .map_err(|error| Failure::Broken(format!("taking the reserve: {error}")))?
            }
            Err(error) => return Err(Failure::Broken(format!("making a log segment: {error}"))),
        };
        let old = std::mem::replace(&mut self.active, active);
        // One that never held a frame had the new one's name, and is gone.
        if old.seq != self.active.seq {
            self.sealed.push(Sealed { seq: old.seq, size: old.size });
        }
        Ok(())
    }

    /// Makes the reserve if it is missing. False when there is no room for it and a segment beside it.
    pub(super) fn restore_reserve(&mut self) -> io::Result<bool> {
        if self.has_reserve {
            return Ok(true);
        }
        if self.disk.free()? < self.reserve_bytes + self.segment_bytes {
            return Ok(false);
        }
        self.has_reserve = make_reserve(&*self.disk, self.reserve_bytes)?;
        Ok(self.has_reserve)
    }

    /// Removes the segments whose frames are all up to `seq`, and returns how many that were.
    pub(super) fn truncate(&mut self, seq: u64) -> io::Result<usize> {
        // A segment ends where the next one begins.
        let ends: Vec<u64> =
            self.sealed.iter().skip(1).map(|next| next.seq).chain([self.active.seq]).collect();
        let needless = ends.iter().take_while(|end| **end <= seq + 1).count();
        for segment in self.sealed.drain(..needless) {
            self.disk.remove(&segment_name(segment.seq))?;
        }
        Ok(needless)
    }

    /// Bytes that the segments occupy.
    pub(super) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.size).sum::<u64>() + self.active.size
    }

    /// Bytes of the segments that hold frames.
    pub(super) fn used(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.size).sum::<u64>() + self.active.offset
    }
}

/// Makes the reserve; false when there is no room.
pub(super) fn make_reserve(disk: &dyn Disk, size: u64) -> io::Result<bool> {
    let made = (|| {
        let file = disk.create(RESERVE_NEW)?;
        file.allocate(size)?;
        file.sync()?;
        disk.rename(RESERVE_NEW, RESERVE)?;
        disk.sync_directory()
    })();
    match made {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error) => {
            let _ = disk.remove(RESERVE_NEW);
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The reserve's name, for those who list the directory.
pub(super) fn is_reserve(name: &str) -> bool {
    name == RESERVE
}
