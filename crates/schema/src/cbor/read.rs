//! Bytes to free trees, as upstream decodes what it has no type for.

use super::fault::{Fault, Result, bad};
use super::{BASE16, BASE64, BASE64_URL, Major, PREFIX, wellformed};
use crate::decode::DecodeError;
use apimachinery::time::{Time, Timestamp};
use apimachinery::value::{Map, Number, Value};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use std::fmt::Write as _;

/// As deep as JSON may be.
const MAX_DEPTH: usize = 127;

/// Reads a document. Text that is to be base64 one day is so in the tree.
pub fn document(bytes: &[u8]) -> std::result::Result<Value, DecodeError> {
    wellformed::check(bytes)?;
    let mut decoder = Decoder::new(bytes);
    decoder.skip_self_described()?;
    Ok(decoder.free(0)?)
}

/// Reads a document that is an object.
pub fn object(bytes: &[u8]) -> std::result::Result<Value, DecodeError> {
    wellformed::check(bytes)?;
    let mut decoder = Decoder::new(bytes);
    decoder.skip_self_described()?;
    let found = decoder.content()?;
    match decoder.free(0)? {
        object @ Value::Object(_) => Ok(object),
        Value::Null => Ok(Value::Object(Map::new())),
        _ => Err(Fault::mistyped(found, "map[string]interface {}").into()),
    }
}

