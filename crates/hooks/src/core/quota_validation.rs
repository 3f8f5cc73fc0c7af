//! The rules of LimitRange and ResourceQuota.

use super::resource_names::{
    is_overcommit_allowed, is_standard_for_quota, validate_container_name, validate_name, validate_quantity,
    validate_quota_name,
};
use crate::check::{Check, qualified_name};
use crate::shown::shown_typed;
use api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::quantity::Quantity;
use std::collections::{BTreeMap, BTreeSet, HashSet};

type Quantities = BTreeMap<String, Quantity>;

pub(super) fn validate_limit_range(range: &LimitRange) -> ErrorList {
    let mut check = Check::default();
    let mut types = HashSet::new();
    let path = Path::new("spec").child("limits");
    for (i, limit) in range.spec.limits.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("type");
        let before = check.0.len();
        check.keeps(&at, &limit.type_, qualified_name);
        let standard = matches!(limit.type_.as_str(), "Pod" | "Container" | "PersistentVolumeClaim");
        if check.0.len() == before && !limit.type_.contains('/') && !standard {
            check.invalid(&at, limit.type_.as_str(), "must be a standard limit type or fully qualified");
        }
        check.when(!types.insert(limit.type_.as_str()), || Error::duplicate(&at, limit.type_.as_str()));
        validate_limit(&mut check, &path, limit);
    }
    check.0
}

fn validate_limit(check: &mut Check, path: &Path, limit: &LimitRangeItem) {
    let none = Quantities::new();
    let is_pod = limit.type_ == "Pod";
    let mut names = BTreeSet::new();
    let mut look = |check: &mut Check, member: &'static str, list: &Quantities| {
        for name in list.keys() {
            let at = path.child(member).key(name.as_str());
            match limit.type_.as_str() {
                "Pod" | "Container" => validate_container_name(check, &at, name),
                _ => validate_name(check, &at, name),
            }
            names.insert(name.clone());
        }
    };
    look(check, "max", &limit.max);
    look(check, "min", &limit.min);
    let (defaults, requests) = if is_pod {
        for (member, list) in [("default", &limit.default_), ("defaultRequest", &limit.default_request)] {
            if !list.is_empty() {
                check.forbidden(&path.child(member), "may not be specified when `type` is 'Pod'");
            }
        }
        (&none, &none)
    } else {
        look(check, "default", &limit.default_);
        look(check, "defaultRequest", &limit.default_request);
        (&limit.default_, &limit.default_request)
    };
    let bounded = limit.min.contains_key("storage") || limit.max.contains_key("storage");
    if limit.type_ == "PersistentVolumeClaim" && !bounded {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        check.required(&path.child("limits"), why);
    }
    look(check, "maxLimitRequestRatio", &limit.max_limit_request_ratio);
    for name in &names {
        let name = name.as_str();
        let bounds = Bounds {
            min: limit.min.get(name),
            max: limit.max.get(name),
            default: defaults.get(name),
            request: requests.get(name),
            ratio: limit.max_limit_request_ratio.get(name),
        };
        bounds.validate(check, path, name);
    }
}

/// Two bounds that are there, the lower one above the higher one.
fn above<'a>(low: Option<&'a Quantity>, high: Option<&'a Quantity>) -> Option<(&'a Quantity, &'a Quantity)> {
    low.zip(high).filter(|(low, high)| low > high)
}

/// What a limit says of one resource.
struct Bounds<'a> {
    min: Option<&'a Quantity>,
    max: Option<&'a Quantity>,
    default: Option<&'a Quantity>,
    request: Option<&'a Quantity>,
    ratio: Option<&'a Quantity>,
}

impl Bounds<'_> {
    fn validate(&self, check: &mut Check, path: &Path, name: &str) {
        let mut wrong = |member: &'static str, shown: &Quantity, why: String| {
            check.invalid(&path.child(member).key(name), BadValue::json(shown), why);
        };
        if let Some((min, max)) = above(self.min, self.max) {
            wrong("min", min, format!("min value {min} is greater than max value {max}"));
        }
        if let Some((min, request)) = above(self.min, self.request) {
            let why = format!("min value {min} is greater than default request value {request}");
            wrong("defaultRequest", request, why);
        }
        if let Some((request, max)) = above(self.request, self.max) {
            let why = format!("default request value {request} is greater than max value {max}");
            wrong("defaultRequest", request, why);
        }
        if let Some((request, default)) = above(self.request, self.default) {
            let why =
                format!("default request value {request} is greater than default limit value {default}");
            wrong("defaultRequest", request, why);
        }
        if let Some((min, default)) = above(self.min, self.default) {
            wrong("default", min, format!("min value {min} is greater than default value {default}"));
        }
        if let Some((default, max)) = above(self.default, self.max) {
            wrong("default", max, format!("default value {default} is greater than max value {max}"));
        }
        if let Some(ratio) = self.ratio {
            if ratio.cmp_i64(1).is_lt() {
                wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
            }
            if let Some((min, max)) = self.min.zip(self.max) {
                let most = max.as_f64() / min.as_f64();
                if ratio.as_f64() > most {
                    let why = format!("ratio {ratio} is greater than max/min = {most:.6}");
                    wrong("maxLimitRequestRatio", ratio, why);
                }
            }
        }
        if let Some((default, request)) = self.default.zip(self.request)
            && !is_overcommit_allowed(name)
            && default != request
        {
            let why =
                format!("default value {default} must equal to defaultRequest value {request} in {name}");
            wrong("defaultRequest", request, why);
        }
    }
}

