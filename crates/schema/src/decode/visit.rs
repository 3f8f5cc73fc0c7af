//! The serde seeds: one that follows a row, one for free trees.

use super::scalar::{self, go_type};
use super::{Cx, Seg, missing, omitted, zero};
use crate::row::{Shape, Type, TypeId, TypeRow};
use crate::table::Table;
use apimachinery::value::{Key, Map, Number, Value};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Reads a value of a known type.
pub(super) struct Typed<'c, 't> {
    pub(super) cx: &'c mut Cx<'t>,
    pub(super) ty: &'t Type,
}

impl<'de> DeserializeSeed<'de> for Typed<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.ty {
            // Free-form parts are nobody's business: upstream keeps their bytes.
            Type::Any | Type::Object => {
                let report = std::mem::replace(&mut self.cx.report, false);
                let value = deserializer.deserialize_any(Free { cx: self.cx });
                let value = schema_or(self.cx, value?);
                // A schema unmarshals itself, and what it does not know is not told.
                let value = match (self.cx.schema_here(self.ty), value) {
                    (Some(ty), value @ Value::Object(_)) => {
                        self.cx.report = false;
                        let schema = Typed { cx: self.cx, ty };
                        schema.deserialize(value).map_err(serde::de::Error::custom)
                    }
                    (_, value) => Ok(value),
                };
                self.cx.report = report;
                value
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// What stands where a schema may stand, or what is told from one: what is neither is refused, or forgotten.
fn schema_or(cx: &mut Cx<'_>, value: Value) -> Value {
    let Some(Seg::Field(name, _)) = cx.path.last() else { return value };
    match (*name, &value) {
        ("additionalItems" | "additionalProperties", Value::Null | Value::Bool(_) | Value::Object(_)) => {
            value
        }
        ("additionalItems" | "additionalProperties", _) => {
            cx.fail("boolean or JSON schema expected".into());
            Value::Null
        }
        ("items", Value::Array(_) | Value::Object(_)) => value,
        ("items", _) => Value::Null,
        _ => value,
    }
}

impl<'t> Typed<'_, 't> {
    fn mismatch(self, found: &str) -> Value {
        let wanted = match self.ty {
            // These unmarshal themselves, from a string or a number.
            Type::Time | Type::MicroTime => "string".to_owned(),
            Type::IntOrString => "int32".to_owned(),
            Type::Quantity => {
                self.cx.fail(scalar::QUANTITY_FORMAT.into());
                return Value::Null;
            }
            ty => go_type(self.cx.table, ty),
        };
        self.cx.mismatch(found, &wanted);
        Value::Null
    }

    fn integer(self, n: i128) -> Value {
        let fits = match self.ty {
            Type::Int32 | Type::IntOrString => i32::try_from(n).is_ok(),
            Type::Int64 => i64::try_from(n).is_ok(),
            Type::Double => return Number::from_f64(n as f64).map_or(Value::Null, Value::Number),
            Type::Quantity => return scalar::quantity(self.cx, n.to_string().into()),
            _ => return self.mismatch("number"),
        };
        match i64::try_from(n) {
            Ok(n) if fits => Value::from(n),
            _ => self.mismatch(&format!("number {n}")),
        }
    }

    fn text(self, text: Cow<'_, str>) -> Value {
        match self.ty {
            Type::String | Type::IntOrString => Value::String(text.into_owned()),
            Type::Bytes => scalar::bytes(self.cx, text),
            Type::Time => scalar::time(self.cx, text),
            Type::MicroTime => scalar::micro_time(self.cx, text),
            Type::Quantity => scalar::quantity(self.cx, text),
            _ => self.mismatch("string"),
        }
    }
}

impl<'de> Visitor<'de> for Typed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(if matches!(self.ty, Type::Bool) { Value::Bool(b) } else { self.mismatch("bool") })
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(self.integer(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(self.integer(n.into()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(match self.ty {
            Type::Double => Number::from_f64(n).map_or(Value::Null, Value::Number),
            Type::Quantity => scalar::quantity(self.cx, apimachinery::value::go_float(n).into()),
            Type::Int32 | Type::Int64 | Type::IntOrString => self.mismatch(&format!("number {n:?}")),
            _ => self.mismatch("number"),
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(self.text(text.into()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(self.text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let Type::List(item) = self.ty else {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(self.mismatch("array"));
        };
        let item: &Type = item;
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        self.cx.path.push(Seg::Index(0));
        while let Some(value) = seq.next_element_seed(Typed { cx: self.cx, ty: item })? {
            items.push(if value.is_null() { zero(self.cx.table, item) } else { value });
            if let Some(Seg::Index(i)) = self.cx.path.last_mut() {
                *i = items.len();
            }
        }
        self.cx.path.pop();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let element: &Type = match self.ty {
            Type::Ref(id) => {
                let row = self.cx.table.ty(*id);
                match (row.shape, &row.scalar) {
                    (Shape::Scalar, Some(ty)) => return Typed { cx: self.cx, ty }.visit_map(map),
                    _ => return object(self.cx, *id, row, map),
                }
            }
            Type::Map(element) => element,
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(self.mismatch("object"));
            }
        };
        let mut out = Map::new();
        while let Some(key) = map.next_key_seed(Text)? {
            self.cx.path.push(Seg::Key(key));
            let value = map.next_value_seed(Typed { cx: self.cx, ty: element })?;
            let value = if value.is_null() { zero(self.cx.table, element) } else { value };
            let Some(Seg::Key(key)) = self.cx.path.pop() else { continue };
            if self.cx.report && out.contains_key(&key) {
                self.cx.strict("duplicate", &key);
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

fn object<'de, 't, A: MapAccess<'de>>(
    cx: &mut Cx<'t>,
    id: TypeId,
    row: &'t TypeRow,
    mut map: A,
) -> Result<Value, A::Error> {
    let mut out = Map::new();
    // No type has more fields than that; beyond it duplicates would merely go unreported.
    let mut seen = 0u128;
    while let Some(key) = map.next_key_seed(FieldKey(cx.table, id))? {
        let i = match key {
            Named::Known(i) => i,
            Named::Unknown(name) if row.shape == Shape::Open => {
                cx.path.push(Seg::Key(name));
                let value = map.next_value_seed(Free { cx })?;
                if let Some(Seg::Key(name)) = cx.path.pop() {
                    out.insert(name, value);
                }
                continue;
            }
            Named::Unknown(name) => {
                map.next_value::<IgnoredAny>()?;
                cx.strict("unknown", &name);
                continue;
            }
        };
        let field = &row.fields[i];
        let bit = 1u128.checked_shl(i as u32).unwrap_or(0);
        let again = seen & bit != 0;
        if again {
            cx.strict("duplicate", &field.name);
        }
        seen |= bit;
        cx.path.push(Seg::Field(&field.name, row));
        let value = map.next_value_seed(Typed { cx, ty: &field.ty })?;
        cx.path.pop();
        // A null leaves the zero value, which the loop below puts in where Go would write it.
        if value.is_null() || omitted(cx.table, field, &value) {
            if again {
                out.remove(field.name.as_ref());
            }
        } else {
            out.insert(field.name.as_ref(), value);
        }
    }
    for i in cx.table.filled(id) {
        let field = &row.fields[usize::from(*i)];
        if !out.contains_key(field.name.as_ref())
            && let Some(value) = missing(cx.table, field)
        {
            out.insert(field.name.as_ref(), value);
        }
    }
    Ok(Value::Object(out))
}

enum Named {
    Known(usize),
    Unknown(Key),
}

/// Looks a key up without copying it.
struct FieldKey<'t>(&'t Table, TypeId);

impl<'de> DeserializeSeed<'de> for FieldKey<'_> {
    type Value = Named;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Named, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldKey<'_> {
    type Value = Named;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }
    fn visit_str<E>(self, name: &str) -> Result<Named, E> {
        Ok(match self.0.index(self.1, name) {
            Some(i) => Named::Known(i),
            None => Named::Unknown(name.into()),
        })
    }
}

/// Reads an object key.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }
    fn visit_str<E>(self, text: &str) -> Result<Key, E> {
        Ok(text.into())
    }
    fn visit_string<E>(self, text: String) -> Result<Key, E> {
        Ok(text.into())
    }
    // Keys that YAML takes for other things are written as JSON would write them.
    fn visit_bool<E>(self, b: bool) -> Result<Key, E> {
        Ok(b.to_string().into())
    }
    fn visit_i64<E>(self, n: i64) -> Result<Key, E> {
        Ok(n.to_string().into())
    }
    fn visit_u64<E>(self, n: u64) -> Result<Key, E> {
        Ok(n.to_string().into())
    }
    fn visit_f64<E>(self, n: f64) -> Result<Key, E> {
        Ok(apimachinery::value::go_float(n).into())
    }
    fn visit_unit<E>(self) -> Result<Key, E> {
        Ok("null".into())
    }
}

/// Reads any tree, reporting duplicate keys.
pub(super) struct Free<'c, 't> {
    pub(super) cx: &'c mut Cx<'t>,
}

impl<'de> DeserializeSeed<'de> for Free<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Free<'_, '_> {
    type Value = Value;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::from(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        // What does not fit 64 bits with a sign becomes a float, as in Go.
        Ok(i64::try_from(n).map_or_else(|_| Value::from(n as f64), Value::from))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Value, E> {
        Ok(Value::from(n))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        self.cx.path.push(Seg::Index(0));
        while let Some(value) = seq.next_element_seed(Free { cx: self.cx })? {
            items.push(value);
            if let Some(Seg::Index(i)) = self.cx.path.last_mut() {
                *i = items.len();
            }
        }
        self.cx.path.pop();
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key_seed(Text)? {
            self.cx.path.push(Seg::Key(key));
            let value = map.next_value_seed(Free { cx: self.cx })?;
            let Some(Seg::Key(key)) = self.cx.path.pop() else { continue };
            if self.cx.report && out.contains_key(&key) {
                self.cx.strict("duplicate", &key);
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// Looks for `apiVersion` and `kind`, in the words of the struct that upstream reads them into.
pub(super) struct TypeMeta;

impl<'de> Visitor<'de> for TypeMeta {
    type Value = Result<(String, String), String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Ok(Default::default()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(no_type_meta("bool")))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(no_type_meta("number")))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(no_type_meta("number")))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(no_type_meta("number")))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(no_type_meta("string")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(no_type_meta("array")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut api_version, mut kind, mut wrong) = (String::new(), String::new(), None);
        while let Some(key) = map.next_key_seed(Text)? {
            let slot = match key.as_str() {
                "apiVersion" => &mut api_version,
                "kind" => &mut kind,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let found = match map.next_value::<Value>()? {
                Value::String(text) => {
                    *slot = text;
                    continue;
                }
                Value::Null => continue,
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            wrong.get_or_insert(format!(
                "json: cannot unmarshal {found} into Go struct field .{key} of type string"
            ));
        }
        Ok(wrong.map_or(Ok((api_version, kind)), Err))
    }
}

fn no_type_meta(found: &str) -> String {
    format!(
        r#"json: cannot unmarshal {found} into Go value of type struct {{ APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }}"#
    )
}
