//! A schema per type row.

use super::descriptions::{Descriptions, values};
use crate::row::{Field, ListType, MapType, Presence, Shape, Type, TypeId};
use crate::table::Table;
use apimachinery::json;
use apimachinery::value::{Map, Value};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";

/// Which OpenAPI is written: they differ in where references point, what may stand beside one, and in defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }

    pub(super) fn reference(self, name: &str) -> Value {
        json!({ "$ref": format!("{}{name}", self.prefix()) })
    }
}

/// The schema of a type; the names it refers to are pushed on `queue`. `within` is the group and version whose document it
/// stands in, if it is not that of all.
pub(super) fn of_type(
    table: &Table,
    id: TypeId,
    (dialect, within): (Dialect, Option<(&str, &str)>),
    words: &Descriptions,
    queue: &mut Vec<String>,
) -> Value {
    let row = table.ty(id);
    let mut out = match (row.shape, &row.scalar) {
        (Shape::Scalar, Some(scalar)) => scalar_schema(&row.name, scalar, dialect),
        _ => {
            let mut out = Map::new();
            out.insert("type", "object".into());
            out
        }
    };
    if let Some(text) = words.ty(&row.name) {
        out.insert("description", text.into());
    }
    if !row.fields.is_empty() {
        let mut one = |field: &Field| {
            let mut schema = property(table, field, dialect, queue);
            if let Some(text) = words.field(&row.name, &field.name) {
                schema["description"] = text.into();
                // Of a few enumerations only the description knows.
                let values: Vec<&str> = values(text).collect();
                if field.enum_values.is_empty() && !values.is_empty() {
                    schema["enum"] = values.into();
                }
            }
            (field.name.to_string(), wrapped(schema, dialect))
        };
        let properties: Map = row.fields.iter().map(&mut one).collect();
        out.insert("properties", properties.into());
    }
    let required: Vec<&str> = row.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
    if !required.is_empty() {
        out.insert("required", required.into());
    }
    if row.map_type == MapType::Atomic {
        out.insert("x-kubernetes-map-type", "atomic".into());
    }
    if !row.gvk.is_empty() {
        let own = row.gvk.iter().map(|(g, v, k)| (&**g, &**v, &**k));
        let kind = row.gvk.first().map_or("", |(_, _, kind)| kind);
        let further = row.published.map_or(&[][..], |published| published.within).iter();
        let further = further.filter(|there| within.is_none_or(|within| **there == within));
        let kinds: Vec<Value> = own
            .chain(further.map(|(group, version)| (*group, *version, kind)))
            .map(|(group, version, kind)| json!({"group": group, "kind": kind, "version": version}))
            .collect();
        out.insert("x-kubernetes-group-version-kind", kinds.into());
    }
    if let Some(unions) = row.published.and_then(|published| serde_json::from_str(published.unions).ok()) {
        out.insert("x-kubernetes-unions", unions);
    }
    Value::Object(out)
}

