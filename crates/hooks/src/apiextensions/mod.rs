//! CustomResourceDefinition: its defaults, its status, and the finalizer that lets instances go first.

mod names;
mod rule_check;
pub mod rules;
mod selectable;
mod validate;
mod version;

pub use validate::{approval_state, is_protected};

use super::{Context, Row, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::value::Value;
use schema::custom::is_supported_format;

pub(super) const STRATEGIES: &[Row] =
    &[("apiextensions.k8s.io", "CustomResourceDefinition", &CustomResourceDefinition)];

/// Holds a definition until its instances are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Debug)]
struct CustomResourceDefinition;

/// Sets a condition: the time of its transition changes with its status only.
pub fn set_condition(definition: &mut Value, now: &str, ty: &str, status: &str, reason: &str, message: &str) {
    if !definition["status"]["conditions"].is_array() {
        definition["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = definition["status"]["conditions"].as_array_mut() else { return };
    let mut fresh = json!({
        "type": ty, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|c| c["type"] == ty) {
        None => conditions.push(fresh),
        Some(existing) => {
            if existing["status"] == status && existing["lastTransitionTime"].is_string() {
                fresh["lastTransitionTime"] = existing["lastTransitionTime"].clone();
            }
            *existing = fresh;
        }
    }
}

/// The status of a condition; empty when there is none.
pub fn condition<'a>(definition: &'a Value, ty: &str) -> &'a str {
    let conditions = definition["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == ty);
    found.and_then(|c| c["status"].as_str()).unwrap_or_default()
}

fn storage_version(definition: &Value) -> Option<&str> {
    let versions = definition["spec"]["versions"].as_array()?;
    versions.iter().find(|v| v["storage"] == true)?["name"].as_str()
}

/// Notes that objects are stored in the storage version from now on.
fn note_storage_version(definition: &mut Value) {
    let Some(version) = storage_version(definition).map(str::to_owned) else { return };
    match definition["status"]["storedVersions"].as_array_mut() {
        Some(stored) if stored.iter().any(|v| *v == version) => {}
        Some(stored) => stored.push(version.into()),
        None => definition["status"]["storedVersions"] = json!([version]),
    }
}

/// Formats that no value is checked against, in the order in which the schemas name them.
fn unknown_formats(schema: &Value, found: &mut Vec<String>) {
    let Value::Object(map) = schema else { return };
    let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let format = text("format");
    if !format.is_empty() && !is_supported_format(text("type"), format) {
        found.push(format.to_owned());
    }
    for key in ["items", "not", "additionalProperties"] {
        map.get(key).into_iter().for_each(|s| unknown_formats(s, found));
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        map.get(key).and_then(Value::as_array).into_iter().flatten().for_each(|s| unknown_formats(s, found));
    }
    for schema in map.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, s)| s) {
        unknown_formats(schema, found);
    }
}

fn formats_of(definition: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        unknown_formats(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

impl Strategy for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let names = &mut object["spec"]["names"];
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        if names.is_object() {
            if names["singular"].as_str().unwrap_or_default().is_empty() {
                names["singular"] = kind.to_lowercase().into();
            }
            if names["listKind"].as_str().unwrap_or_default().is_empty() && !kind.is_empty() {
                names["listKind"] = format!("{kind}List").into();
            }
        }
        if object["spec"].get("conversion").is_none_or(Value::is_null) {
            object["spec"]["conversion"] = json!({"strategy": "None"});
        }
        if let Some(service) = object.pointer_mut("/spec/conversion/webhook/clientConfig/service")
            && service.is_object()
            && service["port"].is_null()
        {
            service["port"] = 443.into();
        }
        let stored = &object["status"]["storedVersions"];
        if stored.as_array().is_none_or(Vec::is_empty) {
            note_storage_version(object);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &Context) {
        object["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}});
        note_storage_version(object);
    }

    fn prepare_for_update(&self, object: &mut Value, _: &Value, context: &Context) {
        if context.subresource.is_none() {
            note_storage_version(object);
        }
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        validate::create(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => validate::status(object),
            _ => validate::update(object, old),
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        if context.subresource.is_some() {
            return Vec::new();
        }
        let known = old.map(formats_of).unwrap_or_default();
        let new = formats_of(object).into_iter().filter(|f| !known.contains(f));
        new.map(|format| format!("unrecognized format {format:?}")).collect()
    }

    fn columns(&self) -> &'static [super::Column] {
        &COLUMNS
    }

    fn cells(&self, object: &Value, _: apimachinery::time::Time) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    }

    fn begin_deletion(&self, object: &mut Value, context: &Context) {
        let finalizers = &mut object["metadata"]["finalizers"];
        match finalizers.as_array_mut() {
            Some(list) if list.iter().any(|f| f == CLEANUP_FINALIZER) => {}
            Some(list) => list.push(CLEANUP_FINALIZER.into()),
            None => *finalizers = json!([CLEANUP_FINALIZER]),
        }
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(
            object,
            &context.now.to_string(),
            "Terminating",
            "True",
            "InstanceDeletionPending",
            message,
        );
    }
}

const COLUMNS: [super::Column; 2] = [
    super::Column {
        name: "Name",
        ty: "string",
        format: "name",
        priority: 0,
        description: "Name must be unique within a namespace. Is required when creating resources, although some resources \
                      may allow a client to request the generation of an appropriate name automatically. Name is primarily \
                      intended for creation idempotence and configuration definition. Cannot be updated. More info: \
                      https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    },
    super::Column {
        name: "Created At",
        ty: "date",
        format: "",
        priority: 0,
        description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                      guaranteed to be set in happens-before order across separate operations. Clients may not set this \
                      value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null \
                      for lists. More info: \
                      https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    },
];
