//! The resident and stored encoding of an object, with the places where type metadata and revision are spliced in.
//!
//! An eight-byte header stands before the JSON, so that the places need not be searched for on load:
//! format, flags, two zero bytes, offset of the revision (little-endian). A built-in object carries neither kind nor
//! apiVersion; a custom resource carries both, in their sorted place. Neither carries its resourceVersion.

use super::text::write_integer;
use super::{Empties, RevisionAt, Writer, write_string};
use crate::decode::{DecodeError, FieldValidation, free_json};
use crate::row::TypeId;
use crate::table::Table;
use apimachinery::value::{Map, Value};
use bytes::{BufMut, Bytes, BytesMut};

const HEADER: usize = 8;
/// Neither `{` nor the `k` of the protobuf envelope: stored values tell their format by the first byte.
const FORMAT: u8 = 1;
const FIRST: u8 = 1;
const LAST: u8 = 2;
const SELF_TYPED: u8 = 4;

/// `kind` and `apiVersion`, ready to be spliced into the bodies of built-in objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeMeta {
    text: Box<[u8]>,
    kind: Box<str>,
    api_version: Box<str>,
}

impl TypeMeta {
    pub fn new(kind: &str, api_version: &str) -> Self {
        let mut text = b"\"kind\":".to_vec();
        write_string(&mut text, kind);
        text.extend_from_slice(b",\"apiVersion\":");
        write_string(&mut text, api_version);
        text.push(b',');
        TypeMeta { text: text.into(), kind: kind.into(), api_version: api_version.into() }
    }

    pub fn kind(&self) -> &str {
        &self.kind
    }

    pub fn api_version(&self) -> &str {
        &self.api_version
    }
}

/// An immutable object version; cloning shares the bytes. Borrowed bytes (`Body<&[u8]>`) do for reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body<B = Bytes> {
    bytes: B,
}

