//! The managed fields of an object and those of its Scale: both know of one number of replicas, which an object may keep
//! elsewhere in each of its versions.

use super::FieldSet;
use super::managed::{self, Entry};
use apimachinery::value::Value;

const SCALE: &str = "autoscaling/v1";

fn replicas() -> FieldSet {
    FieldSet::of_fields(&[&["spec", "replicas"]])
}

fn owns(entry: &Entry, path: &FieldSet) -> bool {
    !entry.fields.intersection(path).is_empty()
}

/// Where an object keeps its number of replicas, by the version of the object; none in versions without a Scale.
pub type Paths<'a> = dyn Fn(&str) -> Option<Vec<String>> + 'a;

fn path(paths: &Paths<'_>, api_version: &str) -> Option<FieldSet> {
    let path = paths(api_version)?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    Some(FieldSet::of_fields(&[&path]))
}

/// What the Scale's managers are, of an object whose replicas are at these paths.
pub fn of_scale(parent: &Value, paths: &Paths<'_>) -> Value {
    let mut entries = managed::read(parent.clone()).unwrap_or_default();
    entries.retain(|entry| path(paths, &entry.api_version).is_some_and(|path| owns(entry, &path)));
    for entry in &mut entries {
        entry.api_version = SCALE.into();
        entry.fields = replicas();
    }
    managed::write(entries)
}

/// The object's managers, once the Scale's have become others by a request in a version.
pub fn of_parent(parent: &Value, scale: &Value, paths: &Paths<'_>, api_version: &str) -> Value {
    let mut entries = managed::read(parent.clone()).unwrap_or_default();
    let owners = managed::read(scale.clone()).unwrap_or_default();
    let (in_scale, is_same) = (replicas(), |a: &Entry, b: &Entry| {
        (&a.manager, a.operation, &a.subresource) == (&b.manager, b.operation, &b.subresource)
    });
    let owns_still = |entry: &Entry| owners.iter().any(|o| owns(o, &in_scale) && is_same(o, entry));
    for entry in &mut entries {
        let Some(path) = path(paths, &entry.api_version) else { continue };
        if owns(entry, &path) && !owns_still(entry) {
            entry.fields = std::mem::take(&mut entry.fields).difference(&path);
        }
    }
    let here = path(paths, api_version).unwrap_or_default();
    for owner in owners.iter().filter(|o| owns(o, &in_scale)) {
        let has = |entry: &Entry| {
            path(paths, &entry.api_version).is_some_and(|path| owns(entry, &path)) && is_same(entry, owner)
        };
        if !entries.iter().any(has) {
            let fields = here.clone();
            // No time is kept of what was written through a scale.
            entries.push(Entry { api_version: api_version.into(), time: None, fields, ..owner.clone() });
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
    managed::write(entries)
}
