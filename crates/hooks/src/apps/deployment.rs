//! Deployments.

use crate::counts::Counts;
use crate::templates::*;
use crate::tree::{absent_or, at, column, int, name, object_age, or, text, typed, with};
use crate::{Column, Context, Strategy};
use api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct Deployments;

const COUNTS: Counts = Counts {
    fields: &[
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ],
    within: &[
        ("updatedReplicas", "replicas", "cannot be greater than status.replicas"),
        ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ],
};

impl Strategy for Deployments {
    fn warnings(&self, object: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        template_warnings(object, old, context, Named::Warned)
    }

    fn default(&self, deployment: &mut Value) {
        with(deployment, "spec", |spec| {
            absent_or(spec, "replicas", 1);
            absent_or(spec, "strategy", json!({}));
            with(spec, "strategy", |strategy| {
                or(strategy, "type", "RollingUpdate");
                if text(strategy, &["type"]) == "RollingUpdate" {
                    absent_or(strategy, "rollingUpdate", json!({}));
                    with(strategy, "rollingUpdate", |update| {
                        absent_or(update, "maxUnavailable", "25%");
                        absent_or(update, "maxSurge", "25%");
                    });
                }
            });
            absent_or(spec, "revisionHistoryLimit", 10);
            absent_or(spec, "progressDeadlineSeconds", 600);
            default_template(spec);
        });
    }

    fn prepare_for_update(&self, deployment: &mut Value, old: &Value, context: &Context) {
        // Annotations are copied to replica sets: a change of theirs is a change to observe.
        const ANNOTATIONS: &[&str] = &["metadata", "annotations"];
        if context.subresource.is_none() && at(deployment, ANNOTATIONS) != at(old, ANNOTATIONS) {
            deployment["metadata"]["generation"] = (int(old, &["metadata", "generation"]) + 1).into();
        }
    }

    fn validate(&self, deployment: &Value, _: &Context) -> ErrorList {
        validate(&typed::<Deployment>(deployment).spec, &Path::new("spec"))
    }

    fn validate_update(&self, deployment: &Value, old: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("status") {
            return COUNTS.validate(deployment, old);
        }
        let mut errors = self.validate(deployment, context);
        immutable(&mut errors, deployment, old, &["spec", "selector"]);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Ready", "string", 0, "Number of the pod with ready state"),
            column(
                "Up-to-date",
                "string",
                0,
                "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
            ),
            column(
                "Available",
                "string",
                0,
                "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
            ),
            AGE,
            CONTAINERS,
            IMAGES,
            column(
                "Selector",
                "string",
                1,
                "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, deployment: &Value, now: Time) -> Vec<Value> {
        let status = |key: &str| int(deployment, &["status", key]);
        let [containers, images] = containers(&deployment["spec"]["template"]);
        let selector = typed::<Option<_>>(&deployment["spec"]["selector"]);
        vec![
            name(deployment),
            format!("{}/{}", status("readyReplicas"), int(deployment, &["spec", "replicas"])).into(),
            status("updatedReplicas").into(),
            status("availableReplicas").into(),
            object_age(deployment, now).into(),
            containers,
            images,
            match Selector::from_label_selector(selector.as_ref()) {
                Ok(selector) => selector.to_string().into(),
                Err(_) => "<invalid>".into(),
            },
        ]
    }
}

fn validate(spec: &DeploymentSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(1));
    let selector = path.child("selector");
    errors.extend(validate_selector(spec.selector.as_ref(), "deployment", &selector));
    if Selector::from_label_selector(spec.selector.as_ref()).is_err() {
        errors.push(Error::invalid(&selector, BadValue::json(&spec.selector), "invalid label selector"));
    } else {
        let at = path.child("template");
        errors.extend(validate_lasting_template(&spec.template, spec.selector.as_ref(), "ReplicaSet", &at));
    }
    validate_strategy(&mut errors, &spec.strategy, &path.child("strategy"));
    not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
    if let Some(limit) = spec.revision_history_limit {
        not_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
    }
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        not_negative(&mut errors, &at, deadline);
        if deadline <= spec.min_ready_seconds {
            errors.push(Error::invalid(&at, i64::from(deadline), "must be greater than minReadySeconds"));
        }
    }
    errors
}

fn validate_strategy(errors: &mut ErrorList, strategy: &DeploymentStrategy, path: &Path) {
    let rolling = path.child("rollingUpdate");
    match (strategy.type_.as_str(), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            let text = "may not be specified when strategy `type` is 'Recreate'";
            errors.push(Error::forbidden(&rolling, text));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(Error::required(&rolling, "this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(update)) => {
            let unavailable = rolling.child("maxUnavailable");
            validate_amount(errors, &unavailable, update.max_unavailable.as_ref());
            validate_amount(errors, &rolling.child("maxSurge"), update.max_surge.as_ref());
            if amount(update.max_unavailable.as_ref()) == 0 && amount(update.max_surge.as_ref()) == 0 {
                let value = BadValue::json(&update.max_unavailable);
                errors.push(Error::invalid(&unavailable, value, "may not be 0 when `maxSurge` is 0"));
            }
            validate_not_more_than_all(errors, &unavailable, update.max_unavailable.as_ref());
        }
        _ => {
            let value = crate::shown::shown_typed("io.k8s.api.apps.v1.DeploymentStrategy", strategy);
            errors.push(Error::not_supported(path, value, &["Recreate", "RollingUpdate"]));
        }
    }
}
