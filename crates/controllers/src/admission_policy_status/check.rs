//! The types of a policy's expressions, checked for each kind that the policy matches. Pure.

use api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations as Rule, ValidatingAdmissionPolicy,
};
use apimachinery::gvk::GroupVersionKind;
use cel::env::Environment;
use cel::policy::{Optional, environment, kept};
use cel::schema::DeclType;
use cel::types::Type;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many resources of a policy are looked at.
const MOST: usize = 10;

/// What is known of the kinds that a policy names.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Those it matches, in order, each with its type.
    pub matched: Vec<(GroupVersionKind, Option<Arc<DeclType>>)>,
    /// Whether it has parameters, and of which type.
    pub params: Option<Option<Arc<DeclType>>>,
}

/// The resources that a policy's rules name one by one: group, version, resource. Rules with wildcards name none, and
/// subresources are passed over.
pub(super) fn named(policy: &ValidatingAdmissionPolicy) -> Vec<[String; 3]> {
    let constraints = policy.spec.match_constraints.as_ref();
    let mut all = Vec::new();
    for rule in constraints.into_iter().flat_map(|c| &c.resource_rules) {
        let from = all.len();
        all.extend(of_rule(rule));
        if all.len() - from >= MOST {
            all.truncate(from + MOST);
            break;
        }
    }
    all
}

fn of_rule(rule: &Rule) -> Vec<[String; 3]> {
    let whole = |words: &[String]| match words.iter().any(|word| word.contains('*')) {
        true => Vec::new(),
        false => sorted(words.to_vec()),
    };
    let (groups, versions) = (whole(&rule.api_groups), whole(&rule.api_versions));
    let resources = sorted(rule.resources.iter().filter(|r| !r.contains(['*', '/'])).cloned().collect());
    let mut all = Vec::new();
    for group in &groups {
        for version in &versions {
            all.extend(resources.iter().map(|r| [group.clone(), version.clone(), r.clone()]));
        }
    }
    all
}

fn sorted(mut words: Vec<String>) -> Vec<String> {
    words.sort();
    words
}

/// What is to be warned of.
pub(super) fn warnings(policy: &ValidatingAdmissionPolicy, known: &Known) -> Vec<ExpressionWarning> {
    let mut warnings = Vec::new();
    for (i, validation) in policy.spec.validations.iter().enumerate() {
        let expressions =
            [("expression", &validation.expression), ("messageExpression", &validation.message_expression)];
        for (name, expression) in expressions {
            if name != "expression" && expression.is_empty() {
                continue;
            }
            let found = mistakes(policy, known, expression);
            if !found.is_empty() {
                let field_ref = format!("spec.validations[{i}].{name}");
                warnings.push(ExpressionWarning { field_ref, warning: found.join("\n") });
            }
        }
    }
    warnings
}

/// What is wrong with an expression, for each kind for which it is.
fn mistakes(policy: &ValidatingAdmissionPolicy, known: &Known, expression: &str) -> Vec<String> {
    let matched = known.matched.iter();
    let wrong = matched.filter_map(|(gvk, decl)| {
        let env = with_variables(policy, typed(known, decl.as_ref()));
        let issues = env.compile(expression).err()?;
        Some(format!("{}, Kind={}: {issues}\n", gvk.api_version(), gvk.kind))
    });
    wrong.collect()
}

/// What a policy's expressions see where `object` is of a type.
fn typed(known: &Known, object: Option<&Arc<DeclType>>) -> Environment {
    let optional = Optional { params: known.params.is_some(), authorizer: true };
    let mut env = environment(optional);
    let params = known.params.as_ref().and_then(Option::as_ref);
    let variables = [("object", object), ("oldObject", object), ("params", params)];
    for (name, decl) in variables.into_iter().filter_map(|(name, decl)| Some((name, decl?))) {
        env = env.declare(decl).variable(name, decl.celtype.clone());
    }
    env
}

/// With the variables of the policy's own, each of which sees those before it.
fn with_variables(policy: &ValidatingAdmissionPolicy, env: Environment) -> Environment {
    let mut fields: BTreeMap<String, Arc<DeclType>> = BTreeMap::new();
    let seen = |fields: &BTreeMap<String, Arc<DeclType>>| {
        let decl = DeclType::object_named("kubernetes.variables", fields);
        env.clone().declare(&decl).variable("variables", decl.celtype.clone())
    };
    for variable in &policy.spec.variables {
        let checked = seen(&fields).compile(&variable.expression).ok();
        let output: Option<&Type> = checked.as_ref().map(cel::env::Checked::output);
        fields.insert(variable.name.clone(), kept(output));
    }
    seen(&fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use cel::schema::Schema;
    use expect_test::{Expect, expect};

    fn policy(rules: Value, validations: Value) -> ValidatingAdmissionPolicy {
        let policy = json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": rules}, "validations": validations,
            "variables": [{"name": "replicas", "expression": "object.spec.replicas"}]}});
        apimachinery::value::from_value(policy).unwrap()
    }

    fn check(validations: Value, expected: Expect) {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "paused": {"type": "boolean"}}}}});
        let decl = Schema::from_json(&schema, &|_| None).with_type_and_object_meta().decl().unwrap();
        let known = Known {
            matched: vec![(
                GroupVersionKind::new("apps", "v1", "Deployment"),
                Some(decl.named("Deployment")),
            )],
            params: None,
        };
        let found = warnings(&policy(json!([]), validations), &known);
        let shown: Vec<String> = found.iter().map(|w| format!("{}: {}", w.field_ref, w.warning)).collect();
        expected.assert_eq(&shown.join("\n"));
    }

    #[test]
    fn types_are_checked() {
        check(json!([{"expression": "object.spec.replicas > 1 && !oldObject.spec.paused"}]), expect![[""]]);
        check(json!([{"expression": "variables.replicas > 1"}]), expect![[""]]);
        check(
            json!([{"expression": "object.spec.replicas > '1'"}]),
            expect![[r#"
            spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'
             | object.spec.replicas > '1'
             | .....................^
        "#]],
        );
        check(
            json!([{"expression": "true", "messageExpression": "object.spec.foo + variables.bar"}]),
            expect![[r#"
                spec.validations[0].messageExpression: apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'foo'
                 | object.spec.foo + variables.bar
                 | ...........^
                ERROR: <input>:1:28: undefined field 'bar'
                 | object.spec.foo + variables.bar
                 | ...........................^
            "#]],
        );
        check(
            json!([{"expression": "params.x == 1"}]),
            expect![[r#"
            spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')
             | params.x == 1
             | ^
        "#]],
        );
    }

    #[test]
    fn rules_name_resources() {
        let rules = json!([
            {"apiGroups": ["apps", ""], "apiVersions": ["v1"], "resources": ["b", "a", "a/scale"], "operations": ["*"]},
            {"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["c"], "operations": ["*"]},
        ]);
        let named: Vec<String> = named(&policy(rules, json!([]))).iter().map(|n| n.join("/")).collect();
        expect!["/v1/a /v1/b apps/v1/a apps/v1/b"].assert_eq(&named.join(" "));
    }
}
