//! Which fields a write through a resource or one of its subresources cannot set (upstream's GetResetFields): what is
//! sent there is ignored, and nobody comes to own it.

/// Paths of fields.
pub type Fields = &'static [&'static [&'static str]];

const STATUS: Fields = &[&["status"]];
const SPEC: Fields = &[&["spec"]];
const METADATA_AND_SPEC: Fields = &[&["metadata"], &["spec"]];

/// Group, kind, subresource, and its fields, where they are not the usual ones.
const EXCEPTIONS: &[(&str, &str, &str, Fields)] = &[
    ("", "Pod", "status", &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]]),
    ("", "Namespace", "finalize", STATUS),
    ("apps", "Deployment", "status", &[&["spec"], &["metadata", "labels"]]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "status", METADATA_AND_SPEC),
    ("certificates.k8s.io", "CertificateSigningRequest", "", &[&["spec"], &["status"]]),
    ("certificates.k8s.io", "CertificateSigningRequest", "status", &[&["spec"], &["status", "conditions"]]),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        "approval",
        &[&["spec"], &["status", "certificate"]],
    ),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "status", METADATA_AND_SPEC),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", "status", METADATA_AND_SPEC),
    ("internal.apiserver.k8s.io", "StorageVersion", "status", METADATA_AND_SPEC),
    ("networking.k8s.io", "ServiceCIDR", "status", METADATA_AND_SPEC),
    ("resource.k8s.io", "DeviceTaintRule", "status", METADATA_AND_SPEC),
    ("resource.k8s.io", "ResourceClaim", "status", METADATA_AND_SPEC),
    ("resource.k8s.io", "ResourcePoolStatusRequest", "status", METADATA_AND_SPEC),
    ("scheduling.k8s.io", "PodGroup", "status", METADATA_AND_SPEC),
    ("storage.k8s.io", "VolumeAttachment", "status", METADATA_AND_SPEC),
    ("storagemigration.k8s.io", "StorageVersionMigration", "status", METADATA_AND_SPEC),
];

/// The fields that a write through `subresource` (empty for the object itself) leaves as they are; `has_status` says
/// whether the resource has a status of its own.
pub fn reset_fields(group: &str, kind: &str, subresource: &str, has_status: bool) -> Fields {
    let exception = EXCEPTIONS.iter().find(|(g, k, s, _)| *g == group && *k == kind && *s == subresource);
    match (exception, subresource) {
        (Some((.., fields)), _) => fields,
        (None, "") if has_status => STATUS,
        (None, "status") => SPEC,
        _ => &[],
    }
}
