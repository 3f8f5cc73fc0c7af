//! What the deletion of objects of a kind does beyond what it does to all.

use serde_json::Value;

/// Kinds whose deletion is answered with the object rather than a `Status` (upstream's ReturnDeletedObject); of whole
/// groups where the kind is empty.
const RETURNED: &[(&str, &str)] = &[
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("resource.k8s.io", ""),
    ("storage.k8s.io", ""),
];

/// Whether a completed deletion is answered with the object.
pub fn returns_deleted(group: &str, kind: &str) -> bool {
    RETURNED.iter().any(|(g, k)| *g == group && (k.is_empty() || *k == kind))
}

/// Whether what belongs to an object is orphaned when its deletion says nothing of that.
pub fn orphans_by_default(group: &str, kind: &str) -> bool {
    (group, kind) == ("", "ReplicationController")
}

/// Whether an object stays while its spec has finalizers.
pub fn holds_itself(group: &str, kind: &str, value: &Value) -> bool {
    (group, kind) == ("", "Namespace")
        && value["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Says in an object that it is being deleted, beyond what its metadata says.
pub fn mark_deleted(group: &str, kind: &str, value: &mut Value) {
    if (group, kind) == ("", "Namespace") {
        value["status"]["phase"] = "Terminating".into();
    }
}
