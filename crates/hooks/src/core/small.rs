//! Kinds with little of their own: configuration, accounts, endpoints, volumes, limits.

use super::{claim_validation, endpoints_validation, quota_validation, volume_validation};
use crate::tree::{absent_or, at, column, each, joined, list, name, object_age, or, text, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::time::Time;
use apimachinery::validation::is_config_map_key;
use serde_json::{Value, json};

const NAME: Column = column(
    "Name",
    "string",
    0,
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);
const AGE: Column = column(
    "Age",
    "string",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);
/// What a Secret or ConfigMap may hold.
const MAX_SIZE: usize = 1 << 20;

fn count(object: &Value, member: &str) -> usize {
    object.get(member).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

/// Keys and sizes of the members that hold data.
fn validate_data(object: &Value, members: &[&str]) -> ErrorList {
    let mut errors = ErrorList::default();
    let mut size = 0;
    for member in members {
        for (key, value) in object.get(*member).and_then(Value::as_object).into_iter().flatten() {
            let found = is_config_map_key(key);
            errors.extend(
                found.into_iter().map(|t| {
                    Error::invalid(&Path::new(member.to_string()).key(key.as_str()), key.as_str(), t)
                }),
            );
            let length = value.as_str().map_or(0, str::len);
            // Bytes are base64 here.
            size += if *member == "data" && members.len() == 2 { length } else { length / 4 * 3 };
        }
    }
    if size > MAX_SIZE {
        // Upstream names no field for the data of a ConfigMap.
        let at = if members.len() == 2 { Path::none().key("") } else { Path::new(members[0].to_string()) };
        errors.push(Error::too_long(&at, MAX_SIZE));
    }
    errors
}

/// An immutable object's data stay as they are, and so does its being immutable.
fn validate_immutable(object: &Value, old: &Value, members: &[&str]) -> ErrorList {
    let mut errors = ErrorList::default();
    if old["immutable"] != true {
        return errors;
    }
    const TEXT: &str = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        errors.push(Error::forbidden(&Path::new("immutable"), TEXT));
    }
    for member in members {
        if object.get(*member) != old.get(*member) {
            errors.push(Error::forbidden(&Path::new(member.to_string()), TEXT));
        }
    }
    errors
}

pub(super) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        let mut errors = validate_data(object, &["data", "binaryData"]);
        let binary = object.get("binaryData").and_then(Value::as_object);
        for key in object.get("data").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                let text = "duplicate of key present in binaryData";
                errors.push(Error::invalid(&Path::new("data").key(key.as_str()), key.as_str(), text));
            }
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        let mut errors = self.validate(object, context);
        errors.extend(validate_immutable(object, old, &["data", "binaryData"]));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Data",
                "string",
                0,
                "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let data = count(object, "data") + count(object, "binaryData");
        vec![name(object), data.into(), object_age(object, now).into()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct Secrets;

impl Strategy for Secrets {
    fn default(&self, secret: &mut Value) {
        or(secret, "type", "Opaque");
        // What is written as text is kept as bytes.
        if let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) {
            use base64::Engine as _;
            for (key, text) in texts {
                let bytes = text.as_str().unwrap_or_default();
                secret["data"][key] = base64::engine::general_purpose::STANDARD.encode(bytes).into();
            }
        }
    }

    fn validate(&self, secret: &Value, _: &Context) -> ErrorList {
        let mut errors = validate_data(secret, &["data"]);
        let data = Path::new("data");
        let needs = |errors: &mut ErrorList, key: &'static str| {
            if at(secret, &["data", key]).is_none() {
                errors.push(Error::required(&data.key(key), ""));
            }
        };
        match text(secret, &["type"]) {
            "kubernetes.io/service-account-token" => {
                let account =
                    text(secret, &["metadata", "annotations", "kubernetes.io/service-account.name"]);
                if account.is_empty() {
                    let path =
                        Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
                    errors.push(Error::required(&path, ""));
                }
            }
            "kubernetes.io/dockercfg" => needs(&mut errors, ".dockercfg"),
            "kubernetes.io/dockerconfigjson" => needs(&mut errors, ".dockerconfigjson"),
            "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(|key| needs(&mut errors, key)),
            "kubernetes.io/ssh-auth" => needs(&mut errors, "ssh-privatekey"),
            "kubernetes.io/basic-auth"
                if ["username", "password"].iter().all(|key| at(secret, &["data", key]).is_none()) =>
            {
                errors.push(Error::required(&data.key("username"), ""));
                errors.push(Error::required(&data.key("password"), ""));
            }
            _ => {}
        }
        errors
    }

    fn validate_update(&self, secret: &Value, old: &Value, context: &Context) -> ErrorList {
        let mut errors = ErrorList::default();
        if secret["type"] != old["type"] {
            errors.push(Error::invalid(&Path::new("type"), text(secret, &["type"]), "field is immutable"));
        }
        errors.extend(validate_immutable(secret, old, &["data"]));
        errors.extend(self.validate(secret, context));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Type",
                "string",
                0,
                "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
            ),
            column(
                "Data",
                "string",
                0,
                "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, secret: &Value, now: Time) -> Vec<Value> {
        vec![
            name(secret),
            text(secret, &["type"]).into(),
            count(secret, "data").into(),
            object_age(secret, now).into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("type", |secret| text(secret, &["type"]).into())]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct ServiceAccounts;

impl Strategy for ServiceAccounts {
    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Secrets", "string", 0, "Secrets is the list of secrets allowed to be used by pods."),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        vec![name(object), list(object, &["secrets"]).len().into(), object_age(object, now).into()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct EndpointsLists;

impl Strategy for EndpointsLists {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        endpoints_validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, _: &Context) -> ErrorList {
        endpoints_validation::validate_update(object, old)
    }

    fn default(&self, object: &mut Value) {
        each(object, "subsets", |subset| each(subset, "ports", |port| or(port, "protocol", "TCP")));
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Endpoints",
                "string",
                0,
                "The set of all endpoints is the union of all subsets. Addresses are placed into subsets according to the IPs they share. A single address with multiple ports, some of which are ready and some of which are not (because they come from different containers) will result in the address being displayed in different subsets for the different ports. No address will appear in both Addresses and NotReadyAddresses in the same subset. Sets of addresses and ports that comprise a service.",
            ),
            AGE,
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let mut all = Vec::new();
        for subset in list(object, &["subsets"]) {
            let ips = || list(subset, &["addresses"]).iter().map(|a| text(a, &["ip"]));
            match list(subset, &["ports"]) {
                [] => all.extend(ips().map(str::to_owned)),
                ports => all.extend(
                    ports.iter().flat_map(|port| ips().map(move |ip| format!("{ip}:{}", port["port"]))),
                ),
            }
        }
        let shown = joined(all.iter().take(3).map(String::as_str), "<none>");
        let shown = if all.len() > 3 { format!("{shown} + {} more...", all.len() - 3) } else { shown };
        vec![name(object), shown.into(), object_age(object, now).into()]
    }

    fn has_generation(&self) -> bool {
        false
    }
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
            Some("status") => ErrorList::new(),
            _ => claim_validation::validate_update(object, old),
        }
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| absent_or(spec, "volumeMode", "Filesystem"));
        with(object, "status", |status| absent_or(status, "phase", "Pending"));
    }

    fn prepare_for_create(&self, object: &mut Value, _: &Context) {
        object["status"] = json!({"phase": "Pending"});
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
            (
                text(object, &["status", "capacity", "storage"]),
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

fn access_modes(modes: &[Value]) -> String {
    let short = |mode: &Value| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    };
    joined(modes.iter().map(short), "")
}

pub(super) struct Volumes;

impl Strategy for Volumes {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        volume_validation::validate(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => ErrorList::new(),
            _ => volume_validation::validate_update(object, old),
        }
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            or(spec, "persistentVolumeReclaimPolicy", "Retain");
            absent_or(spec, "volumeMode", "Filesystem");
            with(spec, "hostPath", |source| absent_or(source, "type", ""));
        });
    }

    fn prepare_for_create(&self, object: &mut Value, context: &Context) {
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": context.now.to_string()});
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Capacity",
                "string",
                0,
                "capacity is the description of the persistent volume's resources and capacity. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
            ),
            column(
                "Access Modes",
                "string",
                0,
                "accessModes contains all ways the volume can be mounted. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
            ),
            column(
                "Reclaim Policy",
                "string",
                0,
                "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
            ),
            column(
                "Status",
                "string",
                0,
                "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
            ),
            column(
                "Claim",
                "string",
                0,
                "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
            ),
            column("StorageClass", "string", 0, "StorageClass of the pv"),
            column("VolumeAttributesClass", "string", 0, "VolumeAttributesClass of the pv"),
            column(
                "Reason",
                "string",
                0,
                "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy display in the CLI.",
            ),
            AGE,
            column(
                "VolumeMode",
                "string",
                1,
                "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        let deleting = !text(object, &["metadata", "deletionTimestamp"]).is_empty();
        let phase = if deleting { "Terminating" } else { text(object, &["status", "phase"]) };
        let claim = match text(object, &["spec", "claimRef", "name"]) {
            "" => String::new(),
            claim => format!("{}/{claim}", text(object, &["spec", "claimRef", "namespace"])),
        };
        let attributes = match text(object, &["spec", "volumeAttributesClassName"]) {
            "" => "<unset>",
            class => class,
        };
        vec![
            name(object),
            text(object, &["spec", "capacity", "storage"]).into(),
            access_modes(list(object, &["spec", "accessModes"])).into(),
            text(object, &["spec", "persistentVolumeReclaimPolicy"]).into(),
            phase.into(),
            claim.into(),
            text(object, &["spec", "storageClassName"]).into(),
            attributes.into(),
            text(object, &["status", "reason"]).into(),
            object_age(object, now).into(),
            text(object, &["spec", "volumeMode"]).into(),
        ]
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct LimitRanges;

impl Strategy for LimitRanges {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        quota_validation::validate_limit_range(&typed(object))
    }

    fn validate_update(&self, object: &Value, _: &Value, context: &Context) -> ErrorList {
        self.validate(object, context)
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            each(spec, "limits", |limit| {
                if limit["type"] != "Container" {
                    return;
                }
                // Limits from the maximum, requests from limits, then from the minimum.
                for (from, to) in
                    [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
                {
                    for (resource, quantity) in limit[from].as_object().cloned().unwrap_or_default() {
                        absent_or(limit, to, json!({}));
                        absent_or(&mut limit[to], &resource, quantity);
                    }
                }
            });
        });
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Created At",
                "date",
                0,
                "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Time) -> Vec<Value> {
        vec![name(object), object["metadata"]["creationTimestamp"].clone()]
    }

    fn has_generation(&self) -> bool {
        false
    }
}
