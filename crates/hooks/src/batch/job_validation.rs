//! What is wrong with a job, or with a change of one.

use super::indexes::count_indexes;
use super::job::{CONTROLLER_UID, JOB_NAME};
use crate::templates::*;
use crate::tree::{list, typed};
use api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::labels::Selector;
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::validation::{is_dns1123_label, is_domain_prefixed_path, is_qualified_name};
use apimachinery::value::Value;
use std::collections::{BTreeMap, HashSet};

const MAX_PARALLELISM_INDEXED: i32 = 100_000;
const MAX_FAILED_INDEXES: i32 = 100_000;
/// Above so many completions the limits per index are lower.
const MANY_COMPLETIONS: i32 = 100_000;
const MANY_LIMIT: i32 = 10_000;

pub(super) fn validate_job(job: &Job) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = validate_generated_selector(job);
    errors.extend(validate_spec(&job.spec, &path));
    errors.extend(validate_selection(&job.spec, &path));
    if job.spec.completion_mode.as_deref() == Some("Indexed")
        && let Some(completions @ 1..) = job.spec.completions
    {
        // The controller appends the index to the hostname of each pod.
        let hostname = format!("{}-{}", job.metadata.name, completions - 1);
        if is_dns1123_label(&hostname).into_iter().next().is_some() {
            errors.push(Error::invalid(
                &Path::new("metadata").child("name"),
                job.metadata.name.as_str(),
                format!("will not able to create pod with invalid DNS label: {hostname}"),
            ));
        }
    }
    errors
}

fn validate_generated_selector(job: &Job) -> ErrorList {
    let mut errors = ErrorList::new();
    if job.spec.manual_selector == Some(true) || job.spec.selector.is_none() {
        return errors;
    }
    if job.metadata.uid.is_empty() {
        errors.push(Error::required(&Path::new("metadata").child("uid"), ""));
    }
    let at = Path::new("spec").child("template").child("metadata").child("labels");
    let labels = &job.spec.template.metadata.labels;
    let expected: [(&str, &str); 4] = [
        (CONTROLLER_UID[0], &job.metadata.uid),
        (JOB_NAME[0], &job.metadata.name),
        (CONTROLLER_UID[1], &job.metadata.uid),
        (JOB_NAME[1], &job.metadata.name),
    ];
    for (key, value) in expected {
        match labels.get(key) {
            None => errors.push(Error::required(&at.key(key), format!("must be '{value}'"))),
            Some(found) if found != value => errors.push(Error::invalid(
                &at.key(key),
                BadValue::json(labels),
                format!("must be '{value}'"),
            )),
            Some(_) => {}
        }
    }
    let expected: BTreeMap<String, String> =
        expected.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if Selector::from_label_selector(job.spec.selector.as_ref()).is_ok_and(|s| !s.matches(&expected)) {
        let at = Path::new("spec").child("selector");
        errors.push(Error::invalid(&at, BadValue::json(&job.spec.selector), "`selector` not auto-generated"));
    }
    errors
}

fn validate_selection(spec: &JobSpec, path: &Path) -> ErrorList {
    let at = path.child("selector");
    let mut errors = match &spec.selector {
        None => [Error::required(&at, "")].into_iter().collect(),
        some => validate_label_selector(some.as_ref(), SelectorLeniency::default(), &at),
    };
    let selector = spec.selector.as_ref();
    errors.extend(validate_match(&spec.template, selector, &path.child("template"), Nothing::Selects));
    errors
}

