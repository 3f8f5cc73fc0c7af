//! What a node may be, and what of it may change. Upstream: `ValidateNode`, `ValidateNodeUpdate`.

use super::resource_names::validate_quantity;
use crate::check::{Check, qualified_name};
use api::core::v1::{Node, Taint};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::validation::is_valid_label_value;
use apimachinery::validation::{Strictness, is_valid_cidr_for_legacy_field, parse_cidr_sloppy};
use std::collections::HashSet;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const CIDR_CHANGED: &str = "node updates may not change podCIDR except from \"\" to valid";
const PROVIDER_CHANGED: &str = "node updates may not change providerID except from \"\" to valid";
const NAME_MAX: usize = 253;

/// All that is wrong with a node.
pub(super) fn validate(node: &Node) -> ErrorList {
    let mut check = Check::default();
    taints(&mut check, &node.spec.taints);
    resources(&mut check, node);
    let swap = node.status.node_info.swap.as_ref().and_then(|swap| swap.capacity);
    // Upstream's path, which is not where the field is.
    let swap_path = Path::new("metadata").child("nodeSwapStatus").child("capacity");
    check.when(swap.is_some_and(|n| n < 1), || {
        Error::invalid(&swap_path, swap.unwrap_or_default(), "must be greater than zero")
    });
    declared_features(&mut check, &node.status.declared_features);
    pod_cidrs(&mut check, &node.spec.pod_cidrs);
    check.0
}

/// What is wrong with a change, beside what is wrong with the node it leads to.
pub(super) fn validate_update(node: &Node, old: &Node) -> ErrorList {
    let mut check = Check::default();
    resources(&mut check, node);
    declared_features(&mut check, &node.status.declared_features);
    let mut seen = HashSet::new();
    for (i, address) in node.status.addresses.iter().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            let path = Path::new("status").child("addresses").index(i);
            check.extend([Error::duplicate(
                &path,
                crate::shown::shown_typed("io.k8s.api.core.v1.NodeAddress", address),
            )]);
        }
    }
    let spec = Path::new("spec");
    let (new_cidrs, old_cidrs) = (&node.spec.pod_cidrs, &old.spec.pod_cidrs);
    let changes = match old_cidrs.len() {
        0 => 0,
        n if n != new_cidrs.len() => 1,
        _ => old_cidrs.iter().zip(new_cidrs).filter(|(old, new)| old != new).count(),
    };
    (0..changes).for_each(|_| check.forbidden(&spec.child("podCIDRs"), CIDR_CHANGED));
    if !old.spec.provider_id.is_empty() && old.spec.provider_id != node.spec.provider_id {
        check.forbidden(&spec.child("providerID"), PROVIDER_CHANGED);
    }
    taints(&mut check, &node.spec.taints);
    if node.spec.external_id != old.spec.external_id {
        check.forbidden(&spec.child("externalID"), "may not be updated");
    }
    check.0
}

fn taints(check: &mut Check, taints: &[Taint]) {
    // Upstream's path, which is not where the field is.
    let path = Path::new("metadata").child("taints");
    let mut seen = HashSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        check.keeps(&at.child("key"), &taint.key, qualified_name);
        let wrong = is_valid_label_value(&taint.value);
        if !wrong.is_empty() {
            check.invalid(&at.child("value"), taint.value.as_str(), wrong.join(";"));
        }
        if check.present(&at.child("effect"), &taint.effect, "") {
            check.one_of(&at.child("effect"), &taint.effect, &EFFECTS);
        }
        if !seen.insert((&taint.effect, &taint.key)) {
            let mut error =
                Error::duplicate(&at, crate::shown::shown_typed("io.k8s.api.core.v1.Taint", taint));
            error.detail = "taints must be unique by key and effect pair".into();
            check.extend([error]);
        }
    }
}

fn resources(check: &mut Check, node: &Node) {
    for (member, amounts) in [("capacity", &node.status.capacity), ("allocatable", &node.status.allocatable)]
    {
        for (name, quantity) in amounts {
            validate_quantity(check, &Path::new("status").child(member).child(name.clone()), name, quantity);
        }
    }
}

/// Features stand in order, each once.
fn declared_features(check: &mut Check, features: &[String]) {
    let path = Path::new("status").child("declaredFeatures");
    for (i, feature) in features.iter().enumerate() {
        if feature.len() > NAME_MAX {
            let why = format!("invalid feature name {feature:?}: must be no more than {NAME_MAX} characters");
            check.invalid(&path.index(i), feature.as_str(), why);
        } else if !is_feature_name(feature) {
            let why = format!(
                "invalid feature name {feature:?}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters \
                 and slashes"
            );
            check.invalid(&path.index(i), feature.as_str(), why);
        }
        match features.get(i + 1) {
            Some(next) if next == feature => {
                check.extend([Error::duplicate(&path.index(i + 1), next.as_str())]);
            }
            Some(next) if next < feature => {
                check.invalid(&path.index(i + 1), next.as_str(), "list must be sorted alphabetically");
            }
            _ => {}
        }
    }
}

fn is_feature_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_alphabetic())
                && segment.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

fn pod_cidrs(check: &mut Check, cidrs: &[String]) {
    let path = Path::new("spec").child("podCIDRs");
    for (i, cidr) in cidrs.iter().enumerate() {
        check.extend(is_valid_cidr_for_legacy_field(&path.index(i), cidr, Strictness::Strict, &[]).0);
    }
    if cidrs.len() > 1 {
        let parsed: Vec<_> = cidrs.iter().filter_map(|cidr| parse_cidr_sloppy(cidr)).collect();
        let families: HashSet<bool> = parsed.iter().map(|cidr| cidr.address.is_ipv4()).collect();
        if families.len() < 2 || cidrs.len() > 2 {
            check.invalid(
                &path,
                BadValue::json(cidrs),
                "may specify no more than one CIDR for each IP family",
            );
        }
    }
}
