//! Defaults are values of their schema, without fields that it does not know.

use super::Schema;
use crate::custom::{Check, Ratchet, compile, validate, validate_embedded};
use crate::table::Table;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use serde_json::{Value, json};

/// All that is wrong with the defaults of a structural schema. `builtin` lends the rows of the metadata.
pub fn validate_defaults(builtin: &Table, path: &Path, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    if let Some(schema) = Schema::of(schema) {
        walk(builtin, schema, path, false, true, &mut errors);
    }
    errors
}

fn walk(builtin: &Table, s: Schema<'_>, path: &Path, inside_meta: bool, root: bool, errors: &mut ErrorList) {
    let embedded = s.flag("x-kubernetes-embedded-resource") || root;
    let inside_meta = inside_meta && !embedded;
    if let Some(default) = s.0.get("default").filter(|d| !d.is_null()) {
        let at = path.child("default");
        let before = errors.len();
        if !inside_meta {
            // As the only field of an object, so that one way of pruning serves all.
            let wrapped = json!({"type": "object", "properties": {"default": Value::Object(s.0.clone())}});
            let table = compile(builtin, &wrapped, ("", "v1", ""), Vec::new());
            let mut value = json!({"default": default});
            crate::prune::prune(&table, crate::row::TypeId(0), &mut value);
            if value["default"] != *default {
                errors.push(Error::invalid(&at, BadValue::json(default), "must not have unknown fields"));
            }
        }
        let mut check = Check::of(&Value::Object(s.0.clone()));
        check.embedded |= root;
        if errors.len() == before && !inside_meta {
            errors.extend(validate_embedded(&check, default, &at));
        }
        if errors.len() == before {
            errors.extend(validate(&check, default, Ratchet::Off, &at));
        }
    }
    if let Some(items) = s.schema("items") {
        walk(builtin, items, &path.child("items"), inside_meta, false, errors);
    }
    for (name, property) in s.properties() {
        let meta = inside_meta || embedded && matches!(name, "metadata" | "apiVersion" | "kind");
        walk(builtin, property, &path.child("properties").key(name), meta, false, errors);
    }
}
