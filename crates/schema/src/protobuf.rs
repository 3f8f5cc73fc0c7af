//! Trees to Kubernetes' protobuf and back, by the rows: no generated messages.
//!
//! On the wire an object is `k8s\0` and a `runtime.Unknown` that names its kind and holds its message. Within,
//! presence is gogo-proto's: what Go keeps as a pointer is written when there, everything else always. Some types are
//! flat in JSON and nested in protobuf, and some have another form altogether; both stand in the rows.

use crate::decode::DecodeError;
use crate::row::{ProtoField, Type, TypeId};
use crate::table::Table;
use apimachinery::value::Value;
use plan::{Plan, plans};

mod plan;
mod read;
mod wire;
mod write;

pub(crate) use wire::Back;

/// Before every object; also how stored values tell that they are protobuf.
pub const PREFIX: &[u8; 4] = b"k8s\0";

/// The content type of a single object or list.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The transcoder of a table.
#[derive(Debug)]
pub struct Codec {
    table: &'static Table,
    plans: Vec<Plan>,
}

/// What an envelope holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
}

impl Codec {
    /// `proto_only` knows the messages that have no row of their own.
    pub fn new(table: &'static Table, proto_only: fn(&str) -> Option<&'static [ProtoField]>) -> Self {
        Codec { table, plans: plans(table, proto_only) }
    }

    /// An object with its envelope.
    pub fn encode(&self, id: TypeId, value: &Value, kind: &str, api_version: &str) -> Vec<u8> {
        let mut out = wire::Back::new();
        envelope(&mut out, kind, api_version, |out| write::message(self, out, id, value));
        out.into_vec()
    }

    /// An object's message alone, as list items are written.
    pub fn encode_message(&self, id: TypeId, value: &Value) -> Vec<u8> {
        let mut out = wire::Back::new();
        write::message(self, &mut out, id, value);
        out.into_vec()
    }

    /// The message of an object of which only the metadata is told.
    pub fn metadata_only(&self, metadata: &Value) -> Vec<u8> {
        let mut out = wire::Back::new();
        out.nested(1, |out| self.named(out, OBJECT_META, metadata));
        out.into_vec()
    }

    /// The message of a list: its metadata, then items that are already encoded. All lists have this form.
    pub fn list(&self, metadata: &Value, items: &[Vec<u8>]) -> Vec<u8> {
        let mut out = wire::Back::new();
        items.iter().rev().for_each(|item| out.bytes(2, item));
        out.nested(1, |out| self.named(out, LIST_META, metadata));
        out.into_vec()
    }

    fn named(&self, out: &mut wire::Back, name: &str, value: &Value) {
        if let Some(id) = self.table.type_named(name) {
            write::message(self, out, id, value);
        }
    }

    /// A message into canonical form; kind and apiVersion are not in it.
    pub fn decode_message(&self, id: TypeId, raw: &[u8]) -> Result<Value, DecodeError> {
        read::message(self, id, raw, 0)
    }

    /// An object with its envelope into canonical form. The caller has looked at [`read_envelope`] for the type.
    pub fn decode(&self, id: TypeId, bytes: &[u8]) -> Result<Value, DecodeError> {
        let envelope = read_envelope(bytes)?;
        let mut value = self.decode_message(id, envelope.raw)?;
        if let Value::Object(map) = &mut value {
            for (name, text) in [("kind", envelope.kind), ("apiVersion", envelope.api_version)] {
                if !text.is_empty() {
                    map.insert(name, text.into());
                }
            }
        }
        Ok(value)
    }
}

fn envelope(out: &mut wire::Back, kind: &str, api_version: &str, message: impl FnOnce(&mut wire::Back)) {
    out.bytes(4, b"");
    out.bytes(3, b"");
    out.nested(2, message);
    out.nested(1, |out| {
        out.bytes(2, kind.as_bytes());
        out.bytes(1, api_version.as_bytes());
    });
    out.raw(PREFIX);
}

/// Wraps a message that is already encoded.
pub fn wrap(raw: &[u8], kind: &str, api_version: &str) -> Vec<u8> {
    let mut out = wire::Back::new();
    envelope(&mut out, kind, api_version, |out| out.raw(raw));
    out.into_vec()
}

/// Opens the envelope of an object.
pub fn read_envelope(bytes: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let body = bytes.strip_prefix(PREFIX).ok_or_else(|| {
        DecodeError(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]".into(),
        )
    })?;
    if body.is_empty() {
        return Err(DecodeError("empty body".into()));
    }
    let mut envelope = Envelope { api_version: "", kind: "", raw: &[] };
    let mut fields = wire::Fields::new(body);
    while let Some((tag, value)) = fields.next()? {
        match (tag, value) {
            (1, wire::Wire::Bytes(meta)) => {
                let mut inner = wire::Fields::new(meta);
                while let Some((tag, value)) = inner.next()? {
                    match (tag, value) {
                        (1, wire::Wire::Bytes(text)) => envelope.api_version = wire::text(text)?,
                        (2, wire::Wire::Bytes(text)) => envelope.kind = wire::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, wire::Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// One frame of a watch: its length and a `WatchEvent` around an object with its envelope.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = wire::Back::new();
    out.nested(2, |out| out.bytes(1, object));
    out.bytes(1, event.as_bytes());
    let length = (out.len() as u32).to_be_bytes();
    out.raw(&length);
    out.into_vec()
}

/// The type that a named scalar stands for, and its protobuf form.
fn is_message(ty: &Type) -> bool {
    !matches!(ty, Type::String | Type::Bool | Type::Int32 | Type::Int64 | Type::Double | Type::Bytes)
}
