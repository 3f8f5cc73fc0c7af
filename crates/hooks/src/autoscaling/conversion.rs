//! HorizontalPodAutoscaler between v1, which knows one metric, and v2. What v1 has no member for travels in annotations.

use super::annotations::{read_behavior, written, written_behavior};
use super::horizontal_pod_autoscaler::default_metric;
use crate::tree::{list, text};
use apimachinery::json;
use apimachinery::value::{Map, Value};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// A member's new name with its value, where it is there.
fn moved(out: &mut Map, name: &str, value: &Value) {
    if !value.is_null() {
        out.insert(name, value.clone());
    }
}

fn object(members: &[(&str, &Value)]) -> Map {
    let mut out = Map::new();
    members.iter().for_each(|(name, value)| moved(&mut out, name, value));
    out
}

/// Which members a metric of each type has beside its target: v1's name of the value and of the average, and where v1
/// keeps the metric's selector.
struct Names {
    member: &'static str,
    value: &'static str,
    average: &'static str,
    utilization: &'static str,
    selector: &'static str,
}

const SPECS: [Names; 5] = [
    names("object", "targetValue", "averageValue", "", "selector"),
    names("pods", "", "targetAverageValue", "", "selector"),
    names("resource", "", "targetAverageValue", "targetAverageUtilization", ""),
    names("containerResource", "", "targetAverageValue", "targetAverageUtilization", ""),
    names("external", "targetValue", "targetAverageValue", "", "metricSelector"),
];
const STATUSES: [Names; 5] = [
    names("object", "currentValue", "averageValue", "", "selector"),
    names("pods", "", "currentAverageValue", "", "selector"),
    names("resource", "", "currentAverageValue", "currentAverageUtilization", ""),
    names("containerResource", "", "currentAverageValue", "currentAverageUtilization", ""),
    names("external", "currentValue", "currentAverageValue", "", "metricSelector"),
];

const fn names(
    member: &'static str,
    value: &'static str,
    average: &'static str,
    utilization: &'static str,
    selector: &'static str,
) -> Names {
    Names { member, value, average, utilization, selector }
}

/// A metric of v2 (`side` is `target` or `current`) as v1 writes it.
fn metric_to_v1(metric: &Value, table: &[Names], side: &str) -> Value {
    let mut out = object(&[("type", &metric["type"])]);
    for names in table {
        let source = &metric[names.member];
        if !source.is_object() {
            continue;
        }
        let amounts = &source[side];
        let mut converted = object(&[("name", &source["name"]), ("container", &source["container"])]);
        if names.member == "object" {
            converted.insert("target", source["describedObject"].clone());
        }
        moved(&mut converted, "metricName", &source["metric"]["name"]);
        if !names.selector.is_empty() {
            moved(&mut converted, names.selector, &source["metric"]["selector"]);
        }
        for (to, from, always) in [
            (names.value, "value", matches!((names.member, side), ("object", _) | ("external", "current"))),
            (
                names.average,
                "averageValue",
                names.member == "pods" || side == "current" && names.member.ends_with("esource"),
            ),
            (names.utilization, "averageUtilization", false),
        ] {
            if to.is_empty() {
                continue;
            }
            moved(&mut converted, to, &amounts[from]);
            if always && !converted.contains_key(to) {
                converted.insert(to, "0".into());
            }
        }
        out.insert(names.member, Value::Object(converted));
    }
    Value::Object(out)
}

fn metric_to_v2(metric: &Value, table: &[Names], side: &str) -> Value {
    let mut out = object(&[("type", &metric["type"])]);
    for names in table {
        let source = &metric[names.member];
        if !source.is_object() {
            continue;
        }
        let get = |name: &str| if name.is_empty() { &Value::Null } else { &source[name] };
        let (value, average, utilization) = (get(names.value), get(names.average), get(names.utilization));
        let mut amounts = Map::new();
        if side == "target" {
            let kind = match names.member {
                "resource" | "containerResource" if !utilization.is_null() => "Utilization",
                "object" if average.is_null() => "Value",
                "external" if !value.is_null() => "Value",
                _ => "AverageValue",
            };
            amounts.insert("type", kind.into());
        }
        // v1 cannot leave an object's value out: beside an average, zero says nothing.
        let unsaid = side == "target" && names.member == "object" && !average.is_null() && value == "0";
        if !unsaid {
            moved(&mut amounts, "value", value);
        }
        moved(&mut amounts, "averageValue", average);
        moved(&mut amounts, "averageUtilization", utilization);
        let mut converted = object(&[("name", &source["name"]), ("container", &source["container"])]);
        if names.member == "object" {
            converted.insert("describedObject", source["target"].clone());
        }
        if !names.selector.is_empty() {
            let mut identifier = Map::new();
            identifier.insert("name", text(source, &["metricName"]).into());
            moved(&mut identifier, "selector", get(names.selector));
            converted.insert("metric", Value::Object(identifier));
        }
        converted.insert(side, Value::Object(amounts));
        out.insert(names.member, Value::Object(converted));
    }
    Value::Object(out)
}

