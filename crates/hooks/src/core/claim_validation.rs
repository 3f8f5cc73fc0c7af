//! The rules of PersistentVolumeClaim, also for the templates of claims.

use super::resource_names::validate_quantity;
use crate::check::{Check, label, subdomain};
use crate::diff::diff;
use crate::tree::{text, typed};
use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::quantity::Quantity;
use serde_json::{Value, json};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Access modes of claims and volumes.
pub(super) fn validate_modes(check: &mut Check, path: &Path, modes: &[String]) {
    modes.iter().for_each(|mode| check.one_of(path, mode, &MODES));
    let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
    let others = modes.iter().any(|mode| mode != "ReadWriteOncePod" && MODES.contains(&mode.as_str()));
    if alone && others {
        check.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

pub(super) fn validate_volume_mode(check: &mut Check, path: &Path, mode: Option<&String>) {
    if let Some(mode) = mode {
        check.one_of(path, mode, &VOLUME_MODES);
    }
}

pub(super) fn positive(check: &mut Check, path: &Path, quantity: &Quantity) -> bool {
    let wrong = !quantity.cmp_i64(0).is_gt();
    if wrong {
        check.invalid(path, quantity.to_string(), "must be greater than zero");
    }
    !wrong
}

/// A source of data for a claim.
struct Source<'a> {
    group: Option<&'a String>,
    kind: &'a str,
    name: &'a str,
    namespace: Option<&'a String>,
}

fn validate_source(check: &mut Check, path: &Path, source: &Source<'_>) {
    check.present(&path.child("name"), source.name, "");
    check.present(&path.child("kind"), source.kind, "");
    let group = source.group.map_or("", String::as_str);
    if group.is_empty() && source.kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        check.invalid(path, source.kind, why);
    }
    if !group.is_empty() {
        check.keeps(&path.child("apiGroup"), group, subdomain);
    }
    if let Some(namespace) = source.namespace.filter(|n| !n.is_empty()) {
        check.keeps(&path.child("namespace"), namespace, label);
    }
}

pub(crate) fn validate_spec(check: &mut Check, path: &Path, spec: &PersistentVolumeClaimSpec) {
    let modes = path.child("accessModes");
    if spec.access_modes.is_empty() {
        check.required(&modes, "at least 1 access mode is required");
    }
    let selector = path.child("selector");
    check.extend(validate_label_selector(spec.selector.as_ref(), SelectorLeniency::default(), &selector));
    validate_modes(check, &modes, &spec.access_modes);
    let storage = path.child("resources").key("storage");
    match spec.resources.requests.get("storage") {
        None => check.required(&storage, ""),
        Some(quantity) => {
            if positive(check, &storage, quantity) {
                validate_quantity(check, &storage, "storage", quantity);
            }
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        check.keeps(&path.child("storageClassName"), class, subdomain);
    }
    validate_volume_mode(check, &path.child("volumeMode"), spec.volume_mode.as_ref());
    if let Some(source) = &spec.data_source {
        let source = Source {
            group: source.api_group.as_ref(),
            kind: &source.kind,
            name: &source.name,
            namespace: None,
        };
        validate_source(check, &path.child("dataSource"), &source);
    }
    if let Some(source) = &spec.data_source_ref {
        let source = Source {
            group: source.api_group.as_ref(),
            kind: &source.kind,
            name: &source.name,
            namespace: source.namespace.as_ref(),
        };
        validate_source(check, &path.child("dataSourceRef"), &source);
    }
    if let (Some(source), Some(reference)) = (&spec.data_source, &spec.data_source_ref) {
        let shown = || BadValue::verbatim(path.child("dataSource").to_string());
        if reference.namespace.as_ref().is_some_and(|n| !n.is_empty()) {
            check.invalid(path, shown(), "may not be specified when dataSourceRef.namespace is specified");
        } else if (&source.api_group, &source.kind, &source.name)
            != (&reference.api_group, &reference.kind, &reference.name)
        {
            check.invalid(path, shown(), "must match dataSourceRef");
        }
    }
    if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|c| !c.is_empty()) {
        check.keeps(&path.child("volumeAttributesClassName"), class, subdomain);
    }
}

pub(super) fn validate(claim: &Value) -> ErrorList {
    let mut check = Check::default();
    let claim: PersistentVolumeClaim = typed(claim);
    validate_spec(&mut check, &Path::new("spec"), &claim.spec);
    check.0
}

pub(super) fn validate_update(claim: &Value, old: &Value) -> ErrorList {
    let mut check = Check(validate(claim));
    let spec = Path::new("spec");
    // What may change is made equal, then the rest is compared.
    let (mut new, mut was) = (claim["spec"].clone(), old["spec"].clone());
    let copy = |to: &mut Value, from: &Value, member: &str| match from.get(member) {
        Some(value) => to[member] = value.clone(),
        None => {
            if let Some(map) = to.as_object_mut() {
                map.remove(member);
            }
        }
    };
    if text(&was, &["volumeName"]).is_empty() {
        copy(&mut was, &new, "volumeName");
    }
    let beta = |claim: &Value| text(claim, &["metadata", "annotations", BETA_CLASS]).to_owned();
    let upgraded = !beta(old).is_empty()
        && was["storageClassName"].is_null()
        && new["storageClassName"] == beta(old).as_str()
        && beta(claim).is_empty();
    if upgraded {
        copy(&mut new, &was, "storageClassName");
    } else {
        if beta(claim) != beta(old) {
            let at = Path::new("metadata").child("annotations").key(BETA_CLASS);
            check.invalid(&at, beta(claim), "field is immutable");
        }
        // A claim that was made before there was a default class may be given one.
        if was["storageClassName"].is_null() && beta(old).is_empty() {
            copy(&mut new, &was, "storageClassName");
        }
    }
    if text(claim, &["status", "phase"]) == "Bound" {
        if new["resources"]["requests"].is_object() {
            let size = was["resources"]["requests"]["storage"].clone();
            new["resources"]["requests"]["storage"] = size;
        }
        copy(&mut new, &was, "volumeAttributesClassName");
    }
    if new != was {
        check.forbidden(
            &spec,
            format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n{}",
                diff(&was, &new)
            ),
        );
    }
    let size = |claim: &Value, path: &[&str]| {
        let text = text(claim, path);
        if text.is_empty() { Quantity::default() } else { text.parse().unwrap_or_default() }
    };
    const REQUESTED: [&str; 4] = ["spec", "resources", "requests", "storage"];
    let wanted: Quantity = size(claim, &REQUESTED);
    if wanted < size(old, &REQUESTED) && wanted <= size(old, &["status", "capacity", "storage"]) {
        let at = spec.child("resources").child("requests").child("storage");
        check.forbidden(&at, "field can not be less than status.capacity");
    }
    if claim["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
        let shown = BadValue::from(&claim["spec"]["volumeMode"]);
        check.0.push(Error::invalid(&Path::new("volumeMode"), shown, "field is immutable"));
    }
    let (attributes, class) =
        (spec.child("volumeAttributesClassName"), &claim["spec"]["volumeAttributesClassName"]);
    let in_use = !old["status"]["currentVolumeAttributesClassName"].is_null();
    if *class != old["spec"]["volumeAttributesClassName"] && in_use {
        if class.is_null() {
            let why = "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil";
            check.forbidden(&attributes, why);
        } else if *class == json!("") {
            let why =
                "update to empty string is forbidden when status.currentVolumeAttributesClassName is not nil";
            check.forbidden(&attributes, why);
        }
    }
    check.0
}
