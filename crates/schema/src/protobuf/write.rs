//! A tree to its message, from the last field to the first.

use super::plan::{Part, Plan};
use super::wire::Back;
use super::{Codec, is_message};
use crate::openapi::scalar_name;
use crate::row::{Field, Shape, Type, TypeId, TypeRow};
use apimachinery::value::{Map, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::sync::LazyLock;

static NOTHING: LazyLock<Map> = LazyLock::new(Map::new);

pub(super) fn message(codec: &Codec, out: &mut Back, id: TypeId, value: &Value) {
    let row = codec.table.ty(id);
    let map = value.as_object().unwrap_or(&NOTHING);
    parts(codec, out, row, &codec.plans[id.0 as usize], map);
}

fn parts(codec: &Codec, out: &mut Back, row: &TypeRow, plan: &Plan, map: &Map) {
    for part in plan.parts.iter().rev() {
        match part {
            Part::Field { tag, index } => {
                let f = &row.fields[*index];
                field(codec, out, *tag, f, map.get(f.name.as_ref()).filter(|v| !v.is_null()));
            }
            Part::Inlined { tag, plan } => out.nested(*tag, |out| parts(codec, out, row, plan, map)),
        }
    }
}

fn field(codec: &Codec, out: &mut Back, tag: u32, field: &Field, value: Option<&Value>) {
    match (&field.ty, value) {
        (Type::List(item), Some(Value::Array(items))) if field.wrapped => out.nested(tag, |out| {
            for value in items.iter().rev() {
                single(codec, out, 1, item, &field.name, value);
            }
        }),
        (Type::List(item), Some(Value::Array(items))) => {
            for value in items.iter().rev() {
                single(codec, out, tag, item, &field.name, value);
            }
        }
        (Type::Map(element), Some(Value::Object(map))) => {
            for (key, value) in map.iter().rev() {
                out.nested(tag, |out| {
                    match &**element {
                        // A map's value cannot repeat: a message of its own holds the items.
                        Type::List(item) => out.nested(2, |out| {
                            for value in value.as_array().into_iter().flatten().rev() {
                                single(codec, out, 1, item, &field.name, value);
                            }
                        }),
                        Type::Bytes if value.is_null() => {}
                        element => single(codec, out, 2, element, &field.name, value),
                    }
                    out.bytes(1, key.as_bytes());
                });
            }
        }
        (Type::List(_) | Type::Map(_), _) => {}
        (ty, Some(value)) => single(codec, out, tag, ty, &field.name, value),
        // Absent: a pointer is not written, nor are no bytes; anything else is, as its zero value.
        (_, None) if field.pointer => {}
        (Type::Bytes, None) => {}
        (ty, None) => single(codec, out, tag, ty, &field.name, &Value::Null),
    }
}

/// One value; null stands for the zero value.
fn single(codec: &Codec, out: &mut Back, tag: u32, ty: &Type, name: &str, value: &Value) {
    match ty {
        Type::String => out.bytes(tag, value.as_str().unwrap_or_default().as_bytes()),
        Type::Bool => out.int(tag, i64::from(value.as_bool().unwrap_or_default())),
        Type::Int32 | Type::Int64 => out.int(tag, value.as_i64().unwrap_or_default()),
        Type::Double => out.double(tag, value.as_f64().unwrap_or_default()),
        Type::Bytes => {
            out.bytes(tag, &STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default())
        }
        ty => {
            debug_assert!(is_message(ty));
            out.nested(tag, |out| nested(codec, out, ty, name, value));
        }
    }
}

fn nested(codec: &Codec, out: &mut Back, ty: &Type, name: &str, value: &Value) {
    match ty {
        Type::Ref(id) => {
            let row = codec.table.ty(*id);
            match (row.shape, &row.scalar) {
                (Shape::Scalar, Some(scalar)) => nested(codec, out, scalar, name, value),
                _ => message(codec, out, *id, value),
            }
        }
        Type::Time => {
            if let Some(time) = value.as_str().and_then(|t| t.parse::<apimachinery::time::Time>().ok()) {
                out.int(2, 0);
                out.int(1, time.unix());
            }
        }
        Type::MicroTime => {
            if let Some(time) = value.as_str().and_then(|t| t.parse::<apimachinery::time::MicroTime>().ok()) {
                let micros = time.unix_micros();
                out.int(2, micros.rem_euclid(1_000_000) * 1000);
                out.int(1, micros.div_euclid(1_000_000));
            }
        }
        Type::Quantity => out.bytes(1, value.as_str().unwrap_or("0").as_bytes()),
        Type::IntOrString => {
            out.bytes(3, value.as_str().unwrap_or_default().as_bytes());
            out.int(2, value.as_i64().unwrap_or_default());
            out.int(1, i64::from(value.is_string()));
        }
        Type::Any | Type::Object => {
            let forms =
                scalar_name(name, ty).and_then(|n| codec.table.type_named(&n)).map(|id| codec.table.ty(id));
            union(codec, out, forms, value);
        }
        _ => {}
    }
}

/// A free-form value: the bytes of its JSON, or one of several typed forms.
fn union(codec: &Codec, out: &mut Back, row: Option<&TypeRow>, value: &Value) {
    let Some(row) = row else { return };
    let item = |ty: &str| codec.table.type_named(&sibling(&row.name, ty));
    for form in row.proto_fields.iter().rev() {
        match (form.ty.as_ref(), value) {
            ("bytes", Value::Null) => {}
            ("bytes", value) => {
                let mut text = Vec::new();
                crate::encode::write_value(&mut text, value);
                out.bytes(form.tag, &text);
            }
            // A schema in place of the boolean allows.
            ("bool", value) => out.int(form.tag, i64::from(value.as_bool().unwrap_or(value.is_object()))),
            ("repeated string", Value::Array(items)) => {
                for text in items.iter().rev().filter_map(Value::as_str) {
                    out.bytes(form.tag, text.as_bytes());
                }
            }
            (ty, value) => match (ty.strip_prefix("repeated "), value) {
                (Some(ty), Value::Array(items)) => {
                    for value in items.iter().rev() {
                        if let Some(id) = item(ty) {
                            out.nested(form.tag, |out| message(codec, out, id, value));
                        }
                    }
                }
                (None, Value::Object(_)) => {
                    if let Some(id) = item(ty) {
                        out.nested(form.tag, |out| message(codec, out, id, value));
                    }
                }
                _ => {}
            },
        }
    }
}

/// A type in the same package.
pub(super) fn sibling(name: &str, other: &str) -> String {
    match name.rsplit_once('.') {
        Some((package, _)) => format!("{package}.{other}"),
        None => other.to_owned(),
    }
}
