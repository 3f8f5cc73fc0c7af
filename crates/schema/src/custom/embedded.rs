//! `x-kubernetes-embedded-resource`: an object within an object has type and metadata like any other.

use super::META;
use super::check::{Additional, Check};
use crate::decode::{self, FieldValidation};
use crate::row::Type;
use crate::table::Table;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::ObjectMeta;
use apimachinery::meta::validation::{
    validate_annotations, validate_finalizers, validate_labels, validate_managed_fields,
    validate_owner_references,
};
use apimachinery::validation;
use apimachinery::value::Value;

/// Visits every embedded resource of a value.
fn each<'v>(check: &Check, value: &'v Value, path: &Path, visit: &mut dyn FnMut(&'v Value, &Path)) {
    if check.embedded && value.is_object() {
        visit(value, path);
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if let Some(property) = check.property(name) {
                    each(property, value, &path.child(name.to_string()), visit);
                } else if let Additional::Schema(check) = &check.additional {
                    each(check, value, &path.key(name.as_str()), visit);
                }
            }
        }
        Value::Array(items) => {
            if let Some(check) = &check.items {
                for (i, item) in items.iter().enumerate() {
                    each(check, item, &path.index(i), visit);
                }
            }
        }
        _ => {}
    }
}

/// Brings the metadata of embedded resources into canonical form, where it has one.
pub(super) fn coerce(table: &Table, check: &Check, value: &mut Value) {
    let Some(meta) = table.type_named(META) else { return };
    within(table, &Type::Ref(meta), check, value);
}

fn within(table: &Table, meta: &Type, check: &Check, value: &mut Value) {
    match value {
        Value::Object(map) => {
            if check.embedded
                && let Some(metadata) = map.get_mut("metadata")
                && let Ok(read) =
                    decode::normalise_type(table, meta, metadata.clone(), FieldValidation::Ignore)
            {
                *metadata = read.value;
            }
            for (name, value) in map.iter_mut() {
                if let Some(member) = check.member(name) {
                    within(table, meta, member, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(check) = &check.items {
                items.iter_mut().for_each(|item| within(table, meta, check, item));
            }
        }
        _ => {}
    }
}

/// All that is wrong with the types of embedded resources.
pub fn validate_embedded(check: &Check, value: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    each(check, value, path, &mut |resource, path| one(resource, path, &mut errors));
    errors
}

fn one(resource: &Value, path: &Path, errors: &mut ErrorList) {
    for key in ["apiVersion", "kind"] {
        let at = path.child(key);
        let text = match resource.get(key) {
            None => {
                errors.push(Error::required(&at, ""));
                continue;
            }
            Some(Value::String(text)) => text,
            Some(other) => {
                errors.push(Error::invalid(&at, BadValue::json(other), "must be a string"));
                continue;
            }
        };
        if text.is_empty() {
            errors.push(Error::invalid(&at, "", "must not be empty"));
        } else if key == "apiVersion" {
            if text.matches('/').count() > 1 {
                let message = format!("unexpected GroupVersion string: {text}");
                errors.push(Error::invalid(&at, text.as_str(), message));
            }
        } else {
            let problems = validation::is_dns1035_label(&text.to_lowercase());
            if !problems.is_empty() {
                let message =
                    format!("may have mixed case, but should otherwise match: {}", problems.join(","));
                errors.push(Error::invalid(&at, text.as_str(), message));
            }
        }
    }
    if let Some(metadata) = resource.get("metadata") {
        let at = path.child("metadata");
        if !metadata.is_object() {
            errors.push(Error::invalid(&at, BadValue::json(metadata), "must be an object"));
            return;
        }
        errors.extend(metadata_of(resource, &at));
    }
}

/// What every object's metadata must be, but that they need no name.
fn metadata_of(resource: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    let Ok(meta) = apimachinery::value::typed_metadata::<ObjectMeta>(resource) else {
        return errors;
    };
    if !meta.generate_name.is_empty() {
        for problem in validation::is_path_segment_prefix(&meta.generate_name) {
            errors.push(Error::invalid(&path.child("generateName"), meta.generate_name.as_str(), problem));
        }
    }
    if !meta.name.is_empty() {
        for problem in validation::is_path_segment_name(&meta.name) {
            errors.push(Error::invalid(&path.child("name"), meta.name.as_str(), problem));
        }
    }
    if !meta.namespace.is_empty() {
        for problem in validation::is_dns1123_label(&meta.namespace) {
            errors.push(Error::invalid(&path.child("namespace"), meta.namespace.as_str(), problem));
        }
    }
    if meta.generation < 0 {
        let why = "must be greater than or equal to 0";
        errors.push(Error::invalid(&path.child("generation"), meta.generation, why));
    }
    errors.extend(validate_labels(&meta.labels, &path.child("labels")));
    errors.extend(validate_annotations(&meta.annotations, &path.child("annotations")));
    errors.extend(validate_owner_references(&meta.owner_references, &path.child("ownerReferences")));
    errors.extend(validate_finalizers(&meta.finalizers, &path.child("finalizers")));
    errors.extend(validate_managed_fields(&meta.managed_fields, &path.child("managedFields")));
    errors
}
