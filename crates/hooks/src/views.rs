//! How objects of a kind are looked at, where that is not as of all kinds.

use apimachinery::quote::quote;

/// Subresources that have no table.
const WITHOUT_TABLE: &[(&str, &str, &str)] = &[
    ("", "Namespace", "finalize"),
    ("", "Pod", "ephemeralcontainers"),
    ("certificates.k8s.io", "CertificateSigningRequest", "approval"),
    ("", "Pod", "resize"),
    ("resource.k8s.io", "ResourceClaim", "status"),
];

/// What is said of a field that objects cannot be selected by, where it names the kind.
pub fn unknown_field(group: &str, version: &str, kind: &str, field: &str) -> Option<String> {
    match (group, kind) {
        ("resource.k8s.io", "ResourceSlice") => {
            Some(format!("field label not supported for {group}/{version}, Kind={kind}: {field}"))
        }
        ("batch", "Job") => Some(format!("field label {} not supported for {kind}", quote(field))),
        _ => None,
    }
}

/// Whether an object is shown as a table through a subresource (empty for the object itself).
pub fn has_table(group: &str, kind: &str, subresource: &str) -> bool {
    !WITHOUT_TABLE.contains(&(group, kind, subresource))
}
