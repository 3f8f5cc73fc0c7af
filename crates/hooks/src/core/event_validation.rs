//! What an event must be. Through core/v1 it is judged mildly, for old clients' sake; through events.k8s.io/v1 strictly.
//! Upstream: `ValidateEventCreate`, `ValidateEventUpdate`.

use crate::check::{Check, qualified_name, subdomain};
use crate::shown::shown;
use crate::tree::{at, typed};
use api::core::v1::Event;
use apimachinery::field::{ErrorList, Path};
use apimachinery::value::Value;

const SHORT: usize = 128;
const NOTE: usize = 1024;
/// What an event keeps; upstream asks for the reason twice.
const IMMUTABLE: [&str; 14] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];
const ELSEWHERE: &str = "does not match event.namespace";

/// What old clients keep to, of a new event that is written in this version.
pub(super) fn validate_first(event: &Event, api_version: &str) -> ErrorList {
    let mut check = Check::default();
    legacy(&mut check, event, api_version);
    check.0
}

/// All else that is wrong with it.
pub(super) fn validate(event: &Event, api_version: &str) -> ErrorList {
    let mut check = Check::default();
    if api_version == "v1" {
        return check.0;
    }
    series(&mut check, event);
    if event.event_time.is_none() {
        check.required(&Path::new("eventTime"), "");
    }
    if !matches!(event.type_.as_str(), "Normal" | "Warning") {
        check.invalid(&Path::new("type"), "", format!("has invalid value: {}", event.type_));
    }
    for (member, set) in [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count != 0),
        ("source", !event.source.component.is_empty() || !event.source.host.is_empty()),
    ] {
        if set {
            check.invalid(&Path::new(member), "", "needs to be unset");
        }
    }
    check.0
}

/// All that is wrong with a change of an event, written in this version.
pub(super) fn validate_update(event: &Value, old: &Value, api_version: &str) -> ErrorList {
    let mut check = Check::default();
    let new: Event = typed(event);
    legacy(&mut check, &new, api_version);
    if api_version == "v1" {
        return check.0;
    }
    if event.get("series") != old.get("series") {
        series(&mut check, &new);
    }
    for member in IMMUTABLE {
        let of = |object| at(object, &[member]).unwrap_or(&Value::Null);
        if of(event) != of(old) {
            // Upstream names it as its own struct does.
            let name = if member == "reportingComponent" { "reportingController" } else { member };
            check.invalid(&Path::new(name), shown(event, &[member]), "field is immutable");
        }
    }
    check.0
}

fn series(check: &mut Check, event: &Event) {
    let Some(series) = &event.series else { return };
    if series.count < 2 {
        check.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if series.last_observed_time.is_none() {
        check.required(&Path::new("series.lastObservedTime"), "");
    }
}

/// What every event must be. Only those of today have an `eventTime`.
fn legacy(check: &mut Check, event: &Event, api_version: &str) {
    let (own, of) = (event.metadata.namespace.as_str(), event.involved_object.namespace.as_str());
    let today = event.event_time.is_some();
    let fits = match (of, today) {
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (of, false) => of == own,
        (_, true) => true,
    };
    if !fits {
        check.invalid(&Path::new("involvedObject").child("namespace"), of, ELSEWHERE);
    }
    if today {
        let reporter = if api_version == "v1" { "reportingComponent" } else { "reportingController" };
        let reporter = Path::new(reporter);
        check.present(&reporter, &event.reporting_component, "");
        check.keeps(&reporter, &event.reporting_component, qualified_name);
        bounded(check, "reportingInstance", &event.reporting_instance, SHORT);
        bounded(check, "action", &event.action, SHORT);
        bounded(check, "reason", &event.reason, SHORT);
        too_long(check, "message", &event.message, NOTE);
    }
    check.keeps(&Path::new("namespace"), own, subdomain);
}

fn bounded(check: &mut Check, member: &'static str, text: &str, limit: usize) {
    check.present(&Path::new(member), text, "");
    too_long(check, member, text, limit);
}

fn too_long(check: &mut Check, member: &'static str, text: &str, limit: usize) {
    if text.len() > limit {
        check.invalid(&Path::new(member), "", format!("can have at most {limit} characters"));
    }
}
