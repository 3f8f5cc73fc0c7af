//! The rules that policies and configurations of webhooks share: what they match.

use super::check::{Check, qualified_name};
use super::expressions::{Variables, Wanted};
use super::tree::typed;
use super::webhook_client::{validate_service, validate_url};
use api::admissionregistration::v1::{MatchCondition, MatchResources, RuleWithOperations};
use apimachinery::decode::Decode;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::LabelSelector;
use apimachinery::meta::validation::validate_label_selector;
use apimachinery::validation::{is_dns1035_label, is_fully_qualified_name, is_path_segment_name};
use apimachinery::value::Value;

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];

/// One rule over the parts of a request.
struct Rule<'a> {
    operations: &'a [String],
    groups: &'a [String],
    versions: &'a [String],
    resources: &'a [String],
    scope: Option<&'a str>,
}

fn alone(check: &mut Check, path: &Path, items: &[String], what: &str) {
    if items.len() > 1 && items.iter().any(|item| item == "*") {
        check.invalid(path, items, format!("if '*' is present, must not specify other {what}"));
    }
}

fn rule(check: &mut Check, path: &Path, rule: &Rule<'_>) {
    let at = path.child("operations");
    check.when(rule.operations.is_empty(), || Error::required(&at, ""));
    alone(check, &at, rule.operations, "operations");
    for (i, operation) in rule.operations.iter().enumerate() {
        check.one_of(&at.index(i), operation, OPERATIONS);
    }
    let at = path.child("apiGroups");
    check.when(rule.groups.is_empty(), || Error::required(&at, ""));
    alone(check, &at, rule.groups, "API groups");
    let at = path.child("apiVersions");
    check.when(rule.versions.is_empty(), || Error::required(&at, ""));
    alone(check, &at, rule.versions, "API versions");
    for (i, version) in rule.versions.iter().enumerate() {
        check.present(&at.index(i), version, "");
    }
    resources(check, &path.child("resources"), rule.resources);
    if let Some(scope) = rule.scope {
        check.one_of(&path.child("scope"), scope, &["*", "Cluster", "Namespaced"]);
    }
}

fn resources(check: &mut Check, path: &Path, resources: &[String]) {
    check.when(resources.is_empty(), || Error::required(path, ""));
    let (mut whole, mut everywhere) = (Vec::new(), Vec::new());
    let mut bare = false;
    for (i, text) in resources.iter().enumerate() {
        let at = path.index(i);
        if !check.present(&at, text, "") {
            continue;
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            // Upstream keeps what the last of them was.
            bare = text != "*";
            continue;
        };
        if whole.contains(&resource) {
            let why = format!("if '{resource}/*' is present, must not specify {text}");
            check.invalid(&at, text.as_str(), why);
        }
        if everywhere.contains(&subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {text}");
            check.invalid(&at, text.as_str(), why);
        }
        if subresource == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            everywhere.push(subresource);
        }
    }
    let has = |wanted: &str| resources.iter().any(|text| text == wanted);
    if resources.len() > 1 && has("*/*") {
        check.invalid(path, resources, "if '*/*' is present, must not specify other resources");
    }
    if has("*") && bare {
        let why = "if '*' is present, must not specify other resources without subresources";
        check.invalid(path, resources, why);
    }
}

fn selector(check: &mut Check, path: &Path, selector: Option<&LabelSelector>) {
    check.when(selector.is_none(), || Error::required(path, ""));
    check.extend(validate_label_selector(selector, Default::default(), path));
}

