//! The unit that is whole or absent: a checksummed, chained frame of records. One group commit is one frame, so that
//! a valid frame proves that every frame before it was synced.
//!
//! ```text
//! frame   magic u32 | length u32 | seq u64 | revision u64 | time u64 | previous crc u32 | crc u32 | payload | pad to 8
//! file    magic u64 | version u32 | zero u32 | salt u64 | seq u64 | revision u64 | a u64 | b u64 | chain u32 | crc u32
//! ```
//! All numbers are little endian. A frame's CRC also covers its file's random salt and its offset: bytes that look
//! like a frame inside a value, or left from another file, are none.

use std::ops::Range;

/// Bytes of a frame's header.
pub(super) const HEADER: usize = 40;
/// Bytes of a file's header.
pub(super) const FILE_HEADER: usize = 64;
const MAGIC: u32 = 0x7970_6954;
const VERSION: u32 = 1;
const LENGTH: Range<usize> = 4..8;
const SEQ: Range<usize> = 8..16;
const REVISION: Range<usize> = 16..24;
const TIME: Range<usize> = 24..32;
const PREVIOUS: Range<usize> = 32..36;
const CRC: Range<usize> = 36..40;

/// A frame's header, its checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) seq: u64,
    /// The newest revision once the frame is applied.
    pub(super) revision: u64,
    pub(super) time_ms: u64,
    pub(super) previous: u32,
    pub(super) crc: u32,
}

/// The first bytes of a log segment or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// What kind of file.
    pub(super) magic: u64,
    pub(super) salt: u64,
    /// Segment: the first frame's sequence number. Snapshot: the last log frame it contains.
    pub(super) seq: u64,
    pub(super) revision: u64,
    /// Snapshot: the compacted revision and the next lease. Segment: whether it was another one before.
    pub(super) extra: [u64; 2],
    /// CRC of the log frame before the first one, or of the last one contained.
    pub(super) chain: u32,
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn checksum(salt: u64, offset: u64, header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// The bytes a frame with this payload occupies.
pub(super) fn occupied(payload: usize) -> u64 {
    (HEADER + payload).next_multiple_of(8) as u64
}

/// Completes `frame`, whose first `HEADER` bytes were left for it, pads it, and returns its CRC.
pub(super) fn seal(
    frame: &mut Vec<u8>,
    (salt, offset): (u64, u64),
    seq: u64,
    revision: u64,
    time_ms: u64,
    previous: u32,
) -> u32 {
    let length = u32::try_from(frame.len() - HEADER).expect("a batch is bounded far below 4 GiB");
    frame[..4].copy_from_slice(&MAGIC.to_le_bytes());
    frame[LENGTH].copy_from_slice(&length.to_le_bytes());
    frame[SEQ].copy_from_slice(&seq.to_le_bytes());
    frame[REVISION].copy_from_slice(&revision.to_le_bytes());
    frame[TIME].copy_from_slice(&time_ms.to_le_bytes());
    frame[PREVIOUS].copy_from_slice(&previous.to_le_bytes());
    let crc = checksum(salt, offset, &frame[..CRC.start], &frame[HEADER..]);
    frame[CRC].copy_from_slice(&crc.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(8), 0);
    crc
}

/// What a frame's first bytes say of its length, before anything is verified.
pub(super) fn claimed_length(bytes: &[u8]) -> Option<usize> {
    if u32_at(bytes, 0)? != MAGIC {
        return None;
    }
    Some(u32_at(bytes, LENGTH.start)? as usize)
}

/// Whether `bytes` begin as the frame does that follows another, whether or not the rest of it is there.
pub(super) fn begins(bytes: &[u8], seq: u64, previous: u32) -> bool {
    claimed_length(bytes).is_some()
        && u64_at(bytes, SEQ.start) == Some(seq)
        && u32_at(bytes, PREVIOUS.start) == Some(previous)
}

/// The frame at the beginning of `bytes`, which lie at `offset` of a file with this salt; nothing if it is not valid.
pub(super) fn open(bytes: &[u8], salt: u64, offset: u64) -> Option<(Header, &[u8])> {
    let length = claimed_length(bytes)?;
    let payload = bytes.get(HEADER..HEADER.checked_add(length)?)?;
    let crc = u32_at(bytes, CRC.start)?;
    if crc != checksum(salt, offset, &bytes[..CRC.start], payload) {
        return None;
    }
    let header = Header {
        length,
        seq: u64_at(bytes, SEQ.start)?,
        revision: u64_at(bytes, REVISION.start)?,
        time_ms: u64_at(bytes, TIME.start)?,
        previous: u32_at(bytes, PREVIOUS.start)?,
        crc,
    };
    Some((header, payload))
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        bytes[..8].copy_from_slice(&self.magic.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.seq.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.revision.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.extra[0].to_le_bytes());
        bytes[48..56].copy_from_slice(&self.extra[1].to_le_bytes());
        bytes[56..60].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8], magic: u64) -> Result<Self, String> {
        let parse = || {
            let header = Self {
                magic: u64_at(bytes, 0)?,
                salt: u64_at(bytes, 16)?,
                seq: u64_at(bytes, 24)?,
                revision: u64_at(bytes, 32)?,
                extra: [u64_at(bytes, 40)?, u64_at(bytes, 48)?],
                chain: u32_at(bytes, 56)?,
            };
            Some((header, u32_at(bytes, 8)?, u32_at(bytes, 60)?))
        };
        let (header, version, crc) = parse().ok_or("the file is shorter than its header")?;
        if header.magic != magic || crc != crc32fast::hash(&bytes[..60]) {
            return Err("the file's header is damaged".into());
        }
        if version != VERSION {
            return Err(format!("the file's format is version {version}, this program reads {VERSION}"));
        }
        Ok(header)
    }
}
