//! Namespaces: held by a finalizer of their own until what is in them is gone.

use crate::check::{Check, qualified_name};
use crate::tree::{column, list, name, object_age, or, text};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct Namespaces;

const LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespaces {
    fn default(&self, namespace: &mut Value) {
        let name = text(namespace, &["metadata", "name"]).to_owned();
        if !name.is_empty() {
            namespace["metadata"]["labels"][LABEL] = name.into();
        }
        if namespace.get("status").is_none_or(Value::is_null) {
            namespace["status"] = json!({});
        }
        or(&mut namespace["status"], "phase", "Active");
    }

    fn prepare_for_create(&self, namespace: &mut Value, _: &Context) {
        let name = text(namespace, &["metadata", "name"]).to_owned();
        namespace["metadata"]["labels"][LABEL] = name.into();
        namespace["status"] = json!({"phase": "Active"});
        let finalizers = namespace["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
        if !finalizers.contains(&"kubernetes".into()) {
            let mut finalizers = finalizers;
            finalizers.push("kubernetes".into());
            namespace["spec"] = json!({"finalizers": finalizers});
        }
    }

    fn prepare_for_update(&self, namespace: &mut Value, old: &Value, context: &Context) {
        if context.subresource == Some("finalize") {
            namespace["status"] = old["status"].clone();
            return;
        }
        match old.get("spec") {
            Some(spec) => namespace["spec"] = spec.clone(),
            None => drop(namespace.as_object_mut().map(|n| n.remove("spec"))),
        }
    }

    fn validate(&self, namespace: &Value, _: &Context) -> ErrorList {
        finalizers(namespace, |path, _| path.clone())
    }

    fn validate_update(&self, namespace: &Value, _: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("finalize") {
            return finalizers(namespace, Path::index);
        }
        let mut errors = ErrorList::default();
        let deleting = !text(namespace, &["metadata", "deletionTimestamp"]).is_empty();
        let phase = text(namespace, &["status", "phase"]);
        let path = Path::new("status").child("Phase");
        if context.subresource == Some("status") {
            if deleting && phase != "Terminating" {
                errors.push(Error::invalid(
                    &path,
                    phase,
                    "may only be 'Terminating' if `deletionTimestamp` is not empty",
                ));
            } else if !deleting && phase != "Active" {
                errors.push(Error::invalid(
                    &path,
                    phase,
                    "may only be 'Active' if `deletionTimestamp` is empty",
                ));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Name",
                "string",
                0,
                "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
            column("Status", "string", 0, "The status of the namespace"),
            column(
                "Age",
                "string",
                0,
                "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, namespace: &Value, now: Time) -> Vec<Value> {
        vec![name(namespace), text(namespace, &["status", "phase"]).into(), object_age(namespace, now).into()]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("status.phase", |namespace| text(namespace, &["status", "phase"]).into())]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// The namespace's own finalizers: the server's, or qualified names; each told of at a path of the list.
fn finalizers(namespace: &Value, at: fn(&Path, usize) -> Path) -> ErrorList {
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let (mut check, path) = (Check::default(), Path::new("spec").child("finalizers"));
    for (i, finalizer) in list(namespace, &["spec", "finalizers"]).iter().enumerate() {
        let (finalizer, at) = (finalizer.as_str().unwrap_or_default(), at(&path, i));
        check.keeps(&at, finalizer, qualified_name);
        if !finalizer.contains('/') && !STANDARD.contains(&finalizer) {
            check.invalid(
                &at,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
    check.0
}