/// What a policy or binding matches.
pub(super) fn match_resources(check: &mut Check, path: &Path, resources: &MatchResources) {
    let at = path.child("matchPolicy");
    match resources.match_policy.as_deref() {
        None => check.required(&at, ""),
        Some(policy) => check.one_of(&at, policy, MATCH_POLICIES),
    }
    selector(check, &path.child("namespaceSelector"), resources.namespace_selector.as_ref());
    selector(check, &path.child("objectSelector"), resources.object_selector.as_ref());
    for (key, rules) in [
        ("resourceRules", &resources.resource_rules),
        ("excludeResourceRules", &resources.exclude_resource_rules),
    ] {
        for (i, named) in rules.iter().enumerate() {
            let path = path.child(key).index(i);
            for (i, name) in named.resource_names.iter().enumerate() {
                let at = path.child("resourceNames").index(i);
                is_path_segment_name(name).into_iter().for_each(|why| check.invalid(&at, name.as_str(), why));
                let twice = named.resource_names[..i].contains(name);
                check.when(twice, || Error::duplicate(&at, name.as_str()));
            }
            let parts = Rule {
                operations: &named.operations,
                groups: &named.api_groups,
                versions: &named.api_versions,
                resources: &named.resources,
                scope: named.scope.as_deref(),
            };
            rule(check, &path, &parts);
        }
    }
}

/// Only what is written can be changed.
pub(super) fn mutating_operations(check: &mut Check, path: &Path, resources: &MatchResources) {
    let at = path.child("resourceRules").child("operations");
    for operation in resources.resource_rules.iter().flat_map(|rule| &rule.operations) {
        check.one_of(&at, operation, MUTATING_OPERATIONS);
    }
}

/// Conditions, but for their expressions.
pub(super) fn conditions(check: &mut Check, path: &Path, conditions: &[MatchCondition], known: &Variables) {
    const MOST: usize = 64;
    if conditions.len() > MOST {
        check.extend([Error::too_many(path, Some(conditions.len()), MOST)]);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("expression");
        check.present(&at, condition.expression.trim(), "");
        known.judge(check, &at, &condition.expression, Wanted::Bool);
        let at = path.child("name");
        check.present_and_keeps(&at, &condition.name, "", qualified_name);
        let twice = !condition.name.is_empty() && conditions[..i].iter().any(|c| c.name == condition.name);
        check.when(twice, || Error::duplicate(&at, condition.name.as_str()));
    }
}

/// What an update of a configuration must keep as new ones do: only what the old one kept.
#[derive(Clone, Copy)]
struct Demands {
    no_side_effects: bool,
    known_versions: bool,
    unique_names: bool,
    /// Upstream takes a Service's name for its namespace, and the other way round, of mutating webhooks.
    mixes_names: bool,
}

fn mixes_names(configuration: &Value) -> bool {
    configuration["kind"] == "MutatingWebhookConfiguration"
}

const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// A part of a webhook; what is absent is empty.
fn part<T: Decode + Default>(value: &Value) -> T {
    if value.is_null() { T::default() } else { typed(value) }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn word<'a>(hook: &'a Value, key: &str) -> Option<&'a str> {
    hook[key].as_str()
}

fn review_versions(check: &mut Check, path: &Path, versions: &[String], known: bool) {
    let all = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        check.required(path, &format!("must specify one of {all}"));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        let at = path.index(i);
        if versions[..i].contains(version) {
            check.invalid(&at, version.as_str(), "duplicate version");
            continue;
        }
        is_dns1035_label(version).into_iter().for_each(|why| check.invalid(&at, version.as_str(), why));
    }
    if known && !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        check.invalid(path, versions, format!("must include at least one of {all}"));
    }
}

