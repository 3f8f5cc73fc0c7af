//! The rules of each source of a volume, in pods and in volumes of the cluster.

use crate::check::{Check, label, subdomain};
use crate::tree::{list, text, typed};
use api::core::v1::{CSIPersistentVolumeSource, SecretReference};
use apimachinery::field::{Error, Path};
use apimachinery::value::Value;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const PARTITION: &str = "must be between 0 and 255, inclusive";
const HOST_PATHS: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FORM: &str = "must be valid format";
const FORM_OF_POD: &str = "must be valid format starting with iqn, eui, or naa";

pub(super) fn required(check: &mut Check, source: &Value, path: &Path, members: &[&'static str]) {
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

pub(super) fn mode(check: &mut Check, source: &Value, member: &'static str, path: &Path) {
    if let Some(mode) = source[member].as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        check.invalid(&path.child(member), mode, FILE_MODE);
    }
}

fn in_byte(check: &mut Check, source: &Value, member: &'static str, path: &Path, why: &str) {
    if let Some(number) = source[member].as_i64().filter(|n| !(0..=255).contains(n)) {
        check.invalid(&path.child(member), number, why);
    }
}

/// A source that pods and volumes of the cluster name alike.
pub(super) fn shared_source(check: &mut Check, name: &str, source: &Value, path: &Path) {
    match name {
        "hostPath" => {
            let at = path.child("path");
            if check.present(&at, text(source, &["path"]), "") {
                no_back_steps(check, &at, text(source, &["path"]));
                if let Some(kind) = source["type"].as_str() {
                    check.one_of(&path.child("type"), kind, HOST_PATHS);
                }
            }
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
        "nfs" => {
            required(check, source, path, &["server", "path"]);
            let at = text(source, &["path"]);
            if !at.starts_with('/') {
                check.invalid(&path.child("path"), at, "must be an absolute path");
            }
        }
        "iscsi" => {
            required(check, source, path, &["targetPortal", "iqn"]);
            target(check, path, "iqn", text(source, &["iqn"]), FORM_OF_POD);
            in_byte(check, source, "lun", path, PARTITION);
            let asks = source["chapAuthDiscovery"] == true || source["chapAuthSession"] == true;
            if asks && source["secretRef"].is_null() {
                check.required(&path.child("secretRef"), "");
            }
            target(check, path, "initiatorName", text(source, &["initiatorName"]), FORM_OF_POD);
        }
        "glusterfs" => required(check, source, path, &["endpoints", "path"]),
        "flocker" => flocker(check, source, path),
        "rbd" => required(check, source, path, &["monitors", "image"]),
        "cinder" => {
            required(check, source, path, &["volumeID"]);
            named_secret(check, source, path);
        }
        "cephfs" => required(check, source, path, &["monitors"]),
        "quobyte" => quobyte(check, source, path),
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
        "scaleIO" => required(check, source, path, &["gateway", "system", "volumeName"]),
        _ => {}
    }
}

/// A source of a volume of the cluster, which knows namespaces.
pub(super) fn persistent_source(check: &mut Check, name: &str, source: &Value, path: &Path, volume: &str) {
    match name {
        "local" => {
            if check.present(&path.child("path"), text(source, &["path"]), "") {
                no_back_steps(check, &path.child("path"), text(source, &["path"]));
            }
        }
        "csi" => csi(check, path, source),
        "iscsi" => iscsi(check, source, path, volume),
        "azureFile" => {
            required(check, source, path, &["secretName", "shareName"]);
            if source["secretNamespace"] == "" {
                check.required(&path.child("secretNamespace"), "");
            }
        }
        "glusterfs" => {
            required(check, source, path, &["endpoints", "path"]);
            let at = path.child("endpointsNamespace");
            match source["endpointsNamespace"].as_str() {
                Some("") => {
                    let why = "if the endpointnamespace is set, it must be a valid namespace name";
                    check.invalid(&at, "", why);
                }
                Some(namespace) => check.keeps(&at, namespace, label),
                None => {}
            }
        }
        "cinder" | "storageos" => {
            shared_source(check, name, source, path);
            if source["secretRef"].is_object() {
                let at = path.child("secretRef").child("namespace");
                check.present(&at, text(source, &["secretRef", "namespace"]), "");
            }
        }
        _ => shared_source(check, name, source, path),
    }
}

/// The name of an iSCSI node, which upstream's messages give in lower case.
fn target(check: &mut Check, path: &Path, member: &str, name: &str, start: &str) {
    if name.is_empty() {
        return;
    }
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    // A kind of name, any character, and the name: upstream's patterns escape no dot there.
    let rest = |name: &str| name.chars().skip(4).collect::<String>();
    let why = match name.get(..3) {
        Some("iqn") => (!is_qualified(name)).then_some(FORM),
        Some("eui") => (!alphanumeric(&rest(name), 16)).then_some(FORM),
        Some("naa") => (!alphanumeric(&rest(name), 32)).then_some(FORM),
        _ => Some(start),
    };
    if let Some(why) = why {
        check.invalid(&path.child(member.to_lowercase()), name, why);
    }
}

/// `iqn.2001-04.com.example:storage`
fn is_qualified(name: &str) -> bool {
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_at_checked(8)) else {
        return false;
    };
    let form = |(i, byte): (usize, u8)| match i {
        4 => byte == b'-',
        7 => byte == b'.',
        _ => byte.is_ascii_digit(),
    };
    let Some((authority, name)) = rest.split_once(':') else { return false };
    date.bytes().enumerate().all(form)
        && !authority.is_empty()
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && !name.is_empty()
        && !name.contains(|c: char| ",;*&$|".contains(c) || c.is_ascii_whitespace())
}

fn iscsi(check: &mut Check, source: &Value, path: &Path, volume: &str) {
    const LONGEST: usize = 64;
    let portal = text(source, &["targetPortal"]);
    check.present(&path.child("targetPortal"), portal, "");
    let initiator = source["initiatorName"].as_str();
    if initiator.is_some() && volume.len() + 1 + portal.len() > LONGEST {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        check.invalid(&path.child("targetportal"), portal, why);
    }
    required(check, source, path, &["iqn"]);
    target(check, path, "iqn", text(source, &["iqn"]), FORM);
    in_byte(check, source, "lun", path, PARTITION);
    let asks = source["chapAuthDiscovery"] == true || source["chapAuthSession"] == true;
    if asks && source["secretRef"].is_null() {
        check.required(&path.child("secretRef"), "");
    }
    named_secret(check, source, path);
    target(check, path, "initiatorName", initiator.unwrap_or_default(), FORM);
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

fn secret_reference(check: &mut Check, path: &Path, secret: Option<&SecretReference>) {
    let Some(secret) = secret else { return };
    check.present_and_keeps(&path.child("name"), &secret.name, "", subdomain);
    check.present_and_keeps(&path.child("namespace"), &secret.namespace, "", label);
}

fn csi(check: &mut Check, path: &Path, source: &Value) {
    let source: CSIPersistentVolumeSource = typed(source);
    validate_driver_name(check, &path.child("driver"), &source.driver);
    check.present(&path.child("volumeHandle"), &source.volume_handle, "");
    for (member, secret) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        secret_reference(check, &path.child(member), secret.as_ref());
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
