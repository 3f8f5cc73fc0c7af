//! Versions of kinds that are on their way out: what whoever uses one is told (upstream's lifecycle of the API types).

/// Group, version, kind, the release that deprecated it, the one that takes it away, and what to use in its place.
type Deprecation =
    (&'static str, &'static str, &'static str, &'static str, Option<&'static str>, Option<&'static str>);

const ADMISSION: &str = "admissionregistration.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

const DEPRECATIONS: &[Deprecation] = &[
    ("", "v1", "ComponentStatus", "1.19", None, None),
    ("", "v1", "Endpoints", "1.33", None, Some("discovery.k8s.io/v1 EndpointSlice")),
    (ADMISSION, "v1alpha1", "MutatingAdmissionPolicy", "1.35", Some("1.38"), None),
    (ADMISSION, "v1alpha1", "MutatingAdmissionPolicyBinding", "1.35", Some("1.38"), None),
    ("certificates.k8s.io", "v1alpha1", "ClusterTrustBundle", "1.34", Some("1.37"), None),
    (COORDINATION, "v1alpha2", "LeaseCandidate", "1.35", Some("1.38"), None),
    (COORDINATION, "v1beta1", "LeaseCandidate", "1.36", Some("1.39"), None),
    (NETWORKING, "v1beta1", "IPAddress", "1.34", Some("1.37"), None),
    (NETWORKING, "v1beta1", "ServiceCIDR", "1.34", Some("1.37"), None),
    (RESOURCE, "v1alpha3", "DeviceTaintRule", "1.36", Some("1.39"), None),
    (RESOURCE, "v1beta1", "DeviceClass", "1.35", Some("1.38"), None),
    (RESOURCE, "v1beta1", "ResourceClaim", "1.35", Some("1.38"), None),
    (RESOURCE, "v1beta1", "ResourceClaimTemplate", "1.35", Some("1.38"), None),
    (RESOURCE, "v1beta1", "ResourceSlice", "1.35", Some("1.38"), None),
    (RESOURCE, "v1beta2", "DeviceClass", "1.36", Some("1.39"), None),
    (RESOURCE, "v1beta2", "ResourceClaim", "1.36", Some("1.39"), None),
    (RESOURCE, "v1beta2", "ResourceClaimTemplate", "1.36", Some("1.39"), None),
    (RESOURCE, "v1beta2", "ResourceSlice", "1.36", Some("1.39"), None),
    (
        "storage.k8s.io",
        "v1beta1",
        "VolumeAttributesClass",
        "1.34",
        Some("1.37"),
        Some("storage.k8s.io/v1 VolumeAttributesClass"),
    ),
];

/// The warning for users of a version of a kind; none where it stays.
pub fn deprecation(group: &str, version: &str, kind: &str) -> Option<String> {
    let found = DEPRECATIONS.iter().find(|(g, v, k, ..)| *g == group && *v == version && *k == kind);
    let (.., since, until, instead) = found?;
    let slash = if group.is_empty() { "" } else { "/" };
    let mut text = format!("{group}{slash}{version} {kind} is deprecated in v{since}+");
    if let Some(until) = until {
        text += &format!(", unavailable in v{until}+");
    }
    if let Some(instead) = instead {
        text += &format!("; use {instead}");
    }
    Some(text)
}

/// The release that takes a version of a kind away; none where that is not decided.
pub fn removed_release(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    let found = DEPRECATIONS.iter().find(|(g, v, k, ..)| *g == group && *v == version && *k == kind)?;
    found.4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_read_as_upstream_writes_them() {
        let check = |of: (&str, &str, &str), expected: Option<&str>| {
            assert_eq!(deprecation(of.0, of.1, of.2).as_deref(), expected);
        };
        check(("", "v1", "ComponentStatus"), Some("v1 ComponentStatus is deprecated in v1.19+"));
        let endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
        check(("", "v1", "Endpoints"), Some(endpoints));
        let slices = "resource.k8s.io/v1beta1 ResourceSlice is deprecated in v1.35+, unavailable in v1.38+";
        check(("resource.k8s.io", "v1beta1", "ResourceSlice"), Some(slices));
        check(("", "v1", "Pod"), None);
    }
}