fn is_cpu_utilization(metric: &Value) -> bool {
    text(metric, &["type"]) == "Resource"
        && text(metric, &["resource", "name"]) == "cpu"
        && !metric["resource"]["target"]["averageUtilization"].is_null()
}

fn annotations(object: &mut Value) -> Map {
    match object["metadata"].as_object_mut().and_then(|m| m.remove("annotations")) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn set_annotations(object: &mut Value, annotations: Map) {
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = Value::Object(annotations);
    }
}

fn remove(object: &mut Value, member: &str) -> Value {
    object.as_object_mut().and_then(|map| map.remove(member)).unwrap_or_default()
}

/// v2 to v1.
pub(super) fn to_v1(mut object: Value) -> Value {
    let mut notes = annotations(&mut object);
    for name in [METRICS, CURRENT, CONDITIONS, BEHAVIOR] {
        notes.remove(name);
    }
    let mut note = |name: &str, text: String| {
        notes.insert(name, text.into());
    };
    let metrics = remove(&mut object["spec"], "metrics");
    let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
    let others: Vec<Value> = metrics
        .iter()
        .filter(|m| !is_cpu_utilization(m))
        .map(|m| metric_to_v1(m, &SPECS, "target"))
        .collect();
    if let Some(cpu) = metrics.iter().find(|m| is_cpu_utilization(m)) {
        object["spec"]["targetCPUUtilizationPercentage"] =
            cpu["resource"]["target"]["averageUtilization"].clone();
    }
    if !others.is_empty() {
        note(METRICS, written(&others.into()));
    }
    let behavior = remove(&mut object["spec"], "behavior");
    if behavior.is_object() {
        note(BEHAVIOR, written_behavior(&behavior));
    }
    if object["status"].is_object() {
        let current = remove(&mut object["status"], "currentMetrics");
        let current = current.as_array().map(Vec::as_slice).unwrap_or_default();
        for metric in current.iter().filter(|m| text(m, &["resource", "name"]) == "cpu") {
            let percent = &metric["resource"]["current"]["averageUtilization"];
            if !percent.is_null() {
                object["status"]["currentCPUUtilizationPercentage"] = percent.clone();
            }
        }
        if !current.is_empty() {
            let current: Vec<Value> = current.iter().map(|m| metric_to_v1(m, &STATUSES, "current")).collect();
            note(CURRENT, written(&current.into()));
        }
        let conditions = remove(&mut object["status"], "conditions");
        if conditions.as_array().is_some_and(|c| !c.is_empty()) {
            note(CONDITIONS, written(&conditions));
        }
        let replicas = &mut object["status"]["currentReplicas"];
        if replicas.is_null() {
            *replicas = 0.into();
        }
    }
    set_annotations(&mut object, notes);
    object
}

/// v1 to v2.
pub(super) fn from_v1(mut object: Value) -> Value {
    let mut notes = annotations(&mut object);
    let mut note = |name: &str| {
        let text = notes.remove(name)?;
        serde_json::from_str::<Value>(text.as_str()?).ok()
    };
    let noted = |value: Option<Value>| match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let cpu = remove(&mut object["spec"], "targetCPUUtilizationPercentage");
    let mut metrics: Vec<Value> =
        noted(note(METRICS)).iter().map(|m| metric_to_v2(m, &SPECS, "target")).collect();
    if !cpu.is_null() {
        let mut metric = default_metric();
        metric["resource"]["target"]["averageUtilization"] = cpu;
        metrics.push(metric);
    }
    if metrics.is_empty() {
        metrics.push(default_metric());
    }
    object["spec"]["metrics"] = metrics.into();
    if let Some(behavior) = note(BEHAVIOR).filter(Value::is_object) {
        object["spec"]["behavior"] = read_behavior(behavior);
    }
    let (current, conditions) = (noted(note(CURRENT)), noted(note(CONDITIONS)));
    if object["status"].is_object() {
        let status = &mut object["status"];
        let percent = remove(status, "currentCPUUtilizationPercentage");
        if !current.is_empty() {
            status["currentMetrics"] =
                current.iter().map(|m| metric_to_v2(m, &STATUSES, "current")).collect::<Vec<_>>().into();
        } else if !percent.is_null() {
            status["currentMetrics"] = json!([
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}
            ]);
        }
        if !conditions.is_empty() {
            status["conditions"] = conditions.into();
        }
        if list(status, &["conditions"]).is_empty() {
            status["conditions"] = Value::Null;
        }
    }
    set_annotations(&mut object, notes);
    object
}
