//! What is allowed in a definition's schema at all (upstream's ValidateCustomResourceDefinitionOpenAPISchema).

use super::{Schema, shown};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;
use std::collections::HashSet;

/// What an update does not demand because the stored object breaks it already.
#[derive(Debug, Clone, Copy)]
pub struct SchemaOptions {
    pub require_valid_types: bool,
    pub require_atomic_sets: bool,
    pub require_map_keys: bool,
}

impl Default for SchemaOptions {
    fn default() -> Self {
        SchemaOptions { require_valid_types: true, require_atomic_sets: true, require_map_keys: true }
    }
}

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Where a schema stands.
#[derive(Clone)]
struct Place {
    root: bool,
    inside_meta: bool,
    /// Why there may be no default.
    no_defaults: Option<String>,
}

/// All that is wrong with a schema.
pub fn validate_schema(path: &Path, schema: &Value, options: SchemaOptions) -> ErrorList {
    let mut errors = ErrorList::default();
    if let Some(schema) = Schema::of(schema) {
        let place = Place { root: true, inside_meta: false, no_defaults: None };
        walk(schema, path, &place, options, &mut errors);
    }
    errors
}

fn walk(s: Schema<'_>, path: &Path, place: &Place, options: SchemaOptions, errors: &mut ErrorList) {
    standard(s, path, place, options, errors);
    if s.flag("uniqueItems") {
        let message = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(Error::forbidden(&path.child("uniqueItems"), message));
    }
    let inner = Place { root: false, ..place.clone() };
    if s.has("additionalProperties") {
        let at = path.child("additionalProperties");
        if s.properties().next().is_some() && s.0.get("additionalProperties") != Some(&Value::Bool(true)) {
            let message = "additionalProperties and properties are mutual exclusive";
            errors.push(Error::forbidden(&at, message));
        }
        let mut below = inner.clone();
        if place.inside_meta {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".into());
        }
        if let Some(additional) = s.schema("additionalProperties") {
            walk(additional, &at, &below, options, errors);
        }
    }
    for (name, property) in s.properties() {
        let mut below = inner.clone();
        let is_meta = matches!(name, "metadata" | "kind" | "apiVersion");
        if is_meta && (place.root || s.flag("x-kubernetes-embedded-resource")) {
            below.inside_meta = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        walk(property, &path.child("properties").key(name), &below, options, errors);
    }
    if let Some(not) = s.schema("not") {
        walk(not, &path.child("not"), &inner, options, errors);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (i, schema) in s.schemas(key).enumerate() {
            walk(schema, &path.child(key).index(i), &inner, options, errors);
        }
    }
    if let Some(items) = s.schema("items") {
        walk(items, &path.child("items"), &inner, options, errors);
    }
    for (i, schema) in s.schemas("items").enumerate() {
        walk(schema, &path.child("items").index(i), &inner, options, errors);
    }
    extensions(s, path, options, errors);
    rules(s, path, errors);
}

fn standard(s: Schema<'_>, path: &Path, place: &Place, options: SchemaOptions, errors: &mut ErrorList) {
    let ty = s.text("type");
    if options.require_valid_types && !ty.is_empty() && !TYPES.contains(&ty) {
        errors.push(Error::not_supported(&path.child("type"), ty, &TYPES));
    }
    if s.has("default")
        && let Some(why) = &place.no_defaults
    {
        errors.push(Error::forbidden(&path.child("default"), format!("must not be set {why}")));
    }
    if !s.text("id").is_empty() {
        errors.push(Error::forbidden(&path.child("id"), "id is not supported"));
    }
    for key in ["additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        let set = match s.0.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Object(map)) => matches!(key, "additionalItems" | "dependencies") || !map.is_empty(),
            Some(_) => true,
        };
        if set {
            errors.push(Error::forbidden(&path.child(key), format!("{key} is not supported")));
        }
    }
    if ty == "null" {
        let message = "type cannot be set to null, use nullable as an alternative";
        errors.push(Error::forbidden(&path.child("type"), message));
    }
    if s.0.get("items").and_then(Value::as_array).is_some_and(|i| !i.is_empty()) {
        let message = "items must be a schema object and not an array";
        errors.push(Error::forbidden(&path.child("items"), message));
    }
    if place.inside_meta && s.flag("x-kubernetes-embedded-resource") {
        let message = "must not be used inside of resource meta";
        errors.push(Error::forbidden(&path.child("x-kubernetes-embedded-resource"), message));
    }
}

