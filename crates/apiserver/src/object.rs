//! Reading and writing the metadata of an object tree.

use apimachinery::value::{Map, Value};

pub fn metadata(object: &Value) -> Option<&Map> {
    object.get("metadata")?.as_object()
}

/// The metadata, made if absent.
pub fn metadata_mut(object: &mut Value) -> &mut Map {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

pub fn meta_str<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
}

pub fn set_meta(object: &mut Value, key: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(key, value.into());
}

pub fn remove_meta(object: &mut Value, key: &str) {
    take_meta(object, key);
}

/// Takes a metadata member away, and returns it.
pub fn take_meta(object: &mut Value, key: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(key)
}

/// Copies a metadata member from another object, or removes it where that has none.
pub fn copy_meta(object: &mut Value, from: &Value, key: &str) {
    match metadata(from).and_then(|m| m.get(key)) {
        Some(value) => set_meta(object, key, value.clone()),
        None => remove_meta(object, key),
    }
}

/// Copies a top-level member from another object, or removes it where that has none.
pub fn copy_member(object: &mut Value, from: &Value, key: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match from.get(key) {
        Some(value) => map.insert(key, value.clone()),
        None => map.remove(key),
    };
}

pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

pub fn finalizers(object: &Value) -> Vec<&str> {
    let list = metadata(object).and_then(|m| m.get("finalizers")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub fn set_finalizers(object: &mut Value, finalizers: Vec<String>) {
    if finalizers.is_empty() {
        remove_meta(object, "finalizers");
    } else {
        set_meta(object, "finalizers", finalizers);
    }
}

pub fn is_being_deleted(object: &Value) -> bool {
    metadata(object).is_some_and(|m| m.contains_key("deletionTimestamp"))
}

pub fn deletion_grace_period(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or(0)
}

/// Leaves one reference to each owner and tells which were there more than once.
pub fn dedup_owner_references(object: &mut Value) -> Vec<String> {
    let list =
        object.get_mut("metadata").and_then(|m| m.get_mut("ownerReferences")).and_then(Value::as_array_mut);
    let Some(list) = list else { return Vec::new() };
    let mut duplicates = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    for reference in list.drain(..) {
        if kept.contains(&reference) {
            let uid = reference["uid"].as_str().unwrap_or_default().to_owned();
            if !duplicates.contains(&uid) {
                duplicates.push(uid);
            }
        } else {
            kept.push(reference);
        }
    }
    *list = kept;
    duplicates
}
