//! A message to its tree in canonical form.

use super::Codec;
use super::plan::{Part, Plan};
use super::wire::{Fields, Wire, text};
use super::write::sibling;
use crate::decode::{DecodeError, missing, omitted, zero};
use crate::openapi::scalar_name;
use crate::row::{Field, Shape, Type, TypeId, TypeRow};
use apimachinery::quantity::Quantity;
use apimachinery::time::{MicroTime, Time};
use apimachinery::value::{Map, Number, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Messages nested deeper than that are hostile.
const MAX_DEPTH: usize = 100;

pub(super) fn message(codec: &Codec, id: TypeId, raw: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError("exceeded max depth".into()));
    }
    let row = codec.table.ty(id);
    let mut map = Map::new();
    parts(codec, row, &codec.plans[id.0 as usize], raw, depth, &mut map)?;
    map.retain(|name, value| row.field(name).is_none_or(|f| !omitted(codec.table, f, value)));
    for i in codec.table.filled(id) {
        let field = &row.fields[usize::from(*i)];
        if !map.contains_key(field.name.as_ref())
            && let Some(value) = missing(codec.table, field)
        {
            map.insert(field.name.as_ref(), value);
        }
    }
    Ok(Value::Object(map))
}

fn parts(
    codec: &Codec,
    row: &TypeRow,
    plan: &Plan,
    raw: &[u8],
    depth: usize,
    map: &mut Map,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError("exceeded max depth".into()));
    }
    let mut fields = Fields::new(raw);
    while let Some((tag, wire)) = fields.next()? {
        match (plan.part(tag), wire) {
            // Unknown fields are newer than we are.
            (None, _) => {}
            (Some(Part::Inlined { plan, .. }), Wire::Bytes(raw)) => {
                parts(codec, row, plan, raw, depth + 1, map)?
            }
            (Some(Part::Inlined { .. }), _) => {
                return Err(DecodeError("proto: wrong wireType for a message".into()));
            }
            (Some(Part::Field { index, .. }), wire) => field(codec, &row.fields[*index], wire, depth, map)?,
        }
    }
    Ok(())
}

fn wrong(field: &Field) -> DecodeError {
    DecodeError(format!("proto: wrong wireType for field {}", field.name))
}

/// The list that a message of its own holds.
fn items(codec: &Codec, item: &Type, field: &Field, raw: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let mut items = Vec::new();
    let mut inner = Fields::new(raw);
    while let Some((tag, wire)) = inner.next()? {
        if tag == 1 {
            items.push(single(codec, item, field, wire, depth)?);
        }
    }
    Ok(Value::Array(items))
}