fn needs_type(s: Schema<'_>, path: &Path, wanted: &str, because: &str, errors: &mut ErrorList) {
    let at = path.child("type");
    let message = format!("must be {wanted} if {because} is specified");
    errors.push(match s.text("type") {
        "" => Error::required(&at, message),
        other => Error::invalid(&at, other, message),
    });
}

fn extensions(s: Schema<'_>, path: &Path, options: SchemaOptions, errors: &mut ErrorList) {
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    const MAP_TYPE: &str = "x-kubernetes-map-type";
    const LIST_TYPE: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    if s.0.get(PRESERVE) == Some(&Value::Bool(false)) {
        errors.push(Error::invalid(&path.child(PRESERVE), false, "must be true or undefined"));
    }
    if s.has(MAP_TYPE) {
        if s.text("type") != "object" {
            needs_type(s, path, "object", MAP_TYPE, errors);
        }
        let map_type = s.text(MAP_TYPE);
        if !matches!(map_type, "atomic" | "granular") {
            errors.push(Error::not_supported(&path.child(MAP_TYPE), map_type, &["atomic", "granular"]));
        }
    }
    let items = s.schema("items");
    let list_type = s.text(LIST_TYPE);
    if s.has(LIST_TYPE) {
        if s.text("type") != "array" {
            needs_type(s, path, "array", LIST_TYPE, errors);
        } else if let Some(items) = items.filter(|_| options.require_atomic_sets && list_type == "set") {
            let message = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let at = path.child("items");
            match items.text("type") {
                "array" if items.has(LIST_TYPE) && items.text(LIST_TYPE) != "atomic" => {
                    errors.push(Error::invalid(&at.child(LIST_TYPE), items.text(LIST_TYPE), message));
                }
                "object" if items.text(MAP_TYPE) != "atomic" => {
                    let value = items.0.get(LIST_TYPE).map_or(BadValue::verbatim("null"), BadValue::json);
                    errors.push(Error::invalid(&at.child(MAP_TYPE), value, message));
                }
                _ => {}
            }
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            let known = ["atomic", "set", "map"];
            errors.push(Error::not_supported(&path.child(LIST_TYPE), list_type, &known));
        }
    }
    let keys: Vec<&str> =
        s.0.get(KEYS).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !keys.is_empty() && list_type != "map" {
        let message = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match s.has(LIST_TYPE) {
            false => Error::required(&path.child(LIST_TYPE), message),
            true => Error::invalid(&path.child(LIST_TYPE), list_type, message),
        });
    }
    if list_type == "map" {
        list_map(s, path, &keys, errors);
    }
    if options.require_map_keys {
        map_keys(s, path, list_type, &keys, errors);
    }
}

fn list_map(s: Schema<'_>, path: &Path, keys: &[&str], errors: &mut ErrorList) {
    let at_keys = path.child("x-kubernetes-list-map-keys");
    let at_items = path.child("items");
    if keys.is_empty() {
        let message = "must not be empty if x-kubernetes-list-type is map";
        errors.push(Error::required(&at_keys, message));
    }
    if !s.has("items") {
        let message = "must have a schema if x-kubernetes-list-type is map";
        errors.push(Error::required(&at_items, message));
    }
    let Some(items) = s.schema("items") else {
        if s.has("items") {
            let message = "must only have a single schema if x-kubernetes-list-type is map";
            errors.push(Error::invalid(&at_items, shown(s.0.get("items")), message));
        }
        return;
    };
    if items.text("type") != "object" {
        let message = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(Error::invalid(&at_items.child("type"), items.text("type"), message));
        return;
    }
    let mut seen = HashSet::new();
    for key in keys {
        match items.property(key) {
            Some(property) if matches!(property.text("type"), "array" | "object") => {
                let at = at_items.child("properties").key(*key).child("type");
                let message = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(Error::invalid(&at, items.text("type"), message));
            }
            Some(_) => {}
            None => {
                let message = "entries must all be names of item properties";
                errors.push(Error::invalid(&at_keys, BadValue::json(keys), message));
            }
        }
        if !seen.insert(*key) {
            let message = "must not contain duplicate entries";
            errors.push(Error::invalid(&at_keys, BadValue::json(keys), message));
        }
    }
}

