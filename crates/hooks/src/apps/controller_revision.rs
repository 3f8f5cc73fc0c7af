//! ControllerRevision: a state of a set, which never changes.

use crate::check::{Check, NOT_NEGATIVE};
use crate::plain::Plain;
use crate::templates::{AGE, NAME};
use crate::tree::{column, int, list, name, object_age, text};
use apimachinery::field::{ErrorList, Path};
use apimachinery::value::Value;

pub(super) static REVISIONS: Plain = Plain {
    validate,
    validate_create: |revision, _| {
        let mut check = Check::default();
        match &revision["data"] {
            Value::Null => check.required(&Path::new("data"), "data is mandatory"),
            Value::Object(_) => {}
            _ => check.required(&Path::new("data"), "data must be a valid JSON object"),
        }
        check.0
    },
    immutable: &[&["data"]],
    columns: &[
        NAME,
        column("Controller", "string", 0, "Controller of the object"),
        column("Revision", "string", 0, "Revision indicates the revision of the state represented by Data."),
        AGE,
    ],
    cells: |revision, now| {
        vec![
            name(revision),
            controller(revision).into(),
            int(revision, &["revision"]).into(),
            object_age(revision, now).into(),
        ]
    },
    ..Plain::NEW
};

fn validate(revision: &Value) -> ErrorList {
    let mut check = Check::default();
    let number = int(revision, &["revision"]);
    if number < 0 {
        check.invalid(&Path::new("revision"), number, NOT_NEGATIVE);
    }
    check.0
}

/// `kind.group/name` of the controller.
fn controller(revision: &Value) -> String {
    let owners = list(revision, &["metadata", "ownerReferences"]);
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return "<none>".into();
    };
    let kind = text(owner, &["kind"]).to_lowercase();
    let name = text(owner, &["name"]);
    match text(owner, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}
