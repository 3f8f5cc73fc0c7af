//! The rules that a definition's schema keeps: what is allowed in a schema at all ([`validate_schema`]), that it is
//! structural ([`validate_structural`]), and that its defaults are values of it ([`validate_defaults`]).
//!
//! Schemas are read as JSON (`JSONSchemaProps`), as they stand in their definition.

use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::{Map, Value};

mod completeness;
mod defaults;
mod openapi;

pub use defaults::validate_defaults;
pub use openapi::{SchemaOptions, validate_schema};

use super::pattern::Pattern;

/// A schema with readers for its members.
#[derive(Clone, Copy)]
pub(super) struct Schema<'a>(pub(super) &'a Map);

impl<'a> Schema<'a> {
    pub(super) fn of(value: &'a Value) -> Option<Self> {
        value.as_object().map(Schema)
    }

    pub(super) fn text(self, key: &str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn flag(self, key: &str) -> bool {
        self.0.get(key) == Some(&Value::Bool(true))
    }

    pub(super) fn has(self, key: &str) -> bool {
        self.0.get(key).is_some_and(|v| !v.is_null())
    }

    pub(super) fn schema(self, key: &str) -> Option<Schema<'a>> {
        self.0.get(key).and_then(Schema::of)
    }

    pub(super) fn schemas(self, key: &str) -> impl Iterator<Item = Schema<'a>> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Schema::of)
    }

    pub(super) fn properties(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        let map = self.0.get("properties").and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(k, v)| Some((k.as_str(), Schema::of(v)?)))
    }

    pub(super) fn property(self, name: &str) -> Option<Schema<'a>> {
        self.0.get("properties")?.get(name).and_then(Schema::of)
    }

    pub(super) fn is_empty_list(self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_array).is_none_or(Vec::is_empty)
    }
}

/// Why a schema cannot be structural: it has members that no structural schema has.
pub fn unsupported(schema: &Value) -> Option<String> {
    fn within(schema: Schema<'_>) -> Option<String> {
        for key in
            ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"]
        {
            let set = schema.0.get(key).is_some_and(|v| match v {
                Value::Null => false,
                Value::String(text) => !text.is_empty(),
                Value::Object(map) => key == "additionalItems" || !map.is_empty(),
                _ => true,
            });
            if set {
                let key = if key == "$schema" { "schema" } else { key };
                return Some(format!("OpenAPIV3Schema '{key}' is not supported"));
            }
        }
        if schema.0.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            return Some(
                "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into(),
            );
        }
        if schema.0.get("items").is_some_and(Value::is_array) {
            return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
        }
        let inner = ["not", "items", "additionalProperties"].into_iter().filter_map(|k| schema.schema(k));
        let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|k| schema.schemas(k));
        inner.chain(lists).chain(schema.properties().map(|(_, s)| s)).find_map(within)
    }
    within(Schema::of(schema)?)
}

/// Whether anything in a schema has a default.
pub fn has_defaults(schema: &Value) -> bool {
    fn within(schema: Schema<'_>) -> bool {
        let inner = ["not", "items", "additionalProperties"].into_iter().filter_map(|k| schema.schema(k));
        let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|k| schema.schemas(k));
        let all = inner.chain(lists).chain(schema.properties().map(|(_, s)| s));
        schema.0.get("default").is_some_and(|d| !d.is_null()) || { all }.any(within)
    }
    Schema::of(schema).is_some_and(within)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, sorted.
pub fn validate_structural(path: &Path, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    if let Some(schema) = Schema::of(schema) {
        invariants(schema, Level::Root, path, &mut errors);
        completeness::validate(schema, Some(schema), path, path, &mut errors);
    }
    let mut sorted: Vec<Error> = errors.into_iter().collect();
    sorted.sort_by_cached_key(Error::to_string);
    sorted.into()
}

