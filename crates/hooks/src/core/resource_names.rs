//! Names of resources: which are the system's own, where each may stand, and what their quantities may be.

use crate::check::{Check, qualified_name};
use apimachinery::field::{BadValue, Path};
use apimachinery::quantity::Quantity;
use apimachinery::validation::is_qualified_name;

const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const MEASURED: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.storage",
];

pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// Whether quotas know the name themselves.
pub(super) fn is_standard_for_quota(name: &str) -> bool {
    COUNTED.contains(&name) || MEASURED.contains(&name) || is_quota_huge_pages(name)
}

/// Names without a domain, or in kubernetes.io, are the system's own.
pub(super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may be lower than limits.
pub(super) fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// A name that may stand in any list of resources.
pub(super) fn validate_name(check: &mut Check, path: &Path, name: &str) {
    let before = check.0.len();
    check.keeps(path, name, qualified_name);
    let standard = is_standard_for_quota(name) || name == "storage";
    if check.0.len() == before && !name.contains('/') && !standard {
        check.invalid(path, name, "must be a standard resource type or fully qualified");
    }
}

/// A name that may stand in a container.
pub(super) fn validate_container_name(check: &mut Check, path: &Path, name: &str) {
    validate_name(check, path, name);
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name);
    if !name.contains('/') {
        if !known {
            check.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        check.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// A name that may stand in a quota.
pub(super) fn validate_quota_name(check: &mut Check, path: &Path, name: &str) {
    validate_name(check, path, name);
    if !name.contains('/') && !is_standard_for_quota(name) {
        check.invalid(path, name, "must be a standard resource for quota");
    }
}

/// A quantity of a resource: not negative, and whole where the resource is counted.
pub(super) fn validate_quantity(check: &mut Check, path: &Path, name: &str, quantity: &Quantity) {
    check.not_negative_quantity(path, quantity);
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        check.invalid(path, BadValue::json(quantity), "must be an integer");
    }
}
