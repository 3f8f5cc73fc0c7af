//! Events: core/v1 is their hub; events.k8s.io/v1 says the same in newer words.

use super::event_validation;
use crate::tree::{age, column, int, joined, text, time_age, typed};
use crate::{Column, Context, SelectableField, Strategy};
use apimachinery::field::ErrorList;
use apimachinery::time::{MicroTime, Time};
use apimachinery::value::{Map, Value};
use std::borrow::Cow;

pub(super) struct Events;

macro_rules! fields {
    ($($name:literal: $($key:literal).+),* $(,)?) => {
        &[$(($name, |event| text(event, &[$($key),+]).into())),*]
    };
}

const FIELDS: &[SelectableField] = fields![
    "involvedObject.kind": "involvedObject"."kind",
    "involvedObject.namespace": "involvedObject"."namespace",
    "involvedObject.name": "involvedObject"."name",
    "involvedObject.uid": "involvedObject"."uid",
    "involvedObject.apiVersion": "involvedObject"."apiVersion",
    "involvedObject.resourceVersion": "involvedObject"."resourceVersion",
    "involvedObject.fieldPath": "involvedObject"."fieldPath",
    "reason": "reason",
    "reportingComponent": "reportingComponent",
    "type": "type",
];

const SOURCE: SelectableField = ("source", |event| match text(event, &["source", "component"]) {
    "" => text(event, &["reportingComponent"]).into(),
    component => component.into(),
});

const ALL_FIELDS: &[SelectableField] = &{
    let mut all = [SOURCE; FIELDS.len() + 1];
    let mut i = 0;
    while i < FIELDS.len() {
        all[i] = FIELDS[i];
        i += 1;
    }
    all
};

impl Strategy for Events {
    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            column(
                "Last Seen",
                "string",
                0,
                "The time at which the most recent occurrence of this event was recorded.",
            ),
            column(
                "Type",
                "string",
                0,
                "Type of this event (Normal, Warning), new types could be added in the future",
            ),
            column(
                "Reason",
                "string",
                0,
                "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
            ),
            column("Object", "string", 0, "The object that this event is about."),
            column(
                "Subobject",
                "string",
                1,
                "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
            ),
            column(
                "Source",
                "string",
                1,
                "The component reporting this event. Should be a short machine understandable string.",
            ),
            column("Message", "string", 0, "A human-readable description of the status of this operation."),
            column(
                "First Seen",
                "string",
                1,
                "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
            ),
            column("Count", "string", 1, "The number of times this event has occurred."),
            column(
                "Name",
                "string",
                1,
                "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, event: &Value, now: Time) -> Vec<Value> {
        let micro = |time: &str| match time.parse::<MicroTime>() {
            Ok(then) => time_age(Time::from(then), now),
            Err(_) => "<unknown>".to_owned(),
        };
        let mut first = age(text(event, &["firstTimestamp"]), now);
        if text(event, &["firstTimestamp"]).is_empty() {
            first = micro(text(event, &["eventTime"]));
        }
        let mut last = age(text(event, &["lastTimestamp"]), now);
        if text(event, &["lastTimestamp"]).is_empty() {
            last = first.clone();
        }
        let mut count = int(event, &["count"]);
        let series = int(event, &["series", "count"]);
        if series > 0 {
            last = micro(text(event, &["series", "lastObservedTime"]));
            count = series;
        } else if count == 0 {
            count = 1;
        }
        let kind = text(event, &["involvedObject", "kind"]).to_lowercase();
        let object = match text(event, &["involvedObject", "name"]) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let source = [text(event, &["source", "component"]), text(event, &["source", "host"])];
        let source = if source[0].is_empty() {
            [text(event, &["reportingComponent"]), text(event, &["reportingInstance"])]
        } else {
            source
        };
        vec![
            last.into(),
            text(event, &["type"]).into(),
            text(event, &["reason"]).into(),
            object.into(),
            text(event, &["involvedObject", "fieldPath"]).into(),
            joined(source.into_iter().filter(|s| !s.is_empty()), "").replace(',', ", ").into(),
            text(event, &["message"]).trim().into(),
            first.into(),
            count.into(),
            text(event, &["metadata", "name"]).into(),
        ]
    }

    fn validate_first(&self, event: &Value, context: &Context) -> ErrorList {
        event_validation::validate_first(&typed(event), context.api_version)
    }

    fn validate(&self, event: &Value, context: &Context) -> ErrorList {
        event_validation::validate(&typed(event), context.api_version)
    }

    fn validate_update(&self, event: &Value, old: &Value, context: &Context) -> ErrorList {
        event_validation::validate_update(event, old, context.api_version)
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        ALL_FIELDS
    }

    fn selectable<'a>(&self, api_version: &str, field: &'a str) -> Option<Cow<'a, str>> {
        let known = |field: &str| ALL_FIELDS.iter().any(|(name, _)| *name == field);
        if api_version == "v1" {
            return known(field).then_some(Cow::Borrowed(field));
        }
        let (first, rest) = field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
        let core = match RENAMED.iter().find(|(_, new)| *new == first) {
            // By its source no event of the newer version is selected.
            Some(("source", _)) => return None,
            Some((core, _)) => match rest {
                Some(rest) => Cow::Owned(format!("{core}.{rest}")),
                None => Cow::Borrowed(*core),
            },
            None if matches!(first, "reason" | "type") => Cow::Borrowed(field),
            None => return None,
        };
        known(&core).then_some(core)
    }

    fn expires(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }
}

/// Member of core/v1, member of events.k8s.io/v1.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(event: Value, new_name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(members) = event else { return event };
    let renamed = members.into_iter().map(|(key, value)| match new_name(&key) {
        Some(new) => (new.into(), value),
        None => (key, value),
    });
    Value::Object(renamed.collect::<Map>())
}

pub(super) fn to_events_k8s_io(event: Value) -> Value {
    rename(event, |key| RENAMED.iter().find(|(core, _)| *core == key).map(|(_, new)| *new))
}

pub(super) fn from_events_k8s_io(event: Value) -> Value {
    rename(event, |key| RENAMED.iter().find(|(_, new)| *new == key).map(|(core, _)| *core))
}
