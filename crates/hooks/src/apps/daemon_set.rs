//! DaemonSets.

use crate::counts::Counts;
use crate::shown::shown_typed;
use crate::templates::*;
use crate::tree::{absent_or, at, column, int, labels, name, object_age, or, text, typed, with};
use crate::{Column, Context, Strategy};
use api::apps::v1::DaemonSet;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::labels::format_label_selector;
use apimachinery::meta::LabelSelector;
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct DaemonSets;

const COUNTS: Counts = Counts {
    fields: &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ],
    within: &[],
};

/// How often the template changed; a field once, an annotation since apps/v1.
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// An annotation that upstream has as a field inside, and shows in whole objects alone.
pub fn hidden_annotation(group: &str, kind: &str) -> Option<&'static str> {
    ((group, kind) == ("apps", "DaemonSet")).then_some(GENERATION)
}

fn template_generation(set: &Value) -> i64 {
    text(set, &["metadata", "annotations", GENERATION]).parse().unwrap_or(0)
}

fn set_template_generation(set: &mut Value, generation: i64) {
    if !set["metadata"]["annotations"].is_object() {
        set["metadata"]["annotations"] = json!({});
    }
    set["metadata"]["annotations"][GENERATION] = generation.to_string().into();
}

impl Strategy for DaemonSets {
    fn warnings(&self, object: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        let template = |set: &Value| set["spec"]["template"].clone();
        match old.is_some_and(|old| template(old) == template(object)) {
            true => Vec::new(),
            false => template_warnings(object, old, context, Named::Free),
        }
    }

    fn default(&self, set: &mut Value) {
        with(set, "spec", |spec| {
            absent_or(spec, "updateStrategy", json!({}));
            with(spec, "updateStrategy", |strategy| {
                or(strategy, "type", "RollingUpdate");
                let rolls = text(strategy, &["type"]) == "RollingUpdate";
                if rolls {
                    absent_or(strategy, "rollingUpdate", json!({}));
                }
                with(strategy, "rollingUpdate", |update| {
                    absent_or(update, "maxUnavailable", i64::from(rolls));
                    absent_or(update, "maxSurge", 0);
                });
            });
            absent_or(spec, "revisionHistoryLimit", 10);
            default_template(spec);
        });
        // Whatever a client says, the object has this annotation from the first.
        if set["metadata"]["annotations"].get(GENERATION).is_none() {
            set_template_generation(set, 0);
        }
    }

    fn prepare_for_create(&self, set: &mut Value, _: &Context) {
        let generation = template_generation(set).max(1);
        set_template_generation(set, generation);
    }

    fn prepare_for_update(&self, set: &mut Value, old: &Value, context: &Context) {
        if context.subresource.is_some() {
            set_template_generation(set, template_generation(old));
            return;
        }
        const TEMPLATE: &[&str] = &["spec", "template"];
        let changed = at(set, TEMPLATE) != at(old, TEMPLATE);
        set_template_generation(set, template_generation(old) + i64::from(changed));
    }

    fn validate(&self, set: &Value, _: &Context) -> ErrorList {
        let spec = typed::<DaemonSet>(set).spec;
        let path = Path::new("spec");
        let at = path.child("selector");
        let selector = spec.selector.as_ref();
        let template = path.child("template");
        let mut errors = validate_label_selector(selector, SelectorLeniency::default(), &at);
        errors.extend(validate_match(&spec.template, selector, &template, Nothing::Selects));
        let empty = |s: &&LabelSelector| s.match_labels.is_empty() && s.match_expressions.is_empty();
        if let Some(some) = selector.filter(empty) {
            let text = "empty selector is invalid for daemonset";
            errors.push(Error::invalid(&at, BadValue::json(some), text));
        }
        errors.extend(validate_lasting(&spec.template, "DaemonSet", &template));
        not_negative(&mut errors, &path.child("minReadySeconds"), spec.min_ready_seconds);
        let strategy = path.child("updateStrategy");
        match (spec.update_strategy.type_.as_str(), &spec.update_strategy.rolling_update) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.push(Error::required(&strategy.child("rollingUpdate"), "")),
            ("RollingUpdate", Some(update)) => {
                let path = strategy.child("rollingUpdate");
                let unavailable = path.child("maxUnavailable");
                let surge = path.child("maxSurge");
                validate_amount(&mut errors, &unavailable, update.max_unavailable.as_ref());
                validate_amount(&mut errors, &surge, update.max_surge.as_ref());
                validate_not_more_than_all(&mut errors, &unavailable, update.max_unavailable.as_ref());
                validate_not_more_than_all(&mut errors, &surge, update.max_surge.as_ref());
                let some = |v: &Option<_>| amount(v.as_ref()) != 0;
                match (some(&update.max_unavailable), some(&update.max_surge)) {
                    (true, true) => errors.push(Error::invalid(
                        &surge,
                        BadValue::json(&update.max_surge),
                        "may not be set when maxUnavailable is non-zero",
                    )),
                    (false, false) => {
                        errors.push(Error::required(&unavailable, "cannot be 0 when maxSurge is 0"))
                    }
                    _ => {}
                }
            }
            _ => {
                let shown = shown_typed("io.k8s.api.apps.v1.DaemonSetUpdateStrategy", &spec.update_strategy);
                errors.push(Error::not_supported(&strategy, shown, &["RollingUpdate", "OnDelete"]));
            }
        }
        if let Some(limit) = spec.revision_history_limit {
            not_negative(&mut errors, &path.child("revisionHistoryLimit"), limit);
        }
        errors
    }

    fn validate_update(&self, set: &Value, old: &Value, context: &Context) -> ErrorList {
        if context.subresource == Some("status") {
            return COUNTS.validate(set, old);
        }
        let mut errors = ErrorList::new();
        immutable(&mut errors, set, old, &["spec", "selector"]);
        errors.extend(self.validate(set, context));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Desired",
                "integer",
                0,
                "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
            ),
            column(
                "Current",
                "integer",
                0,
                "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
            ),
            column(
                "Ready",
                "integer",
                0,
                "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
            ),
            column(
                "Up-to-date",
                "integer",
                0,
                "The total number of nodes that are running updated daemon pod",
            ),
            column(
                "Available",
                "integer",
                0,
                "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
            ),
            column(
                "Node Selector",
                "string",
                0,
                "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
            ),
            AGE,
            CONTAINERS,
            IMAGES,
            column(
                "Selector",
                "string",
                1,
                "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, set: &Value, now: Time) -> Vec<Value> {
        let status = |key: &str| Value::from(int(set, &["status", key]));
        let template = &set["spec"]["template"];
        let [containers, images] = containers(template);
        let selector: Option<LabelSelector> = typed(&set["spec"]["selector"]);
        vec![
            name(set),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            labels(template["spec"].get("nodeSelector")).into(),
            object_age(set, now).into(),
            containers,
            images,
            format_label_selector(selector.as_ref()).into(),
        ]
    }
}
