//! Merge patch (RFC 7386), with upstream's care for nulls: none is left in what the patch adds.

use apimachinery::value::{Map, Value};

/// Applies an object that [`super::parse_object`] parsed.
pub fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => members(target, patch),
        (target, patch) => *target = without_nulls(patch),
    }
}

fn members(target: &mut Map, patch: &Map) {
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
            continue;
        }
        match target.get_mut(key) {
            Some(present) => merge(present, value),
            None => {
                target.insert(key.clone(), without_nulls(value));
            }
        }
    }
}

/// Members that are null say "absent"; items that are null stay.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k.clone(), without_nulls(v)))
            .collect::<Map>()
            .into(),
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}