fn map_keys(s: Schema<'_>, path: &Path, list_type: &str, keys: &[&str], errors: &mut ErrorList) {
    let Some(items) = s.schema("items").filter(|_| matches!(list_type, "set" | "map")) else { return };
    let at = path.child("items");
    if items.flag("nullable") {
        let message = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(Error::forbidden(&at.child("nullable"), message));
    }
    if list_type != "map" {
        return;
    }
    let required = items.0.get("required").and_then(Value::as_array);
    for key in keys {
        let Some(property) = items.property(key) else { continue };
        let at = at.child("properties").key(*key);
        let is_required = required.is_some_and(|r| r.iter().any(|v| v == *key));
        if !is_required && !property.has("default") {
            let message = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(Error::required(&at.child("default"), message));
        }
        if property.flag("nullable") {
            let message = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(Error::forbidden(&at.child("nullable"), message));
        }
    }
}

/// The texts of CEL rules; the rules themselves are compiled elsewhere.
fn rules(s: Schema<'_>, path: &Path, errors: &mut ErrorList) {
    let broken = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in s.schemas("x-kubernetes-validations").enumerate() {
        let at = path.child("x-kubernetes-validations").index(i);
        let (text, message) = (rule.text("rule").trim(), rule.text("message"));
        if text.is_empty() {
            errors.push(Error::required(&at.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(Error::invalid(&at.child("message"), message, "must be non-empty if specified"));
        } else if broken(message.trim()) {
            errors.push(Error::invalid(&at.child("message"), message, "must not contain line breaks"));
        } else if broken(text) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(Error::required(&at.child("message"), why));
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(Error::required(&at.child("messageExpression"), why));
        }
        if rule.has("reason") && !REASONS.contains(&rule.text("reason")) {
            errors.push(Error::not_supported(&at.child("reason"), rule.text("reason"), &REASONS));
        }
        let field_path = rule.text("fieldPath");
        let at_path = at.child("fieldPath");
        if !field_path.is_empty() && field_path.trim().is_empty() {
            errors.push(Error::invalid(&at_path, field_path, "must be non-empty if specified"));
        }
        if broken(field_path) {
            errors.push(Error::invalid(&at_path, field_path, "must not contain line breaks"));
        }
        if !field_path.is_empty() && !path_is_valid(s, field_path) {
            errors.push(Error::invalid(&at_path, field_path, "must be a valid path"));
        }
    }
}

/// Whether a field path of a rule names a field of the schema.
fn path_is_valid(s: Schema<'_>, path: &str) -> bool {
    let Some(steps) = field_path_steps(path) else { return false };
    let mut at = s;
    for step in &steps {
        let next = at.property(step).or_else(|| {
            let list = at.text("type") == "array";
            at.schema("additionalProperties").filter(|_| !list)
        });
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    !steps.is_empty()
}

/// The names in `.spec['a.b'].c`; none if it is no such path.
pub(super) fn field_path_steps(path: &str) -> Option<Vec<String>> {
    let mut rest = path;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let end = quoted.find("']")?;
            steps.push(quoted[..end].replace("\\'", "'"));
            rest = &quoted[end + 2..];
        } else {
            let named = rest.strip_prefix('.')?;
            let end = named.find(['.', '[']).unwrap_or(named.len());
            if end == 0 {
                return None;
            }
            steps.push(named[..end].to_owned());
            rest = &named[end..];
        }
    }
    Some(steps)
}