fn scalar_schema(name: &str, scalar: &Type, dialect: Dialect) -> Map {
    let schema = match (scalar, dialect) {
        (Type::Time | Type::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
        (Type::Quantity, Dialect::V2) => json!({"type": "string"}),
        (Type::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        (Type::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
        (Type::IntOrString, Dialect::V3) => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        (Type::Object, _) => json!({"type": "object"}),
        _ => {
            debug_assert!(name.starts_with(JSON_SCHEMA), "{name} has no published form");
            json!({})
        }
    };
    match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The published name of a value that rows keep as a scalar. Free-form values have several; which one is a matter of
/// documentation only and follows from where the field stands.
pub(crate) fn scalar_name(field: &str, ty: &Type) -> Option<String> {
    Some(match ty {
        Type::Time => format!("{META}Time"),
        Type::MicroTime => format!("{META}MicroTime"),
        Type::Quantity => "io.k8s.apimachinery.pkg.api.resource.Quantity".into(),
        Type::IntOrString => "io.k8s.apimachinery.pkg.util.intstr.IntOrString".into(),
        Type::Object if field == "fieldsV1" => format!("{META}FieldsV1"),
        Type::Object => "io.k8s.apimachinery.pkg.runtime.RawExtension".into(),
        Type::Any => match field {
            "additionalItems" | "additionalProperties" => format!("{JSON_SCHEMA}JSONSchemaPropsOrBool"),
            "items" => format!("{JSON_SCHEMA}JSONSchemaPropsOrArray"),
            "dependencies" => format!("{JSON_SCHEMA}JSONSchemaPropsOrStringArray"),
            _ => format!("{JSON_SCHEMA}JSON"),
        },
        _ => return None,
    })
}

fn of(table: &Table, field: &str, ty: &Type, dialect: Dialect, queue: &mut Vec<String>) -> Value {
    if let Some(name) = scalar_name(field, ty) {
        let reference = dialect.reference(&name);
        queue.push(name);
        return reference;
    }
    match ty {
        Type::String => json!({"type": "string"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Double => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::List(item) => json!({"type": "array", "items": of(table, field, item, dialect, queue)}),
        Type::Map(item) => {
            json!({"type": "object", "additionalProperties": of(table, field, item, dialect, queue)})
        }
        Type::Ref(id) => {
            let name = table.ty(*id).name.to_string();
            let reference = dialect.reference(&name);
            queue.push(name);
            reference
        }
        _ => json!({}),
    }
}

/// The default that v3 publishes: a real one, or Go's zero value of a field that cannot be absent.
pub(crate) fn published_default(field: &Field) -> Option<Value> {
    if let Some(text) = field.default.as_deref().or(field.published_default.as_deref()) {
        return serde_json::from_str(text).ok();
    }
    match (&field.ty, field.presence) {
        _ if field.pointer => None,
        (Type::Ref(_), _) => Some(json!({})),
        (Type::String, Presence::Always) => Some("".into()),
        (Type::Int32 | Type::Int64 | Type::Double, Presence::Always) => Some(0.into()),
        (Type::Bool, Presence::Always) => Some(false.into()),
        _ => None,
    }
}

/// In v3 nothing may stand beside a reference.
fn wrapped(mut schema: Value, dialect: Dialect) -> Value {
    if let (Dialect::V3, Value::Object(out)) = (dialect, &mut schema)
        && out.len() > 1
        && let Some(reference) = out.remove("$ref")
    {
        out.insert("allOf", json!([{ "$ref": reference }]));
    }
    schema
}

fn property(table: &Table, field: &Field, dialect: Dialect, queue: &mut Vec<String>) -> Value {
    let mut schema = of(table, &field.name, &field.ty, dialect, queue);
    let Value::Object(out) = &mut schema else { return schema };
    if dialect == Dialect::V3
        && let Some(default) = published_default(field)
    {
        out.insert("default", default);
    }
    if !field.enum_values.is_empty() {
        // The enumeration is that of the innermost text.
        let mut inner = &mut *out;
        while let Some(key) = ["items", "additionalProperties"].into_iter().find(|k| inner.contains_key(k)) {
            match inner.get_mut(key) {
                Some(Value::Object(deeper)) => inner = deeper,
                _ => return schema,
            }
        }
        inner.insert("enum", field.enum_values.iter().map(|v| Value::from(v.as_ref())).collect());
    }
    if let Some(list) = field.list_type {
        let name = match list {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        out.insert("x-kubernetes-list-type", name.into());
    }
    if !field.list_keys.is_empty() {
        out.insert(
            "x-kubernetes-list-map-keys",
            field.list_keys.iter().map(|v| Value::from(v.as_ref())).collect(),
        );
    }
    if let Some(map) = field.map_type {
        let name = if map == MapType::Atomic { "atomic" } else { "granular" };
        out.insert("x-kubernetes-map-type", name.into());
    }
    if let Some(patch) = field.patch {
        let name = match (patch.merge, patch.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "replace",
        };
        out.insert("x-kubernetes-patch-strategy", name.into());
    }
    if let Some(key) = &field.merge_key {
        out.insert("x-kubernetes-patch-merge-key", key.as_ref().into());
    }
    schema
}

/// A custom schema, written for v3, with its references noted and brought into the dialect.
pub(super) fn adapt(schema: &Value, dialect: Dialect, queue: &mut Vec<String>) -> Value {
    match schema {
        Value::Object(map) => {
            let mut out = Map::new();
            let set = |key: &str| map.get(key) == Some(&Value::Bool(true));
            for (key, value) in map {
                // Clients of v2 take what it says for all there may be.
                let loose = match key.as_str() {
                    "type" => set("nullable") || set("x-kubernetes-int-or-string"),
                    "items" | "properties" => set("nullable") || set("x-kubernetes-preserve-unknown-fields"),
                    "additionalProperties" => set("nullable"),
                    _ => false,
                };
                if dialect == Dialect::V2 && loose {
                    continue;
                }
                match (key.as_str(), value) {
                    ("$ref", Value::String(target)) => {
                        let name = target.rsplit('/').next().unwrap_or_default();
                        queue.push(name.to_owned());
                        out.insert(key.clone(), format!("{}{name}", dialect.prefix()).into());
                    }
                    // Names here are names of fields, whatever they are.
                    ("properties", Value::Object(fields)) => {
                        let fields: Map = fields
                            .iter()
                            .map(|(name, schema)| (name.clone(), adapt(schema, dialect, queue)))
                            .collect();
                        out.insert(key.clone(), fields.into());
                    }
                    // v2 knows neither of these, and has one reference where v3 wraps it.
                    ("default" | "nullable" | "oneOf" | "anyOf" | "not", _) if dialect == Dialect::V2 => {}
                    ("allOf", Value::Array(items)) if dialect == Dialect::V2 => {
                        if let [Value::Object(only)] = items.as_slice()
                            && only.contains_key("$ref")
                            && let Value::Object(inner) = adapt(&items[0], dialect, queue)
                        {
                            out.extend(inner);
                        }
                    }
                    _ => {
                        out.insert(key.clone(), adapt(value, dialect, queue));
                    }
                }
            }
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(|v| adapt(v, dialect, queue)).collect(),
        other => other.clone(),
    }
}
