//! An object's variations, field by field.

use crate::sample;
use apimachinery::json;
use apimachinery::value::Value;
use schema::row::{Field, Type};
use schema::{Table, TypeId};
use std::collections::HashSet;

/// A field of an object: where it is, and what it is.
pub struct Place<'a> {
    /// A JSON pointer.
    pub at: String,
    pub field: &'a Field,
    pub present: bool,
}

/// All fields, present or not, of all structs that are present below a place.
pub fn places<'a>(table: &'a Table, id: TypeId, object: &Value, at: &str, found: &mut Vec<Place<'a>>) {
    let row = table.ty(id);
    for field in row.fields.iter() {
        let metadata = field.name == "metadata" && !row.gvk.is_empty();
        if metadata
            || field.name == "status" && !row.gvk.is_empty()
            || field.name == "kind" && !row.gvk.is_empty()
            || field.name == "apiVersion" && !row.gvk.is_empty()
        {
            continue;
        }
        let place = format!("{at}/{}", field.name);
        let value = object.get(field.name.as_ref());
        found.push(Place { at: place.clone(), field, present: value.is_some_and(|v| !v.is_null()) });
        if let Some(value) = value {
            within(table, &field.ty, value, &place, found);
        }
    }
}

fn within<'a>(table: &'a Table, ty: &'a Type, value: &Value, at: &str, found: &mut Vec<Place<'a>>) {
    match (ty, value) {
        // Pods' own fields are the business of pods' own stories.
        (Type::Ref(id), _) if table.ty(*id).name.ends_with(".PodTemplateSpec") && at != "/template" => {}
        (Type::Ref(id), Value::Object(_)) => places(table, *id, value, at, found),
        // What holds for one item holds for its like.
        (Type::List(inner), Value::Array(items)) => {
            if let Some(first) = items.first() {
                within(table, inner, first, &format!("{at}/0"), found);
            }
        }
        (Type::Map(inner), Value::Object(map)) => {
            if let Some((key, first)) = map.iter().next().filter(|(k, _)| !k.contains(['/', '~'])) {
                within(table, inner, first, &format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
}

/// Puts a value at a place, or takes it away.
pub fn with(object: &Value, at: &str, value: Option<&Value>) -> Value {
    let mut object = object.clone();
    let (parent, last) = at.rsplit_once('/').unwrap();
    if let Some(map) = object.pointer_mut(parent).and_then(Value::as_object_mut) {
        match value {
            Some(value) => drop(map.insert(last.to_owned(), value.clone())),
            None => drop(map.remove(last)),
        }
    }
    object
}

/// Values that a field may or may not take.
pub fn values(table: &Table, place: &Place<'_>) -> Vec<Value> {
    let field = place.field;
    let mut values = match &field.ty {
        Type::String if !field.enum_values.is_empty() => vec![json!("Bogus"), json!("")],
        Type::String => vec![json!("Not Valid!"), json!("")],
        Type::Bool => vec![json!(true), json!(false)],
        Type::Int32 => vec![json!(-1), json!(0), json!(2147483647)],
        Type::Int64 => vec![json!(-1), json!(0)],
        Type::Double => vec![json!(-1.5)],
        Type::Bytes => vec![json!(""), json!("c2FtcGxl")],
        Type::Time | Type::MicroTime => vec![Value::Null, sample::field(table, field, 0)],
        Type::Quantity => vec![json!("-1"), json!("0"), json!("1.5Gi")],
        Type::IntOrString => vec![json!(-1), json!("120%"), json!("not valid!")],
        Type::Any | Type::Object => vec![json!({}), json!(5)],
        Type::List(_) => vec![json!([]), sample::field(table, field, 3)],
        Type::Map(inner) => {
            vec![json!({}), json!({"Not Valid!": sample::value(table, inner, 3)})]
        }
        Type::Ref(_) => vec![json!({}), sample::field(table, field, 3)],
    };
    values.dedup();
    values
}

/// A value of the wrong type, for the first field of each type.
pub fn mistyped(place: &Place<'_>, seen: &mut HashSet<std::mem::Discriminant<Type>>) -> Option<Value> {
    seen.insert(std::mem::discriminant(&place.field.ty)).then(|| match &place.field.ty {
        Type::String => json!(5),
        Type::Bool | Type::Int32 | Type::Int64 | Type::Double => json!("x"),
        Type::Bytes => json!("*"),
        Type::Time | Type::MicroTime => json!("yesterday"),
        Type::Quantity => json!("abc"),
        Type::IntOrString => json!({}),
        Type::Any | Type::Object => json!([1]),
        Type::List(_) => json!({"x": 1}),
        Type::Map(_) => json!([1]),
        Type::Ref(_) => json!("x"),
    })
}

/// Another value of the same type.
pub fn other(table: &Table, place: &Place<'_>, value: &Value) -> Value {
    match value {
        Value::Bool(b) => json!(!b),
        Value::Number(n) => json!(n.as_i64().unwrap_or(0) + 1),
        Value::String(text) => match &place.field.ty {
            Type::Quantity => json!("7"),
            Type::IntOrString => json!("30%"),
            Type::Bytes => json!("b3RoZXI="),
            Type::Time | Type::MicroTime => sample::field(table, place.field, 0),
            _ if !place.field.enum_values.is_empty() => {
                let others = place.field.enum_values.iter().find(|v| *v != text);
                json!(others.map_or("Bogus", |v| v.as_ref()))
            }
            _ => json!(format!("{text}x")),
        },
        _ => Value::Null,
    }
}
