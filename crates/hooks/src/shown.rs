//! How messages show a part of an object: upstream prints the struct that it has of it inside, with its Go field names and
//! with what is absent. Types of `meta/v1` are the same inside and outside.

use apimachinery::field::BadValue;
use schema::row::{Field, Presence, Shape, Type};
use schema::{Table, TypeId};
use serde_json::Value;

/// The part of an object at a path of names.
pub(super) fn shown(object: &Value, path: &[&str]) -> BadValue {
    let table = api::table();
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object["kind"].as_str().unwrap_or_default();
    let value = super::tree::at(object, path).unwrap_or(&Value::Null);
    let Some(root) = table.kind(group, version, kind) else { return BadValue::json(value) };
    let mut at = Type::Ref(root);
    let mut last = None;
    for name in path {
        let Type::Ref(id) = at else { return BadValue::json(value) };
        let Some(field) = table.ty(id).field(name) else { return BadValue::json(value) };
        at = field.ty.clone();
        last = Some(field);
    }
    BadValue::verbatim(text(table, &at, last, value))
}

/// A value of a type that the table has by this name.
pub(super) fn shown_as(name: &str, value: &Value) -> BadValue {
    let table = api::table();
    match table.type_named(name) {
        Some(id) => BadValue::verbatim(text(table, &Type::Ref(id), None, value)),
        None => BadValue::json(value),
    }
}

/// The same of a typed value.
pub(super) fn shown_typed<T: serde::Serialize>(name: &str, value: &T) -> BadValue {
    shown_as(name, &serde_json::to_value(value).unwrap_or_default())
}

fn json(value: &Value) -> String {
    let mut out = Vec::new();
    schema::encode::write_value(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

fn text(table: &Table, ty: &Type, field: Option<&Field>, value: &Value) -> String {
    let pointer = field.is_some_and(|f| f.pointer);
    match (ty, value) {
        (Type::List(item), Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|v| text(table, item, None, v)).collect();
            format!("[{}]", items.join(","))
        }
        (Type::Map(item), Value::Object(map)) => {
            let member = |(k, v): (&String, &Value)| {
                format!("{}:{}", json(&Value::from(k.as_str())), text(table, item, None, v))
            };
            format!("{{{}}}", map.iter().map(member).collect::<Vec<_>>().join(","))
        }
        (Type::Ref(id), Value::Object(_)) => of_struct(table, *id, value),
        (_, Value::Null) => zero(table, ty, field, pointer),
        _ => json(value),
    }
}

/// What Go has where nothing is said.
fn zero(table: &Table, ty: &Type, field: Option<&Field>, pointer: bool) -> String {
    if pointer {
        return "null".into();
    }
    match ty {
        Type::String => "\"\"".into(),
        Type::Bool => "false".into(),
        Type::Int32 | Type::Int64 | Type::Double => "0".into(),
        Type::Quantity => "\"0\"".into(),
        // A struct that is left out when empty is a struct nevertheless.
        Type::Ref(id) if field.is_none_or(|f| f.presence != Presence::OmitZero) => {
            match (table.ty(*id).shape, &table.ty(*id).scalar) {
                (Shape::Scalar, Some(scalar)) => zero(table, scalar, None, false),
                _ => of_struct(table, *id, &Value::Null),
            }
        }
        _ => "null".into(),
    }
}

fn of_struct(table: &Table, id: TypeId, value: &Value) -> String {
    let row = table.ty(id);
    if let (Shape::Scalar, Some(scalar)) = (row.shape, &row.scalar) {
        return text(table, scalar, None, value);
    }
    if row.name.contains(".apimachinery.") {
        return String::from_utf8(schema::encode::json(table, id, value)).unwrap_or_default();
    }
    let member = |field: &Field| {
        let of = value.get(field.name.as_ref()).unwrap_or(&Value::Null);
        format!("{}:{}", json(&Value::from(go_name(&field.name))), text(table, &field.ty, Some(field), of))
    };
    format!("{{{}}}", row.fields.iter().map(member).collect::<Vec<_>>().join(","))
}

/// `podIP` is `PodIP` in Go, `uid` is `UID`.
fn go_name(name: &str) -> String {
    const WORDS: [(&str, &str); 9] = [
        ("uid", "UID"),
        ("apiVersion", "APIVersion"),
        ("apiGroup", "APIGroup"),
        ("id", "ID"),
        ("ip", "IP"),
        ("ips", "IPs"),
        ("url", "URL"),
        ("csi", "CSI"),
        ("cel", "CEL"),
    ];
    if let Some((_, go)) = WORDS.iter().find(|(word, _)| *word == name) {
        return (*go).into();
    }
    let mut chars = name.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::field::{Error, Path};
    use expect_test::{Expect, expect};
    use serde_json::json;

    fn check(object: Value, path: &[&str], expected: Expect) {
        expected.assert_eq(&Error::invalid(&Path::new("at"), shown(&object, path), "").to_string());
    }

    #[test]
    fn structs_are_shown_as_they_are_inside() {
        let event =
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod", "uid": "u"}});
        check(
            event,
            &["involvedObject"],
            expect![[
                r#"at: Invalid value: {"Kind":"Pod","Namespace":"","Name":"","UID":"u","APIVersion":"","ResourceVersion":"","FieldPath":""}"#
            ]],
        );
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}});
        check(
            budget,
            &["spec"],
            expect![[
                r#"at: Invalid value: {"MinAvailable":1,"Selector":{"matchLabels":{"a":"b"}},"MaxUnavailable":null,"UnhealthyPodEvictionPolicy":null}"#
            ]],
        );
    }
}
