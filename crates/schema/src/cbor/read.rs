//! Bytes to free trees.

use super::{BASE16, BASE64, BASE64_URL, Major};
use crate::decode::DecodeError;
use apimachinery::time::Time;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Number, Value};
use std::fmt::Write as _;

/// As deep as JSON may be.
const MAX_DEPTH: usize = 127;

type Result<T> = std::result::Result<T, DecodeError>;

fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(DecodeError(why.into()))
}

fn unacceptable<T>(major: Major, what: &str) -> Result<T> {
    bad(format!("cbor: data item of cbor type {} is not accepted by protocol: {what}", name(major)))
}

/// Reads a document. Text that is to be base64 one day is so in the tree.
pub fn document(bytes: &[u8]) -> Result<Value> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        rest => bad(format!("cbor: {rest} bytes of extraneous data starting at index {}", reader.at)),
    }
}

/// Reads a document that is an object.
pub fn object(bytes: &[u8]) -> Result<Value> {
    match document(bytes)? {
        object @ Value::Object(_) => Ok(object),
        other => bad(format!(
            "cbor: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            kind(&other)
        )),
    }
}

/// The `apiVersion` and `kind` of a document.
pub fn type_meta(value: &Value) -> Result<(String, String)> {
    if value.is_array() {
        return bad(
            "cbor: cannot unmarshal array into Go value of type v1.TypeMeta (cannot decode CBOR array to struct without toarray \
             option)",
        );
    }
    let Value::Object(map) = value else {
        return bad(format!("cbor: cannot unmarshal {} into Go value of type v1.TypeMeta", kind(value)));
    };
    let member = |name: &str, field: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => {
            let kind = kind(other);
            bad(format!(
                "cbor: cannot unmarshal {kind} into Go struct field v1.TypeMeta.{field} of type string"
            ))
        }
    };
    Ok((member("apiVersion", "apiVersion")?, member("kind", "kind")?))
}

