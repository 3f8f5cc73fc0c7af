//! The rules of PersistentVolume.

use super::claim_validation::{positive, validate_modes, validate_volume_mode};
use super::pod_validation::validate_node_selector;
use super::resource_names::validate_quantity;
use crate::check::{Check, label, subdomain};
use crate::diff::diff;
use crate::tree::{text, typed};
use api::core::v1::{CSIPersistentVolumeSource, PersistentVolume, PersistentVolumeSpec, SecretReference};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use serde_json::{Map, Value};

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

const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const BACK_STEPS: &str = "must not contain '..'";

fn no_back_steps(check: &mut Check, path: &Path, text: &str) {
    if text.split('/').any(|step| step == "..") {
        check.invalid(path, text, BACK_STEPS);
    }
}

fn validate_host_path(check: &mut Check, path: &Path, source: &Value) {
    if check.present(&path.child("path"), text(source, &["path"]), "") {
        no_back_steps(check, &path.child("path"), text(source, &["path"]));
    }
    if let Some(kind) = source["type"].as_str() {
        check.one_of(&path.child("type"), kind, &HOST_PATH_TYPES);
    }
}

fn validate_nfs(check: &mut Check, path: &Path, source: &Value) {
    check.present(&path.child("server"), text(source, &["server"]), "");
    check.present(&path.child("path"), text(source, &["path"]), "");
    if !text(source, &["path"]).starts_with('/') {
        check.invalid(&path.child("path"), text(source, &["path"]), "must be an absolute path");
    }
}

fn validate_local(check: &mut Check, path: &Path, source: &Value) {
    if check.present(&path.child("path"), text(source, &["path"]), "") {
        no_back_steps(check, &path.child("path"), text(source, &["path"]));
    }
}

/// A CSI driver's name: a short DNS name.
pub(crate) fn validate_driver_name(check: &mut Check, path: &Path, driver: &str) {
    const MAX: usize = 63;
    if !check.present(path, driver, "") {
        return;
    }
    check.when(driver.len() > MAX, || Error::too_long(path, MAX));
    // Upper case is let through, though it is told.
    subdomain(&driver.to_lowercase()).into_iter().for_each(|why| check.invalid(path, driver, why));
}

fn validate_secret(check: &mut Check, path: &Path, secret: Option<&SecretReference>) {
    let Some(secret) = secret else { return };
    check.present_and_keeps(&path.child("name"), &secret.name, "", subdomain);
    check.present_and_keeps(&path.child("namespace"), &secret.namespace, "", label);
}

fn validate_csi(check: &mut Check, path: &Path, source: &Value) {
    let source: CSIPersistentVolumeSource = typed(source);
    validate_driver_name(check, &path.child("driver"), &source.driver);
    check.present(&path.child("volumeHandle"), &source.volume_handle, "");
    for (member, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        validate_secret(check, &path.child(member), secret.as_ref());
    }
}

/// Members of the simpler sources that must be there, in upstream's order.
fn required_members(source: &str) -> &'static [&'static str] {
    match source {
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" => &["volumeID"],
        "glusterfs" => &["endpoints", "path"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "portworxVolume" => &["volumeID"],
        "cephfs" => &["monitors"],
        "rbd" => &["monitors", "image"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "azureFile" => &["secretName", "shareName"],
        "azureDisk" => &["diskName", "diskURI"],
        "flexVolume" => &["driver"],
        _ => &[],
    }
}

fn validate_source(check: &mut Check, path: &Path, name: &'static str, source: &Value) {
    // Upstream's path has the name of the type there.
    let at = path.child(if name == "gcePersistentDisk" { "persistentDisk" } else { name });
    match name {
        "hostPath" => validate_host_path(check, &at, source),
        "nfs" => validate_nfs(check, &at, source),
        "local" => validate_local(check, &at, source),
        "csi" => validate_csi(check, &at, source),
        _ => {
            for member in required_members(name) {
                let missing = match &source[*member] {
                    Value::String(text) => text.is_empty(),
                    Value::Array(items) => items.is_empty(),
                    other => other.is_null(),
                };
                if missing {
                    check.required(&at.child(*member), "");
                }
            }
        }
    }
}

pub(super) fn validate(volume: &Value) -> ErrorList {
    let mut check = Check::default();
    let (path, tree) = (Path::new("spec"), &volume["spec"]);
    let spec = typed::<PersistentVolume>(volume).spec;
    if spec.access_modes.is_empty() {
        check.required(&path.child("accessModes"), "");
    }
    validate_modes(&mut check, &path.child("accessModes"), &spec.access_modes);
    validate_capacity(&mut check, &path.child("capacity"), &spec);
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
        validate_source(&mut check, &path, name, source);
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

fn validate_capacity(check: &mut Check, path: &Path, spec: &PersistentVolumeSpec) {
    if spec.capacity.is_empty() {
        check.required(path, "");
    }
    if spec.capacity.len() > 1 || !spec.capacity.contains_key("storage") {
        let shown = if spec.capacity.is_empty() {
            BadValue::verbatim("null")
        } else {
            BadValue::json(&spec.capacity)
        };
        check.0.push(Error::not_supported(path, shown, &["storage"]));
    }
    for (name, quantity) in &spec.capacity {
        let at = path.key(name.as_str());
        validate_quantity(check, &at, "", quantity);
        positive(check, &at, quantity);
    }
}

fn sources(volume: &Value) -> Value {
    let mut out = Map::new();
    for (name, _) in SOURCES {
        if let Some(source) = volume["spec"].get(name) {
            out.insert(name.into(), source.clone());
        }
    }
    Value::Object(out)
}

pub(super) fn validate_update(volume: &Value, old: &Value) -> ErrorList {
    let mut check = Check(validate(volume));
    let (mut new, was) = (sources(volume), sources(old));
    let expand = "controllerExpandSecretRef";
    if was["csi"].is_object() && was["csi"][expand].is_null() {
        super::super::tree::with(&mut new, "csi", |csi| super::super::tree::remove(csi, expand));
    }
    if new != was {
        check.forbidden(
            &Path::new("spec").child("persistentvolumesource"),
            format!("spec.persistentvolumesource is immutable after creation\n{}", diff(&was, &new)),
        );
    }
    if volume["spec"]["volumeMode"] != old["spec"]["volumeMode"] {
        check.invalid(&Path::new("volumeMode"), &volume["spec"]["volumeMode"], "field is immutable");
    }
    if !old["spec"]["nodeAffinity"].is_null() && volume["spec"]["nodeAffinity"] != old["spec"]["nodeAffinity"]
    {
        let shown = BadValue::from(&volume["spec"]["nodeAffinity"]);
        check.0.push(Error::invalid(&Path::new("nodeAffinity"), shown, "field is immutable"));
    }
    let class = |v: &Value| v["spec"]["volumeAttributesClassName"].clone();
    if !class(old).is_null() && class(volume).is_null() {
        let at = Path::new("spec").child("volumeAttributesClassName");
        check.forbidden(&at, "update from non-nil value to nil is forbidden");
    }
    check.0
}