fn invariants(s: Schema<'_>, level: Level, path: &Path, errors: &mut ErrorList) {
    let ty = s.text("type");
    let items = s.schema("items");
    if ty == "array" && items.is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in s.properties() {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if s.has("additionalProperties") {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&at, "must not be used at the root"));
        }
        if let Some(inner) = s.schema("additionalProperties") {
            invariants(inner, Level::Field, &at, errors);
        }
    }
    let preserve = s.flag("x-kubernetes-preserve-unknown-fields");
    let embedded = s.flag("x-kubernetes-embedded-resource");
    let int_or_string = s.flag("x-kubernetes-int-or-string");
    for (set, key) in
        [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
    {
        if int_or_string && set {
            let message = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(&path.child(key), true, message));
        }
    }
    let skip_any_of = is_int_or_string(s);
    let skip_first_all_of = s.schemas("allOf").next().is_some_and(is_int_or_string);
    values(s, skip_any_of, skip_first_all_of, level, path, errors);

    let check_metadata = level == Level::Root || embedded;
    let at_type = path.child("type");
    if embedded && ty != "object" {
        let message = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match ty {
            "" => Error::required(&at_type, message),
            _ => Error::invalid(&at_type, ty, message),
        });
    } else if ty.is_empty() && !int_or_string && !preserve {
        let message = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at_type, message));
    }
    if embedded && s.has("additionalProperties") {
        let message = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(Error::forbidden(&path.child("additionalProperties"), message));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(Error::invalid(&at_type, ty, "must be object at the root"));
    }
    for name in ["kind", "apiVersion"] {
        if let Some(property) = s.property(name).filter(|_| check_metadata)
            && property.text("type") != "string"
        {
            let at = path.child("properties").key(name).child("type");
            errors.push(Error::invalid(&at, property.text("type"), "must be string"));
        }
    }
    if let Some(metadata) = s.property("metadata") {
        let at = path.child("properties").key("metadata");
        if check_metadata && metadata.text("type") != "object" {
            errors.push(Error::invalid(&at.child("type"), metadata.text("type"), "must be object"));
        }
        if level == Level::Root && !only_names(metadata) {
            let message = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&at, message));
        }
    }
    if embedded && !preserve && s.properties().next().is_none() {
        let message = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), message));
    }
}

/// Whether a metadata schema restricts names and nothing else.
fn only_names(metadata: Schema<'_>) -> bool {
    let others = metadata.0.iter().filter(|(key, value)| {
        let empty = match value {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Number(_) => false,
        };
        !empty && !matches!(key.as_str(), "type" | "properties" | "default")
    });
    others.count() == 0 && metadata.properties().all(|(name, _)| matches!(name, "name" | "generateName"))
}

/// `anyOf: [{type: integer}, {type: string}]`.
fn is_int_or_string(s: Schema<'_>) -> bool {
    let types: Vec<Option<&str>> =
        s.schemas("anyOf").map(|a| (a.0.len() == 1).then(|| a.text("type"))).collect();
    types == [Some("integer"), Some("string")]
}

fn values(
    s: Schema<'_>,
    skip_any_of: bool,
    skip_first_all_of: bool,
    level: Level,
    path: &Path,
    errors: &mut ErrorList,
) {
    if !skip_any_of {
        for (i, any) in s.schemas("anyOf").enumerate() {
            nested(any, false, level, &path.child("anyOf").index(i), errors);
        }
    }
    for (i, all) in s.schemas("allOf").enumerate() {
        nested(all, skip_first_all_of && i == 0, level, &path.child("allOf").index(i), errors);
    }
    for (i, one) in s.schemas("oneOf").enumerate() {
        nested(one, false, level, &path.child("oneOf").index(i), errors);
    }
    if let Some(not) = s.schema("not") {
        nested(not, false, level, &path.child("not"), errors);
    }
    let pattern = s.text("pattern");
    if !pattern.is_empty()
        && let Some(why) = Pattern::new(pattern).error()
    {
        let message = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(Error::invalid(&path.child("pattern"), pattern, message));
    }
}

/// A schema under a junctor: it may only judge values, never say what there is.
fn nested(s: Schema<'_>, skip_any_of: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    values(s, skip_any_of, false, level, path, errors);
    if let Some(items) = s.schema("items") {
        nested(items, false, level, &path.child("items"), errors);
    }
    for (name, property) in s.properties() {
        nested(property, false, Level::Field, &path.child("properties").key(name), errors);
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    let mut forbid = |set: bool, key: &'static str, message: &str| {
        if set {
            errors.push(Error::forbidden(&path.child(key), message));
        }
    };
    let additional = matches!(s.0.get("additionalProperties"), Some(Value::Object(_) | Value::Bool(true)));
    forbid(!s.text("type").is_empty(), "type", EMPTY);
    forbid(additional, "additionalProperties", UNDEFINED);
    forbid(s.has("default"), "default", UNDEFINED);
    forbid(!s.text("title").is_empty(), "title", EMPTY);
    forbid(!s.text("description").is_empty(), "description", EMPTY);
    forbid(s.flag("nullable"), "nullable", FALSE);
    for key in [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        forbid(s.flag(key), key, FALSE);
    }
    forbid(!s.is_empty_list("x-kubernetes-list-map-keys"), "x-kubernetes-list-map-keys", EMPTY);
    forbid(s.has("x-kubernetes-list-type"), "x-kubernetes-list-type", UNDEFINED);
    forbid(s.has("x-kubernetes-map-type"), "x-kubernetes-map-type", UNDEFINED);
    forbid(!s.is_empty_list("x-kubernetes-validations"), "x-kubernetes-validations", EMPTY);
    if s.property("metadata").is_some() {
        let at = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&at, "must not be specified in a nested context"));
    }
}

/// The JSON of a value in an error.
pub(super) fn shown(value: Option<&Value>) -> BadValue {
    value.map_or_else(BadValue::omitted, BadValue::json)
}
