//! Schemas of custom kinds, as they are published: what the definition says, with the metadata that every object has.

use super::schemas::META;
use super::{Dialect, Documents, definition_name};
use apimachinery::json;
use apimachinery::value::{Map, Value};
use std::sync::Arc;

/// A custom kind, whose schema is read when a document needs it.
#[derive(Clone)]
pub struct CustomKind {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub list_kind: String,
    /// Differs when anything about the schema does.
    pub stamp: Vec<u8>,
    pub schema: Arc<dyn Fn() -> Value + Send + Sync>,
}

impl std::fmt::Debug for CustomKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CustomKind({}/{} {})", self.group, self.version, self.kind)
    }
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
/// Of an object in an object, upstream says it in other words.
const EMBEDDED_API_VERSION: &str = "apiVersion defines the versioned schema of this representation of an object. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const EMBEDDED_KIND: &str = "kind is a string value representing the type of this object. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

impl Documents {
    /// The schema of a custom kind or of its list, written for v3.
    pub(super) fn custom_schema(&self, name: &str, dialect: Dialect) -> Option<Value> {
        if let Some(kind) = self.custom.get(name) {
            return Some(of_kind(kind, dialect));
        }
        let kind =
            self.custom.values().find(|k| definition_name(&k.group, &k.version, &k.list_kind) == name)?;
        Some(of_list(kind))
    }
}

fn reference(name: &str) -> Value {
    json!([{"$ref": format!("#/components/schemas/{META}{name}")}])
}

fn gvk(kind: &CustomKind, name: &str) -> Value {
    json!([{"group": kind.group, "kind": name, "version": kind.version}])
}

fn of_kind(kind: &CustomKind, dialect: Dialect) -> Value {
    let mut schema = (kind.schema)();
    // Clients of v2 would refuse what is not listed: where anything may stand, nothing is.
    if !schema.is_object() || (dialect == Dialect::V2 && keeps_unknown(&schema)) {
        schema = json!({"type": "object"});
    } else if let Some(map) = schema.as_object_mut() {
        complete(map, API_VERSION, KIND);
        embedded(map, dialect);
    }
    schema["x-kubernetes-group-version-kind"] = gvk(kind, &kind.kind);
    schema
}

fn keeps_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
}

/// Gives an object its type and metadata.
fn complete(map: &mut Map, api_version: &str, kind: &str) {
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        properties.insert("apiVersion", json!({"type": "string", "description": api_version}));
        properties.insert("kind", json!({"type": "string", "description": kind}));
        let metadata = json!({"description": METADATA, "allOf": reference("ObjectMeta"), "default": {}});
        properties.insert("metadata", metadata);
    }
}

/// Completes the objects within a schema, the innermost first.
fn embedded(map: &mut Map, dialect: Dialect) {
    let each = |schema: &mut Value| {
        let open = dialect == Dialect::V2 && keeps_unknown(schema);
        let Value::Object(inner) = schema else { return };
        embedded(inner, dialect);
        if open || inner.get("x-kubernetes-embedded-resource") != Some(&Value::Bool(true)) {
            return;
        }
        complete(inner, EMBEDDED_API_VERSION, EMBEDDED_KIND);
        let required = inner.entry("required").or_insert_with(|| json!([]));
        if let Value::Array(required) = required {
            for name in ["kind", "apiVersion"] {
                if !required.iter().any(|known| known == name) {
                    required.push(name.into());
                }
            }
        }
    };
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(each);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            each(inner);
        }
    }
}

fn of_list(kind: &CustomKind) -> Value {
    let item = format!("#/components/schemas/{}", definition_name(&kind.group, &kind.version, &kind.kind));
    let plural = kind.kind.to_lowercase();
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": {"description": LIST_METADATA, "allOf": reference("ListMeta"), "default": {}},
            "items": {
                "type": "array",
                "items": {"allOf": [{"$ref": item}], "default": {}},
                "description": format!("List of {plural}s. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"),
            },
        },
        "x-kubernetes-group-version-kind": gvk(kind, &kind.list_kind),
    })
}