/// A stored value that is not a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading a stored object: {0}")]
pub struct BodyError(&'static str);

impl Body {
    /// Encodes an object as its table says.
    pub fn encode(table: &Table, id: TypeId, value: &Value) -> Self {
        Self::encode_with(table, id, value, Empties::Kept)
    }

    /// The same, with or without what is empty.
    pub fn encode_with(table: &Table, id: TypeId, value: &Value, empties: Empties) -> Self {
        if table.checks().is_some() {
            return Self::encode_free(value);
        }
        Self::build(table, 0, |writer| {
            writer.empties = empties;
            let empty = Map::new();
            let map = value.as_object().unwrap_or(&empty);
            writer.object(id, table.ty(id), map, super::Part::Root);
        })
    }

    /// Encodes a custom resource, which keeps its type metadata.
    pub fn encode_free(value: &Value) -> Self {
        Self::build(Table::empty(), SELF_TYPED, |writer| {
            let empty = Map::new();
            writer.free_root(value.as_object().unwrap_or(&empty));
        })
    }

    fn build(table: &Table, flags: u8, write: impl FnOnce(&mut Writer<'_>)) -> Self {
        let mut out = Vec::with_capacity(2048);
        out.extend_from_slice(&[0; HEADER]);
        let mut writer = Writer { table, out: &mut out, revision_at: None, empties: Empties::Kept };
        write(&mut writer);
        let at = writer.revision_at.unwrap_or(RevisionAt { offset: HEADER + 1, first: true, last: true });
        out[0] = FORMAT;
        out[1] = flags | if at.first { FIRST } else { 0 } | if at.last { LAST } else { 0 };
        out[4..HEADER].copy_from_slice(&((at.offset - HEADER) as u32).to_le_bytes());
        out.shrink_to_fit();
        Body { bytes: out.into() }
    }

    /// Header and JSON, as they are kept at rest.
    pub fn stored(&self) -> &Bytes {
        &self.bytes
    }

    /// [`Body::json`], sharing the bytes.
    pub fn json_bytes(&self) -> Bytes {
        let whole = self.stored();
        whole.slice(whole.len() - self.json().len()..)
    }
}

impl<B: AsRef<[u8]>> Body<B> {
    /// Takes what [`Body::stored`] gave.
    pub fn from_stored(bytes: B) -> Result<Self, BodyError> {
        let body = Body { bytes };
        let bytes = body.bytes.as_ref();
        if bytes.first() != Some(&FORMAT) || bytes.len() < HEADER + 2 {
            return Err(BodyError("not in the resident format"));
        }
        if body.revision_offset() > body.json().len() {
            return Err(BodyError("the revision's place is outside the object"));
        }
        Ok(body)
    }

    /// The JSON without type metadata (but for custom resources) and revision: equal bytes mean an equal object.
    pub fn json(&self) -> &[u8] {
        &self.bytes.as_ref()[HEADER..]
    }

    fn flags(&self) -> u8 {
        self.bytes.as_ref()[1]
    }

    fn revision_offset(&self) -> usize {
        let mut offset = [0; 4];
        offset.copy_from_slice(&self.bytes.as_ref()[4..HEADER]);
        u32::from_le_bytes(offset) as usize
    }

    /// How many bytes [`Body::write`] will append at most.
    pub fn max_len(&self, type_meta: Option<&TypeMeta>) -> usize {
        self.json().len() + type_meta.map_or(0, |t| t.text.len()) + 48
    }

    /// How many bytes [`Body::write`] will append.
    pub fn written_len(&self, type_meta: Option<&TypeMeta>, revision: u64) -> usize {
        let meta = type_meta.filter(|_| self.flags() & SELF_TYPED == 0).map_or(0, |t| t.text.len());
        let (first, last) = (self.flags() & FIRST != 0, self.flags() & LAST != 0);
        let commas = usize::from(!first) + usize::from(first && !last);
        let version = match revision.checked_ilog10() {
            Some(log) => "\"resourceVersion\":\"\"".len() + log as usize + 1 + commas,
            None => 0,
        };
        self.json().len() + meta + version
    }

    /// Appends the object as it is served: with type metadata where the caller wants it (never inside lists of
    /// built-in kinds) and with its revision; revision zero leaves that out.
    pub fn write(&self, out: &mut BytesMut, type_meta: Option<&TypeMeta>, revision: u64) {
        let json = self.json();
        let at = self.revision_offset();
        out.reserve(self.max_len(type_meta));
        let mut from = 0;
        if let Some(meta) = type_meta.filter(|_| self.flags() & SELF_TYPED == 0) {
            out.put_u8(b'{');
            // A body always has metadata after this, so the comma is never the last thing.
            out.put_slice(&meta.text);
            from = 1;
        }
        out.put_slice(&json[from..at]);
        if revision != 0 {
            let (first, last) = (self.flags() & FIRST != 0, self.flags() & LAST != 0);
            let mut digits = Vec::with_capacity(20);
            write_integer(&mut digits, revision as i64);
            if !first {
                out.put_u8(b',');
            }
            out.put_slice(b"\"resourceVersion\":\"");
            out.put_slice(&digits);
            out.put_u8(b'"');
            if first && !last {
                out.put_u8(b',');
            }
        }
        out.put_slice(&json[at..]);
    }

    /// The served object in a buffer of its own.
    pub fn splice(&self, type_meta: Option<&TypeMeta>, revision: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.max_len(type_meta));
        self.write(&mut out, type_meta, revision);
        out.freeze()
    }

    /// The object as a tree in canonical form, with type metadata and revision put in.
    pub fn value(&self, type_meta: Option<&TypeMeta>, revision: u64) -> Result<Value, DecodeError> {
        let mut value = free_json(self.json(), FieldValidation::Ignore)?.value;
        if let Value::Object(map) = &mut value {
            if let Some(meta) = type_meta.filter(|_| self.flags() & SELF_TYPED == 0) {
                map.insert("kind", Value::from(&*meta.kind));
                map.insert("apiVersion", Value::from(&*meta.api_version));
            }
            if revision != 0
                && let Some(Value::Object(metadata)) = map.get_mut("metadata")
            {
                metadata.insert("resourceVersion", Value::from(revision.to_string()));
            }
        }
        Ok(value)
    }
}
