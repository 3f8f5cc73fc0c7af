//! A `Value` and its row to JSON bytes, as Go would write the typed struct: fields in the row's order, presence as the
//! row says, map keys sorted, `<`, `>` and `&` escaped. Trees without a row are written with sorted keys.
//!
//! [`Body`] is the resident and stored form: JSON without type metadata and revision, which are spliced in on serving.

use crate::decode::{missing, omitted, zero};
use crate::row::{Field, Shape, Type, TypeId, TypeRow};
use crate::table::Table;
use apimachinery::value::{Map, Value};

mod body;
mod indent;
mod list;
mod text;
mod yaml;

pub use body::{Body, TypeMeta};
pub use indent::indent;
pub use list::ListHead;
pub use text::{write_string, write_value};

/// JSON of a whole object.
pub fn json(table: &Table, id: TypeId, value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write(table, id, value, &mut out);
    out
}

/// An object's metadata as its type writes it, appended to `out`.
pub fn write_metadata(table: &Table, id: TypeId, metadata: &Value, out: &mut Vec<u8>) {
    match table.ty(id).field("metadata") {
        Some(field) => {
            Writer { table, out, revision_at: None, empties: Empties::Kept }.of_type(&field.ty, metadata)
        }
        None => write_value(out, metadata),
    }
}

/// A patched object, for the message that says why it is none of its kind: what the patch went into has its keys
/// sorted, what it left alone is written as its type says.
pub fn patched(table: &Table, id: TypeId, value: &Value, patch: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    touched(table, Some(&Type::Ref(id)), value, patch, &mut out);
    out
}

fn touched(table: &Table, ty: Option<&Type>, value: &Value, patch: &Value, out: &mut Vec<u8>) {
    if let (Value::Array(items), Value::Object(changes), Some(Type::List(of))) = (value, patch, ty) {
        out.push(b'[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let change = changes.get(&i.to_string()).unwrap_or(&Value::Null);
            touched(table, Some(of), item, change, out);
        }
        out.push(b']');
        return;
    }
    let (Value::Object(members), Value::Object(changes)) = (value, patch) else {
        return match ty {
            Some(ty) => Writer { table, out, revision_at: None, empties: Empties::Kept }.of_type(ty, value),
            None => write_value(out, value),
        };
    };
    let of = |name: &str| match ty? {
        Type::Ref(id) => table.ty(*id).field(name).map(|field| &field.ty),
        Type::Map(of) => Some(&**of),
        _ => None,
    };
    out.push(b'{');
    for (i, (name, member)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        touched(table, of(name), member, changes.get(name).unwrap_or(&Value::Null), out);
    }
    out.push(b'}');
}

/// Any document as YAML.
pub fn yaml(document: &Value) -> Vec<u8> {
    yaml::write(document).into_bytes()
}

/// Like [`json`], appended to `out`.
pub fn write(table: &Table, id: TypeId, value: &Value, out: &mut Vec<u8>) {
    if table.checks().is_some() {
        return write_value(out, value);
    }
    Writer { table, out, revision_at: None, empties: Empties::Kept }.of_type(&Type::Ref(id), value);
}

/// Where the revision goes in a body's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RevisionAt {
    offset: usize,
    first: bool,
    last: bool,
}

/// Which part of an object is being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Inner,
    /// The object of a body: without its type metadata.
    Root,
    /// The metadata of a body: without its revision.
    Metadata,
}

struct Writer<'a> {
    table: &'a Table,
    out: &'a mut Vec<u8>,
    revision_at: Option<RevisionAt>,
    empties: Empties,
}

/// What becomes of lists and maps without anything in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empties {
    Kept,
    /// They are as if they were not there: protobuf knows none.
    Absent,
}

