//! PersistentVolumeClaims.

use super::claim_validation;
use super::small::{AGE, NAME};
use crate::tree::{absent_or, at, column, joined, list, name, object_age, remove, text, with};
use crate::{Column, Context, Strategy};
use apimachinery::field::{ErrorList, Path};
use apimachinery::json;
use apimachinery::quantity::Quantity;
use apimachinery::time::Time;
use apimachinery::value::Value;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Data from another namespace is not to be had while the gate is off. Templates of claims keep what they say of it: only
/// a claim is looked at.
fn drop_foreign_source(spec: &mut Value, old: Option<&Value>, context: &Context) {
    let in_use = old.is_some_and(|old| old["dataSourceRef"].is_object());
    if in_use || text(spec, &["dataSourceRef", "namespace"]).is_empty() {
        return;
    }
    if !(context.gates.0)("CrossNamespaceVolumeDataSource") {
        remove(spec, "dataSourceRef");
    }
}

/// What was never a source of data goes silently, where no client can know better: one that names `dataSourceRef` does.
fn drop_unfit_source(spec: &mut Value, old: Option<&Value>) {
    let given = |spec: &Value, member: &str| spec[member].is_object();
    if old.is_some_and(|old| given(old, "dataSource") || given(old, "dataSourceRef"))
        || given(spec, "dataSourceRef")
    {
        return;
    }
    let source = &spec["dataSource"];
    let fit = matches!(
        (text(source, &["kind"]), text(source, &["apiGroup"])),
        ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
    );
    if !fit {
        remove(spec, "dataSource");
    }
}

/// One source under two names: each is filled in from the other.
pub(super) fn same_sources(spec: &mut Value) {
    for (from, to) in [("dataSource", "dataSourceRef"), ("dataSourceRef", "dataSource")] {
        let source = &spec[from];
        if !source.is_object() || spec[to].is_object() || !text(source, &["namespace"]).is_empty() {
            continue;
        }
        let mut copy = source.clone();
        remove(&mut copy, "namespace");
        spec[to] = copy;
        return;
    }
}

fn warnings(claim: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if at(claim, &["metadata", "annotations", BETA_CLASS]).is_some() {
        let path = Path::new("metadata").child("annotations").key(BETA_CLASS);
        found.push(format!("{path}: deprecated since v1.8; use \"storageClassName\" attribute instead"));
    }
    found.extend(spec_warnings(&claim["spec"], &Path::new("spec")));
    found
}

/// Of claims, and of templates of claims.
pub(crate) fn spec_warnings(spec: &Value, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for amounts in ["requests", "limits"] {
        let amount = text(spec, &["resources", amounts, "storage"]);
        if amount.parse::<Quantity>().is_ok_and(|q| q.milli_value() % 1000 != 0) {
            let at = path.child("resources").child(amounts).key("storage");
            found.push(format!("{at}: fractional byte value {amount:?} is invalid, must be an integer"));
        }
    }
    found
}

/// Modes as columns show them.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    joined(modes.iter().map(short), "")
}

pub(super) struct Claims;

impl Strategy for Claims {
    fn has_generation(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        claim_validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => claim_validation::validate_status(object),
            _ => claim_validation::validate_update(object, old),
        }
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| absent_or(spec, "volumeMode", "Filesystem"));
        with(object, "status", |status| absent_or(status, "phase", "Pending"));
    }

    fn prepare_for_create(&self, object: &mut Value, context: &Context) {
        object["status"] = json!({"phase": "Pending"});
        with(object, "spec", |spec| {
            drop_foreign_source(spec, None, context);
            drop_unfit_source(spec, None);
            same_sources(spec);
        });
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &Context) {
        if context.subresource.is_none() {
            with(object, "spec", |spec| {
                drop_foreign_source(spec, Some(&old["spec"]), context);
                drop_unfit_source(spec, Some(&old["spec"]));
                same_sources(spec);
            });
        }
    }

    fn warnings(&self, object: &Value, _: Option<&Value>, context: &Context) -> Vec<String> {
        match context.subresource {
            Some("status") => Vec::new(),
            _ => warnings(object),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Status", "string", 0, "phase represents the current phase of PersistentVolumeClaim."),
            column(
                "Volume",
                "string",
                0,
                "volumeName is the binding reference to the PersistentVolume backing this claim.",
            ),
            column(
                "Capacity",
                "string",
                0,
                "capacity represents the actual resources of the underlying volume.",
            ),
            column(
                "Access Modes",
                "string",
                0,
                "accessModes contains the actual access modes the volume backing the PVC has. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes-1",
            ),
            column("StorageClass", "string", 0, "StorageClass of the pvc"),
            column("VolumeAttributesClass", "string", 0, "VolumeAttributesClass of the pvc"),
            AGE,
            column(
                "VolumeMode",
                "string",
                1,
                "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let deleting = !text(object, &["metadata", "deletionTimestamp"]).is_empty();
        let phase = if deleting { "Terminating" } else { text(object, &["status", "phase"]) };
        let volume = text(object, &["spec", "volumeName"]);
        let (capacity, modes) = if volume.is_empty() {
            ("", String::new())
        } else {
            let capacity = text(object, &["status", "capacity", "storage"]);
            (
                if capacity.is_empty() { "0" } else { capacity },
                access_modes(list(object, &["status", "accessModes"])),
            )
        };
        let class = match at(object, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"])
        {
            Some(Value::String(class)) => class.as_str(),
            _ => text(object, &["spec", "storageClassName"]),
        };
        let attributes = match text(object, &["spec", "volumeAttributesClassName"]) {
            "" => "<unset>",
            class => class,
        };
        vec![
            name(object),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class.into(),
            attributes.into(),
            object_age(object, now).into(),
            text(object, &["spec", "volumeMode"]).into(),
        ]
    }
}
