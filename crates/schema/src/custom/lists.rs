//! `x-kubernetes-list-type`: the items of a set, and the keys of a list that is a map, occur once.

use super::check::{Additional, Check};
use crate::row::ListType;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::{Map, Value};
use std::collections::HashMap;

/// All lists of the value that are sets or maps and have duplicates.
pub fn validate_lists(check: &Check, value: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    walk(check, value, &Path::none(), &mut errors);
    errors
}

fn walk(check: &Check, value: &Value, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(property) = check.property(name) {
                    walk(property, value, &path.child(name.to_string()), errors);
                } else if let Additional::Schema(check) = &check.additional {
                    walk(check, value, &path.key(name.as_str()), errors);
                }
            }
        }
        Value::Array(items) => {
            match check.list_type {
                Some(ListType::Set) => {
                    for i in repeated(items) {
                        errors.push(Error::duplicate(&path.index(i), BadValue::json(&items[i])));
                    }
                }
                Some(ListType::Map) => keyed(check, items, path, errors),
                _ => {}
            }
            if let Some(check) = &check.items {
                for (i, item) in items.iter().enumerate() {
                    walk(check, item, &path.index(i), errors);
                }
            }
        }
        _ => {}
    }
}

/// The place of the second occurrence of each value that occurs more than once.
fn repeated(items: &[Value]) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    let mut found = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(i);
        }
    }
    found
}

fn keyed(check: &Check, items: &[Value], path: &Path, errors: &mut ErrorList) {
    if let Some((i, item)) = items.iter().enumerate().find(|(_, i)| !i.is_object() && !i.is_null()) {
        let message = "must be an object for an array of list-type map";
        errors.push(Error::invalid(&path.index(i), BadValue::json(item), message));
        return;
    }
    let keys: Vec<Value> = items
        .iter()
        .map(|item| {
            let present = check.list_keys.iter().filter_map(|k| Some((&**k, item.get(&**k)?.clone())));
            Value::Object(present.collect::<Map>())
        })
        .collect();
    for i in repeated(&keys) {
        errors.push(Error::duplicate(&path.index(i), BadValue::json(&keys[i])));
    }
}
