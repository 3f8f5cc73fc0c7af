//! HorizontalPodAutoscaler, in v2.

use super::{columns, validation};
use crate::tree::{absent_or, list, typed, with};
use crate::{Column, Context, Strategy};
use api::autoscaling::v2::HorizontalPodAutoscaler;
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;

/// The utilization of CPU that is aimed at when nothing else is said.
pub(super) fn default_metric() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}})
}

pub(super) struct Autoscalers;

fn default_rules(behavior: &mut Value, direction: &str, policies: Value, window: Option<i64>) {
    if !behavior[direction].is_object() {
        behavior[direction] = json!({});
    }
    let rules = &mut behavior[direction];
    if let Some(window) = window {
        absent_or(rules, "stabilizationWindowSeconds", window);
    }
    absent_or(rules, "selectPolicy", "Max");
    if rules["policies"].is_null() {
        rules["policies"] = policies;
    }
}

impl Strategy for Autoscalers {
    fn default(&self, object: &mut Value) {
        with(object, "spec", |spec| {
            absent_or(spec, "minReplicas", 1);
            if list(spec, &["metrics"]).is_empty() {
                spec["metrics"] = json!([default_metric()]);
            }
            with(spec, "behavior", |behavior| {
                let all = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
                let up = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, all]);
                default_rules(behavior, "scaleUp", up, Some(0));
                default_rules(behavior, "scaleDown", json!([all]), None);
            });
        });
    }

    fn validate(&self, object: &Value, _: &Context) -> ErrorList {
        validation::validate(&typed(object), None)
    }

    fn validate_update(&self, object: &Value, old: &Value, context: &Context) -> ErrorList {
        let object: HorizontalPodAutoscaler = typed(object);
        match context.subresource {
            Some("status") => validation::validate_status(&object),
            _ => validation::validate(&object, Some(&typed(old))),
        }
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, object: &Value, now: Time) -> Vec<Value> {
        columns::cells(object, now)
    }

    fn has_generation(&self) -> bool {
        false
    }
}
