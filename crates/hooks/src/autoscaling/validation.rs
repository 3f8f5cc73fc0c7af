//! The rules of HorizontalPodAutoscaler.

use crate::check::{Check, label, path_segment};
use api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, MetricIdentifier, MetricSpec,
    MetricTarget,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::quantity::Quantity;

const MAX_STABILIZATION: i32 = 3600;
const MAX_PERIOD: i32 = 1800;
const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// What a reference's apiVersion may be.
#[derive(Clone, Copy, PartialEq)]
enum Reference {
    /// It is old and not looked at.
    Any,
    CoreToo,
    Grouped,
}

pub(super) fn validate(
    autoscaler: &HorizontalPodAutoscaler,
    old: Option<&HorizontalPodAutoscaler>,
) -> ErrorList {
    let mut check = Check::default();
    let (spec, path) = (&autoscaler.spec, Path::new("spec"));
    let had_zero = old.is_some_and(|o| o.spec.min_replicas == Some(0));
    let least = if had_zero { 0 } else { 1 };
    if let Some(min) = spec.min_replicas.filter(|min| *min < least) {
        check.invalid(&path.child("minReplicas"), min, format!("must be greater than or equal to {least}"));
    }
    let max = path.child("maxReplicas");
    if spec.max_replicas == 0 {
        check.required(&max, "must be set and greater than 0");
    } else if spec.max_replicas < 0 {
        check.invalid(&max, spec.max_replicas, "must be greater than or equal to 1");
    }
    if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
        check.invalid(&max, spec.max_replicas, "must be greater than or equal to `minReplicas`");
    }
    let target = &spec.scale_target_ref;
    let same = |o: &HorizontalPodAutoscaler| {
        let was = &o.spec.scale_target_ref;
        was.api_version == target.api_version && was.kind == target.kind
    };
    let allowed = match old {
        Some(old) if same(old) => Reference::Any,
        _ if target.kind == "ReplicationController" => Reference::CoreToo,
        _ => Reference::Grouped,
    };
    reference(&mut check, &path.child("scaleTargetRef"), target, allowed);
    let was_broken = old.is_some_and(|old| {
        let objects = old.spec.metrics.iter().filter_map(|m| m.object.as_ref());
        objects
            .into_iter()
            .any(|o| api_version_error(&o.described_object.api_version, Reference::CoreToo).is_some())
    });
    let objects = if was_broken { Reference::Any } else { Reference::CoreToo };
    let metrics = path.child("metrics");
    for (i, metric) in spec.metrics.iter().enumerate() {
        validate_metric(&mut check, &metrics.index(i), metric, objects);
    }
    let scales_to_zero = spec.metrics.iter().any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    if spec.min_replicas == Some(0) && !scales_to_zero {
        check.forbidden(
            &metrics,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (name, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                validate_rules(&mut check, &path.child(name), rules);
            }
        }
    }
    check.0
}

pub(super) fn validate_status(autoscaler: &HorizontalPodAutoscaler) -> ErrorList {
    let mut check = Check::default();
    let (status, path) = (&autoscaler.status, Path::new("status"));
    check.not_negative(&path.child("currentReplicas"), status.current_replicas);
    check.not_negative(&path.child("desiredReplicas"), status.desired_replicas);
    check.0
}

fn api_version_error(api_version: &str, allowed: Reference) -> Option<String> {
    if allowed == Reference::Any {
        return None;
    }
    match api_version.split('/').collect::<Vec<_>>().as_slice() {
        [_, _] => None,
        [_] if allowed == Reference::CoreToo => None,
        [_] => Some("apiVersion must specify API group".into()),
        _ => Some(format!("unexpected GroupVersion string: {api_version}")),
    }
}

fn reference(check: &mut Check, path: &Path, reference: &CrossVersionObjectReference, allowed: Reference) {
    check.present_and_keeps(&path.child("kind"), &reference.kind, "", path_segment);
    check.present_and_keeps(&path.child("name"), &reference.name, "", path_segment);
    if let Some(why) = api_version_error(&reference.api_version, allowed) {
        check.invalid(&path.child("apiVersion"), reference.api_version.as_str(), why);
    }
}