/// The rules of a job's spec, without its selector: cron jobs have none.
pub(super) fn validate_spec(spec: &JobSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let numbers = [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished.map(i64::from)),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index.map(i64::from)),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ];
    for (field, number) in numbers {
        number.into_iter().for_each(|n| not_negative(&mut errors, &path.child(field), n));
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors
            .push(Error::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = &spec.managed_by {
        errors.extend(is_domain_prefixed_path(&path.child("managedBy"), manager));
        if manager.len() > 63 {
            errors.push(Error::too_long(&path.child("managedBy"), 63));
        }
    }
    match spec.completion_mode.as_deref() {
        None | Some("NonIndexed") => validate_without_index(&mut errors, spec, path),
        Some("Indexed") => validate_indexed(&mut errors, spec, path),
        Some(other) => {
            errors.push(Error::not_supported(
                &path.child("completionMode"),
                other,
                &["NonIndexed", "Indexed"],
            ));
        }
    }
    if let Some(policy) = &spec.pod_failure_policy {
        let path = path.child("podFailurePolicy").child("rules");
        if policy.rules.len() > 20 {
            errors.push(Error::too_many(&path, Some(policy.rules.len()), 20));
        }
        let template = &spec.template.spec;
        let names: HashSet<&str> =
            template.containers.iter().chain(&template.init_containers).map(|c| c.name.as_str()).collect();
        for (i, rule) in policy.rules.iter().enumerate() {
            validate_failure_rule(&mut errors, spec, rule, &path.index(i), &names);
        }
    }
    validate_success_policy(&mut errors, spec, &path.child("successPolicy"));
    if let Some(policy) = spec.pod_replacement_policy.as_deref() {
        let allowed: &[&str] =
            if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !allowed.contains(&policy) {
            errors.push(Error::not_supported(&path.child("podReplacementPolicy"), policy, allowed));
        }
    }
    let template = path.child("template");
    errors.extend(validate_template(&spec.template, &template));
    let at = template.child("spec").child("restartPolicy");
    match spec.template.spec.restart_policy.as_str() {
        "" | "Always" => errors.push(Error::required(&at, "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" if spec.pod_failure_policy.is_none() => {}
        "OnFailure" => errors.push(Error::invalid(
            &at,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        other => errors.push(Error::not_supported(&at, other, &["OnFailure", "Never"])),
    }
    errors
}

fn validate_without_index(errors: &mut ErrorList, spec: &JobSpec, path: &Path) {
    let numbers = [
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    for (field, number) in numbers {
        if let Some(number) = number {
            errors.push(Error::invalid(
                &path.child(field),
                i64::from(number),
                "requires indexed completion mode",
            ));
        }
    }
    if let Some(policy) = &spec.success_policy {
        let at = path.child("successPolicy");
        let policy = crate::shown::shown_typed("io.k8s.api.batch.v1.SuccessPolicy", policy);
        errors.push(Error::invalid(&at, policy, "requires indexed completion mode"));
    }
}

fn validate_indexed(errors: &mut ErrorList, spec: &JobSpec, path: &Path) {
    let failed = path.child("maxFailedIndexes");
    let parallel = path.child("parallelism");
    let mut at_most = |at: &Path, value: Option<i32>, limit: i32, tail: &str| {
        if let Some(value) = value.filter(|v| *v > limit) {
            let text = format!("must be less than or equal to {limit}{tail}");
            errors.push(Error::invalid(at, i64::from(value), text));
        }
    };
    at_most(&parallel, spec.parallelism, MAX_PARALLELISM_INDEXED, " when completion mode is Indexed");
    at_most(&failed, spec.max_failed_indexes, MAX_FAILED_INDEXES, "");
    let many =
        spec.completions.is_some_and(|c| c > MANY_COMPLETIONS) && spec.backoff_limit_per_index.is_some();
    if many {
        const TAIL: &str = " when completions are above 100000 and used with backoff limit per index";
        at_most(&parallel, spec.parallelism, MANY_LIMIT, TAIL);
        at_most(&failed, spec.max_failed_indexes, MANY_LIMIT, TAIL);
    }
    match (spec.completions, spec.max_failed_indexes) {
        (None, _) => {
            errors.push(Error::required(&path.child("completions"), "when completion mode is Indexed"));
        }
        (Some(completions), Some(limit)) if limit > completions => {
            errors.push(Error::invalid(
                &failed,
                i64::from(limit),
                "must be less than or equal to completions",
            ));
        }
        (Some(_), None) if many => {
            errors.push(Error::required(&failed, "must be specified when completions is above 100000"));
        }
        _ => {}
    }
}

fn validate_failure_rule(
    errors: &mut ErrorList,
    spec: &JobSpec,
    rule: &PodFailurePolicyRule,
    path: &Path,
    names: &HashSet<&str>,
) {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let at = path.child("action");
    match rule.action.as_str() {
        "" => errors.push(Error::required(&at, format!("valid values: {}", quoted(ACTIONS)))),
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.push(Error::invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set"));
        }
        action if ACTIONS.contains(&action) => {}
        other => errors.push(Error::not_supported(&at, other, ACTIONS)),
    }
    if let Some(codes) = &rule.on_exit_codes {
        validate_exit_codes(errors, codes, &path.child("onExitCodes"), names);
    }
    let conditions = path.child("onPodConditions");
    if rule.on_pod_conditions.len() > 20 {
        errors.push(Error::too_many(&conditions, Some(rule.on_pod_conditions.len()), 20));
    }
    for (i, pattern) in rule.on_pod_conditions.iter().enumerate() {
        const STATUS: &[&str] = &["False", "True", "Unknown"];
        let path = conditions.index(i);
        let kind = pattern.type_.as_str();
        errors.extend(
            is_qualified_name(kind).into_iter().map(|why| Error::invalid(&path.child("type"), kind, why)),
        );
        let at = path.child("status");
        match pattern.status.as_str() {
            "" => errors.push(Error::required(&at, format!("valid values: {}", quoted(STATUS)))),
            status if STATUS.contains(&status) => {}
            other => errors.push(Error::not_supported(&at, other, STATUS)),
        }
    }
    let text = match (rule.on_exit_codes.is_some(), !rule.on_pod_conditions.is_empty()) {
        (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
        (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
        _ => return,
    };
    errors.push(Error::invalid(path, BadValue::omitted(), text));
}

/// A list as Go's %q shows it.
fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn validate_exit_codes(
    errors: &mut ErrorList,
    codes: &PodFailurePolicyOnExitCodesRequirement,
    path: &Path,
    names: &HashSet<&str>,
) {
    const OPERATORS: &[&str] = &["In", "NotIn"];
    let at = path.child("operator");
    match codes.operator.as_str() {
        "" => errors.push(Error::required(&at, format!("valid values: {}", quoted(OPERATORS)))),
        operator if OPERATORS.contains(&operator) => {}
        other => errors.push(Error::not_supported(&at, other, OPERATORS)),
    }
    if let Some(name) = codes.container_name.as_deref()
        && !names.contains(name)
    {
        let text = "must be one of the container or initContainer names in the pod template";
        errors.push(Error::invalid(&path.child("containerName"), name, text));
    }
    let at = path.child("values");
    if codes.values.is_empty() {
        errors.push(Error::invalid(&at, BadValue::verbatim("null"), "at least one value is required"));
    } else if codes.values.len() > 255 {
        errors.push(Error::too_many(&at, Some(codes.values.len()), 255));
    }
    let mut seen = HashSet::new();
    for (i, code) in codes.values.iter().enumerate() {
        let at = at.index(i);
        if codes.operator == "In" && *code == 0 {
            errors.push(Error::invalid(&at, i64::from(*code), "must not be 0 for the In operator"));
        }
        if !seen.insert(code) {
            errors.push(Error::duplicate(&at, i64::from(*code)));
        }
    }
    if !codes.values.is_sorted() {
        errors.push(Error::invalid(&at, BadValue::json(&codes.values), "must be ordered"));
    }
}

fn validate_success_policy(errors: &mut ErrorList, spec: &JobSpec, path: &Path) {
    let Some(policy) = &spec.success_policy else { return };
    if spec.completion_mode.as_deref() != Some("Indexed") {
        return;
    }
    let path = path.child("rules");
    if policy.rules.is_empty() {
        let text = "at least one rules must be specified when the successPolicy is specified";
        errors.push(Error::required(&path, text));
    }
    if policy.rules.len() > 20 {
        errors.push(Error::too_many(&path, Some(policy.rules.len()), 20));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let path = path.index(i);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            errors.push(Error::required(
                &path,
                "at least one of succeededCount or succeededIndexes must be specified",
            ));
        }
        let completions = spec.completions.unwrap_or(0);
        let mut listed = None;
        if let Some(text) = &rule.succeeded_indexes {
            match count_indexes(text, completions) {
                Ok(count) => listed = Some(count),
                Err(why) => {
                    listed = Some(0);
                    let why = format!("error parsing succeededIndexes: {why}");
                    errors.push(Error::invalid(&path.child("succeededIndexes"), text.as_str(), why));
                }
            }
        }
        let Some(count) = rule.succeeded_count else { continue };
        let at = path.child("succeededCount");
        not_negative(errors, &at, count);
        if count > completions {
            let text =
                format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.push(Error::invalid(&at, i64::from(count), text));
        }
        if let Some(listed) = listed.filter(|n| count > *n) {
            let text = format!(
                "must be less than or equal to {listed} (the number of indexes in the specified succeededIndexes field)"
            );
            errors.push(Error::invalid(&at, i64::from(count), text));
        }
    }
}

pub(super) fn validate_job_update(job: &Value, old: &Value) -> ErrorList {
    let new: Job = typed(job);
    let mut errors = validate_job(&new);
    // Upstream judges the spec twice.
    let path = Path::new("spec");
    errors.extend(validate_spec(&new.spec, &path));
    errors.extend(validate_selection(&new.spec, &path));
    if new.spec.completion_mode.as_deref() != Some("Indexed") {
        immutable(&mut errors, job, old, &["spec", "completions"]);
    } else if job["spec"]["completions"] != old["spec"]["completions"]
        && new.spec.completions.is_some()
        && new.spec.completions != new.spec.parallelism
    {
        errors.push(Error::invalid(
            &Path::new("spec").child("completions"),
            BadValue::json(&new.spec.completions),
            "can only be modified in tandem with spec.parallelism",
        ));
    }
    immutable(&mut errors, job, old, &["spec", "selector"]);
    if job["spec"]["template"] != old["spec"]["template"] {
        let mut allowed = old.clone();
        if may_steer(old) {
            take_scheduling(&mut allowed["spec"]["template"], &job["spec"]["template"]);
        }
        if old["spec"]["suspend"] == true {
            take_resources(&mut allowed["spec"]["template"]["spec"], &job["spec"]["template"]["spec"]);
        }
        immutable(&mut errors, job, &allowed, &["spec", "template"]);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        immutable(&mut errors, job, old, &["spec", field]);
    }
    errors
}

/// Whether where the pods run may still change: the job is suspended and has no running pods.
fn may_steer(old: &Value) -> bool {
    old["spec"]["suspend"] == true && crate::tree::int(old, &["status", "active"]) == 0
}

fn take(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) if !value.is_null() => to[key] = value.clone(),
        _ => crate::tree::remove(to, key),
    }
}

fn take_scheduling(allowed: &mut Value, new: &Value) {
    for key in ["labels", "annotations"] {
        take(&mut allowed["metadata"], &new["metadata"], key);
    }
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(&mut allowed["spec"], &new["spec"], key);
    }
    let old_affinity = allowed["spec"].get("affinity").cloned();
    let new_affinity = new["spec"].get("affinity");
    let without_nodes = |affinity: Option<&Value>| {
        let mut affinity = affinity.cloned().unwrap_or_else(|| apimachinery::json!({}));
        crate::tree::remove(&mut affinity, "nodeAffinity");
        affinity
    };
    if without_nodes(old_affinity.as_ref()) == without_nodes(new_affinity) {
        take(&mut allowed["spec"], &new["spec"], "affinity");
    }
}

fn take_resources(allowed: &mut Value, new: &Value) {
    for key in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = allowed.get_mut(key) else { continue };
        for (container, new) in containers.iter_mut().zip(list(new, &[key])) {
            take(container, new, "resources");
        }
    }
}
