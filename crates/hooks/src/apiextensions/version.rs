//! One version of a definition: its schema, subresources, columns and selectable fields.

use super::rule_check;
use super::rules::Node;
use crate::shown::{shown_as, shown_list};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;
use schema::custom::Check;
use schema::custom::structural::{self, SchemaOptions};

const SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
const VERSION: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionVersion";

/// Versions as messages show them: without their schema, subresources, columns and selectable fields, where all have the same.
pub(super) fn shown_all(versions: &Value, shared: [bool; 4]) -> BadValue {
    const PARTS: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];
    let Value::Array(versions) = versions else { return BadValue::json(versions) };
    let mut versions = versions.clone();
    for version in versions.iter_mut().filter_map(Value::as_object_mut) {
        PARTS.iter().zip(shared).filter(|(_, shared)| *shared).for_each(|(part, _)| {
            version.remove(part);
        });
    }
    shown_list(VERSION, &versions)
}

/// What an update of a definition does not demand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options<'a> {
    pub require_structural: bool,
    pub schema: SchemaOptions,
    pub allow_many_fields: bool,
    /// The spec before: rules that were accepted once stay so.
    pub before: Option<&'a Value>,
}

impl Options<'_> {
    /// Whether a version had the same schema before.
    fn knows(&self, version: &str, schema: &Value) -> bool {
        let versions = self.before.and_then(|spec| spec["versions"].as_array());
        let mut versions = versions.into_iter().flatten();
        versions.any(|v| v["name"] == version && v["schema"]["openAPIV3Schema"] == *schema)
    }
}

/// All that is wrong with the schema of a version; `path` is that of `schema` (or of `validation`).
pub(super) fn schema(path: &Path, version: &Value, has_status: bool, options: Options<'_>) -> ErrorList {
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut errors = ErrorList::new();
    let Value::Object(map) = schema else { return errors };
    if has_status {
        root_of_status(path, schema, &mut errors);
    }
    if map.get("nullable") == Some(&Value::Bool(true)) {
        let at = path.child("openAPIV3Schema.nullable");
        errors.push(Error::forbidden(&at, "nullable cannot be true at the root"));
    }
    let at = path.child("openAPIV3Schema");
    let (mut unsupported, mut has_types) = (None, false);
    if options.require_structural {
        unsupported = structural::unsupported(schema);
        if unsupported.is_none() {
            let mut found = structural::validate_structural(&at, schema);
            if found.is_empty() {
                found = structural::validate_defaults(api::table(), &at, schema, &rules_on_default);
            }
            has_types = found.is_empty();
            errors.extend(found);
        }
    }
    let mistakes = structural::validate_schema(&at, schema, options.schema);
    let known = options.knows(version["name"].as_str().unwrap_or_default(), schema);
    let of_rules = match has_types && !known {
        true => rule_check::judge(schema, &at, &mistakes),
        false => ErrorList::new(),
    };
    errors.extend(mistakes);
    errors.extend(of_rules);
    if errors.is_empty()
        && let Some(why) = unsupported
    {
        errors.push(Error::invalid(&at, "", why));
    }
    errors
}

/// What the rules of a schema say of its default.
fn rules_on_default(schema: &Value, default: &Value, at: &Path) -> ErrorList {
    let rules = Node::of(schema, &Check::of(schema));
    rules.map_or_else(ErrorList::new, |rules| rules.validate_default(default, at))
}

/// With a status subresource the schema of the status is used alone, so that its parent may say little.
fn root_of_status(path: &Path, schema: &Value, errors: &mut ErrorList) {
    const ALLOWED: [&str; 21] = [
        "description",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    const NAMES: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
                         MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs \
                         Example XPreserveUnknownFields XValidations]";
    for (key, value) in schema.as_object().into_iter().flatten() {
        if key == "type" {
            if value != "object" {
                let why = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                let at = path.child("openAPIV3Schema.type");
                errors.push(Error::invalid(&at, value.as_str().unwrap_or_default(), why));
                return;
            }
        } else if !ALLOWED.contains(&key.as_str()) && *value != Value::Bool(false) {
            let why = format!(
                "only {NAMES} fields are allowed at the root of the schema if the status subresource is enabled"
            );
            errors.push(Error::invalid(&path.child("openAPIV3Schema"), shown_as(SCHEMA, schema), why));
            return;
        }
    }
}

fn simple_path(path: &Path, text: &str) -> Option<Error> {
    match text {
        "" => Some(Error::invalid(path, text, "must not be empty")),
        text if !text.starts_with('.') => {
            Some(Error::invalid(path, text, "must be a simple json path starting with ."))
        }
        _ => None,
    }
}

/// All that is wrong with subresources.
pub(super) fn subresources(path: &Path, subresources: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let Value::Object(scale) = &subresources["scale"] else { return errors };
    let text = |key: &str| scale.get(key).and_then(Value::as_str).unwrap_or_default();
    for (key, prefix, why) in [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        let at = path.child(format!("scale.{key}"));
        let value = text(key);
        if value.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if let Some(error) = simple_path(&at, value) {
            errors.push(error);
        } else if !value.starts_with(prefix) {
            errors.push(Error::invalid(&at, value, why));
        }
    }
    let selector = text("labelSelectorPath");
    if !selector.is_empty() {
        let at = path.child("scale.labelSelectorPath");
        if let Some(error) = simple_path(&at, selector) {
            errors.push(error);
        } else if !selector.starts_with(".spec.") && !selector.starts_with(".status.") {
            let why = "should be a json path under either .spec or .status";
            errors.push(Error::invalid(&at, selector, why));
        }
    }
    errors
}

/// All that is wrong with a printer column.
pub(super) fn column(path: &Path, column: &Value) -> ErrorList {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    let mut errors = ErrorList::new();
    let text = |key: &str| column[key].as_str().unwrap_or_default();
    if text("name").is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let one_of = |of: &[&str]| format!("must be one of {}", of.join(","));
    match text("type") {
        "" => errors.push(Error::required(&path.child("type"), one_of(&TYPES))),
        ty if !TYPES.contains(&ty) => {
            errors.push(Error::invalid(&path.child("type"), ty, one_of(&TYPES)));
        }
        _ => {}
    }
    let format = text("format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        errors.push(Error::invalid(&path.child("format"), format, one_of(&FORMATS)));
    }
    let at = path.child("JSONPath");
    match text("jsonPath") {
        "" => errors.push(Error::required(&at, "")),
        json_path => errors.extend(simple_path(&at, json_path)),
    }
    errors
}

/// All that is wrong with the warning of a deprecated version.
pub(super) fn deprecation(path: &Path, version: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(warning) = version["deprecationWarning"].as_str() else { return errors };
    let mut refuse = |why: String| errors.push(Error::invalid(path, warning, why));
    if version["deprecated"] != true {
        refuse("can only be set for deprecated versions".into());
        return errors;
    }
    if warning.len() > 256 {
        refuse("must be <= 256 characters long".into());
    }
    if warning.is_empty() {
        refuse("must not be an empty string".into());
    }
    if let Some((i, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        refuse(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        ));
    }
    errors
}
