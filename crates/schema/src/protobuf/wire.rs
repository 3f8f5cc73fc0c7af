//! The wire format: a buffer that is written from its end, so that lengths are known when they are due, and a reader.

use crate::decode::DecodeError;

/// Grows downwards.
#[derive(Debug)]
pub(crate) struct Back {
    buffer: Vec<u8>,
    at: usize,
}

impl Back {
    pub(crate) fn new() -> Self {
        Back { buffer: vec![0; 1024], at: 1024 }
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len() - self.at
    }

    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        self.buffer.drain(..self.at);
        self.buffer
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if bytes.len() > self.at {
            let used = self.len();
            let size = (self.buffer.len() * 2).max(used + bytes.len() + 64);
            let mut grown = vec![0; size];
            grown[size - used..].copy_from_slice(&self.buffer[self.at..]);
            self.buffer = grown;
            self.at = size - used;
        }
        self.at -= bytes.len();
        self.buffer[self.at..self.at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn varint(&mut self, mut n: u64) {
        let mut bytes = [0u8; 10];
        let mut length = 0;
        loop {
            let low = (n & 0x7f) as u8;
            n >>= 7;
            bytes[length] = if n == 0 { low } else { low | 0x80 };
            length += 1;
            if n == 0 {
                break;
            }
        }
        self.raw(&bytes[..length]);
    }

    fn key(&mut self, tag: u32, wire: u8) {
        self.varint(u64::from(tag) << 3 | u64::from(wire));
    }

    pub(crate) fn int(&mut self, tag: u32, n: i64) {
        self.varint(n as u64);
        self.key(tag, 0);
    }

    pub(crate) fn double(&mut self, tag: u32, n: f64) {
        self.raw(&n.to_le_bytes());
        self.key(tag, 1);
    }

    pub(crate) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.key(tag, 2);
    }

    /// A message within the message.
    pub(crate) fn nested(&mut self, tag: u32, write: impl FnOnce(&mut Self)) {
        let before = self.len();
        write(self);
        let length = self.len() - before;
        self.varint(length as u64);
        self.key(tag, 2);
    }
}

/// A field's content as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message, in the order in which they stand.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

fn truncated() -> DecodeError {
    DecodeError("unexpected EOF".into())
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let tag = u32::try_from(key >> 3).ok().filter(|t| *t > 0 && *t < 1 << 29);
        let tag = tag.ok_or_else(|| {
            DecodeError(format!("proto: illegal tag {} (wire type {})", (key >> 3) as i32, key & 7))
        })?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(truncated)?;
                self.rest = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take()?)),
            other => return Err(DecodeError(format!("proto: illegal wireType {other}"))),
        };
        Ok(Some((tag, value)))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(DecodeError("proto: integer overflow".into()))
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError("proto: invalid UTF-8 string".into()))
}
