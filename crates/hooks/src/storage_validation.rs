//! The rules of the kinds of `storage.k8s.io`.

use super::check::{Check, NOT_NEGATIVE, qualified_name, subdomain};
use super::core::validate_driver_name;
use super::tree::{list, text, typed};
use api::core::v1::TopologySelectorTerm;
use api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttachmentStatus,
};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::validation::{SelectorLeniency, validate_label_name, validate_label_selector};
use apimachinery::value::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How many parameters a class has at most, and how long they are together.
const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_SIZE: usize = 256 * 1024;
const MAX_ERROR: usize = 1024;
const MAX_NODE_ID: usize = 256;
const MIN_TOKEN_SECONDS: i64 = 600;

fn parameters(check: &mut Check, path: &Path, parameters: &BTreeMap<String, String>) {
    if parameters.len() > MAX_PARAMETERS {
        check.0.push(Error::too_long(path, MAX_PARAMETERS));
        return;
    }
    for key in parameters.keys().filter(|key| key.is_empty()) {
        check.invalid(path, key.as_str(), "field can not be empty.");
    }
    let size: usize = parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
    check.when(size > MAX_PARAMETER_SIZE, || Error::too_long(path, MAX_PARAMETER_SIZE));
}

fn provisioner(check: &mut Check, path: &Path, name: &str) {
    if check.present(path, name, "") {
        check.keeps(path, &name.to_lowercase(), qualified_name);
    }
}

pub(super) fn validate_class(class: &Value) -> ErrorList {
    let mut check = Check::default();
    let class: StorageClass = typed(class);
    provisioner(&mut check, &Path::new("provisioner"), &class.provisioner);
    parameters(&mut check, &Path::new("parameters"), &class.parameters);
    if let Some(policy) = class.reclaim_policy.as_deref().filter(|p| !p.is_empty()) {
        check.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    match class.volume_binding_mode.as_deref() {
        None => check.required(&Path::new("volumeBindingMode"), ""),
        Some(mode) => {
            check.one_of(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        }
    }
    topologies(&mut check, &Path::new("allowedTopologies"), &class.allowed_topologies);
    check.0
}

fn topologies(check: &mut Check, path: &Path, terms: &[TopologySelectorTerm]) {
    // Upstream's list of what it has seen begins with an empty term for each that there is.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (i, term) in terms.iter().enumerate() {
        let (at, mut found) = (path.index(i).child("matchLabelExpressions"), BTreeMap::new());
        for (j, requirement) in term.match_label_expressions.iter().enumerate() {
            let (at, mut values) = (at.index(j), BTreeSet::new());
            check.when(requirement.values.is_empty(), || Error::required(&at.child("values"), ""));
            for (k, value) in requirement.values.iter().enumerate() {
                let twice = !values.insert(value.as_str());
                check.when(twice, || Error::duplicate(&at.child("values").index(k), value.as_str()));
            }
            check.extend(validate_label_name(&requirement.key, &at.child("key")));
            let twice = found.insert(requirement.key.as_str(), values).is_some();
            check.when(twice, || Error::duplicate(&at.child("key"), requirement.key.as_str()));
        }
        seen.iter().filter(|other| **other == found).for_each(|_| check.0.push(Error::duplicate(&at, "")));
        seen.push(found);
    }
}

pub(super) fn validate_attachment(attachment: &Value) -> ErrorList {
    let mut check = Check::default();
    let attachment: VolumeAttachment = typed(attachment);
    let (path, spec) = (Path::new("spec"), &attachment.spec);
    validate_driver_name(&mut check, &path.child("attacher"), &spec.attacher);
    let at = path.child("source");
    match (&spec.source.inline_volume_spec, &spec.source.persistent_volume_name) {
        (None, None) => {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            check.required(&at, why);
        }
        (Some(_), Some(_)) => {
            let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
            check.forbidden(&at, why);
        }
        (None, Some(name)) if name.is_empty() => {
            let why = "must specify non empty persistentVolumeName";
            check.required(&at.child("persistentVolumeName"), why);
        }
        (Some(inline), None) if inline.csi.is_none() => {
            let why = "has to be specified in the context of inline volumes";
            check.required(&at.child("inlineVolumeSpec").child("csi"), why);
        }
        _ => {}
    }
    check.keeps(&path.child("nodeName"), &spec.node_name, subdomain);
    status(&mut check, &Path::new("status"), &attachment.status);
    if let Some(name) = &spec.source.persistent_volume_name {
        check.keeps(&Path::new("spec.source.persistentVolumeName"), name, subdomain);
    }
    check.0
}

fn status(check: &mut Check, path: &Path, status: &VolumeAttachmentStatus) {
    let size: usize = status.attachment_metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    let at = path.child("attachmentMetadata");
    check.when(size > MAX_PARAMETER_SIZE, || Error::too_long(&at, MAX_PARAMETER_SIZE));
    for (member, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        let (Some(error), path) = (error, path.child(member)) else { continue };
        let long = error.message.len() > MAX_ERROR;
        // Upstream names the other limit.
        check.when(long, || Error::too_long(&path.child("message"), MAX_PARAMETER_SIZE));
        if let Some(code) = error.error_code.filter(|code| *code < 0) {
            let why = format!("must be between 0 and {}, inclusive", i32::MAX);
            check.invalid(&path.child("errorCode"), code, why);
        }
    }
}

pub(super) fn validate_node(node: &Value) -> ErrorList {
    let mut check = Check::default();
    let node: CSINode = typed(node);
    let drivers = &node.spec.drivers;
    for (i, driver) in drivers.iter().enumerate() {
        let path = Path::new("spec").child("drivers").index(i);
        validate_driver_name(&mut check, &path.child("name"), &driver.name);
        let at = path.child("nodeID");
        check.present(&at, &driver.node_id, "");
        if driver.node_id.len() > MAX_NODE_ID {
            let why = format!("must be {MAX_NODE_ID} characters or less");
            check.invalid(&at, driver.node_id.as_str(), why);
        }
        if let Some(count) = driver.allocatable.as_ref().and_then(|a| a.count) {
            check.not_negative(&path.child("allocatable").child("count"), count);
        }
        if drivers[..i].iter().any(|d| d.name == driver.name) {
            check.0.push(Error::duplicate(&path.child("name"), driver.name.as_str()));
        }
        for (j, key) in driver.topology_keys.iter().enumerate() {
            check.present(&path, key, "");
            let twice = driver.topology_keys[..j].contains(key);
            check.when(twice, || Error::duplicate(&path, key.as_str()));
            check.keeps(&path, key, qualified_name);
        }
    }
    check.0
}

/// What a node says of a driver changes only in how many volumes it takes.
pub(super) fn validate_node_update(node: &Value, old: &Value) -> ErrorList {
    let mut check = Check::default();
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        super::tree::remove(&mut driver, "allocatable");
        driver
    };
    for before in list(old, &["spec", "drivers"]) {
        for now in list(node, &["spec", "drivers"]).iter().filter(|now| now["name"] == before["name"]) {
            if fixed(now) != fixed(before) {
                let at = Path::new("spec").child("drivers");
                check.invalid(
                    &at,
                    super::shown::shown_as("io.k8s.api.storage.v1.CSINodeDriver", &fixed(now)),
                    "field is immutable",
                );
            }
        }
    }
    check.0
}

