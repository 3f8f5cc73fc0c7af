//! What `kubectl get hpa` shows.

use crate::Column;
use crate::templates::{AGE, NAME};
use crate::tree::{column, int, list, name, object_age, text};
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Reference",
        "string",
        0,
        "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
    ),
    column(
        "Targets",
        "string",
        0,
        "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
    ),
    column(
        "MinPods",
        "string",
        0,
        "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
    ),
    column(
        "MaxPods",
        "string",
        0,
        "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
    ),
    column(
        "Replicas",
        "string",
        0,
        "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
    ),
    AGE,
];

/// How many metrics are shown in full.
const SHOWN: usize = 2;

pub(super) fn cells(object: &Value, now: Time) -> Vec<Value> {
    let target = &object["spec"]["scaleTargetRef"];
    let min = object["spec"]["minReplicas"].as_i64();
    vec![
        name(object),
        format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into(),
        metrics(list(object, &["spec", "metrics"]), list(object, &["status", "currentMetrics"])).into(),
        min.map_or_else(|| "<unset>".to_owned(), |min| min.to_string()).into(),
        int(object, &["spec", "maxReplicas"]).into(),
        int(object, &["status", "currentReplicas"]).into(),
        object_age(object, now).into(),
    ]
}

fn metrics(specs: &[Value], statuses: &[Value]) -> String {
    if specs.is_empty() {
        return "<none>".into();
    }
    let all: Vec<String> = specs
        .iter()
        .enumerate()
        .map(|(i, spec)| metric(spec, statuses.get(i).unwrap_or(&Value::Null)))
        .collect();
    match all.len().checked_sub(SHOWN) {
        None | Some(0) => all.join(", "),
        Some(more) => format!("{} + {more} more...", all[..SHOWN].join(", ")),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let (member, named, pods) = match text(spec, &["type"]) {
        "External" => ("external", false, false),
        "Pods" => ("pods", false, true),
        "Object" => ("object", false, false),
        "Resource" => ("resource", true, false),
        "ContainerResource" => ("containerResource", true, false),
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (&spec[member]["target"], &status[member]["current"]);
    let shown = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| "<unknown>".into());
    let percent =
        |value: &Value, none: &str| value.as_i64().map_or_else(|| none.to_owned(), |n| format!("{n}%"));
    let average = !target["averageValue"].is_null();
    let pair = match (average || pods, named) {
        (true, _) => format!("{}/{}", shown(&current["averageValue"]), shown(&target["averageValue"])),
        (false, false) => format!("{}/{}", shown(&current["value"]), shown(&target["value"])),
        (false, true) => format!(
            "{}/{}",
            percent(&current["averageUtilization"], "<unknown>"),
            percent(&target["averageUtilization"], "<auto>")
        ),
    };
    match (named, average && !pods) {
        (true, _) => format!("{}: {pair}", text(&spec[member], &["name"])),
        (false, true) => format!("{pair} (avg)"),
        (false, false) => pair,
    }
}
