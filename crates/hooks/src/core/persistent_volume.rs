//! PersistentVolumes.

use super::persistent_volume_claim::access_modes;
use super::pod_update::set;
use super::small::{AGE, NAME};
use super::volume_validation;
use crate::tree::{absent_or, at, column, list, name, object_age, or, text, with};
use crate::{Column, Context, Strategy};
use apimachinery::field::{ErrorList, Path};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;

/// Annotations that fields took the place of.
const ANNOTATIONS: [(&str, &str); 2] = [
    (
        "volume.beta.kubernetes.io/storage-class",
        "deprecated since v1.8; use \"storageClassName\" attribute instead",
    ),
    (
        "volume.beta.kubernetes.io/mount-options",
        "deprecated since v1.31; use \"mountOptions\" attribute instead",
    ),
];

/// Sources that nothing serves any more, with the names warnings have for them.
const SOURCES: [(&str, &str, &str); 6] = [
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn warnings(volume: &Value) -> Vec<String> {
    let (spec, path) = (&volume["spec"], Path::new("spec"));
    let mut found = Vec::new();
    for (annotation, why) in ANNOTATIONS {
        if at(volume, &["metadata", "annotations", annotation]).is_some() {
            found.push(format!("{}: {why}", Path::new("metadata").child("annotations").key(annotation)));
        }
    }
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        let at = path.child("persistentVolumeReclaimPolicy");
        found.push(format!(
            "{at}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
        ));
    }
    let terms = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
    for (i, term) in list(spec, &["nodeAffinity", "required", "nodeSelectorTerms"]).iter().enumerate() {
        found.extend(super::node_warnings::of_term(term, false, &terms.index(i)));
    }
    let given = SOURCES.iter().filter(|(member, ..)| spec[*member].is_object());
    found.extend(given.map(|(_, shown, why)| format!("{}: {why}", path.child(*shown))));
    found
}

pub(super) struct Volumes;

impl Strategy for Volumes {
    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        volume_validation::validate_new(object)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => volume_validation::validate_status(object),
            _ => volume_validation::validate_update(object, old),
        }
    }

    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            or(spec, "persistentVolumeReclaimPolicy", "Retain");
            absent_or(spec, "volumeMode", "Filesystem");
            with(spec, "hostPath", |source| absent_or(source, "type", ""));
        });
        with(object, "status", |status| or(status, "phase", "Pending"));
    }

    fn prepare_for_create(&self, object: &mut Value, context: &Context) {
        object["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": context.now.to_string()});
    }

    fn prepare_for_update(&self, object: &mut Value, old: &Value, context: &Context) {
        const TIME: &str = "lastPhaseTransitionTime";
        if context.subresource != Some("status") || !object["status"].is_object() {
            return;
        }
        let (phase, time) = (object["status"]["phase"] == old["status"]["phase"], object["status"].get(TIME));
        let before = old["status"].get(TIME).cloned();
        match (phase, time) {
            (true, None) => set(&mut object["status"], TIME, before.as_ref()),
            // The writer did not say when, or said what was there.
            (false, time) if time.is_none() || time == before.as_ref() => {
                object["status"][TIME] = context.now.to_string().into();
            }
            _ => {}
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
            match at(object, &["metadata", "annotations", ANNOTATIONS[0].0]).and_then(Value::as_str) {
                Some(class) => class.into(),
                None => text(object, &["spec", "storageClassName"]).into(),
            },
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
