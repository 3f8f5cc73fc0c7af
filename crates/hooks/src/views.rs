//! How objects of a kind are looked at, where that is not as of all kinds.

/// Kinds whose name stands in what is said of a field that they cannot be selected by.
const NAMED: &[(&str, &str)] = &[("resource.k8s.io", "ResourceSlice")];

/// Subresources that have no table.
const WITHOUT_TABLE: &[(&str, &str, &str)] = &[("resource.k8s.io", "ResourceClaim", "status")];

/// Whether the refusal of a field selector names the kind.
pub fn names_kind_of_field(group: &str, kind: &str) -> bool {
    NAMED.contains(&(group, kind))
}

/// Whether an object is shown as a table through a subresource (empty for the object itself).
pub fn has_table(group: &str, kind: &str, subresource: &str) -> bool {
    !WITHOUT_TABLE.contains(&(group, kind, subresource))
}
