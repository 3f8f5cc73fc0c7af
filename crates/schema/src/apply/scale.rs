//! The managed fields of an object and those of its Scale: both know of one number of replicas.

use super::FieldSet;
use super::managed::{self, Entry};
use serde_json::Value;

const SCALE: &str = "autoscaling/v1";

fn replicas() -> FieldSet {
    FieldSet::of_fields(&[&["spec", "replicas"]])
}

fn owns(entry: &Entry, path: &FieldSet) -> bool {
    !entry.fields.intersection(path).is_empty()
}

/// What the Scale's managers are, of an object whose replicas are at a path.
pub fn of_scale(parent: &Value, path: &[&str]) -> Value {
    let path = FieldSet::of_fields(&[path]);
    let mut entries = managed::read(parent.clone()).unwrap_or_default();
    entries.retain(|entry| owns(entry, &path));
    for entry in &mut entries {
        entry.api_version = SCALE.into();
        entry.fields = replicas();
    }
    managed::write(entries)
}

/// The object's managers, once the Scale's have become others.
pub fn of_parent(parent: &Value, scale: &Value, path: &[&str], api_version: &str) -> Value {
    let path = FieldSet::of_fields(&[path]);
    let mut entries = managed::read(parent.clone()).unwrap_or_default();
    let owners = managed::read(scale.clone()).unwrap_or_default();
    let (in_scale, is_same) = (replicas(), |a: &Entry, b: &Entry| {
        (&a.manager, a.operation, &a.subresource) == (&b.manager, b.operation, &b.subresource)
    });
    let owns_still = |entry: &Entry| owners.iter().any(|o| owns(o, &in_scale) && is_same(o, entry));
    for entry in &mut entries {
        if owns(entry, &path) && !owns_still(entry) {
            entry.fields = std::mem::take(&mut entry.fields).difference(&path);
        }
    }
    for owner in owners.iter().filter(|o| owns(o, &in_scale)) {
        if !entries.iter().any(|entry| owns(entry, &path) && is_same(entry, owner)) {
            let fields = path.clone();
            // No time is kept of what was written through a scale.
            entries.push(Entry { api_version: api_version.into(), time: None, fields, ..owner.clone() });
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    managed::write(entries)
}
