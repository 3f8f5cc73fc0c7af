//! Hooks of `storage.k8s.io`.

use super::Row;
use super::plain::Plain;
use super::storage_validation;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, column, int, joined, list, name, object_age, text, with};
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[
    ("storage.k8s.io", "CSIDriver", &CSI_DRIVERS),
    ("storage.k8s.io", "CSINode", &CSI_NODES),
    ("storage.k8s.io", "CSIStorageCapacity", &CAPACITIES),
    ("storage.k8s.io", "StorageClass", &STORAGE_CLASSES),
    ("storage.k8s.io", "VolumeAttachment", &ATTACHMENTS),
    ("storage.k8s.io", "VolumeAttributesClass", &ATTRIBUTES_CLASSES),
];

static CSI_DRIVERS: Plain = Plain {
    validate: storage_validation::validate_driver,
    validate_update: |driver, old, _| storage_validation::validate_driver_update(driver, old),
    warnings: storage_validation::driver_warnings,
    // A new one has no generation.
    prepare_for_update: |driver, old, _| {
        if driver["spec"] != old["spec"] {
            let generation = int(old, &["metadata", "generation"]) + 1;
            driver["metadata"]["generation"] = generation.into();
        }
    },
    default: |driver| {
        with(driver, "spec", |spec| {
            absent_or(spec, "attachRequired", true);
            absent_or(spec, "podInfoOnMount", false);
            absent_or(spec, "storageCapacity", false);
            absent_or(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
            if list(spec, &["volumeLifecycleModes"]).is_empty() {
                spec["volumeLifecycleModes"] = json!(["Persistent"]);
            }
            absent_or(spec, "requiresRepublish", false);
            absent_or(spec, "seLinuxMount", false);
        });
    },
    columns: &[
        NAME,
        column(
            "AttachRequired",
            "boolean",
            0,
            "attachRequired indicates this CSI volume driver requires an attach operation (because it implements the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should call the attach volume interface which checks the volumeattachment status and waits until the volume is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume driver and updates the volumeattachment status when the attach operation is complete. If the value is specified to false, the attach operation will be skipped. Otherwise the attach operation will be called.\n\nThis field is immutable.",
        ),
        column(
            "PodInfoOnMount",
            "boolean",
            0,
            "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() calls. The CSI driver is responsible for parsing and validating the information passed in as VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline volume\n                                defined by a CSIVolumeSource, otherwise \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, drivers can only support one mode when deployed on such a cluster and the deployment determines which mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in Kubernetes < 1.29 and now is mutable.",
        ),
        column(
            "StorageCapacity",
            "boolean",
            0,
            "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that case, provisioning new volumes with late binding will pause until the driver deployment has published some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field unset or false and it can be flipped later when storage capacity information has been published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
        ),
        column(
            "TokenRequests",
            "string",
            0,
            "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: Audience in each TokenRequest should be different and at most one token is empty string. To receive a new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
        ),
        column(
            "RequiresRepublish",
            "boolean",
            0,
            "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update the contents of the volume. New mount points will not be seen by a running container.",
        ),
        column(
            "Modes",
            "string",
            0,
            "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the lifecycle of that pod. A driver has to be aware of this because it is only going to get a NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
        ),
        AGE,
    ],
    cells: |driver, now| {
        let flag = |field: &str| Value::from(driver["spec"][field] == true);
        let tokens = list(driver, &["spec", "tokenRequests"]).iter().map(|t| text(t, &["audience"]));
        let modes = list(driver, &["spec", "volumeLifecycleModes"]).iter().filter_map(Value::as_str);
        vec![
            name(driver),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            joined(tokens, "<unset>").into(),
            flag("requiresRepublish"),
            joined(modes, "<none>").into(),
            object_age(driver, now).into(),
        ]
    },
    ..Plain::NEW
};

static CSI_NODES: Plain = Plain {
    validate: storage_validation::validate_node,
    validate_update: |node, old, _| storage_validation::validate_node_update(node, old),
    columns: &[
        NAME,
        column("Drivers", "integer", 0, "Drivers indicates the number of CSI drivers registered on the node"),
        AGE,
    ],
    cells: |node, now| {
        vec![name(node), list(node, &["spec", "drivers"]).len().into(), object_age(node, now).into()]
    },
    ..Plain::NEW
};

static STORAGE_CLASSES: Plain = Plain {
    validate: storage_validation::validate_class,
    default: |class| {
        absent_or(class, "reclaimPolicy", "Delete");
        absent_or(class, "volumeBindingMode", "Immediate");
    },
    immutable: &[&["parameters"], &["provisioner"], &["reclaimPolicy"], &["volumeBindingMode"]],
    columns: &[
        NAME,
        column("Provisioner", "string", 0, "provisioner indicates the type of the provisioner."),
        column(
            "ReclaimPolicy",
            "string",
            0,
            "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
        ),
        column(
            "VolumeBindingMode",
            "string",
            0,
            "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
        ),
        column(
            "AllowVolumeExpansion",
            "string",
            0,
            "allowVolumeExpansion shows whether the storage class allow volume expand.",
        ),
        AGE,
    ],
    cells: |class, now| {
        let marked = |key: &str| text(class, &["metadata", "annotations", key]) == "true";
        let default = marked("storageclass.kubernetes.io/is-default-class")
            || marked("storageclass.beta.kubernetes.io/is-default-class");
        let shown =
            format!("{}{}", text(class, &["metadata", "name"]), if default { " (default)" } else { "" });
        vec![
            shown.into(),
            text(class, &["provisioner"]).into(),
            text(class, &["reclaimPolicy"]).into(),
            text(class, &["volumeBindingMode"]).into(),
            (class["allowVolumeExpansion"] == true).into(),
            object_age(class, now).into(),
        ]
    },
    ..Plain::NEW
};

static ATTACHMENTS: Plain = Plain {
    validate: storage_validation::validate_attachment,
    validate_update: |attachment, _, context| match context.subresource {
        Some(_) => storage_validation::validate_attachment(attachment),
        None => ErrorList::new(),
    },
    immutable: &[&["spec"]],
    columns: &[
        NAME,
        column(
            "Attacher",
            "string",
            0,
            "attacher indicates the name of the volume driver that MUST handle this request. This is the name returned by GetPluginName().",
        ),
        column(
            "PV",
            "string",
            0,
            "persistentVolumeName represents the name of the persistent volume to attach.",
        ),
        column("Node", "string", 0, "nodeName represents the node that the volume should be attached to."),
        column(
            "Attached",
            "boolean",
            0,
            "attached indicates the volume is successfully attached. This field must only be set by the entity completing the attach operation, i.e. the external-attacher.",
        ),
        AGE,
    ],
    cells: |attachment, now| {
        vec![
            name(attachment),
            text(attachment, &["spec", "attacher"]).into(),
            text(attachment, &["spec", "source", "persistentVolumeName"]).into(),
            text(attachment, &["spec", "nodeName"]).into(),
            (attachment["status"]["attached"] == true).into(),
            object_age(attachment, now).into(),
        ]
    },
    ..Plain::NEW
};

static CAPACITIES: Plain = Plain {
    validate: storage_validation::validate_capacity,
    immutable: &[&["nodeTopology"], &["storageClassName"]],
    ..Plain::NEW
};

static ATTRIBUTES_CLASSES: Plain = Plain {
    validate_create: |class, _| storage_validation::validate_attributes_class(class),
    validate_update: |class, old, _| storage_validation::validate_attributes_class_update(class, old),
    columns: &[
        NAME,
        column("DriverName", "string", 0, "Name of the CSI driver This field is immutable."),
        AGE,
    ],
    cells: |class, now| vec![name(class), text(class, &["driverName"]).into(), object_age(class, now).into()],
    ..Plain::NEW
};