/// An item's head: its kind, and its number or that its end is to come.
pub(super) enum Head {
    Number(Major, u64),
    Float(f64),
    Endless(Major),
    Break,
}

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None if self.bytes.is_empty() => bad("EOF"),
            None => bad("unexpected EOF"),
        }
    }

    /// The kind of the next item, and whether its end is to come.
    pub(super) fn peek(&self) -> (Major, bool) {
        let first = self.bytes.get(self.at).copied().unwrap_or(0xff);
        (Major::of(first), first & 31 == 31)
    }

    /// Whether what has no length ends here; if so, its end is behind us.
    pub(super) fn ends(&mut self) -> Result<bool> {
        match self.bytes.get(self.at) {
            None => bad("unexpected EOF"),
            Some(0xff) => {
                self.at += 1;
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    pub(super) fn head(&mut self) -> Result<Head> {
        let first = self.take(1)?[0];
        let (major, info) = (Major::of(first), first & 31);
        let invalid =
            || bad(format!("cbor: invalid additional information {info} for type {}", major.name()));
        let number = match info {
            0..24 => u64::from(info),
            24..28 => self.take(1 << (info - 24))?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
            31 => {
                return match major {
                    Major::Simple => Ok(Head::Break),
                    Major::Bytes | Major::Text | Major::Array | Major::Map => Ok(Head::Endless(major)),
                    _ => invalid(),
                };
            }
            _ => return invalid(),
        };
        Ok(match (major, info) {
            (Major::Simple, 24) if number < 32 => {
                return bad(format!("cbor: invalid simple value {number} for type {}", major.name()));
            }
            (Major::Simple, 25) => Head::Float(half(number as u16)),
            (Major::Simple, 26) => Head::Float(f64::from(f32::from_bits(number as u32))),
            (Major::Simple, 27) => Head::Float(f64::from_bits(number)),
            _ => Head::Number(major, number),
        })
    }

    /// A string's bytes: in one piece, or in as many as come.
    pub(super) fn string(&mut self, head: &Head) -> Result<Vec<u8>> {
        if let Head::Number(_, length) = head {
            return self.take(*length).map(<[u8]>::to_vec);
        }
        let mut all = Vec::new();
        while !self.ends()? {
            if let Head::Number(_, length) = self.head()? {
                all.extend_from_slice(self.take(length)?);
            }
        }
        Ok(all)
    }

    /// Whether there is another of `count` items, or of as many as come before the end.
    pub(super) fn more(&mut self, done: u64, count: Option<u64>) -> Result<bool> {
        match count {
            Some(count) => Ok(done < count),
            None => self.ends().map(|ends| !ends),
        }
    }

    /// Passes over an item, whatever it is.
    pub(super) fn skip(&mut self) -> Result<()> {
        // How many items are still to come, on each level; none says until the end.
        let mut open = vec![Some(1)];
        while let Some(level) = open.last_mut() {
            match level {
                Some(0) => {
                    open.pop();
                    continue;
                }
                Some(left) => *left -= 1,
                None if self.ends()? => {
                    open.pop();
                    continue;
                }
                None => {}
            }
            match self.head()? {
                Head::Number(Major::Bytes | Major::Text, length) => drop(self.take(length)?),
                Head::Number(Major::Array, count) => open.push(Some(count)),
                Head::Number(Major::Map, count) => open.push(Some(count.saturating_mul(2))),
                Head::Number(Major::Tag, _) => open.push(Some(1)),
                Head::Endless(_) => open.push(None),
                Head::Number(..) | Head::Float(_) | Head::Break => {}
            }
        }
        Ok(())
    }
}

/// Reads what is well-formed.
pub(super) struct Decoder<'a> {
    pub(super) reader: Reader<'a>,
    /// The tags around us that say how bytes are to be text one day; the innermost counts.
    pub(super) later: Vec<u64>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Decoder { reader: Reader { bytes, at: 0 }, later: Vec::new() }
    }

    /// Passes over the tags that say that this is CBOR.
    pub(super) fn skip_self_described(&mut self) -> Result<()> {
        while self.reader.bytes[self.reader.at..].starts_with(PREFIX) {
            self.reader.at += PREFIX.len();
        }
        Ok(())
    }

    /// What the next item is behind its tags, which must fit it.
    pub(super) fn content(&mut self) -> Result<Major> {
        let start = self.reader.at;
        loop {
            let (major, _) = self.reader.peek();
            if major != Major::Tag {
                self.reader.at = start;
                return Ok(major);
            }
            let Head::Number(_, tag) = self.reader.head()? else { return bad("unexpected EOF") };
            let content = self.reader.bytes.get(self.reader.at).copied().unwrap_or(0xff);
            let (major, _) = self.reader.peek();
            let wanted = match (tag, major) {
                (0, Major::Text) | (1, Major::Unsigned | Major::Negative) => continue,
                (0, _) => "text string",
                (1, Major::Simple) if (0xf9..=0xfb).contains(&content) => continue,
                (1, _) => "integer or floating-point number",
                _ => continue,
            };
            let found = major.name();
            return bad(format!("cbor: tag number {tag} must be followed by {wanted}, got {found}"));
        }
    }

    /// Reads an item without a type.
    pub(super) fn free(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return bad(format!("cbor: exceeded max nested level {MAX_DEPTH}"));
        }
        self.content()?;
        match self.reader.head()? {
            Head::Number(Major::Unsigned, n) => match i64::try_from(n) {
                Ok(n) => Ok(n.into()),
                Err(_) => {
                    let why = format!("{n} overflows Go's int64");
                    Err(Fault::mistyped_because(Major::Unsigned, "int64", why))
                }
            },
            Head::Number(Major::Negative, n) => match i64::try_from(n) {
                Ok(n) => Ok((!n).into()),
                Err(_) => Err(below(n, "int64")),
            },
            Head::Number(Major::Tag, tag) => self.tagged(tag, depth),
            Head::Number(Major::Array, count) => self.array(Some(count), depth),
            Head::Endless(Major::Array) => self.array(None, depth),
            Head::Number(Major::Map, count) => self.map(Some(count), depth),
            Head::Endless(Major::Map) => self.map(None, depth),
            Head::Number(Major::Simple, simple) => Ok(match simple {
                20 => false.into(),
                21 => true.into(),
                22 => Value::Null,
                _ => return Err(unrecognized(simple)),
            }),
            Head::Float(float) => Ok(Number::from_f64(float).map_or(Value::Null, Value::Number)),
            Head::Break => bad("cbor: unexpected \"break\" code"),
            head => self.text(&head).map(Value::String),
        }
    }

    /// The content of a tag. Those of text to be encoded are so, times become text, others mean nothing.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value> {
        match tag {
            BASE64_URL | BASE64 | BASE16 => {
                self.later.push(tag);
                let content = self.free(depth + 1);
                self.later.pop();
                content
            }
            0 => {
                let head = self.reader.head()?;
                let text = self.text(&head)?;
                match text.parse::<Time>() {
                    Ok(_) => Ok(text.into()),
                    Err(error) => bad(format!("cbor: cannot set {text} for time.Time: {error}")),
                }
            }
            1 => match self.free(depth + 1)? {
                Value::Number(seconds) => epoch(&seconds),
                other => Ok(other),
            },
            _ => self.free(depth + 1),
        }
    }

    fn array(&mut self, count: Option<u64>, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        while self.reader.more(items.len() as u64, count)? {
            self.skip_self_described()?;
            items.push(self.free(depth + 1)?);
        }
        Ok(items.into())
    }

    fn map(&mut self, count: Option<u64>, depth: usize) -> Result<Value> {
        let (mut map, mut done) = (Map::new(), 0);
        while self.reader.more(done, count)? {
            let key = self.key()?;
            let known = map.contains_key(&key);
            self.skip_self_described()?;
            let value = self.free(depth + 1)?;
            if known {
                return Err(duplicate(&apimachinery::quote::quote(&key), done));
            }
            map.insert(key, value);
            done += 1;
        }
        Ok(map.into())
    }

    /// A key that is text.
    pub(super) fn key(&mut self) -> Result<String> {
        self.skip_self_described()?;
        let found = self.content()?;
        let mut tags = 0;
        let text = loop {
            match self.reader.head()? {
                Head::Number(Major::Tag, tag) => {
                    if let BASE64_URL | BASE64 | BASE16 = tag {
                        self.later.push(tag);
                        tags += 1;
                    }
                }
                head @ (Head::Number(Major::Bytes | Major::Text, _)
                | Head::Endless(Major::Bytes | Major::Text)) => break self.text(&head),
                // No key at all, for which Go takes the empty one.
                Head::Number(Major::Simple, 22) => break Ok(String::new()),
                Head::Number(Major::Simple, simple) if !matches!(simple, 20 | 21) => {
                    break Err(unrecognized(simple));
                }
                _ => break Err(Fault::mistyped(found, "string")),
            }
        };
        self.later.truncate(self.later.len() - tags);
        text
    }

    /// A text or byte string as text. Text strings must be text; bytes are encoded as their tags want it, or read as Go
    /// shows them.
    pub(super) fn text(&mut self, head: &Head) -> Result<String> {
        let is_text = matches!(head, Head::Number(Major::Text, _) | Head::Endless(Major::Text));
        let bytes = self.reader.string(head)?;
        match (is_text, self.later.last()) {
            (false, Some(tag)) => Ok(encoded(*tag, &bytes)),
            _ => match String::from_utf8(bytes) {
                Ok(text) => Ok(text),
                Err(_) if is_text => bad("cbor: invalid UTF-8 string"),
                Err(error) => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
            },
        }
    }
}