fn is_empty(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (Type::List(_), Value::Array(items)) => items.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

impl Writer<'_> {
    fn of_type(&mut self, ty: &Type, value: &Value) {
        match (ty, value) {
            (Type::Ref(id), Value::Object(map)) => {
                let row = self.table.ty(*id);
                match row.shape {
                    Shape::Scalar => write_value(self.out, value),
                    _ => self.object(*id, row, map, Part::Inner),
                }
            }
            (Type::List(item), Value::Array(items)) => {
                self.out.push(b'[');
                for (i, value) in items.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    match value {
                        Value::Null => self.absent(item),
                        _ => self.of_type(item, value),
                    }
                }
                self.out.push(b']');
            }
            (Type::Map(item), Value::Object(map)) => {
                self.out.push(b'{');
                for (i, (key, value)) in map.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    write_string(self.out, key);
                    self.out.push(b':');
                    match value {
                        Value::Null => self.absent(item),
                        _ => self.of_type(item, value),
                    }
                }
                self.out.push(b'}');
            }
            _ => write_value(self.out, value),
        }
    }

    fn absent(&mut self, ty: &Type) {
        let value = zero(self.table, ty);
        self.of_type(ty, &value);
    }

    fn field(&mut self, row: &TypeRow, field: &Field, value: Option<&Value>, start: usize) {
        let value = value.filter(|v| !omitted(self.table, field, v));
        let value = value.filter(|v| self.empties == Empties::Kept || !is_empty(&field.ty, v));
        let filled;
        let value = match value {
            Some(Value::Null) | None => match missing(self.table, field) {
                Some(v) => {
                    filled = v;
                    &filled
                }
                None => return,
            },
            Some(value) => value,
        };
        self.known_key(&field.name, start);
        self.of_type(row.schema_in(&field.name, &field.ty).unwrap_or(&field.ty), value);
    }

    /// Like [`Self::key`], for the name of a field, of which nothing is to be escaped.
    fn known_key(&mut self, name: &str, start: usize) {
        self.out.reserve(name.len() + 4);
        if self.out.len() > start {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// Writes a key, with a comma unless it is the first of the object that begins at `start`.
    fn key(&mut self, name: &str, start: usize) {
        if self.out.len() > start {
            self.out.push(b',');
        }
        write_string(self.out, name);
        self.out.push(b':');
    }

    fn object(&mut self, id: TypeId, row: &TypeRow, map: &Map, part: Part) {
        self.out.push(b'{');
        let start = self.out.len();
        // Present fields by their place, unknown ones last; then merged with those that are written although absent.
        let mut present: Vec<(usize, &Value)> = Vec::with_capacity(map.len());
        let mut unknown = false;
        for (name, value) in map {
            match self.table.index(id, name) {
                Some(i) => present.push((i, value)),
                None => unknown = true,
            }
        }
        present.sort_unstable_by_key(|(i, _)| *i);
        let revision = if part == Part::Metadata { row.index("resourceVersion") } else { None };
        let mut present = present.into_iter().peekable();
        let mut filled = self.table.filled(id).iter().map(|i| usize::from(*i)).peekable();
        loop {
            let i = match (present.peek().map(|(i, _)| *i), filled.peek().copied()) {
                (Some(a), Some(b)) => a.min(b),
                (Some(i), None) | (None, Some(i)) => i,
                (None, None) => break,
            };
            filled.next_if_eq(&i);
            let value = present.next_if(|(at, _)| *at == i).map(|(_, v)| v);
            let field = &row.fields[i];
            if let Some(revision) = revision
                && self.revision_at.is_none()
                && i >= revision
            {
                self.mark_revision(start);
                if i == revision {
                    continue;
                }
            }
            match (part, field.name.as_ref()) {
                (Part::Root, "kind" | "apiVersion") => {}
                (Part::Root, "metadata") => {
                    self.key("metadata", start);
                    self.metadata(&field.ty, value);
                }
                _ => self.field(row, field, value, start),
            }
        }
        if unknown && row.shape == Shape::Open {
            for (name, value) in map.iter().filter(|(name, _)| row.index(name).is_none()) {
                self.key(name, start);
                write_value(self.out, value);
            }
        }
        if part == Part::Metadata {
            if self.revision_at.is_none() {
                self.mark_revision(start);
            }
            self.end_metadata();
        }
        self.out.push(b'}');
    }

    fn metadata(&mut self, ty: &Type, value: Option<&Value>) {
        let empty = Map::new();
        let map = value.and_then(Value::as_object).unwrap_or(&empty);
        match ty {
            Type::Ref(id) => self.object(*id, self.table.ty(*id), map, Part::Metadata),
            _ => self.free_metadata(map),
        }
    }

    fn mark_revision(&mut self, start: usize) {
        self.revision_at =
            Some(RevisionAt { offset: self.out.len(), first: self.out.len() == start, last: false });
    }

    fn end_metadata(&mut self) {
        let end = self.out.len();
        if let Some(at) = &mut self.revision_at {
            at.last = at.offset == end;
            // What follows the place began with a comma only if something stood before it.
        }
    }

    /// A whole tree with sorted keys, but for the revision in its metadata.
    fn free_root(&mut self, map: &Map) {
        self.out.push(b'{');
        let start = self.out.len();
        for (name, value) in map {
            self.key(name, start);
            match (name.as_str(), value) {
                ("metadata", Value::Object(metadata)) => self.free_metadata(metadata),
                _ => write_value(self.out, value),
            }
        }
        self.out.push(b'}');
    }

    fn free_metadata(&mut self, map: &Map) {
        self.out.push(b'{');
        let start = self.out.len();
        for (name, value) in map {
            if self.revision_at.is_none() && name.as_str() >= "resourceVersion" {
                self.mark_revision(start);
            }
            if name != "resourceVersion" {
                self.key(name, start);
                write_value(self.out, value);
            }
        }
        if self.revision_at.is_none() {
            self.mark_revision(start);
        }
        self.end_metadata();
        self.out.push(b'}');
    }
}