const POD_COMPUTE: [&str; 7] =
    ["pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "VolumeAttributesClass"
            | "CrossNamespacePodAffinity"
    )
}

fn scope_covers(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => POD_COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn is_conflicting(scopes: &[&str]) -> usize {
    let both = |a, b| usize::from(scopes.contains(&a) && scopes.contains(&b));
    both("BestEffort", "NotBestEffort") + both("Terminating", "NotTerminating")
}

fn validate_amounts(check: &mut Check, path: &Path, amounts: &Quantities) {
    for (name, quantity) in amounts {
        let at = path.key(name.as_str());
        validate_quota_name(check, &at, name);
        validate_quantity(check, &at, name, quantity);
    }
}

pub(super) fn validate_quota(quota: &ResourceQuota) -> ErrorList {
    let mut check = Check::default();
    validate_quota_spec(&mut check, &quota.spec);
    validate_quota_amounts(&mut check, quota);
    check.0
}

fn validate_quota_amounts(check: &mut Check, quota: &ResourceQuota) {
    let status = Path::new("status");
    validate_amounts(check, &status.child("hard"), &quota.status.hard);
    validate_amounts(check, &status.child("used"), &quota.status.used);
}

pub(super) fn validate_quota_status(quota: &ResourceQuota) -> ErrorList {
    let mut check = Check::default();
    validate_quota_amounts(&mut check, quota);
    check.0
}

/// The scopes of a quota do not change.
pub(super) fn validate_scopes(quota: &ResourceQuota, old: &ResourceQuota) -> ErrorList {
    let mut check = Check::default();
    let set = |quota: &ResourceQuota| quota.spec.scopes.iter().cloned().collect::<BTreeSet<_>>();
    if set(quota) != set(old) {
        let at = Path::new("spec").child("scopes");
        let shown = match quota.spec.scopes.as_slice() {
            [] => BadValue::verbatim("null"),
            scopes => scopes.into(),
        };
        check.invalid(&at, shown, "field is immutable");
    }
    check.0
}

fn validate_quota_spec(check: &mut Check, spec: &ResourceQuotaSpec) {
    let path = Path::new("spec");
    validate_amounts(check, &path.child("hard"), &spec.hard);
    let uncovered = |scope: &str| {
        spec.hard.keys().filter(|name| is_standard_for_quota(name) && !scope_covers(scope, name)).count()
    };
    const NOT_COVERED: &str = "unsupported scope applied to resource";
    const CONFLICTING: &str = "conflicting scopes";
    let at = path.child("scopes");
    let shown = || BadValue::json(&spec.scopes);
    for scope in &spec.scopes {
        if !is_scope(scope) {
            check.invalid(&at, shown(), "unsupported scope");
        }
        (0..uncovered(scope)).for_each(|_| check.invalid(&at, shown(), NOT_COVERED));
    }
    let scopes: Vec<&str> = spec.scopes.iter().map(String::as_str).collect();
    (0..is_conflicting(&scopes)).for_each(|_| check.invalid(&at, shown(), CONFLICTING));

    let Some(selector) = &spec.scope_selector else { return };
    let path = path.child("scopeSelector").child("matchExpressions");
    let shown_selector = || shown_typed("io.k8s.api.core.v1.ScopeSelector", selector);
    for requirement in &selector.match_expressions {
        let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
        if !is_scope(scope) {
            check.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        (0..uncovered(scope)).for_each(|_| check.invalid(&path, shown_selector(), NOT_COVERED));
        let only_exists = !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && is_scope(scope);
        if only_exists && operator != "Exists" {
            check.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = path.child("values");
        match operator {
            "In" | "NotIn" if requirement.values.is_empty() => check.required(
                &values,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !requirement.values.is_empty() => check.invalid(
                &values,
                &requirement.values,
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => check.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
    let scopes: Vec<&str> = selector.match_expressions.iter().map(|r| r.scope_name.as_str()).collect();
    (0..is_conflicting(&scopes)).for_each(|_| check.invalid(&at, shown(), CONFLICTING));
}