/// A number below all that fit; `n` is how far below -1 it is.
pub(super) fn below(n: u64, wanted: &str) -> Fault {
    let why = format!("-{} overflows Go's int64", u128::from(n) + 1);
    Fault::mistyped_because(Major::Negative, wanted, why)
}

pub(super) fn unrecognized(simple: u64) -> Fault {
    Fault::unacceptable(Major::Simple, &format!("simple value {simple} is not recognized"))
}

/// `key` as Go's syntax has it.
pub(super) fn duplicate(key: &str, index: u64) -> Fault {
    Fault::Other(format!("cbor: found duplicate map key {key} at map element index {index}"))
}

/// Seconds since 1970 as text.
fn epoch(seconds: &Number) -> Result<Value> {
    let nanoseconds = match seconds.as_i64() {
        Some(whole) => i128::from(whole) * 1_000_000_000,
        None => {
            let float = seconds.as_f64().unwrap_or_default();
            float.trunc() as i128 * 1_000_000_000 + (float.fract() * 1e9) as i128
        }
    };
    match Timestamp::from_nanosecond(nanoseconds) {
        Ok(time) => Ok(time.to_string().into()),
        Err(_) => bad(
            "cbor: decoded time cannot be represented in RFC3339 format with sub-second precision: Time.MarshalText: year outside of range [0,9999]",
        ),
    }
}

fn encoded(tag: u64, bytes: &[u8]) -> String {
    match tag {
        BASE64_URL => URL_SAFE_NO_PAD.encode(bytes),
        BASE64 => STANDARD.encode(bytes),
        _ => bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        }),
    }
}

/// What a binary16 stands for.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}
