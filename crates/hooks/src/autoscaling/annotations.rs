//! What v1 has no member for, as text in annotations: old structs in their order, and one that upstream has inside.

use crate::shown::shown_text;
use apimachinery::value::{Key, Map, Value};

/// The order of the members of all of v1's structs of metrics and conditions.
const ORDER: &[&str] = &[
    "type",
    "status",
    "lastTransitionTime",
    "reason",
    "message",
    "object",
    "pods",
    "resource",
    "containerResource",
    "external",
    "target",
    "kind",
    "name",
    "apiVersion",
    "metricName",
    "metricSelector",
    "targetValue",
    "targetAverageUtilization",
    "targetAverageValue",
    "currentValue",
    "currentAverageUtilization",
    "currentAverageValue",
    "selector",
    "averageValue",
    "container",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
];

/// Metrics or conditions as Go writes them.
pub(super) fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
            let member = |(name, value): (&Key, &Value)| match (name.as_str(), value) {
                ("matchLabels", labels) => format!("\"matchLabels\":{labels}"),
                (name, value) => format!("\"{name}\":{}", written(value)),
            };
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        value => value.to_string(),
    }
}

/// A behavior of v2, in the struct that upstream has of it inside.
pub(super) fn written_behavior(behavior: &Value) -> String {
    shown_text("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior", behavior)
}

/// The same, read: Go does not look at the case of a name, and takes null for nothing.
pub(super) fn read_behavior(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(read_behavior).collect(),
        Value::Object(map) => {
            let small = |name: Key| match name.split_at_checked(1) {
                Some((first, rest)) => Key::from(first.to_lowercase() + rest),
                None => name,
            };
            let said = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(said.map(|(name, value)| (small(name), read_behavior(value))).collect::<Map>())
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn metrics_stand_in_the_order_of_v1() {
        let labels = json!({"z": "1", "name": "2"});
        let metric = json!([{"type": "Pods", "pods": {
            "selector": {"matchLabels": labels}, "targetAverageValue": "1", "metricName": "m",
        }}]);
        let expected = concat!(
            r#"[{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"1","#,
            r#""selector":{"matchLabels":{"name":"2","z":"1"}}}}]"#
        );
        assert_eq!(written(&metric), expected);
    }

    #[test]
    fn behavior_is_written_as_it_is_inside_and_read_in_any_case() {
        let behavior = json!({"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 2}]}});
        let text = written_behavior(&behavior);
        let expected = concat!(
            r#"{"ScaleUp":{"StabilizationWindowSeconds":null,"SelectPolicy":null,"#,
            r#""Policies":[{"Type":"Pods","Value":1,"PeriodSeconds":2}],"Tolerance":null},"ScaleDown":null}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str(&text).map(read_behavior).ok(), Some(behavior.clone()));
        assert_eq!(read_behavior(behavior.clone()), behavior);
    }
}
