//! Defaults are values of their schema, without fields that it does not know.

use super::Schema;
use crate::custom::{Check, Ratchet, compile, validate, validate_embedded};
use crate::table::Table;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::value::Value;

/// What the rules of a schema say of its default, at a place.
type Rules<'a> = dyn Fn(&Value, &Value, &Path) -> ErrorList + 'a;

/// All that is wrong with the defaults of a structural schema. `builtin` lends the rows of the metadata.
pub fn validate_defaults(builtin: &Table, path: &Path, schema: &Value, rules: &Rules<'_>) -> ErrorList {
    let mut walk = Walk { builtin, rules, errors: ErrorList::default() };
    if let Some(schema) = Schema::of(schema) {
        walk.schema(schema, path, false, true);
    }
    walk.errors
}

struct Walk<'a> {
    builtin: &'a Table,
    rules: &'a Rules<'a>,
    errors: ErrorList,
}

impl Walk<'_> {
    fn schema(&mut self, s: Schema<'_>, path: &Path, inside_meta: bool, root: bool) {
        let Walk { builtin, rules, errors } = self;
        let embedded = s.flag("x-kubernetes-embedded-resource") || root;
        let inside_meta = inside_meta && !embedded;
        if let Some(default) = s.0.get("default").filter(|d| !d.is_null()) {
            let at = path.child("default");
            let before = errors.len();
            if !inside_meta {
                // As the only field of an object, so that one way of pruning serves all.
                let wrapped =
                    json!({"type": "object", "properties": {"default": Value::Object(s.0.clone())}});
                let table = compile(builtin, &wrapped, ("", "v1", ""), Vec::new());
                let mut value = json!({"default": default});
                crate::prune::prune(&table, crate::row::TypeId(0), &mut value);
                if value["default"] != *default {
                    errors.push(Error::invalid(&at, BadValue::json(default), "must not have unknown fields"));
                }
            }
            let schema = Value::Object(s.0.clone());
            let mut check = Check::of(&schema);
            check.embedded |= root;
            if errors.len() == before && !inside_meta {
                errors.extend(validate_embedded(&check, default, &at));
            }
            if errors.len() == before {
                errors.extend(validate(&check, default, Ratchet::Off, &at));
            }
            if errors.len() == before {
                errors.extend(rules(&schema, default, &at));
            }
        }
        if let Some(items) = s.schema("items") {
            self.schema(items, &path.child("items"), inside_meta, false);
        }
        for (name, property) in s.properties() {
            let meta = inside_meta || embedded && matches!(name, "metadata" | "apiVersion" | "kind");
            self.schema(property, &path.child("properties").key(name), meta, false);
        }
    }
}
