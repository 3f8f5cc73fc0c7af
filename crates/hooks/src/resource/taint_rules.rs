//! DeviceTaintRules: taints of devices that administrators set.

use super::slices::{taint_effect, taint_name};
use super::validation::pool_name;
use crate::Context;
use crate::check::{Check, label};
use crate::core::validate_driver_name;
use crate::plain::Plain;
use crate::templates::{AGE, NAME};
use crate::tree::{age, column, name, object_age, or, text, typed, with};
use api::resource::v1beta2::{DeviceTaintRule, DeviceTaintSelector};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::validation::validate_conditions;
use apimachinery::value::Value;

const MAX_CONDITIONS: usize = 8;

/// A taint says since when it is there; one that does not, since now.
fn date(rule: &mut Value, context: &Context) {
    with(rule, "spec", |spec| {
        with(spec, "taint", |taint| or(taint, "timeAdded", context.now.to_string()));
    });
}

/// Another effect is there since now, unless who changes it says otherwise.
fn date_anew(rule: &mut Value, old: &Value, context: &Context) {
    date(rule, context);
    let (taint, before) = (&rule["spec"]["taint"], &old["spec"]["taint"]);
    if taint["effect"] != before["effect"] && taint["timeAdded"] == before["timeAdded"] {
        rule["spec"]["taint"]["timeAdded"] = context.now.to_string().into();
    }
}

fn selector(check: &mut Check, path: &Path, selector: &DeviceTaintSelector) {
    if let Some(driver) = &selector.driver {
        validate_driver_name(check, &path.child("driver"), driver);
    }
    if let Some(pool) = &selector.pool {
        pool_name(check, &path.child("pool"), pool);
    }
    if let Some(device) = &selector.device {
        check.keeps(&path.child("device"), device, label);
    }
}

fn validate(rule: &Value, old: Option<&Value>) -> ErrorList {
    let mut check = Check::default();
    let path = Path::new("spec");
    let rule: DeviceTaintRule = typed(rule);
    if let Some(devices) = &rule.spec.device_selector {
        selector(&mut check, &path.child("deviceSelector"), devices);
    }
    let (path, taint) = (path.child("taint"), &rule.spec.taint);
    taint_name(&mut check, &path, &taint.key, &taint.value);
    if old.is_none_or(|old| text(old, &["spec", "taint", "effect"]) != taint.effect) {
        taint_effect(&mut check, &path, &taint.effect);
    }
    check.0
}

fn validate_status(rule: &Value) -> ErrorList {
    let mut check = Check::default();
    let rule: DeviceTaintRule = typed(rule);
    let path = Path::new("status").child("conditions");
    let conditions = &rule.status.conditions;
    check.extend(validate_conditions(conditions, &path));
    check.when(conditions.len() > MAX_CONDITIONS, || {
        Error::too_many(&path, Some(conditions.len()), MAX_CONDITIONS)
    });
    check.0
}

pub(super) static TAINT_RULES: Plain = Plain {
    prepare_for_create: date,
    prepare_for_update: |rule, old, context| {
        if context.subresource.is_none() {
            date_anew(rule, old, context);
        }
    },
    validate_create: |rule, _| validate(rule, None),
    validate_update: |rule, old, context| match context.subresource {
        Some("status") => validate_status(rule),
        _ => validate(rule, Some(old)),
    },
    has_generation: true,
    columns: &[
        NAME,
        column("Key", "string", 0, "The taint key to be applied to a device. Must be a label name."),
        column(
            "Value",
            "string",
            0,
            "The taint value corresponding to the taint key. Must be a label value.",
        ),
        column(
            "Effect",
            "string",
            0,
            "The effect of the taint on claims that do not tolerate the taint and through such claims on the pods using them.\n\nValid effects are None, NoSchedule and NoExecute. PreferNoSchedule as used for nodes is not valid here. More effects may get added in the future. Consumers must treat unknown effects like None.",
        ),
        column(
            "TimeAdded",
            "string",
            0,
            "TimeAdded represents the time at which the taint was added or (only in a DeviceTaintRule) the effect was modified. Added automatically during create or update if not set.\n\nIn addition, in a DeviceTaintRule a value provided during an update gets replaced with the current time if the provided value is the same as the old one and the new effect is different. Changing the key and/or value while keeping the effect unchanged is possible and does not update the time stamp because the eviction which uses it is either already started (NoExecute) or not started yet (NoEffect, NoSchedule).",
        ),
        AGE,
    ],
    cells: |rule, now| {
        let taint = |member: &str| text(rule, &["spec", "taint", member]);
        let added = taint("timeAdded");
        let added = if added.is_empty() { String::new() } else { age(added, now) };
        vec![
            name(rule),
            taint("key").into(),
            taint("value").into(),
            taint("effect").into(),
            added.into(),
            object_age(rule, now).into(),
        ]
    },
    ..Plain::NEW
};
