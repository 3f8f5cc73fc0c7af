//! The append-only log: preallocated segments of frames, a reserve for the day the disk is full.
//!
//! A segment becomes the log by the rename that follows its synced header, and never grows. One that a snapshot made
//! needless becomes a spare and, with a new header, another segment: what its old frames left is told from new ones by
//! the salt. The reserve is a segment's worth of space that is taken when no other can be had, so that deletes still go
//! through.

use std::io;
use std::sync::Arc;

use super::disk::{Disk, File};
use super::frame::{self, FILE_HEADER, FileHeader};

/// `TIPHYLOG`.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"TIPHYLOG");
const RESERVE: &str = "reserve";
const RESERVE_NEW: &str = "reserve.new";
const SEGMENT_NEW: &str = "log.new";
const SPARE: &str = "spare-";
const SPARE_NEW: &str = "spare.new";
/// The spare that was made for the purpose and never was a segment.
const PREPARED: &str = "spare-zeros";
/// How much of it is written between two syncs: a large one would hold up the log's.
const PIECE: usize = 1 << 20;

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
    /// Files that can become segments, by name; each has `segment_bytes`.
    pub(super) spares: Vec<String>,
}

/// Whether a file is a spare.
pub(super) fn is_spare(name: &str) -> bool {
    name.starts_with(SPARE)
}

/// Makes a spare of zeros and returns its name.
pub(super) fn prepare(disk: &dyn Disk, size: u64) -> io::Result<String> {
    let made = (|| {
        let file = disk.create(SPARE_NEW)?;
        file.allocate(size)?;
        let zeros = vec![0; PIECE.min(size as usize)];
        let mut offset = 0;
        while offset < size {
            let piece = (size - offset).min(zeros.len() as u64);
            file.write_at(&zeros[..piece as usize], offset)?;
            file.sync()?;
            offset += piece;
        }
        disk.rename(SPARE_NEW, PREPARED)
    })();
    match made {
        Ok(()) => Ok(PREPARED.to_owned()),
        Err(error) => {
            let _ = disk.remove(SPARE_NEW);
            Err(error)
        }
    }
}

/// Makes the segment that starts at frame `seq`, from the reserve or from free space.
pub(super) fn create_segment(
    disk: &dyn Disk,
    seq: u64,
    chain: u32,
    revision: u64,
    salt: u64,
    source: Source<'_>,
) -> io::Result<Active> {
    let (file, from, size, extra) = match source {
        Source::Free { size } => {
            let file = disk.create(SEGMENT_NEW)?;
            file.allocate(size)?;
            (file, SEGMENT_NEW, size, [0; 2])
        }
        Source::Spare(name) => {
            let file = disk.open(name)?;
            let size = file.size()?;
            (file, name, size, [REUSED, 0])
        }
        Source::Reserve => {
            let file = disk.open(RESERVE)?;
            let size = file.size()?;
            (file, RESERVE, size, [0; 2])
        }
    };
    let header = FileHeader { magic: MAGIC, salt, seq, revision, extra, chain };
    file.write_at(&header.encode(), 0)?;
    file.sync()?;
    disk.rename(from, &segment_name(seq))?;
    disk.sync_directory()?;
    Ok(Active { file, seq, salt, offset: FILE_HEADER as u64, size, closed: false })
}

/// In a segment's header: behind its last frame there may be anything, not only zeros.
pub(super) const REUSED: u64 = 1;

/// Where a segment's space comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    Free { size: u64 },
    Spare(&'a str),
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
        let salt = (self.entropy)();
        let fits = frame + FILE_HEADER as u64 <= self.segment_bytes;
        let made = match self.spares.pop_if(|_| fits) {
            Some(spare) => {
                let source = Source::Spare(&spare);
                match create_segment(&*self.disk, self.next_seq, self.chain, revision, salt, source) {
                    // Somebody has tidied up: there is nothing of ours in a spare.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.make_free(frame, revision, salt)
                    }
                    other => other,
                }
            }
            None => self.make_free(frame, revision, salt),
        };
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

    fn make_free(&self, frame: u64, revision: u64, salt: u64) -> io::Result<Active> {
        let size = self.segment_bytes.max(frame + FILE_HEADER as u64);
        create_segment(&*self.disk, self.next_seq, self.chain, revision, salt, Source::Free { size })
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
            let name = segment_name(segment.seq);
            if segment.size == self.segment_bytes {
                let spare = format!("{SPARE}{:016x}", segment.seq);
                self.disk.rename(&name, &spare)?;
                self.spares.push(spare);
            } else {
                self.disk.remove(&name)?;
            }
        }
        Ok(needless)
    }

    /// Removes spares until there are no more than `most`.
    pub(super) fn drop_spares(&mut self, most: usize) {
        while self.spares.len() > most {
            let Some(name) = self.spares.pop() else { return };
            if let Err(error) = self.disk.remove(&name) {
                // It is found, and used or removed, when the store is opened next.
                tracing::warn!(%error, name, "a spare segment cannot be removed");
            }
        }
    }

    /// Bytes that the spares occupy.
    pub(super) fn spare_bytes(&self) -> u64 {
        self.spares.len() as u64 * self.segment_bytes
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
