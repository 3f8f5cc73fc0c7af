//! What is wrong with the resources of a container or a pod. Upstream: `validateResourceRequirements`.

use super::resource_names::{
    is_huge_pages, is_overcommit_allowed, validate_container_name, validate_name, validate_quantity,
};
use crate::check::{Check, label};
use api::core::v1::{ResourceClaim, ResourceRequirements};
use apimachinery::field::{Error, Path};
use std::collections::{BTreeSet, HashSet};

/// Whose resources they are: other names are known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Container,
    Pod,
}

fn name(check: &mut Check, name: &str, of: Of, path: &Path) {
    if of == Of::Container {
        return validate_container_name(check, path, name);
    }
    let before = check.0.len();
    validate_name(check, path, name);
    if check.0.len() == before && !matches!(name, "cpu" | "memory") && !is_huge_pages(name) {
        check.0.push(Error::not_supported(path, name, &["cpu", "memory"]));
    }
}

pub(super) fn validate(
    check: &mut Check,
    resources: &ResourceRequirements,
    of: Of,
    claims: Option<&BTreeSet<&str>>,
    path: &Path,
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (resource, quantity) in &resources.limits {
        let at = limits.key(resource.as_str());
        name(check, resource, of, &at);
        validate_quantity(check, &at, resource, quantity);
    }
    for (resource, quantity) in &resources.requests {
        let at = requests.key(resource.as_str());
        name(check, resource, of, &at);
        validate_quantity(check, &at, resource, quantity);
        match resources.limits.get(resource) {
            Some(limit) if quantity != limit && !is_overcommit_allowed(resource) => {
                let why = format!("must be equal to {resource} limit of {limit}");
                check.invalid(&requests, quantity.to_string().as_str(), why);
            }
            Some(limit) if quantity > limit => {
                let why = format!("must be less than or equal to {resource} limit of {limit}");
                check.invalid(&requests, quantity.to_string().as_str(), why);
            }
            None if !is_overcommit_allowed(resource) => {
                check.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let all = || resources.limits.keys().chain(resources.requests.keys());
    if all().any(|n| n.starts_with("hugepages-")) && !all().any(|n| matches!(n.as_str(), "cpu" | "memory")) {
        check.forbidden(path, "HugePages require cpu or memory");
    }
    if let Some(known) = claims {
        claim_names(check, &resources.claims, known, &path.child("claims"));
    }
}

fn claim_names(check: &mut Check, claims: &[ResourceClaim], known: &BTreeSet<&str>, path: &Path) {
    let mut seen: HashSet<String> = HashSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        let name = claim.name.as_str();
        if !check.present(&at, name, "") {
            continue;
        }
        if seen.contains(name) {
            check.0.push(Error::duplicate(&at, name));
        } else {
            let mut key = name.to_owned();
            if !claim.request.is_empty() {
                check.keeps(&at.child("request"), &claim.request, label);
                key = format!("{name}/{}", claim.request);
            }
            let inner = format!("{name}/");
            if seen.contains(&key) {
                check.0.push(Error::duplicate(&at, key.as_str()));
            } else if claim.request.is_empty() {
                let within = seen.iter().filter(|k| k.starts_with(&inner)).count();
                (0..within).for_each(|_| check.0.push(Error::duplicate(&at, name)));
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            let mut error = Error::not_found(&at, name);
            let names: Vec<&str> = known.iter().copied().collect();
            let list =
                if names.is_empty() { " which is empty".into() } else { format!(": {}", names.join(", ")) };
            error.detail = format!("must be one of the names in pod.spec.resourceClaims{list}");
            check.0.push(error);
        }
    }
}
