//! What is different between two trees, for the messages of fields that do not change.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The members that differ, as JSON: the first object's, then the second's.
pub(super) fn diff(first: &Value, second: &Value) -> String {
    let empty = Map::new();
    let (first, second) = (first.as_object().unwrap_or(&empty), second.as_object().unwrap_or(&empty));
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let changed = keys.into_iter().filter(|key| first.get(*key) != second.get(*key));
    changed
        .map(|key| {
            let show = |map: &Map<String, Value>| json!({ key.as_str(): map.get(key) }).to_string();
            format!("- {}\n+ {}\n", show(first), show(second))
        })
        .collect()
}
