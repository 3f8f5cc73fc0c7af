//! Validation of object metadata, the same for every kind (upstream's ValidateObjectMeta and ValidateObjectMetaUpdate).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::ObjectMeta;
use apimachinery::meta::validation::{
    validate_annotations, validate_finalizers, validate_labels, validate_managed_fields,
    validate_owner_references,
};
use apimachinery::validation::{self, NameUse};
use apimachinery::value::Value;
use hooks::{Finalizers, Judgement, name_errors};

use crate::object;
use crate::resources::Served;

/// Whether an object says that it is not what it is served as. Of a custom one nothing else is told then.
fn is_of_another_kind(resource: &Served, value: &Value) -> bool {
    resource.custom.is_some() && value["kind"] != *resource.row.kind
}

/// All that is wrong with the metadata of a new object.
pub(super) fn validate(resource: &Served, value: &Value) -> ErrorList {
    if is_of_another_kind(resource, value) {
        return ErrorList::new();
    }
    let row = &resource.row;
    let meta = typed(value);
    let names = |name: &str, used| name_errors(&row.group, &row.kind, name, used);
    let mut errors = whole(resource, &meta, &names);
    let finalizers = match &resource.custom {
        Some(_) => Finalizers::Any,
        None => hooks::finalizers(&row.group, &row.kind),
    };
    known_finalizers(&mut errors, &meta, finalizers);
    errors
}

/// All that is wrong with the metadata of an update: what all kinds share, and then what its own rules say.
pub(super) fn validate_update(resource: &Served, subresource: &str, value: &Value, old: &Value) -> ErrorList {
    let row = &resource.row;
    let meta = typed(value);
    let segment = |name: &str, used| match used {
        NameUse::Whole => validation::is_path_segment_name(name),
        NameUse::Prefix => validation::is_path_segment_prefix(name),
    };
    let mut errors = whole(resource, &meta, &segment);
    let of_the_change = change(&meta, value, old);
    errors.extend(of_the_change.clone());
    let names = |name: &str, used| name_errors(&row.group, &row.kind, name, used);
    let judgements = match &resource.custom {
        Some(_) if is_of_another_kind(resource, value) => &[],
        Some(_) => CUSTOM,
        None => hooks::metadata_judgements(&row.group, &row.kind, subresource),
    };
    for judgement in judgements {
        match judgement {
            Judgement::Whole(finalizers) => {
                errors.extend(whole(resource, &meta, &names));
                known_finalizers(&mut errors, &meta, *finalizers);
            }
            Judgement::Change(finalizers) => {
                errors.extend(of_the_change.clone());
                known_finalizers(&mut errors, &meta, *finalizers);
            }
        }
    }
    errors
}

const CUSTOM: &[Judgement] = &[Judgement::Change(Finalizers::Any)];

fn typed(value: &Value) -> ObjectMeta {
    apimachinery::value::typed_metadata(value).unwrap_or_default()
}

/// Finalizers without a domain are upstream's own.
fn known_finalizers(errors: &mut ErrorList, meta: &ObjectMeta, finalizers: Finalizers) {
    if finalizers == Finalizers::Any {
        return;
    }
    for (i, finalizer) in meta.finalizers.iter().enumerate() {
        if !finalizer.contains('/')
            && !matches!(finalizer.as_str(), "kubernetes" | "orphan" | "foregroundDeletion")
        {
            let at = Path::new("metadata").child("finalizers").index(i);
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(Error::invalid(&at, finalizer.as_str(), why));
        }
    }
}

fn whole(resource: &Served, meta: &ObjectMeta, names: &dyn Fn(&str, NameUse) -> Vec<String>) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    if !meta.generate_name.is_empty() {
        for message in names(&meta.generate_name, NameUse::Prefix) {
            errors.push(Error::invalid(&path.child("generateName"), meta.generate_name.as_str(), message));
        }
    }
    if meta.name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        for message in names(&meta.name, NameUse::Whole) {
            errors.push(Error::invalid(&path.child("name"), meta.name.as_str(), message));
        }
    }
    let namespace = path.child("namespace");
    if resource.row.namespaced {
        if meta.namespace.is_empty() {
            errors.push(Error::required(&namespace, ""));
        } else {
            for message in validation::is_dns1123_label(&meta.namespace) {
                errors.push(Error::invalid(&namespace, meta.namespace.as_str(), message));
            }
        }
    } else if !meta.namespace.is_empty() {
        errors.push(Error::forbidden(&namespace, "not allowed on this type"));
    }
    if meta.generation < 0 {
        let at = path.child("generation");
        errors.push(Error::invalid(&at, meta.generation, "must be greater than or equal to 0"));
    }
    common(&mut errors, meta, &path);
    errors.extend(validate_finalizers(&meta.finalizers, &path.child("finalizers")));
    errors.extend(validate_managed_fields(&meta.managed_fields, &path.child("managedFields")));
    errors
}

/// What holds for new and for changed objects.
fn common(errors: &mut ErrorList, meta: &ObjectMeta, path: &Path) {
    errors.extend(validate_labels(&meta.labels, &path.child("labels")));
    errors.extend(validate_annotations(&meta.annotations, &path.child("annotations")));
    errors.extend(validate_owner_references(&meta.owner_references, &path.child("ownerReferences")));
}

/// All that is wrong with a change of metadata, of which `meta` is the typed form.
fn change(meta: &ObjectMeta, value: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    let immutable = "field is immutable";
    if object::is_being_deleted(old) {
        let before = object::finalizers(old);
        let added: Vec<&str> =
            object::finalizers(value).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let added = added.iter().map(|f| apimachinery::quote::quote(f)).collect::<Vec<_>>().join(", ");
            errors.push(Error::forbidden(
                &path.child("finalizers"),
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{added}}}"),
            ));
        }
    }
    if object::generation(value) < object::generation(old) {
        errors.push(Error::invalid(
            &path.child("generation"),
            object::generation(value),
            "must not be decremented",
        ));
    }
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
    common(&mut errors, meta, &path);
    errors.extend(validate_managed_fields(&meta.managed_fields, &path.child("managedFields")));
    errors
}
