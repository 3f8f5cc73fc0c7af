//! The rules of PersistentVolume.

use super::claim_validation::{positive, validate_modes, validate_volume_mode};
use super::pod_validation::validate_node_selector;
use super::volume_sources::persistent_source;
use crate::check::{Check, subdomain};
use crate::shown::{diff_inside, shown};
use crate::tree::{text, typed};
use api::core::v1::{PersistentVolume, PersistentVolumeSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::value::{Map, Value};

/// Members of the spec that each hold one type of volume, and the path in which upstream tells of a second one.
const SOURCES: [(&str, &str); 22] = [
    ("hostPath", "hostPath"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("nfs", "nfs"),
    ("rbd", "rbd"),
    ("quobyte", "quobyte"),
    ("cephfs", "cephFS"),
    ("iscsi", "iscsi"),
    ("cinder", "cinder"),
    ("fc", "fc"),
    ("flexVolume", ""),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO"),
    ("local", "local"),
    ("storageos", "storageos"),
    ("csi", "csi"),
];

pub(super) fn validate(volume: &Value) -> ErrorList {
    let mut check = Check::default();
    let (path, tree) = (Path::new("spec"), &volume["spec"]);
    let spec = typed::<PersistentVolume>(volume).spec;
    if spec.access_modes.is_empty() {
        check.required(&path.child("accessModes"), "");
    }
    validate_modes(&mut check, &path.child("accessModes"), &spec.access_modes);
    validate_capacity(&mut check, &path.child("capacity"), &spec, tree.get("capacity"));
    if let Some(policy) = Some(&spec.persistent_volume_reclaim_policy).filter(|p| !p.is_empty()) {
        let at = path.child("persistentVolumeReclaimPolicy");
        check.one_of(&at, policy, &["Delete", "Recycle", "Retain"]);
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = path.child("nodeAffinity").child("required");
        match &affinity.required {
            Some(selector) => validate_node_selector(&mut check.0, selector, &at),
            None => check.required(&at, "must specify required node constraints"),
        }
    }
    let mut found = 0;
    for (name, second) in SOURCES {
        let source = &tree[name];
        if !source.is_object() {
            continue;
        }
        if found > 0 && !second.is_empty() {
            check.forbidden(&path.child(second), "may not specify more than 1 volume type");
            continue;
        }
        found += 1;
        let at = path.child(name);
        persistent_source(&mut check, name, source, &at, text(volume, &["metadata", "name"]));
        if name == "local" && spec.node_affinity.is_none() {
            check.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if found == 0 {
        check.required(&path, "must specify a volume type");
    }
    let root =
        spec.host_path.as_ref().is_some_and(|p| p.path.trim_matches('/').is_empty() && !p.path.is_empty());
    if root && spec.persistent_volume_reclaim_policy == "Recycle" {
        let at = path.child("persistentVolumeReclaimPolicy");
        check.forbidden(&at, "may not be 'recycle' for a hostPath mount of '/'");
    }
    if let Some(class) = Some(spec.storage_class_name.as_str()).filter(|c| !c.is_empty()) {
        check.keeps(&path.child("storageClassName"), class, subdomain);
    }
    validate_volume_mode(&mut check, &path.child("volumeMode"), spec.volume_mode.as_ref());
    if let Some(class) = &spec.volume_attributes_class_name {
        let at = path.child("volumeAttributesClassName");
        check.present_and_keeps(&at, class, "an empty string is disallowed", subdomain);
        if spec.csi.is_none() {
            let why = "has to be specified when using volumeAttributesClassName";
            check.required(&path.child("csi"), why);
        }
    }
    check.0
}

fn validate_capacity(check: &mut Check, path: &Path, spec: &PersistentVolumeSpec, shown: Option<&Value>) {
    if spec.capacity.is_empty() {
        check.required(path, "");
    }
    if spec.capacity.len() > 1 || !spec.capacity.contains_key("storage") {
        let shown = shown.map_or_else(|| BadValue::verbatim("null"), BadValue::json);
        check.0.push(Error::not_supported(path, shown, &["storage"]));
    }
    for (name, quantity) in &spec.capacity {
        let at = path.key(name.as_str());
        basic(check, &at, quantity);
        positive(check, &at, quantity);
    }
}

fn sources(volume: &Value) -> Value {
    let mut out = Map::new();
    for (name, _) in SOURCES {
        if let Some(source) = volume["spec"].get(name) {
            out.insert(name, source.clone());
        }
    }
    Value::Object(out)
}

/// An amount that is none.
pub(super) fn basic(check: &mut Check, path: &Path, quantity: &Quantity) {
    if quantity.value() < 0 {
        check.invalid(path, quantity.value(), "must be a valid resource quantity");
    }
}

/// Mount options in an annotation, for volumes that are not mounted with any.
fn mount_options(check: &mut Check, volume: &Value) {
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    const MOUNTED: [&str; 13] = [
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "photonPersistentDisk",
    ];
    let given = volume["metadata"]["annotations"].get(OPTIONS).is_some();
    if given && !MOUNTED.iter().any(|source| volume["spec"][*source].is_object()) {
        let at = Path::new("metadata").child("annotations").child(OPTIONS);
        check.forbidden(&at, "may not specify mount options for this volume type");
    }
}

pub(super) fn validate_new(volume: &Value) -> ErrorList {
    let mut check = Check(validate(volume));
    mount_options(&mut check, volume);
    check.0
}

pub(super) fn validate_update(volume: &Value, old: &Value) -> ErrorList {
    // Upstream judges the new volume twice.
    let mut check = Check(validate_new(volume));
    check.extend(validate(volume));
    let (mut new, was) = (sources(volume), sources(old));
    let expand = "controllerExpandSecretRef";
    if was["csi"].is_object() && was["csi"][expand].is_null() {
        super::super::tree::with(&mut new, "csi", |csi| super::super::tree::remove(csi, expand));
    }
    if new != was {
        check.forbidden(
            &Path::new("spec").child("persistentvolumesource"),
            format!(
                "spec.persistentvolumesource is immutable after creation\n{}",
                diff_inside(
                    "io.k8s.api.core.v1.PersistentVolumeSpec",
                    "core.v1.PersistentVolumeSource",
                    &was,
                    &new
                )
            ),
        );
    }
    if volume["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
        check.invalid(&Path::new("volumeMode"), &volume["spec"]["volumeMode"], "field is immutable");
    }
    let affinity = |volume: &Value| volume["spec"]["nodeAffinity"].clone();
    if !affinity(old).is_null() && renewed(affinity(volume)) != renewed(affinity(old)) {
        let why = "field is immutable, except for updating from beta label to GA";
        check.invalid(&Path::new("nodeAffinity"), shown(volume, &["spec", "nodeAffinity"]), why);
    }
    let class = |v: &Value| v["spec"]["volumeAttributesClassName"].clone();
    if !class(old).is_null() && class(volume).is_null() {
        let at = Path::new("spec").child("volumeAttributesClassName");
        check.forbidden(&at, "update from non-nil value to nil is forbidden");
    }
    check.0
}

/// Node affinity with labels by the names they have now.
fn renewed(mut affinity: Value) -> Value {
    const NAMES: [(&str, &str); 5] = [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
        ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
        ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ];
    crate::tree::with(&mut affinity, "required", |required| {
        crate::tree::each(required, "nodeSelectorTerms", |term| {
            for list in ["matchExpressions", "matchFields"] {
                crate::tree::each(term, list, |requirement| {
                    let new = NAMES.iter().find(|(old, _)| requirement["key"] == *old);
                    if let Some((_, new)) = new {
                        requirement["key"] = (*new).into();
                    }
                });
            }
        });
    });
    affinity
}

/// A status is written by whoever read one.
pub(super) fn validate_status(object: &Value) -> ErrorList {
    let mut check = Check::default();
    let version = text(object, &["metadata", "resourceVersion"]);
    check.present(&Path::new("resourceVersion"), version, "");
    check.0
}