/// What the library that upstream reads CBOR with calls things.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "map",
        Value::Array(_) => "array",
        Value::String(_) => "byte string",
        Value::Number(n) if n.is_u64() => "positive integer",
        Value::Number(n) if n.is_i64() => "negative integer",
        _ => "primitives",
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
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None if self.at == 0 => bad("EOF"),
            None => bad("unexpected EOF"),
        }
    }

    pub(super) fn head(&mut self) -> Result<Head> {
        let first = self.take(1)?[0];
        let major = match first >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            6 => Major::Tag,
            _ => Major::Simple,
        };
        let info = first & 31;
        let number = match info {
            0..24 => u64::from(info),
            24..28 => self.take(1 << (info - 24))?.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
            31 => {
                return match major {
                    Major::Simple => Ok(Head::Break),
                    Major::Bytes | Major::Text | Major::Array | Major::Map => Ok(Head::Endless(major)),
                    _ => bad(format!("cbor: invalid additional information {info} for type {}", name(major))),
                };
            }
            _ => return bad(format!("cbor: invalid additional information {info} for type {}", name(major))),
        };
        Ok(match (major, info) {
            (Major::Simple, 25) => Head::Float(half(number as u16)),
            (Major::Simple, 26) => Head::Float(f64::from(f32::from_bits(number as u32))),
            (Major::Simple, 27) => Head::Float(f64::from_bits(number)),
            _ => Head::Number(major, number),
        })
    }

    pub(super) fn value(&mut self, depth: usize) -> Result<Value> {
        if depth > MAX_DEPTH {
            return bad(format!("cbor: exceeded max nested level {MAX_DEPTH}"));
        }
        match self.head()? {
            Head::Number(Major::Unsigned, n) => match i64::try_from(n) {
                Ok(n) => Ok(n.into()),
                Err(_) => bad(format!(
                    "cbor: cannot unmarshal positive integer into Go value of type int64 ({n} overflows Go's int64)"
                )),
            },
            Head::Number(Major::Negative, n) => match i64::try_from(n) {
                Ok(n) => Ok((!n).into()),
                Err(_) => bad(format!(
                    "cbor: cannot unmarshal negative integer into Go value of type int64 (-{} overflows Go's int64)",
                    u128::from(n) + 1
                )),
            },
            Head::Number(Major::Tag, tag) => self.tagged(tag, depth),
            Head::Number(Major::Array, count) => self.array(Some(count), depth),
            Head::Endless(Major::Array) => self.array(None, depth),
            Head::Number(Major::Map, count) => self.map(Some(count), depth),
            Head::Endless(Major::Map) => self.map(None, depth),
            Head::Number(Major::Simple, simple) => match simple {
                20 => Ok(false.into()),
                21 => Ok(true.into()),
                22 => Ok(Value::Null),
                _ => unacceptable(Major::Simple, &format!("simple value {simple} is not recognized")),
            },
            Head::Float(float) => match Number::from_f64(float) {
                Some(number) => Ok(number.into()),
                None if float.is_nan() => unacceptable(Major::Simple, "floating-point NaN"),
                None => unacceptable(Major::Simple, "floating-point infinity"),
            },
            Head::Break => bad("cbor: unexpected \"break\" code"),
            head => self.text(head).map(Value::String),
        }
    }

    /// The content of a tag. Those of text to be encoded are so, times become text, others mean nothing.
    fn tagged(&mut self, tag: u64, depth: usize) -> Result<Value> {
        let start = self.at;
        let content = match tag {
            BASE64_URL | BASE64 | BASE16 => {
                if let head @ (Head::Number(Major::Bytes, _) | Head::Endless(Major::Bytes)) = self.head()? {
                    return self.string(head).map(|bytes| encoded(tag, &bytes).into());
                }
                self.at = start;
                self.value(depth + 1)?
            }
            2 | 3 => return unacceptable(Major::Tag, "bignum"),
            _ => self.value(depth + 1)?,
        };
        match (tag, &content) {
            (0, Value::String(text)) => match text.parse::<Time>() {
                Ok(_) => Ok(content),
                Err(error) => bad(format!("cbor: cannot set {text:?} for time.Time: {error}")),
            },
            (0, _) => bad("cbor: tag number 0 must be followed by text string, got another type"),
            (1, Value::Number(seconds)) => match seconds.as_f64() {
                Some(seconds) if seconds.abs() < 253_402_300_800.0 => {
                    Ok(Time::from_unix(seconds as i64).to_string().into())
                }
                _ => bad("cbor: invalid epoch time"),
            },
            (1, _) => bad("cbor: tag number 1 must be followed by integer or floating-point number"),
            _ => Ok(content),
        }
    }

    /// Whether there is another of `count` items, or of as many as come before the end.
    pub(super) fn more(&mut self, done: u64, count: Option<u64>) -> Result<bool> {
        match count {
            Some(count) => Ok(done < count),
            None if self.bytes.get(self.at) == Some(&0xff) => {
                self.at += 1;
                Ok(false)
            }
            None => Ok(true),
        }
    }

    fn array(&mut self, count: Option<u64>, depth: usize) -> Result<Value> {
        let mut items = Vec::new();
        while self.more(items.len() as u64, count)? {
            items.push(self.value(depth + 1)?);
        }
        Ok(items.into())
    }

    fn map(&mut self, count: Option<u64>, depth: usize) -> Result<Value> {
        let (mut map, mut done) = (Map::new(), 0);
        while self.more(done, count)? {
            let key = self.key()?;
            if map.contains_key(&key) {
                return bad(format!("cbor: found duplicate map key {key:?} at map element index {done}"));
            }
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            done += 1;
        }
        Ok(map.into())
    }

    pub(super) fn key(&mut self) -> Result<String> {
        match self.head()? {
            head @ (Head::Number(Major::Bytes | Major::Text, _)
            | Head::Endless(Major::Bytes | Major::Text)) => self.text(head),
            Head::Number(major, _) | Head::Endless(major) => {
                bad(format!("cbor: cannot unmarshal {} into Go value of type string", name(major)))
            }
            Head::Float(_) => bad("cbor: cannot unmarshal primitives into Go value of type string"),
            Head::Break => bad("cbor: unexpected \"break\" code"),
        }
    }

    /// A text or byte string as text. Text strings must be text; bytes are read as Go shows them.
    fn text(&mut self, head: Head) -> Result<String> {
        let is_text = matches!(head, Head::Number(Major::Text, _) | Head::Endless(Major::Text));
        let bytes = self.string(head)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(_) if is_text => bad("cbor: invalid UTF-8 string"),
            Err(error) => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        }
    }

    /// A string's bytes: in one piece, or in as many as come.
    fn string(&mut self, head: Head) -> Result<Vec<u8>> {
        let major = match head {
            Head::Number(_, length) => return self.take(length).map(<[u8]>::to_vec),
            Head::Endless(major) => major,
            _ => return bad("cbor: not a string"),
        };
        let mut all = Vec::new();
        loop {
            match self.head()? {
                Head::Break => return Ok(all),
                Head::Number(piece, length) if piece == major => all.extend_from_slice(self.take(length)?),
                _ => return bad(format!("cbor: wrong element type for indefinite-length {}", name(major))),
            }
        }
    }
}

fn encoded(tag: u64, bytes: &[u8]) -> String {
    match tag {
        BASE64_URL => URL_SAFE.encode(bytes),
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

fn name(major: Major) -> &'static str {
    match major {
        Major::Unsigned => "positive integer",
        Major::Negative => "negative integer",
        Major::Bytes => "byte string",
        Major::Text => "UTF-8 text string",
        Major::Array => "array",
        Major::Map => "map",
        Major::Tag => "tag",
        Major::Simple => "primitives",
    }
}
