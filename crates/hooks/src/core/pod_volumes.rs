//! What is wrong with a pod's volumes. Upstream: `ValidateVolumes`.

use super::pod_env::{CONTAINER_RESOURCES, field_ref, resource_ref};
use super::volume_validation::validate_driver_name;
use crate::check::{Check, label, subdomain};
use crate::tree::{list, text, typed};
use api::core::v1::{PersistentVolumeClaimTemplate, Volume};
use apimachinery::field::{Error, Path};
use serde_json::Value;
use std::collections::{HashMap, HashSet};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const PARTITION: &str = "must be between 0 and 255, inclusive";

/// Sources in upstream's order, each with the name that a second one is refused under.
const SOURCES: &[(&str, &str)] = &[
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

const HOST_PATHS: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Judges volumes; returns those that can be mounted, by name.
pub(super) fn validate<'a>(
    check: &mut Check,
    volumes: &'a [Volume],
    path: &Path,
) -> HashMap<&'a str, &'a Volume> {
    let mut usable = HashMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut one = Check::default();
        let value = serde_json::to_value(volume).unwrap_or_default();
        source(&mut one, &value, &path);
        one.present_and_keeps(&path.child("name"), &volume.name, "", label);
        if usable.contains_key(volume.name.as_str()) {
            one.0.push(Error::duplicate(&path.child("name"), volume.name.as_str()));
        }
        if one.0.is_empty() {
            usable.insert(volume.name.as_str(), volume);
        } else {
            check.extend(one.0);
        }
    }
    usable
}

fn source(check: &mut Check, volume: &Value, path: &Path) {
    let mut found = 0;
    for (name, refused) in SOURCES {
        let Some(source) = volume.get(*name).filter(|s| !s.is_null()) else { continue };
        found += 1;
        if found > 1 {
            check.forbidden(&path.child(*refused), "may not specify more than 1 volume type");
            continue;
        }
        one_source(check, name, source, &path.child(*name));
    }
    if found == 0 {
        check.required(path, "must specify a volume type");
    }
}

