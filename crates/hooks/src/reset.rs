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
    ("apiregistration.k8s.io", "APIService", "status", METADATA_AND_SPEC),
    ("certificates.k8s.io", "CertificateSigningRequest", "", &[&["spec"], &["status"]]),
    ("certificates.k8s.io", "CertificateSigningRequest", "status", &[&["spec"], &["status", "conditions"]]),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        "approval",
        &[&["spec"], &["status", "certificate"]],
    ),
    ("certificates.k8s.io", "PodCertificateRequest", "status", METADATA_AND_SPEC),
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

/// Of the status of a custom kind: nothing else can be set through it.
pub const OF_CUSTOM_STATUS: Fields = METADATA_AND_SPEC;

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

/// Fields that nobody comes to own by a write although it sets them: the kind's rules say which part of it counts.
const WRITTEN: &[(&str, &str, &str, Fields)] =
    &[("certificates.k8s.io", "CertificateSigningRequest", "status", &[&["status", "conditions"]])];

/// Of [`reset_fields`], those whose content stays as it is, too.
pub fn kept_fields(
    group: &str,
    kind: &str,
    subresource: &str,
    has_status: bool,
) -> impl Iterator<Item = &'static &'static [&'static str]> {
    let written = WRITTEN.iter().find(|(g, k, s, _)| *g == group && *k == kind && *s == subresource);
    let written = written.map_or(&[][..], |(.., fields)| fields);
    reset_fields(group, kind, subresource, has_status).iter().filter(move |path| !written.contains(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subresource: &str, reset: Fields, kept: Fields) {
        let (group, kind) = ("certificates.k8s.io", "CertificateSigningRequest");
        assert_eq!(reset_fields(group, kind, subresource, true), reset);
        assert_eq!(kept_fields(group, kind, subresource, true).copied().collect::<Vec<_>>(), kept);
    }

    #[test]
    fn conditions_of_requests_are_written_and_owned_by_nobody() {
        check("", &[&["spec"], &["status"]], &[&["spec"], &["status"]]);
        check("status", &[&["spec"], &["status", "conditions"]], &[&["spec"]]);
    }
}
