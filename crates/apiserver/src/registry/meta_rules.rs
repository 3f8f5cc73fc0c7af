//! Validation of object metadata, the same for every kind (upstream's ValidateObjectMeta and ValidateObjectMetaUpdate).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::validation::TOTAL_ANNOTATION_SIZE;
use apimachinery::validation;
use serde_json::Value;

use crate::object;
use crate::resources::Served;

/// Kinds whose names may be any path segment, as upstream's strategies say.
fn name_errors(resource: &Served, name: &str) -> Vec<String> {
    match (resource.row.group.as_ref(), resource.row.resource.as_ref()) {
        ("rbac.authorization.k8s.io", _) => validation::is_path_segment_name(name),
        ("", "namespaces") => validation::is_dns1123_label(name),
        ("", "services") => validation::is_dns1035_label(name),
        ("certificates.k8s.io", "clustertrustbundles") => Vec::new(),
        ("", "events") | ("events.k8s.io", "events") => validation::is_dns1123_subdomain(name),
        ("networking.k8s.io", "ipaddresses") => Vec::new(),
        _ => validation::is_dns1123_subdomain(name),
    }
}

/// All that is wrong with the metadata of an object.
pub(super) fn validate(resource: &Served, value: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    let generate_name = object::meta_str(value, "generateName");
    if !generate_name.is_empty() {
        // The generated part is letters and digits: judged as if it followed.
        for message in name_errors(resource, &format!("{}a", generate_name.trim_end_matches('-'))) {
            errors.push(Error::invalid(&path.child("generateName"), generate_name, message));
        }
    }
    let name = object::name(value);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        for message in name_errors(resource, name) {
            errors.push(Error::invalid(&path.child("name"), name, message));
        }
    }
    let namespace = object::namespace(value);
    if resource.row.namespaced {
        if namespace.is_empty() {
            errors.push(Error::required(&path.child("namespace"), ""));
        } else {
            for message in validation::is_dns1123_label(namespace) {
                errors.push(Error::invalid(&path.child("namespace"), namespace, message));
            }
        }
    } else if !namespace.is_empty() {
        errors.push(Error::forbidden(&path.child("namespace"), "not allowed on this type"));
    }
    if object::generation(value) < 0 {
        errors.push(Error::invalid(
            &path.child("generation"),
            object::generation(value),
            "must be greater than or equal to 0",
        ));
    }
    let Some(meta) = object::metadata(value) else { return errors };
    let labels = meta.get("labels").and_then(Value::as_object);
    for (key, label) in labels.into_iter().flatten() {
        let at = path.child("labels");
        for message in validation::is_qualified_name(key) {
            errors.push(Error::invalid(&at, key.as_str(), message));
        }
        let label = label.as_str().unwrap_or_default();
        for message in validation::is_valid_label_value(label) {
            errors.push(Error::invalid(&at, label, message));
        }
    }
    let annotations = meta.get("annotations").and_then(Value::as_object);
    let mut total = 0;
    for (key, annotation) in annotations.into_iter().flatten() {
        for message in validation::is_qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(&path.child("annotations"), key.as_str(), message));
        }
        total += key.len() + annotation.as_str().map_or(0, str::len);
    }
    if total > TOTAL_ANNOTATION_SIZE {
        errors.push(Error::too_long(&path.child("annotations"), TOTAL_ANNOTATION_SIZE));
    }
    owner_references(&mut errors, &path.child("ownerReferences"), meta.get("ownerReferences"));
    let finalizers = object::finalizers(value);
    for finalizer in &finalizers {
        for message in validation::is_qualified_name(finalizer) {
            errors.push(Error::invalid(&path.child("finalizers"), *finalizer, message));
        }
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        errors.push(Error::invalid(
            &path.child("finalizers"),
            Value::from(finalizers.clone()).to_string().as_str(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    errors
}

fn owner_references(errors: &mut ErrorList, path: &Path, references: Option<&Value>) {
    let mut controller: Option<String> = None;
    for (i, owner) in references.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = path.index(i);
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        if text("apiVersion").is_empty() {
            errors.push(Error::invalid(&at.child("apiVersion"), "", "version must not be empty"));
        }
        for (key, value) in [("kind", text("kind")), ("name", text("name")), ("uid", text("uid"))] {
            if value.is_empty() {
                errors.push(Error::invalid(&at.child(key), "", "must not be empty"));
            }
        }
        if owner["controller"] == true {
            let name = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                errors.push(Error::invalid(
                    path,
                    references.unwrap_or(&Value::Null),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"),
                ));
            } else {
                controller = Some(name);
            }
        }
    }
}

/// All that is wrong with a change of metadata.
pub(super) fn validate_update(value: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    let immutable = "field is immutable";
    for key in ["name", "namespace", "uid"] {
        let (new, was) = (object::meta_str(value, key), object::meta_str(old, key));
        if new != was {
            errors.push(Error::invalid(&path.child(key), new, immutable));
        }
    }
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let of = |v: &Value| object::metadata(v).and_then(|m| m.get(key)).cloned();
        if of(value) != of(old) {
            errors.push(Error::invalid(&path.child(key), &of(value).unwrap_or(Value::Null), immutable));
        }
    }
    if object::generation(value) < object::generation(old) {
        errors.push(Error::invalid(
            &path.child("generation"),
            object::generation(value),
            "must not be decremented",
        ));
    }
    if object::is_being_deleted(old) {
        let before = object::finalizers(old);
        let added: Vec<&str> =
            object::finalizers(value).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            errors.push(Error::forbidden(
                &path.child("finalizers"),
                format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"),
            ));
        }
    }
    errors
}