fn required(check: &mut Check, source: &Value, path: &Path, members: &[&'static str]) {
    for member in members {
        let absent = match &source[*member] {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if absent {
            check.required(&path.child(*member), "");
        }
    }
}

fn mode(check: &mut Check, source: &Value, member: &'static str, path: &Path) {
    if let Some(mode) = source[member].as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(&path.child(member), mode, FILE_MODE);
    }
}

fn in_byte(check: &mut Check, source: &Value, member: &'static str, path: &Path, why: &str) {
    if let Some(number) = source[member].as_i64().filter(|n| !(0..=255).contains(n)) {
        check.invalid(&path.child(member), number, why);
    }
}

fn one_source(check: &mut Check, name: &str, source: &Value, path: &Path) {
    match name {
        "emptyDir" if text(source, &["sizeLimit"]).starts_with('-') => {
            let why = "SizeLimit field must be a valid resource quantity";
            check.forbidden(&path.child("sizeLimit"), why);
        }
        "hostPath" => {
            let at = path.child("path");
            if check.present(&at, text(source, &["path"]), "") {
                no_back_steps(check, &at, text(source, &["path"]));
                if let Some(kind) = source["type"].as_str() {
                    check.one_of(&path.child("type"), kind, HOST_PATHS);
                }
            }
        }
        "gitRepo" => {
            required(check, source, path, &["repository"]);
            descending(check, &path.child("directory"), text(source, &["directory"]));
        }
        "gcePersistentDisk" => {
            let path = &disk_path(path);
            required(check, source, path, &["pdName"]);
            in_byte(check, source, "partition", path, PARTITION);
        }
        "awsElasticBlockStore" => {
            required(check, source, path, &["volumeID"]);
            in_byte(check, source, "partition", path, PARTITION);
        }
        "secret" => {
            required(check, source, path, &["secretName"]);
            mode(check, source, "defaultMode", path);
            keys(check, source, path);
        }
        "configMap" => {
            required(check, source, path, &["name"]);
            mode(check, source, "defaultMode", path);
            keys(check, source, path);
        }
        "nfs" => {
            required(check, source, path, &["server", "path"]);
            let at = text(source, &["path"]);
            if !at.starts_with('/') {
                check.invalid(&path.child("path"), at, "must be an absolute path");
            }
        }
        "iscsi" => {
            required(check, source, path, &["targetPortal", "iqn"]);
            let iqn = text(source, &["iqn"]);
            if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|p| iqn.starts_with(p)) {
                check.invalid(&path.child("iqn"), iqn, "must be valid format starting with iqn, eui, or naa");
            } else if !iqn.is_empty() && !iqn.contains(['.', ':']) {
                check.invalid(&path.child("iqn"), iqn, "must be valid format");
            }
            in_byte(check, source, "lun", path, PARTITION);
            let asks = source["chapAuthDiscovery"] == true || source["chapAuthSession"] == true;
            if asks && source["secretRef"].is_null() {
                check.required(&path.child("secretRef"), "");
            }
        }
        "glusterfs" => required(check, source, path, &["endpoints", "path"]),
        "flocker" => flocker(check, source, path),
        "persistentVolumeClaim" => required(check, source, path, &["claimName"]),
        "rbd" => required(check, source, path, &["monitors", "image"]),
        "cinder" => {
            required(check, source, path, &["volumeID"]);
            named_secret(check, source, path);
        }
        "cephfs" => required(check, source, path, &["monitors"]),
        "quobyte" => quobyte(check, source, path),
        "downwardAPI" => {
            mode(check, source, "defaultMode", path);
            for file in list(source, &["items"]) {
                downward_file(check, file, path);
            }
        }
        "fc" => fibre(check, source, path),
        "flexVolume" => {
            required(check, source, path, &["driver"]);
            for name in source["options"].as_object().into_iter().flatten().map(|(name, _)| name) {
                let domain =
                    format!(".{}", name.split_once('/').map_or(name.as_str(), |(d, _)| d).to_lowercase());
                if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
                    let why = "kubernetes.io and k8s.io namespaces are reserved";
                    check.invalid(&path.child("options").key(name.as_str()), name.as_str(), why);
                }
            }
        }
        "azureFile" => required(check, source, path, &["secretName", "shareName"]),
        "vsphereVolume" => required(check, source, path, &["volumePath"]),
        "photonPersistentDisk" => required(check, source, path, &["pdID"]),
        "portworxVolume" => required(check, source, path, &["volumeID"]),
        "azureDisk" => azure_disk(check, source, path),
        "storageos" => {
            check.present_and_keeps(&path.child("volumeName"), text(source, &["volumeName"]), "", label);
            let namespace = text(source, &["volumeNamespace"]);
            if !namespace.is_empty() {
                check.keeps(&path.child("volumeNamespace"), namespace, label);
            }
            named_secret(check, source, path);
        }
        "projected" => {
            mode(check, source, "defaultMode", path);
            projections(check, source, path);
        }
        "scaleIO" => required(check, source, path, &["gateway", "system", "volumeName"]),
        "csi" => {
            validate_driver_name(check, &path.child("driver"), text(source, &["driver"]));
            if let Some(secret) = source.get("nodePublishSecretRef").filter(|s| !s.is_null()) {
                let name = text(secret, &["name"]);
                if check.present(&path.child("nodePublishSecretRef").child("name"), name, "") {
                    check.keeps(&path.child("name"), name, subdomain);
                }
            }
        }
        "ephemeral" => match source.get("volumeClaimTemplate").filter(|t| !t.is_null()) {
            None => check.required(&path.child("volumeClaimTemplate"), ""),
            Some(template) => {
                let template: PersistentVolumeClaimTemplate = typed(template);
                let at = path.child("volumeClaimTemplate").child("spec");
                super::claim_validation::validate_spec(check, &at, &template.spec);
            }
        },
        "image" => {
            let policy = text(source, &["pullPolicy"]);
            let at = path.child("pullPolicy");
            if check.present(&at, policy, "") {
                check.one_of(&at, policy, &["Always", "IfNotPresent", "Never"]);
            }
        }
        _ => {}
    }
}

/// Upstream calls this source by its old name once it looks into it.
fn disk_path(path: &Path) -> Path {
    let shown = path.to_string();
    let parent = shown.rsplit_once('.').map_or(shown.as_str(), |(parent, _)| parent);
    Path::new(format!("{parent}.persistentDisk"))
}

fn named_secret(check: &mut Check, source: &Value, path: &Path) {
    if let Some(secret) = source.get("secretRef").filter(|s| !s.is_null()) {
        check.present(&path.child("secretRef").child("name"), text(secret, &["name"]), "");
    }
}

fn flocker(check: &mut Check, source: &Value, path: &Path) {
    let (name, id) = (text(source, &["datasetName"]), text(source, &["datasetUUID"]));
    if name.is_empty() && id.is_empty() {
        check.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !id.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        check.invalid(path, "resource", why);
    }
    if name.contains('/') {
        check.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(check: &mut Check, source: &Value, path: &Path) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let (registry, tenant) = (text(source, &["registry"]), text(source, &["tenant"]));
    if registry.is_empty() {
        check.required(&path.child("registry"), PAIRS);
    } else if tenant.len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        check.required(&path.child("tenant"), why);
    } else {
        let wrong = registry.split(',').filter(|pair| pair.matches(':').count() != 1);
        wrong.for_each(|_| check.invalid(&path.child("registry"), registry, PAIRS));
    }
    required(check, source, path, &["volume"]);
}

