//! What is wrong with a pod's volumes. Upstream: `ValidateVolumes`.

use super::pod_certificate_volume;
use super::pod_env::{CONTAINER_RESOURCES, field_ref, resource_ref};
use super::volume_sources::{descending, mode, required, shared_source, validate_driver_name};
use crate::check::{Check, label, subdomain};
use crate::names::trust_bundle_name_errors;
use crate::shown::shown_as;
use crate::signer_name::validate_signer_name;
use crate::tree::{list, text, typed};
use api::core::v1::{PersistentVolumeClaimTemplate, Volume};
use apimachinery::field::{Error, Path};
use apimachinery::meta::LabelSelector;
use apimachinery::meta::validation::validate_label_selector;
use apimachinery::validation::NameUse;
use apimachinery::value::Value;
use std::collections::{HashMap, HashSet};

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

/// Judges volumes, of which `trees` are the trees; returns those that can be mounted, by name.
pub(super) fn validate<'a>(
    check: &mut Check,
    volumes: &'a [Volume],
    trees: &[Value],
    path: &Path,
) -> HashMap<&'a str, &'a Volume> {
    let mut usable = HashMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut one = Check::default();
        source(&mut one, trees.get(i).unwrap_or(&Value::Null), &path);
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

fn one_source(check: &mut Check, name: &str, source: &Value, path: &Path) {
    match name {
        "emptyDir" if text(source, &["sizeLimit"]).starts_with('-') => {
            let why = "SizeLimit field must be a valid resource quantity";
            check.forbidden(&path.child("sizeLimit"), why);
        }
        "gitRepo" => {
            required(check, source, path, &["repository"]);
            descending(check, &path.child("directory"), text(source, &["directory"]));
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
        "persistentVolumeClaim" => required(check, source, path, &["claimName"]),
        "downwardAPI" => {
            mode(check, source, "defaultMode", path);
            for file in list(source, &["items"]) {
                downward_file(check, file, path);
            }
        }
        "projected" => {
            mode(check, source, "defaultMode", path);
            projections(check, source, path);
        }
        "csi" => {
            validate_driver_name(check, &path.child("driver"), text(source, &["driver"]));
            if let Some(secret) = source.get("nodePublishSecretRef").filter(|s| !s.is_null()) {
                let name = text(secret, &["name"]);
                if check.present(&path.child("nodePublishSecretRef").child("name"), name, "") {
                    check.keeps(&path.child("name"), name, subdomain);
                }
            }
        }
        "image" => {
            let policy = text(source, &["pullPolicy"]);
            let at = path.child("pullPolicy");
            if check.present(&at, policy, "") {
                check.one_of(&at, policy, &["Always", "IfNotPresent", "Never"]);
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
        _ => shared_source(check, name, source, path),
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
            trust_bundles(check, of, &at);
            required(check, of, &at, &["path"]);
            local_path(check, &at.child("path"), text(of, &["path"]));
            claim(check, text(of, &["path"]), text(of, &["path"]));
        }
        if let Some(of) = part("podCertificate") {
            let at = at.child("podCertificate");
            pod_certificate_volume::validate(check, &typed(of), &at, |check, file| claim(check, file, file));
        }
        if found > 1 {
            check.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// Either one bundle by name, or those of a signer.
fn trust_bundles(check: &mut Check, of: &Value, at: &Path) {
    let selector = of.get("labelSelector").filter(|selector| !selector.is_null());
    match (of["name"].as_str(), of["signerName"].as_str()) {
        (Some(_), Some(_)) => {
            let shown = shown_as("io.k8s.api.core.v1.ClusterTrustBundleProjection", of);
            check.invalid(at, shown, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            check.present(&at.child("name"), name, "must be a valid object name");
            let signer = name.rsplit_once(':').map(|(signer, _)| signer.replace(':', "/"));
            for why in trust_bundle_name_errors(&signer.unwrap_or_default(), name, NameUse::Whole) {
                check.invalid(&at.child("name"), name, format!("not a valid clustertrustbundlename: {why}"));
            }
            if let Some(selector) = selector {
                let shown = shown_as("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector", selector);
                let why = "labelSelector must be unset if name is specified";
                check.invalid(&at.child("labelSelector"), shown, why);
            }
        }
        (None, Some(signer)) => {
            check.present(&at.child("signerName"), signer, "must be a valid signer name");
            validate_signer_name(check, &at.child("signerName"), signer);
            let selector: Option<LabelSelector> = selector.map(typed);
            let errors =
                validate_label_selector(selector.as_ref(), Default::default(), &at.child("labelSelector"));
            check.0.extend(errors);
        }
        (None, None) => check.required(at, "either name or signerName must be specified"),
    }
}

/// A relative path that stays below, whose name is not kept for the writer of such volumes.
pub(super) fn local_path(check: &mut Check, path: &Path, target: &str) {
    descending(check, path, target);
    if target.starts_with("..") && target != ".." && !target.starts_with("../") {
        check.invalid(path, target, "must not start with '..'");
    }
}