fn webhook(check: &mut Check, path: &Path, hook: &Value, demands: Demands) {
    let name = word(hook, "name").unwrap_or_default();
    check.extend(is_fully_qualified_name(&path.child("name"), name));
    let rules: Vec<RuleWithOperations> = part(&hook["rules"]);
    for (i, one) in rules.iter().enumerate() {
        let parts = Rule {
            operations: &one.operations,
            groups: &one.api_groups,
            versions: &one.api_versions,
            resources: &one.resources,
            scope: one.scope.as_deref(),
        };
        rule(check, &path.child("rules").index(i), &parts);
    }
    for (key, known) in [("failurePolicy", FAILURE_POLICIES), ("matchPolicy", MATCH_POLICIES)] {
        if let Some(policy) = word(hook, key) {
            check.one_of(&path.child(key), policy, known);
        }
    }
    let at = path.child("sideEffects");
    let allowed = if demands.no_side_effects { NO_SIDE_EFFECTS } else { SIDE_EFFECTS };
    match word(hook, "sideEffects") {
        None => check.required(&at, &format!("must specify one of {}", allowed.join(", "))),
        Some(effects) => check.one_of(&at, effects, allowed),
    }
    if let Some(seconds) = hook["timeoutSeconds"].as_i64().filter(|s| !(1..=30).contains(s)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        check.invalid(&path.child("timeoutSeconds"), seconds, why);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        let selector: Option<LabelSelector> = part(&hook[key]);
        check.extend(validate_label_selector(selector.as_ref(), Default::default(), &path.child(key)));
    }
    if let Some(policy) = word(hook, "reinvocationPolicy") {
        check.one_of(&path.child("reinvocationPolicy"), policy, REINVOCATION_POLICIES);
    }
    let (at, client) = (path.child("clientConfig"), &hook["clientConfig"]);
    match (client["url"].as_str(), client["service"].is_object()) {
        (Some(url), false) => check.extend(validate_url(&at.child("url"), url)),
        (None, true) => {
            let mut service = client["service"].clone();
            if demands.mixes_names {
                let name = service["name"].take();
                service["name"] = std::mem::replace(&mut service["namespace"], name);
            }
            check.extend(validate_service(&at.child("service"), &service));
        }
        _ => check.required(&at, "exactly one of url or service is required"),
    }
    let listed: Vec<MatchCondition> = part(&hook["matchConditions"]);
    conditions(check, &path.child("matchConditions"), &listed, &Variables::new(&[], false));
}

fn hooks(configuration: &Value) -> &[Value] {
    configuration["webhooks"].as_array().map_or(&[], Vec::as_slice)
}

fn validate(configuration: &Value, demands: Demands) -> ErrorList {
    let mut check = Check::default();
    let all = hooks(configuration);
    for (i, hook) in all.iter().enumerate() {
        let path = Path::new("webhooks").index(i);
        webhook(&mut check, &path, hook, demands);
        let versions = texts(&hook["admissionReviewVersions"]);
        let at = path.child("admissionReviewVersions");
        review_versions(&mut check, &at, &versions, demands.known_versions);
        let name = word(hook, "name").unwrap_or_default();
        let twice = demands.unique_names && !name.is_empty() && all[..i].iter().any(|h| h["name"] == name);
        check.when(twice, || Error::duplicate(&path.child("name"), name));
    }
    check.0
}

/// A new configuration.
pub(super) fn validate_webhooks(configuration: &Value) -> ErrorList {
    let demands = Demands {
        no_side_effects: true,
        known_versions: true,
        unique_names: true,
        mixes_names: mixes_names(configuration),
    };
    validate(configuration, demands)
}

/// A changed configuration.
pub(super) fn validate_webhooks_update(configuration: &Value, old: &Value) -> ErrorList {
    let before = hooks(old);
    let harmless = |hook: &Value| word(hook, "sideEffects").is_some_and(|e| NO_SIDE_EFFECTS.contains(&e));
    let known = |hook: &Value| {
        let versions = texts(&hook["admissionReviewVersions"]);
        versions.is_empty() || versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str()))
    };
    let unique = |(i, hook): (usize, &Value)| before[..i].iter().all(|h| h["name"] != hook["name"]);
    let demands = Demands {
        no_side_effects: before.iter().all(harmless),
        known_versions: before.iter().all(known),
        unique_names: before.iter().enumerate().all(unique),
        mixes_names: mixes_names(configuration),
    };
    validate(configuration, demands)
}