fn fibre(check: &mut Check, source: &Value, path: &Path) {
    let (names, ids) = (list(source, &["targetWWNs"]), list(source, &["wwids"]));
    let at = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        check.required(&at, "must specify either targetWWNs or wwids, but not both");
    }
    if !names.is_empty() && !ids.is_empty() {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        check.invalid(&at, apimachinery::field::BadValue::json(names), why);
    }
    if !names.is_empty() {
        if source["lun"].is_null() {
            check.required(&path.child("lun"), "lun is required if targetWWNs is specified");
        } else {
            in_byte(check, source, "lun", path, PARTITION);
        }
    }
}

fn azure_disk(check: &mut Check, source: &Value, path: &Path) {
    required(check, source, path, &["diskName", "diskURI"]);
    if let Some(mode) = source["cachingMode"].as_str() {
        check.one_of(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = source["kind"].as_str() else { return };
    check.one_of(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = text(source, &["diskURI"]);
    let (start, form) = match kind {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !uri.starts_with(start) {
        check.0.push(Error::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

/// Keys and the files they become.
fn keys(check: &mut Check, source: &Value, path: &Path) {
    for (i, item) in list(source, &["items"]).iter().enumerate() {
        let path = path.child("items").index(i);
        required(check, item, &path, &["key", "path"]);
        local_path(check, &path.child("path"), text(item, &["path"]));
        mode(check, item, "mode", &path);
    }
}

fn downward_file(check: &mut Check, file: &Value, path: &Path) {
    const FIELDS: &[&str] =
        &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    required(check, file, path, &["path"]);
    local_path(check, &path.child("path"), text(file, &["path"]));
    let part = |name: &str| file.get(name).filter(|p| !p.is_null());
    match (part("fieldRef"), part("resourceFieldRef")) {
        (Some(field), resource) => {
            field_ref(check, &typed(field), FIELDS, &path.child("fieldRef"));
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                check.invalid(path, "resource", why);
            }
        }
        (None, Some(resource)) => {
            let at = path.child("resourceFieldRef");
            resource_ref(check, &typed(resource), CONTAINER_RESOURCES, true, &at);
        }
        (None, None) => check.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(check, file, "mode", path);
}

fn projections(check: &mut Check, source: &Value, path: &Path) {
    let mut paths = HashSet::new();
    let mut claim = |check: &mut Check, at: &str, shown: &str| {
        if !at.is_empty() && !paths.insert(at.to_owned()) {
            check.invalid(path, shown, "conflicting duplicate paths");
        }
    };
    for (i, one) in list(source, &["sources"]).iter().enumerate() {
        let at = path.child("sources").index(i);
        let part = |name: &str| one.get(name).filter(|p| !p.is_null());
        let mut found = 0;
        for name in ["secret", "configMap"] {
            let Some(of) = part(name) else { continue };
            found += 1;
            let at = at.child(name);
            required(check, of, &at, &["name"]);
            keys(check, of, &at);
            for item in list(of, &["items"]) {
                claim(check, text(item, &["path"]), text(of, &["name"]));
            }
        }
        if let Some(of) = part("downwardAPI") {
            found += 1;
            for file in list(of, &["items"]) {
                downward_file(check, file, &at.child("downwardAPI"));
                claim(check, text(file, &["path"]), text(file, &["path"]));
            }
        }
        if let Some(of) = part("serviceAccountToken") {
            found += 1;
            let seconds = of["expirationSeconds"].as_i64().unwrap_or(0);
            let lifetime = at.child("serviceAccountToken").child("expirationSeconds");
            if seconds < 600 {
                check.invalid(&lifetime, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                check.invalid(&lifetime, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            if check.present(&path.child("path"), text(of, &["path"]), "") {
                local_path(check, &path.child("path"), text(of, &["path"]));
            }
        }
        for name in ["clusterTrustBundle", "podCertificate"] {
            found += usize::from(part(name).is_some());
        }
        if let Some(of) = part("clusterTrustBundle") {
            let at = at.child("clusterTrustBundle");
            required(check, of, &at, &["path"]);
            local_path(check, &at.child("path"), text(of, &["path"]));
            claim(check, text(of, &["path"]), text(of, &["path"]));
        }
        if found > 1 {
            check.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// A relative path that stays below.
pub(super) fn descending(check: &mut Check, path: &Path, target: &str) {
    if target.starts_with('/') {
        check.invalid(path, target, "must be a relative path");
    }
    no_back_steps(check, path, target);
}

pub(super) fn no_back_steps(check: &mut Check, path: &Path, target: &str) {
    if target.split('/').any(|part| part == "..") {
        check.invalid(path, target, "must not contain '..'");
    }
}

/// The same, whose name is not kept for the writer of such volumes.
fn local_path(check: &mut Check, path: &Path, target: &str) {
    descending(check, path, target);
    if target.starts_with("..") && target != ".." && !target.starts_with("../") {
        check.invalid(path, target, "must not start with '..'");
    }
}
