//! ReplicaSets and ReplicationControllers.

use crate::counts::Counts;
use crate::templates::*;
use crate::tree::{absent_or, column, int, labels, name, object_age, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use api::apps::v1::ReplicaSet;
use api::core::v1::ReplicationController;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::labels::{Selector, format_label_selector};
use apimachinery::meta::LabelSelector;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct ReplicaSets;
pub(super) struct ReplicationControllers;

/// The columns of one of the two kinds, after what it says of its numbers and its selector.
const fn columns([desired, current, ready, selector]: [&'static str; 4]) -> [Column; 8] {
    [
        NAME,
        column("Desired", "integer", 0, desired),
        column("Current", "integer", 0, current),
        column("Ready", "integer", 0, ready),
        AGE,
        CONTAINERS,
        IMAGES,
        column("Selector", "string", 1, selector),
    ]
}

const OF_SETS: &[Column] = &columns([
    "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition.",
    "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
]);
const OF_CONTROLLERS: &[Column] = &columns([
    "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    "The number of ready replicas for this replication controller.",
    "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
]);

fn cells(object: &Value, now: Time, selector: String) -> Vec<Value> {
    let [containers, images] = containers(&object["spec"]["template"]);
    vec![
        name(object),
        int(object, &["spec", "replicas"]).into(),
        int(object, &["status", "replicas"]).into(),
        int(object, &["status", "readyReplicas"]).into(),
        object_age(object, now).into(),
        containers,
        images,
        selector.into(),
    ]
}

const COUNTS: Counts = Counts {
    fields: &[
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ],
    within: &[
        ("fullyLabeledReplicas", "replicas", "cannot be greater than status.replicas"),
        ("readyReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "replicas", "cannot be greater than status.replicas"),
        ("availableReplicas", "readyReplicas", "cannot be greater than readyReplicas"),
    ],
};

impl Strategy for ReplicaSets {
    fn warnings(&self, set: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        template_warnings(set, old, context, Named::Warned)
    }

    fn default(&self, set: &mut Value) {
        with(set, "spec", |spec| {
            absent_or(spec, "replicas", 1);
            default_template(spec);
        });
    }

    fn validate(&self, set: &Value, _: &Context) -> ErrorList {
        let spec = typed::<ReplicaSet>(set).spec;
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(1));
        not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
        let at = path.child("selector");
        errors.extend(validate_selector(spec.selector.as_ref(), "deployment", &at));
        if Selector::from_label_selector(spec.selector.as_ref()).is_err() {
            errors.push(Error::invalid(&at, BadValue::json(&spec.selector), "invalid label selector"));
        } else {
            let at = path.child("template");
            errors.extend(validate_lasting_template(
                &spec.template,
                spec.selector.as_ref(),
                "ReplicaSet",
                &at,
            ));
        }
        errors
    }

    fn validate_update(&self, set: &Value, old: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("status") {
            return COUNTS.validate(set, old);
        }
        let mut errors = self.validate(set, context);
        immutable(&mut errors, set, old, &["spec", "selector"]);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        OF_SETS
    }

    fn cells(&self, set: &Value, now: Time) -> Vec<Value> {
        let selector: Option<LabelSelector> = typed(&set["spec"]["selector"]);
        cells(set, now, format_label_selector(selector.as_ref()))
    }
}

impl Strategy for ReplicationControllers {
    fn default(&self, controller: &mut Value) {
        let labels = controller["spec"]["template"]["metadata"]["labels"].clone();
        with(controller, "spec", |spec| {
            absent_or(spec, "replicas", 1);
            if labels.is_object() && spec["selector"].as_object().is_none_or(|s| s.is_empty()) {
                spec["selector"] = labels.clone();
            }
            default_template(spec);
        });
        if labels.is_object() && controller["metadata"]["labels"].as_object().is_none_or(|l| l.is_empty()) {
            controller["metadata"]["labels"] = labels;
        }
    }

    fn validate(&self, controller: &Value, _: &Context) -> ErrorList {
        let spec = typed::<ReplicationController>(controller).spec;
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
        if spec.selector.is_empty() {
            errors.push(Error::required(&path.child("selector"), ""));
        }
        not_negative(&mut errors, &path.child("replicas"), spec.replicas.unwrap_or(1));
        let at = path.child("template");
        match &spec.template {
            None => errors.push(Error::required(&at, "")),
            Some(template) => {
                // No selector of labels but a map of them, which is not judged by itself.
                let labels = &template.metadata.labels;
                if spec.selector.iter().any(|(key, value)| labels.get(key) != Some(value)) {
                    errors.push(mismatch(template, &at));
                }
                errors.extend(validate_lasting(template, "ReplicationController", &at));
            }
        }
        errors
    }

    fn validate_update(&self, controller: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => COUNTS.validate(controller, old),
            _ => self.validate(controller, context),
        }
    }

    fn columns(&self) -> &'static [Column] {
        OF_CONTROLLERS
    }

    fn cells(&self, controller: &Value, now: Time) -> Vec<Value> {
        cells(controller, now, labels(controller["spec"].get("selector")))
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[STATUS_REPLICAS]
    }

    fn warnings(&self, controller: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        template_warnings(controller, old, context, Named::Warned)
    }
}