/// The mode of attaching and the modes of life never change.
pub(super) fn validate_driver_update(driver: &Value, old: &Value) -> ErrorList {
    let mut check = Check::default();
    for (member, shown) in
        [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
    {
        let (now, before) = (&driver["spec"][member], &old["spec"][member]);
        if now != before {
            check.invalid(&Path::new("spec").child(shown), now, "field is immutable");
        }
    }
    check.0
}

const SECRETS_RECOMMENDED: &str = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes";

/// Tokens of pods had better not go where they may be logged.
pub(super) fn driver_warnings(driver: &Value, old: Option<&Value>) -> Vec<String> {
    let requests = list(driver, &["spec", "tokenRequests"]);
    let changed = old.is_none_or(|old| list(old, &["spec", "tokenRequests"]) != requests);
    let told = changed && !requests.is_empty() && driver["spec"]["serviceAccountTokenInSecrets"].is_null();
    told.then(|| SECRETS_RECOMMENDED.to_owned()).into_iter().collect()
}

pub(super) fn validate_driver(driver: &Value) -> ErrorList {
    let mut check = Check::default();
    let driver: CSIDriver = typed(driver);
    let (path, spec) = (Path::new("spec"), &driver.spec);
    if let Some(policy) = &spec.fs_group_policy {
        check.one_of(&path.child("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    for (i, request) in spec.token_requests.iter().enumerate() {
        let at = path.child("tokenRequests").index(i);
        if spec.token_requests[..i].iter().any(|r| r.audience == request.audience) {
            check.0.push(Error::duplicate(&at.child("audience"), request.audience.as_str()));
            continue;
        }
        let at = at.child("expirationSeconds");
        match request.expiration_seconds {
            Some(seconds) if seconds < MIN_TOKEN_SECONDS => {
                check.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > 1 << 32 => {
                check.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    for mode in &spec.volume_lifecycle_modes {
        check.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if let Some(period) = spec.node_allocatable_update_period_seconds.filter(|p| *p < 10) {
        let why = "must be greater than or equal to 10 seconds";
        check.invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), period, why);
    }
    if let Some(flag) = spec.service_account_token_in_secrets.filter(|_| spec.token_requests.is_empty()) {
        let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        check.invalid(&path.child("serviceAccountTokenInSecrets"), flag, why);
    }
    check.0
}

pub(super) fn validate_capacity(capacity: &Value) -> ErrorList {
    let mut check = Check::default();
    let capacity: CSIStorageCapacity = typed(capacity);
    let topology = capacity.node_topology.as_ref();
    check.extend(validate_label_selector(topology, SelectorLeniency::default(), &Path::new("nodeTopology")));
    check.keeps(&Path::new("storageClassName"), &capacity.storage_class_name, subdomain);
    if let Some(size) = capacity.capacity.as_ref().filter(|q| q.cmp_i64(0).is_lt()) {
        check.invalid(&Path::new("capacity"), size.to_string(), NOT_NEGATIVE);
    }
    check.0
}

/// A class never changes; what is wrong with the new one is told, too.
pub(super) fn validate_attributes_class_update(class: &Value, old: &Value) -> ErrorList {
    let mut check = Check::default();
    for member in ["driverName", "parameters"] {
        if class[member] != old[member] {
            check.forbidden(&Path::new(member), format!("updates to {member} are forbidden."));
        }
    }
    check.extend(validate_attributes_class(class));
    check.0
}

pub(super) fn validate_attributes_class(class: &Value) -> ErrorList {
    let mut check = Check::default();
    provisioner(&mut check, &Path::new("driverName"), text(class, &["driverName"]));
    let given: BTreeMap<String, String> =
        typed::<Option<BTreeMap<String, String>>>(&class["parameters"]).unwrap_or_default();
    let path = Path::new("parameters");
    parameters(&mut check, &path, &given);
    if given.is_empty() {
        check.required(&path, "must contain at least one key/value pair");
    }
    check.0
}