fn field(
    codec: &Codec,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    map: &mut Map,
) -> Result<(), DecodeError> {
    match (&field.ty, wire) {
        (Type::List(item), Wire::Bytes(raw)) if field.wrapped => {
            map.insert(field.name.as_ref(), items(codec, item, field, raw, depth)?);
        }
        (Type::List(item), wire) => {
            let list = map.entry(field.name.as_ref()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = list {
                match (&**item, wire) {
                    // Packed numbers are another way to write the same list.
                    (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(packed)) => {
                        let mut rest = packed;
                        while !rest.is_empty() {
                            let end = rest.iter().position(|b| *b < 0x80).ok_or_else(|| wrong(field))?;
                            let (one, tail) = rest.split_at(end + 1);
                            let n = one.iter().rev().fold(0u64, |n, b| n << 7 | u64::from(b & 0x7f));
                            items.push(single(codec, item, field, Wire::Varint(n), depth)?);
                            rest = tail;
                        }
                    }
                    (item, wire) => items.push(single(codec, item, field, wire, depth)?),
                }
            }
        }
        (Type::Map(element), Wire::Bytes(raw)) => {
            let mut key = String::new();
            let mut value = None;
            let mut entry = Fields::new(raw);
            while let Some((tag, wire)) = entry.next()? {
                match (tag, wire) {
                    (1, Wire::Bytes(bytes)) => key = text(bytes)?.to_owned(),
                    (2, wire) => {
                        value = Some(match (&**element, wire) {
                            (Type::List(item), Wire::Bytes(raw)) => items(codec, item, field, raw, depth)?,
                            (element, wire) => single(codec, element, field, wire, depth)?,
                        });
                    }
                    _ => {}
                }
            }
            let entries = map.entry(field.name.as_ref()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = entries {
                entries.insert(key, value.unwrap_or_else(|| zero(codec.table, element)));
            }
        }
        (ty, wire) => {
            let value = single(codec, ty, field, wire, depth)?;
            map.insert(field.name.as_ref(), value);
        }
    }
    Ok(())
}

fn single(
    codec: &Codec,
    ty: &Type,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
) -> Result<Value, DecodeError> {
    Ok(match (ty, wire) {
        (Type::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Type::Bool, Wire::Varint(n)) => (n != 0).into(),
        (Type::Int32, Wire::Varint(n)) => Value::from(n as i32),
        (Type::Int64, Wire::Varint(n)) => Value::from(n as i64),
        (Type::Double, Wire::Fixed64(n)) => {
            Number::from_f64(f64::from_bits(n)).map_or(Value::Null, Value::Number)
        }
        (Type::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Type::Ref(id), Wire::Bytes(raw)) => {
            let row = codec.table.ty(*id);
            match (row.shape, &row.scalar) {
                (Shape::Scalar, Some(scalar)) => single(codec, scalar, field, wire, depth)?,
                _ => message(codec, *id, raw, depth + 1)?,
            }
        }
        (Type::Time, Wire::Bytes(raw)) => {
            let (seconds, _) = time(raw)?;
            // A message without seconds is Go's zero time.
            if raw.is_empty() { Value::Null } else { Time::from_unix(seconds).to_string().into() }
        }
        (Type::MicroTime, Wire::Bytes(raw)) => {
            let (seconds, nanos) = time(raw)?;
            let micros = seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000);
            if raw.is_empty() { Value::Null } else { MicroTime::from_unix_micros(micros).to_string().into() }
        }
        (Type::Quantity, Wire::Bytes(raw)) => {
            let mut canonical = String::from("0");
            let mut fields = Fields::new(raw);
            while let Some((tag, wire)) = fields.next()? {
                if let (1, Wire::Bytes(bytes)) = (tag, wire)
                    && !bytes.is_empty()
                {
                    let quantity: Quantity = text(bytes)?
                        .parse()
                        .map_err(|e: <Quantity as std::str::FromStr>::Err| DecodeError(e.to_string()))?;
                    canonical = quantity.to_string();
                }
            }
            canonical.into()
        }
        (Type::IntOrString, Wire::Bytes(raw)) => {
            let (mut kind, mut number, mut string) = (0, 0, "");
            let mut fields = Fields::new(raw);
            while let Some((tag, wire)) = fields.next()? {
                match (tag, wire) {
                    (1, Wire::Varint(n)) => kind = n,
                    (2, Wire::Varint(n)) => number = n as i32,
                    (3, Wire::Bytes(bytes)) => string = text(bytes)?,
                    _ => {}
                }
            }
            if kind == 0 { number.into() } else { string.into() }
        }
        (Type::Any | Type::Object, Wire::Bytes(raw)) => {
            let forms = scalar_name(&field.name, ty)
                .and_then(|n| codec.table.type_named(&n))
                .map(|id| codec.table.ty(id));
            union(codec, forms, raw, depth)?
        }
        _ => return Err(wrong(field)),
    })
}

fn time(raw: &[u8]) -> Result<(i64, i64), DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new(raw);
    while let Some((tag, wire)) = fields.next()? {
        match (tag, wire) {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = i64::from(n as i32),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

/// The inverse of what the writer does with free-form values: the most telling form that is there wins.
fn union(codec: &Codec, row: Option<&TypeRow>, raw: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let Some(row) = row else { return Ok(Value::Null) };
    let (mut allows, mut schema, mut list) = (None, None, None::<Vec<Value>>);
    let mut fields = Fields::new(raw);
    while let Some((tag, wire)) = fields.next()? {
        let Some(form) = row.proto_fields.iter().find(|f| f.tag == tag) else { continue };
        match (form.ty.as_ref(), wire) {
            ("bytes", Wire::Bytes(json)) => {
                return if json.is_empty() {
                    Ok(Value::Null)
                } else {
                    serde_json::from_slice(json).map_err(|e| DecodeError(format!("{}: {e}", row.name)))
                };
            }
            ("bool", Wire::Varint(n)) => allows = Some(Value::from(n != 0)),
            ("repeated string", Wire::Bytes(bytes)) => list.get_or_insert_default().push(text(bytes)?.into()),
            (ty, Wire::Bytes(raw)) => {
                let repeated = ty.strip_prefix("repeated ");
                let Some(id) = codec.table.type_named(&sibling(&row.name, repeated.unwrap_or(ty))) else {
                    continue;
                };
                let value = message(codec, id, raw, depth + 1)?;
                match repeated {
                    Some(_) => list.get_or_insert_default().push(value),
                    None => schema = Some(value),
                }
            }
            _ => {}
        }
    }
    Ok(schema.or(list.map(Value::Array)).or(allows).unwrap_or_default())
}
