//! Default roles and bindings put back where somebody took of them: upstream's reconciliation, which adds what is missing
//! and leaves what others added. What says `rbac.authorization.kubernetes.io/autoupdate: "false"` stays as it is.

use crate::authz::cover::uncovered;
use api::rbac::v1::PolicyRule;
use apimachinery::decode::Decode;
use apimachinery::json;
use apimachinery::value::Value;

/// What becomes of an object that is there.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// As it should be, or protected.
    Keep,
    Update(Value),
    /// The role of a binding cannot be changed: it must go, and come anew.
    Recreate,
}

fn is_protected(current: &Value) -> bool {
    current["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] == "false"
}

/// A role, put right.
pub(super) fn role(current: &Value, wanted: &Value) -> Outcome {
    let mut right = merged(current, wanted);
    let selectors = |role: &Value| -> Vec<Value> {
        role["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default()
    };
    // The rules of a role that others make up are the controller's.
    if wanted.get("aggregationRule").is_none() {
        let missing = uncovered(&rules(current), &rules(wanted));
        append(&mut right, "rules", missing.iter().map(|rule| json!(rule)));
        if let Some(fields) = right.as_object_mut() {
            fields.remove("aggregationRule");
        }
    } else {
        let there = selectors(current);
        let missing: Vec<Value> = selectors(wanted).into_iter().filter(|s| !there.contains(s)).collect();
        if !missing.is_empty() {
            if !right["aggregationRule"].is_object() {
                right["aggregationRule"] = json!({});
            }
            append(&mut right["aggregationRule"], "clusterRoleSelectors", missing);
        }
    }
    outcome(current, right)
}

/// A binding, put right.
pub(super) fn binding(current: &Value, wanted: &Value) -> Outcome {
    if current["roleRef"] != wanted["roleRef"] {
        return if is_protected(current) { Outcome::Keep } else { Outcome::Recreate };
    }
    let mut right = merged(current, wanted);
    let there = current["subjects"].as_array().cloned().unwrap_or_default();
    let missing = wanted["subjects"].as_array().into_iter().flatten().filter(|s| !there.contains(s));
    append(&mut right, "subjects", missing.cloned());
    outcome(current, right)
}

fn outcome(current: &Value, right: Value) -> Outcome {
    match is_protected(current) || *current == right {
        true => Outcome::Keep,
        false => Outcome::Update(right),
    }
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    Decode::from_value(&role["rules"]).unwrap_or_default()
}

/// The object with the labels and annotations that are wanted; where it has other values, those stay.
fn merged(current: &Value, wanted: &Value) -> Value {
    let mut right = current.clone();
    for field in ["annotations", "labels"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            if current["metadata"][field].get(key).is_none() {
                right["metadata"][field][key] = value.clone();
            }
        }
    }
    right
}

fn append(object: &mut Value, field: &str, items: impl IntoIterator<Item = Value>) {
    for item in items {
        match object[field].as_array_mut() {
            Some(list) => list.push(item),
            None => object[field] = json!([item]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(decide: fn(&Value, &Value) -> Outcome, current: Value, wanted: Value, expected: Expect) {
        expected.assert_eq(&match decide(&current, &wanted) {
            Outcome::Keep => "keep".into(),
            Outcome::Recreate => "recreate".into(),
            Outcome::Update(value) => value.to_string(),
        });
    }

    fn rule(verbs: &[&str], resource: &str) -> Value {
        json!({"apiGroups": [""], "resources": [resource], "verbs": verbs})
    }

    #[test]
    fn roles_get_back_what_was_taken() {
        let wanted = json!({"metadata": {"labels": {"l": "1"}}, "rules": [rule(&["get", "list"], "pods")]});
        for (rules, expected) in [
            (json!([rule(&["get", "list"], "pods")]), expect!["keep"]),
            (json!([rule(&["*"], "*")]), expect!["keep"]),
            (json!([rule(&["get"], "pods"), rule(&["list"], "pods")]), expect!["keep"]),
            (
                json!([rule(&["get"], "pods"), rule(&["create"], "nodes")]),
                expect![[
                    r#"{"metadata":{"labels":{"l":"1"}},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},{"apiGroups":[""],"resources":["nodes"],"verbs":["create"]},{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#
                ]],
            ),
            (
                json!(null),
                expect![[
                    r#"{"metadata":{"labels":{"l":"1"}},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#
                ]],
            ),
        ] {
            let current = json!({"metadata": {"labels": {"l": "1"}}, "rules": rules});
            check(role, current, wanted.clone(), expected);
        }
        let protected = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        check(role, json!({"metadata": {"annotations": protected}}), wanted.clone(), expect!["keep"]);
        let other = json!({"metadata": {"labels": {"l": "2", "m": "3"}}, "rules": [rule(&["*"], "pods")]});
        check(role, other, wanted.clone(), expect!["keep"]);
        let aggregated = json!({"metadata": {"labels": {"l": "1"}}, "aggregationRule": {}, "rules": []});
        check(
            role,
            aggregated,
            wanted,
            expect![[
                r#"{"metadata":{"labels":{"l":"1"}},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["get"]},{"apiGroups":[""],"resources":["pods"],"verbs":["list"]}]}"#
            ]],
        );
    }

    #[test]
    fn aggregation_comes_back_without_rules() {
        let selector = |label: &str| json!({"matchLabels": {label: "true"}});
        let wanted = json!({
            "metadata": {}, "aggregationRule": {"clusterRoleSelectors": [selector("a")]}, "rules": [rule(&["get"], "pods")],
        });
        for (current, expected) in [
            (
                json!({"metadata": {}, "rules": []}),
                expect![[
                    r#"{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"true"}}]},"metadata":{},"rules":[]}"#
                ]],
            ),
            (
                json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": [selector("b")]}, "rules": []}),
                expect![[
                    r#"{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"b":"true"}},{"matchLabels":{"a":"true"}}]},"metadata":{},"rules":[]}"#
                ]],
            ),
            (
                json!({"metadata": {}, "aggregationRule": {"clusterRoleSelectors": [selector("b"), selector("a")]}}),
                expect!["keep"],
            ),
        ] {
            check(role, current, wanted.clone(), expected);
        }
    }

    #[test]
    fn bindings_get_back_their_subjects_and_their_role() {
        let user = |name: &str| json!({"kind": "User", "name": name});
        let of = |role: &str, subjects: Value| json!({"metadata": {}, "roleRef": {"name": role}, "subjects": subjects});
        let wanted = of("r", json!([user("a"), user("b")]));
        for (current, expected) in [
            (of("r", json!([user("b"), user("a")])), expect!["keep"]),
            (
                of("r", json!([user("b"), user("c")])),
                expect![[
                    r#"{"metadata":{},"roleRef":{"name":"r"},"subjects":[{"kind":"User","name":"b"},{"kind":"User","name":"c"},{"kind":"User","name":"a"}]}"#
                ]],
            ),
            (
                of("r", json!(null)),
                expect![[
                    r#"{"metadata":{},"roleRef":{"name":"r"},"subjects":[{"kind":"User","name":"a"},{"kind":"User","name":"b"}]}"#
                ]],
            ),
            (of("s", json!([user("a"), user("b")])), expect!["recreate"]),
        ] {
            check(binding, current, wanted.clone(), expected);
        }
        let mut protected = of("s", json!([]));
        protected["metadata"]["annotations"] =
            json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        check(binding, protected, wanted, expect!["keep"]);
    }
}
