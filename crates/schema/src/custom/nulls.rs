//! Nulls where the schema allows none: dropped, unless a default is about to take their place.

use super::check::Check;
use apimachinery::value::Value;

/// Drops members that are null although their schema is not nullable and has no default.
pub(super) fn prune(check: &Check, value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, value| {
                let Some(member) = check.member(name) else { return true };
                if value.is_null() && !member.nullable && !member.has_default {
                    return false;
                }
                prune(member, value);
                true
            });
        }
        Value::Array(items) => {
            if let Some(check) = &check.items {
                items.iter_mut().for_each(|item| prune(check, item));
            }
        }
        _ => {}
    }
}
