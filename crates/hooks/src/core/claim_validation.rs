//! The rules of PersistentVolumeClaim, also for the templates of claims.

use super::resource_names::{is_native, validate_quantity};
use super::volume_validation::basic;
use crate::check::{Check, label, qualified_name, subdomain};
use crate::shown::diff;
use crate::tree::{text, typed};
use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;

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

/// Whether groups of sources are judged: older claims have some that are none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Groups {
    Judged,
    Left,
}

/// A source of data for a claim.
struct Source<'a> {
    group: Option<&'a String>,
    kind: &'a str,
    name: &'a str,
    namespace: Option<&'a String>,
}

fn validate_source(check: &mut Check, path: &Path, source: &Source<'_>, groups: Groups) {
    check.present(&path.child("name"), source.name, "");
    check.present(&path.child("kind"), source.kind, "");
    let group = source.group.map_or("", String::as_str);
    if group.is_empty() && source.kind != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        check.invalid(path, source.kind, why);
    }
    if !group.is_empty() && groups == Groups::Judged {
        check.keeps(&path.child("apiGroup"), group, subdomain);
    }
    if let Some(namespace) = source.namespace.filter(|n| !n.is_empty()) {
        check.keeps(&path.child("namespace"), namespace, label);
    }
}

pub(crate) fn validate_spec(check: &mut Check, path: &Path, spec: &PersistentVolumeClaimSpec) {
    spec_rules(check, path, spec, Groups::Judged);
}

fn spec_rules(check: &mut Check, path: &Path, spec: &PersistentVolumeClaimSpec, groups: Groups) {
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
        validate_source(check, &path.child("dataSource"), &source, groups);
    }
    if let Some(source) = &spec.data_source_ref {
        let source = Source {
            group: source.api_group.as_ref(),
            kind: &source.kind,
            name: &source.name,
            namespace: source.namespace.as_ref(),
        };
        validate_source(check, &path.child("dataSourceRef"), &source, groups);
    }
    if let (Some(source), Some(reference)) = (&spec.data_source, &spec.data_source_ref) {
        // Upstream shows the path as a struct without public fields.
        let shown = || BadValue::verbatim("{}");
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

/// The name of an amount that is kept of a claim.
fn resource_key(check: &mut Check, path: &Path, name: &str) -> bool {
    let before = check.0.len();
    check.keeps(path, name, qualified_name);
    if check.0.len() == before && is_native(name) && name != "storage" {
        check.0.push(Error::not_supported(path, name, &["storage"]));
    }
    check.0.len() == before
}

pub(super) fn validate_status(claim: &Value) -> ErrorList {
    const RESIZE: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    let mut check = Check::default();
    let path = Path::new("status");
    check.present(&Path::new("resourceVersion"), text(claim, &["metadata", "resourceVersion"]), "");
    let claim: PersistentVolumeClaim = typed(claim);
    if claim.spec.access_modes.is_empty() {
        check.required(&Path::new("Spec").child("accessModes"), "");
    }
    for (name, quantity) in &claim.status.capacity {
        basic(&mut check, &path.child("capacity").key(name.as_str()), quantity);
    }
    let at = path.child("allocatedResourceStatuses");
    for (name, status) in &claim.status.allocated_resource_statuses {
        resource_key(&mut check, &at, name);
        if !RESIZE.contains(&status.as_str()) {
            check.0.push(Error::not_supported(&at, name.as_str(), &RESIZE));
        }
    }
    let at = path.child("allocatedResources");
    for (name, quantity) in &claim.status.allocated_resources {
        if !resource_key(&mut check, &at, name) {
            continue;
        }
        let (at, before) = (at.key(name.as_str()), check.0.len());
        basic(&mut check, &at, quantity);
        if check.0.len() == before {
            validate_quantity(&mut check, &at, "storage", quantity);
        }
    }
    check.0
}

pub(super) fn validate_update(claim: &Value, old: &Value) -> ErrorList {
    let mut check = Check::default();
    let spec = Path::new("spec");
    let had_group = ["dataSource", "dataSourceRef"].iter().any(|s| !old["spec"][*s]["apiGroup"].is_null());
    let groups = if had_group { Groups::Left } else { Groups::Judged };
    spec_rules(&mut check, &spec, &typed::<PersistentVolumeClaim>(claim).spec, groups);
    // What may change is made equal, then the rest is compared.
    let (mut new, mut was) = (claim["spec"].clone(), old["spec"].clone());
    super::persistent_volume_claim::same_sources(&mut was);
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
        let given = new["storageClassName"].as_str().filter(|_| was["storageClassName"].is_null());
        if given.is_some_and(|class| beta(old).is_empty() || beta(old) == class) {
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
                diff("io.k8s.api.core.v1.PersistentVolumeClaimSpec", &was, &new)
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
