//! Documents of other servers joined with this one's, as upstream's `kube-openapi/pkg/aggregator` does it.

use apimachinery::value::{Key, Map, Value};
use std::collections::{BTreeMap, BTreeSet};

const DEFINITION: &str = "#/definitions/";
const PARAMETER: &str = "#/parameters/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What a v2 document says of the paths that are wanted. Definitions that only the others used go with these.
pub fn within(mut document: Value, wanted: &dyn Fn(&str) -> bool) -> Value {
    let before = used(&document);
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        paths.retain(|path, _| wanted(path));
    }
    let after = used(&document);
    if let Some(Value::Object(definitions)) = document.get_mut("definitions") {
        definitions.retain(|name, _| after.contains(name.as_str()) || !before.contains(name.as_str()));
    }
    document
}

/// The definitions that paths refer to, and those that these refer to.
fn used(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut queue: Vec<&Value> = ["paths", "parameters", "responses"].map(|key| &document[key]).into();
    while let Some(value) = queue.pop() {
        let mut referred = Vec::new();
        references(value, &mut |reference| referred.extend(reference.strip_prefix(DEFINITION)));
        for name in referred {
            if found.insert(name.to_owned()) {
                queue.push(&document["definitions"][name]);
            }
        }
    }
    found
}

fn references<'a>(value: &'a Value, each: &mut dyn FnMut(&'a str)) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("$ref", Value::String(reference)) => each(reference),
            _ => references(value, each),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, each)),
        _ => {}
    }
}

/// Brings the paths of another v2 document into one that lacks them, with all that they refer to. What has a name that
/// already means something else gets another.
pub fn merge(into: &mut Value, mut other: Value) {
    let known = |path: &str| into["paths"].get(path).is_some();
    let theirs: Vec<&Key> = other["paths"].as_object().into_iter().flat_map(Map::keys).collect();
    let (taken, fresh): (Vec<&Key>, Vec<&Key>) = theirs.into_iter().partition(|path| known(path));
    if fresh.is_empty() {
        return;
    }
    if !taken.is_empty() {
        let taken: BTreeSet<Key> = taken.into_iter().cloned().collect();
        other = within(other, &|path| !taken.contains(path));
    }
    for (section, prefix) in [("definitions", DEFINITION), ("parameters", PARAMETER)] {
        let renames = renames(&into[section], &other[section]);
        if !renames.is_empty() {
            rename(&mut other, prefix, &renames);
            if let Some(Value::Object(members)) = other.get_mut(section) {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(name, member)| (renames.get(name.as_str()).map_or(name, Key::from), member))
                    .collect();
            }
        }
    }
    for section in ["definitions", "parameters", "paths"] {
        let Some(Value::Object(members)) = other.get_mut(section).map(Value::take) else { continue };
        if !into[section].is_object() {
            into[section] = Map::new().into();
        }
        let Some(Value::Object(here)) = into.get_mut(section) else { continue };
        for (name, member) in members {
            match here.get_mut(&name) {
                Some(existing) if section == "definitions" => join_kinds(existing, &member),
                Some(_) => {}
                None => {
                    here.insert(name, member);
                }
            }
        }
    }
}

/// What of the other document's members has to be called otherwise, and how.
fn renames(here: &Value, other: &Value) -> BTreeMap<String, String> {
    let (none, nothing) = (Map::new(), Map::new());
    let (here, other) = (here.as_object().unwrap_or(&none), other.as_object().unwrap_or(&nothing));
    let mut out: BTreeMap<String, String> = BTreeMap::new();
    for (name, member) in other {
        if here.get(name).is_none_or(|existing| is_same(existing, member)) {
            continue;
        }
        for number in 2.. {
            let candidate = format!("{name}_v{number}");
            let free = match here.get(&candidate) {
                // It had to be renamed before.
                Some(existing) => is_same(existing, member),
                None => !other.contains_key(&candidate) && !out.values().any(|taken| *taken == candidate),
            };
            if free {
                out.insert(name.to_string(), candidate);
                break;
            }
        }
    }
    out
}

/// Whether two definitions are the same, of whichever kinds.
fn is_same(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let rest = |map: &Map| map.len() - usize::from(map.contains_key(KINDS));
    rest(a) == rest(b) && a.iter().all(|(key, value)| key == KINDS || b.get(key) == Some(value))
}

fn rename(value: &mut Value, prefix: &str, renames: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), &mut *value) {
                    ("$ref", Value::String(reference)) => {
                        if let Some(name) = reference.strip_prefix(prefix).and_then(|n| renames.get(n)) {
                            *reference = format!("{prefix}{name}");
                        }
                    }
                    _ => rename(value, prefix, renames),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, prefix, renames)),
        _ => {}
    }
}

/// A definition is of the kinds of both.
fn join_kinds(existing: &mut Value, other: &Value) {
    let Some(further) = other[KINDS].as_array() else { return };
    let mut kinds = existing[KINDS].as_array().cloned().unwrap_or_default();
    let before = kinds.len();
    for kind in further {
        if !kinds.contains(kind) {
            kinds.push(kind.clone());
        }
    }
    if kinds.len() > before {
        let text = |kind: &Value, key: &str| kind[key].as_str().unwrap_or_default().to_owned();
        kinds.sort_by_key(|k| format!("{}/{}.{}", text(k, "group"), text(k, "version"), text(k, "kind")));
        existing[KINDS] = kinds.into();
    }
}
