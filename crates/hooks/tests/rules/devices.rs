//! What becomes of what drivers tell of their devices.

use crate::context;
use apimachinery::json;
use apimachinery::value::Value;
use hooks::strategy;

#[test]
fn taints_of_devices_say_since_when() {
    let taint = |at: Option<&str>| {
        let mut taint = json!({"key": "a", "effect": "NoExecute"});
        if let Some(at) = at {
            taint["timeAdded"] = at.into();
        }
        json!({"spec": {"devices": [{"name": "d", "taints": [taint]}]}})
    };
    let (strategy, context) = (strategy("resource.k8s.io", "ResourceSlice"), context(None));
    let now = context.now.to_string();
    for (given, kept) in [(None, now.as_str()), (Some("2020-01-01T00:00:00Z"), "2020-01-01T00:00:00Z")] {
        let mut made = taint(given);
        strategy.prepare_for_create(&mut made, &context);
        assert_eq!(made, taint(Some(kept)));
        let mut changed = taint(given);
        strategy.prepare_for_update(&mut changed, &taint(None), &context);
        assert_eq!(changed, taint(Some(kept)));
    }
}

/// The taint of a rule; since when it is there.
fn rule(effect: &str, at: Option<&str>) -> Value {
    let mut rule = json!({"spec": {"deviceSelector": {"driver": "d.example"},
        "taint": {"key": "a", "effect": effect}}});
    if let Some(at) = at {
        rule["spec"]["taint"]["timeAdded"] = at.into();
    }
    rule
}

#[test]
fn another_effect_of_a_rule_is_there_since_now() {
    let (strategy, context) = (strategy("resource.k8s.io", "DeviceTaintRule"), context(None));
    let now = context.now.to_string();
    let (old, other) = ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
    let mut made = rule("None", None);
    strategy.prepare_for_create(&mut made, &context);
    assert_eq!(made, rule("None", Some(&now)));
    let before = rule("None", Some(old));
    for (effect, at, kept) in [
        ("None", Some(old), old),
        ("NoExecute", Some(old), now.as_str()),
        ("NoExecute", Some(other), other),
        ("NoExecute", None, now.as_str()),
    ] {
        let mut changed = rule(effect, at);
        strategy.prepare_for_update(&mut changed, &before, &context);
        assert_eq!(changed, rule(effect, Some(kept)), "{effect} {at:?}");
    }
}

#[test]
fn rules_of_taints() {
    let (strategy, context) = (strategy("resource.k8s.io", "DeviceTaintRule"), context(None));
    let check = |spec: Value, old: Option<Value>, want: &str| {
        let rule = json!({"spec": spec});
        let errors = match old {
            Some(old) => strategy.validate_update(&rule, &json!({"spec": old}), &context),
            None => strategy.validate(&rule, &context),
        };
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(told.join("; "), want);
    };
    let good = json!({"deviceSelector": {"driver": "d.example", "pool": "p", "device": "a"},
        "taint": {"key": "a", "value": "b", "effect": "None"}});
    check(good, None, "");
    check(json!({"taint": {"key": "a", "effect": ""}}), None, "spec.taint.effect: Required value");
    let unknown = json!({"taint": {"key": "a", "effect": "Later"}});
    let refused = "spec.taint.effect: Unsupported value: \"Later\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"";
    check(unknown.clone(), None, refused);
    check(unknown.clone(), Some(unknown), "");
    let wrong = json!({"deviceSelector": {"device": "A"}, "taint": {"key": "a", "effect": "None"}});
    check(
        wrong,
        None,
        "spec.deviceSelector.device: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    );
}
