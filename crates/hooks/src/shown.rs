//! How messages show a part of an object: upstream prints the struct that it has of it inside, with its Go field names and
//! with what is absent. Types of `meta/v1` are the same inside and outside.

use super::diff::unified;
use super::inside::{self, Member};
use apimachinery::field::BadValue;
use apimachinery::value::{Key, Value};
use schema::row::{Field, Presence, Shape, Type};
use schema::{Table, TypeId};

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
    BadValue::verbatim(text(table, &at, last, value, &Outer::NONE))
}

/// A value of a type that the table has by this name.
pub(super) fn shown_as(name: &str, value: &Value) -> BadValue {
    BadValue::verbatim(shown_text(name, value))
}

/// The same, as the text alone.
pub(super) fn shown_text(name: &str, value: &Value) -> String {
    let table = api::table();
    match table.type_named(name) {
        Some(id) => text(table, &Type::Ref(id), None, value, &Outer::NONE),
        None => json(value),
    }
}

/// The same of a typed value.
pub(super) fn shown_typed<T: serde::Serialize>(name: &str, value: &T) -> BadValue {
    shown_as(name, &untyped(value))
}

/// A typed value as a tree. A list of nothing was most likely not there.
fn untyped<T: serde::Serialize>(value: &T) -> Value {
    fn without_empty_lists(value: &mut Value) {
        match value {
            Value::Array(items) if items.is_empty() => *value = Value::Null,
            Value::Array(items) => items.iter_mut().for_each(without_empty_lists),
            Value::Object(map) => map.values_mut().for_each(without_empty_lists),
            _ => {}
        }
    }
    let mut value = apimachinery::value::to_value(value).unwrap_or_default();
    without_empty_lists(&mut value);
    value
}

/// The same of several.
pub(super) fn shown_list<T: serde::Serialize>(name: &str, values: &[T]) -> BadValue {
    let table = api::table();
    let show = |value: &T| match table.type_named(name) {
        Some(id) => text(table, &Type::Ref(id), None, &untyped(value), &Outer::NONE),
        None => String::new(),
    };
    BadValue::verbatim(format!("[{}]", values.iter().map(show).collect::<Vec<_>>().join(",")))
}

/// What two values of a type differ in.
pub(super) fn diff(name: &str, old: &Value, new: &Value) -> String {
    diff_inside(name, short_name(name), old, new)
}

/// The same, of that part of a type that is a type of its own inside.
pub(super) fn diff_inside(name: &str, inside: &str, old: &Value, new: &Value) -> String {
    let table = api::table();
    let show = |value: &Value| match table.type_named(name) {
        Some(id) => indented(&of_struct(table, id, inside, value, &Outer::NONE)),
        None => indented(&json(value)),
    };
    unified(&show(old), &show(new))
}

/// The object around the one that is shown.
struct Outer<'a> {
    fields: &'a [Field],
    value: &'a Value,
}

impl Outer<'_> {
    const NONE: Outer<'static> = Outer { fields: &[], value: &Value::Null };
}

