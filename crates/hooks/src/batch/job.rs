//! Jobs.

use super::job_status_validation::validate_status;
use super::job_validation::{validate_job, validate_job_update};
use crate::core::pod_warnings::{of_name, of_template, same_generation};
use crate::templates::*;
use crate::tree::{absent_or, at, column, int, list, name, object_age, text, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::labels::format_label_selector;
use apimachinery::meta::LabelSelector;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct Jobs;

pub(super) const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
pub(super) const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// The defaults of a job's spec.
fn default_spec(spec: &mut Value) {
    let none = |spec: &Value, key: &str| spec.get(key).is_none_or(Value::is_null);
    if none(spec, "completions") && none(spec, "parallelism") {
        absent_or(spec, "completions", 1);
    }
    absent_or(spec, "parallelism", 1);
    let limit = if none(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    absent_or(spec, "backoffLimit", limit);
    absent_or(spec, "completionMode", "NonIndexed");
    absent_or(spec, "suspend", false);
    let replacement = if none(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    absent_or(spec, "podReplacementPolicy", replacement);
    absent_or(spec, "manualSelector", false);
    default_patterns(spec);
    default_template(spec);
}

/// What templates of jobs get too: the status that a condition of a failure policy is about.
pub(super) fn default_patterns(spec: &mut Value) {
    with(spec, "podFailurePolicy", |policy| {
        crate::tree::each(policy, "rules", |rule| {
            crate::tree::each(rule, "onPodConditions", |c| crate::tree::or(c, "status", "True"));
        });
    });
}

/// A selector by the job's uid, and the labels that it and people select by.
fn generate_selector(job: &mut Value) {
    let uid = text(job, &["metadata", "uid"]).to_owned();
    let name = text(job, &["metadata", "name"]).to_owned();
    with(job, "spec", |spec| {
        with(spec, "template", |template| {
            absent_or(template, "metadata", json!({}));
            with(template, "metadata", |metadata| {
                absent_or(metadata, "labels", json!({}));
                with(metadata, "labels", |labels| {
                    JOB_NAME.iter().for_each(|key| absent_or(labels, key, name.as_str()));
                    CONTROLLER_UID.iter().for_each(|key| absent_or(labels, key, uid.as_str()));
                });
            });
        });
        absent_or(spec, "selector", json!({}));
        with(spec, "selector", |selector| {
            absent_or(selector, "matchLabels", json!({}));
            with(selector, "matchLabels", |labels| absent_or(labels, CONTROLLER_UID[1], uid.as_str()));
        });
    });
}

fn has_condition(job: &Value, kind: &str) -> bool {
    list(job, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
}

fn state(job: &Value) -> &'static str {
    let has = |kind| has_condition(job, kind);
    if has("Complete") {
        "Complete"
    } else if has("Failed") {
        "Failed"
    } else if !text(job, &["metadata", "deletionTimestamp"]).is_empty() {
        "Terminating"
    } else if has("Suspended") {
        "Suspended"
    } else if has("FailureTarget") {
        "FailureTarget"
    } else if has("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Of a job, or of the template of jobs whose spec is at a path.
pub(super) fn job_warnings(
    object: &Value,
    old: Option<&Value>,
    context: &Context,
    path: &[&'static str],
) -> Vec<String> {
    const COMPLETIONS: i64 = 100_000;
    const PARALLELISM: i64 = 10_000;
    if context.subresource.is_some() {
        return Vec::new();
    }
    let mut found = if old.is_none() { of_name(object) } else { Vec::new() };
    let spec = at(object, path).unwrap_or(&Value::Null);
    let many = int(spec, &["completions"]) > COMPLETIONS && int(spec, &["parallelism"]) > PARALLELISM;
    let changed = !old.is_some_and(|old| same_generation(object, old));
    if changed && many && spec["completionMode"] == "Indexed" {
        found.push(format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            path.join(".")
        ));
    }
    if changed {
        found.extend(of_template(object, &[path, &["template"]].concat()));
    }
    found
}

impl Strategy for Jobs {
    fn default(&self, job: &mut Value) {
        with(job, "spec", default_spec);
        let labels = job["spec"]["template"]["metadata"]["labels"].clone();
        if labels.is_object() && job["metadata"]["labels"].as_object().is_none_or(|l| l.is_empty()) {
            job["metadata"]["labels"] = labels;
        }
    }

    fn prepare_for_create(&self, job: &mut Value, _: &Context) {
        if job["spec"]["manualSelector"] != true {
            generate_selector(job);
            // Upstream defaults once more whatever it stored.
            self.default(job);
        }
    }

    fn validate(&self, job: &Value, _: &Context) -> ErrorList {
        validate_job(&typed(job))
    }

    fn validate_update(&self, job: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => validate_status(&typed(job), &typed(old)),
            _ => validate_job_update(job, old),
        }
    }

    fn warnings(&self, job: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        job_warnings(job, old, context, &["spec"])
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Status", "string", 0, "Status of the job."),
            column(
                "Completions",
                "string",
                0,
                "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. However, it may decrease in reaction to scale down of elastic indexed jobs.",
            ),
            column("Duration", "string", 0, "Time required to complete the job."),
            AGE,
            CONTAINERS,
            IMAGES,
            column(
                "Selector",
                "string",
                1,
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, job: &Value, now: Time) -> Vec<Value> {
        let succeeded = int(job, &["status", "succeeded"]);
        let completions = match at(job, &["spec", "completions"]).and_then(Value::as_i64) {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None => match int(job, &["spec", "parallelism"]) {
                parallelism @ 2.. => format!("{succeeded}/1 of {parallelism}"),
                _ => format!("{succeeded}/1"),
            },
        };
        let time = |key: &str| text(job, &["status", key]).parse::<Time>().ok();
        let duration = match (time("startTime"), time("completionTime")) {
            (None, _) => String::new(),
            (Some(start), end) => end.unwrap_or(now).since(start).human(),
        };
        let [containers, images] = containers(&job["spec"]["template"]);
        let selector: Option<LabelSelector> = typed(&job["spec"]["selector"]);
        vec![
            name(job),
            state(job).into(),
            completions.into(),
            duration.into(),
            object_age(job, now).into(),
            containers,
            images,
            format_label_selector(selector.as_ref()).into(),
        ]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[("status.successful", |job| int(job, &["status", "succeeded"]).to_string())]
    }
}