fn validate_rules(check: &mut Check, path: &Path, rules: &HPAScalingRules) {
    let window = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => {
            check.invalid(&window, seconds, "must be greater than or equal to zero");
        }
        Some(seconds) if seconds > MAX_STABILIZATION => {
            check.invalid(&window, seconds, format!("must be less than or equal to {MAX_STABILIZATION}"));
        }
        _ => {}
    }
    if let Some(policy) = &rules.select_policy {
        check.one_of(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = path.child("policies");
    if rules.policies.is_empty() {
        check.required(&policies, "must specify at least one Policy");
    }
    for (i, policy) in rules.policies.iter().enumerate() {
        let path = policies.index(i);
        check.one_of(&path.child("type"), &policy.type_, &["Percent", "Pods"]);
        if policy.value <= 0 {
            check.invalid(&path.child("value"), policy.value, "must be greater than zero");
        }
        let period = path.child("periodSeconds");
        if policy.period_seconds <= 0 {
            check.invalid(&period, policy.period_seconds, "must be greater than zero");
        }
        if policy.period_seconds > MAX_PERIOD {
            check.invalid(
                &period,
                policy.period_seconds,
                format!("must be less than or equal to {MAX_PERIOD}"),
            );
        }
    }
    if let Some(tolerance) = &rules.tolerance {
        check.not_negative_quantity(&path.child("tolerance"), tolerance);
    }
}

fn validate_metric(check: &mut Check, path: &Path, metric: &MetricSpec, objects: Reference) {
    let type_path = path.child("type");
    check.present(&type_path, &metric.type_, "must specify a metric source type");
    check.one_of(&type_path, &metric.type_, &SOURCES);
    let present: Vec<&'static str> = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ]
    .iter()
    .filter(|(_, there)| *there)
    .map(|(name, _)| *name)
    .collect();
    // Only the first one is looked into.
    match present.first() {
        Some(&"object") => object(check, &path.child("object"), metric, objects),
        Some(&"external") => external(check, &path.child("external"), metric),
        Some(&"pods") => pods(check, &path.child("pods"), metric),
        Some(&"resource") => resource(check, &path.child("resource"), metric),
        Some(&"containerResource") => container_resource(check, &path.child("containerResource"), metric),
        _ => {}
    }
    let expected = match metric.type_.as_str() {
        "Object" => "object",
        "Pods" => "pods",
        "Resource" => "resource",
        "External" => "external",
        "ContainerResource" => "containerResource",
        other => {
            check.0.push(Error::not_supported(&type_path, other, &SOURCES));
            ""
        }
    };
    if !expected.is_empty() && !present.contains(&expected) {
        check.required(&path.child(expected), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for name in present.into_iter().filter(|name| *name != expected) {
            check.forbidden(&path.child(name), "must populate the given metric source only");
        }
    }
}

fn identifier(check: &mut Check, path: &Path, metric: &MetricIdentifier) {
    check.present_and_keeps(&path.child("name"), &metric.name, "must specify a metric name", path_segment);
}

fn positive(check: &mut Check, path: &Path, quantity: Option<&Quantity>) {
    if let Some(quantity) = quantity.filter(|q| !q.cmp_i64(0).is_gt()) {
        check.invalid(path, BadValue::json(quantity), "must be positive");
    }
}

fn target(check: &mut Check, path: &Path, target: &MetricTarget) {
    let type_path = path.child("type");
    check.present(&type_path, &target.type_, "must specify a metric target type");
    if !matches!(target.type_.as_str(), "Utilization" | "Value" | "AverageValue") {
        check.invalid(
            &type_path,
            target.type_.as_str(),
            "must be either Utilization, Value, or AverageValue",
        );
    }
    positive(check, &path.child("value"), target.value.as_ref());
    positive(check, &path.child("averageValue"), target.average_value.as_ref());
    if let Some(percent) = target.average_utilization.filter(|p| *p < 1) {
        check.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

fn object(check: &mut Check, path: &Path, metric: &MetricSpec, objects: Reference) {
    let Some(source) = &metric.object else { return };
    reference(check, &path.child("describedObject"), &source.described_object, objects);
    identifier(check, &path.child("metric"), &source.metric);
    let at = path.child("target");
    target(check, &at, &source.target);
    if source.target.value.is_none() && source.target.average_value.is_none() {
        check.required(&at.child("averageValue"), "must set either a target value or averageValue");
    }
}

fn external(check: &mut Check, path: &Path, metric: &MetricSpec) {
    let Some(source) = &metric.external else { return };
    identifier(check, &path.child("metric"), &source.metric);
    let at = path.child("target");
    target(check, &at, &source.target);
    match (&source.target.value, &source.target.average_value) {
        (None, None) => check.required(
            &at.child("averageValue"),
            "must set either a target value for metric or a per-pod target",
        ),
        (Some(_), Some(_)) => check
            .forbidden(&at.child("value"), "may not set both a target value for metric and a per-pod target"),
        _ => {}
    }
}

fn pods(check: &mut Check, path: &Path, metric: &MetricSpec) {
    let Some(source) = &metric.pods else { return };
    identifier(check, &path.child("metric"), &source.metric);
    let at = path.child("target");
    target(check, &at, &source.target);
    if source.target.average_value.is_none() {
        check.required(&at.child("averageValue"), "must specify a positive target averageValue");
    }
}

fn utilization_or_value(check: &mut Check, at: &Path, wanted: &MetricTarget) {
    target(check, at, wanted);
    match (&wanted.average_utilization, &wanted.average_value) {
        (None, None) => check.required(
            &at.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        (Some(_), Some(_)) => check.forbidden(
            &at.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn resource(check: &mut Check, path: &Path, metric: &MetricSpec) {
    let Some(source) = &metric.resource else { return };
    check.present(&path.child("name"), &source.name, "must specify a resource name");
    utilization_or_value(check, &path.child("target"), &source.target);
}

fn container_resource(check: &mut Check, path: &Path, metric: &MetricSpec) {
    let Some(source) = &metric.container_resource else { return };
    check.present(&path.child("name"), &source.name, "must specify a resource name");
    check.present_and_keeps(&path.child("container"), &source.container, "must specify a container", label);
    utilization_or_value(check, &path.child("target"), &source.target);
}