fn json(value: &Value) -> String {
    let mut out = Vec::new();
    schema::encode::write_value(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

/// `core.v1.PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short_name(name: &str) -> &str {
    const PACKAGES: [&str; 2] = ["io.k8s.api.", "io.k8s.apiextensions-apiserver.pkg.apis."];
    PACKAGES.iter().find_map(|package| name.strip_prefix(package)).unwrap_or(name)
}

fn text(table: &Table, ty: &Type, field: Option<&Field>, value: &Value, outer: &Outer<'_>) -> String {
    match (ty, value) {
        (Type::List(item), Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(|v| text(table, item, None, v, outer)).collect();
            format!("[{}]", items.join(","))
        }
        (Type::Map(item), Value::Object(map)) => {
            let member = |(k, v): (&Key, &Value)| {
                format!("{}:{}", json(&Value::from(k.as_str())), text(table, item, None, v, outer))
            };
            format!("{{{}}}", map.iter().map(member).collect::<Vec<_>>().join(","))
        }
        (Type::Ref(id), Value::Object(_)) => {
            of_struct(table, *id, short_name(&table.ty(*id).name), value, outer)
        }
        (_, Value::Null) if field.is_some_and(|f| f.pointer) => "null".into(),
        (_, Value::Null) => zero(table, ty, field, outer),
        _ => json(value),
    }
}

/// What Go has where nothing is said.
fn zero(table: &Table, ty: &Type, field: Option<&Field>, outer: &Outer<'_>) -> String {
    match ty {
        Type::String => "\"\"".into(),
        Type::Bool => "false".into(),
        Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => "0".into(),
        Type::Quantity => "\"0\"".into(),
        // A struct that is left out when empty is a struct nevertheless.
        Type::Ref(id) if field.is_none_or(|f| f.presence != Presence::OmitZero) => {
            let row = table.ty(*id);
            match (row.shape, &row.scalar) {
                (Shape::Scalar, Some(scalar)) => zero(table, scalar, None, outer),
                _ => of_struct(table, *id, short_name(&row.name), &Value::Null, outer),
            }
        }
        _ => "null".into(),
    }
}

fn of_struct(table: &Table, id: TypeId, name: &str, value: &Value, outer: &Outer<'_>) -> String {
    let row = table.ty(id);
    if let (Shape::Scalar, Some(scalar)) = (row.shape, &row.scalar) {
        return text(table, scalar, None, value, outer);
    }
    if row.name.contains(".apimachinery.") {
        return String::from_utf8(schema::encode::json(table, id, value)).unwrap_or_default();
    }
    let here = Outer { fields: &row.fields, value };
    let shown = |field: &Field, go: &str, of: &Value| {
        // Metadata is embedded inside.
        let text = either(table, id, &field.name, of)
            .unwrap_or_else(|| text(table, &field.ty, Some(field), of, &here));
        match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(members) if is_metadata(table, &field.ty) => members.to_owned(),
            _ => format!("{}:{text}", json(&Value::from(go))),
        }
    };
    let members: Vec<String> = match inside::members(name) {
        None => {
            let own = |f: &Field| shown(f, &inside::go_name(&f.name), &value[f.name.as_ref()]);
            row.fields.iter().map(own).collect()
        }
        Some(members) => {
            let one = |member: &Member| {
                let from = if member.outer { outer } else { &here };
                let mut field = from.fields.iter().find(|f| f.name == member.name)?.clone();
                match member.presence {
                    inside::Presence::Same => {}
                    inside::Presence::Pointer => field.pointer = true,
                    inside::Presence::Value | inside::Presence::Always => field.pointer = false,
                }
                Some(shown(&field, &member.go, &from.value[member.name]))
            };
            members.iter().filter_map(one).collect()
        }
    };
    let members: Vec<String> = members.into_iter().filter(|m| !m.is_empty()).collect();
    format!("{{{}}}", members.join(","))
}

/// What is a schema or something else, in a schema: a struct that has room for both.
fn either(table: &Table, owner: TypeId, field: &str, value: &Value) -> Option<String> {
    if value.is_null() || !table.ty(owner).name.ends_with(".JSONSchemaProps") {
        return None;
    }
    let schema = |value: &Value| text(table, &Type::Ref(owner), None, value, &Outer::NONE);
    let dependency = |(name, value): (&Key, &Value)| {
        let name = json(&Value::from(name.as_str()));
        match value {
            Value::Array(_) => format!("{name}:{{\"Schema\":null,\"Property\":{}}}", json(value)),
            _ => format!("{name}:{{\"Schema\":{},\"Property\":null}}", schema(value)),
        }
    };
    Some(match (field, value) {
        ("additionalItems" | "additionalProperties", Value::Bool(allows)) => {
            format!("{{\"Allows\":{allows},\"Schema\":null}}")
        }
        ("additionalItems" | "additionalProperties", _) => {
            format!("{{\"Allows\":true,\"Schema\":{}}}", schema(value))
        }
        ("items", Value::Array(_)) => format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", json(value)),
        ("items", _) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(value)),
        ("dependencies", Value::Object(map)) => {
            format!("{{{}}}", map.iter().map(dependency).collect::<Vec<_>>().join(","))
        }
        _ => return None,
    })
}

fn is_metadata(table: &Table, ty: &Type) -> bool {
    matches!(ty, Type::Ref(id) if table.ty(*id).name.ends_with(".meta.v1.ObjectMeta"))
}

/// JSON with a line for each member, as Go's `MarshalIndent` by one space.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_text, mut escaped) = (String::new(), 0, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', depth));
    };
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            _ if in_text => {
                out.push(c);
                in_text = escaped || c != '"';
                escaped = !escaped && c == '\\';
            }
            '"' => {
                in_text = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                depth += 1;
                if !matches!(chars.peek(), Some('}' | ']')) {
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                if !out.ends_with(['{', '[']) {
                    line(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::field::{Error, Path};
    use apimachinery::json;
    use expect_test::{Expect, expect};

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
