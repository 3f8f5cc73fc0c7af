//! Admission policies, driven through the in-process transport over the embedded store: policies and bindings are
//! written like any object, and what is written next meets them.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::authz::{Attributes, Authorizer, Decision};
use expect_test::{Expect, expect};
use futures::future::BoxFuture;
use house::{House, house_with};
use http::Method;
use std::fmt::Write as _;
use std::sync::Arc;

/// Allows everything but what is done with secrets, or with everything.
struct NoSecrets;

impl Authorizer for NoSecrets {
    fn authorize<'a>(&'a self, a: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let decision = match matches!(a.resource, "secrets" | "*") {
            true => Decision::NoOpinion { reason: String::new() },
            false => Decision::Allow { reason: "not a secret".into() },
        };
        Box::pin(std::future::ready(decision))
    }
}

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

impl Answer {
    /// The code, the warnings, and why not.
    fn say(&self) -> String {
        let mut said = format!("{}\n", self.code);
        for warning in &self.warnings {
            writeln!(said, "warning: {warning}").unwrap();
        }
        if let Some(message) = self.body["message"].as_str() {
            writeln!(said, "{}: {message}", self.body["reason"].as_str().unwrap_or_default()).unwrap();
        }
        said
    }
}

impl House {
    async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        let response = self.send(method, path, &[("content-type", "application/json")], body).await;
        let code = response.status().as_u16();
        let warnings = response.headers().get_all("warning").into_iter();
        let warnings = warnings.map(|w| w.to_str().unwrap().to_owned()).collect();
        Answer { code, warnings, body: serde_json::from_slice(response.body()).unwrap_or(Value::Null) }
    }

    async fn make(&self, path: &str, body: Value) {
        let answer = self.ask(Method::POST, path, body).await;
        assert_eq!(answer.code, 201, "{}", answer.say());
    }

    /// Writes a policy of this kind and its binding.
    async fn policy(&self, kind: &str, name: &str, spec: Value, binding: Value) {
        let meta = json!({"name": name});
        let rules = json!([{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"],
        }]);
        let mut spec = spec;
        spec["matchConstraints"] = json!({"resourceRules": rules});
        let mut binding = binding;
        binding["policyName"] = json!(name);
        let resource =
            if kind.starts_with("Mut") { "mutatingadmissionpolic" } else { "validatingadmissionpolic" };
        let object = json!({"apiVersion": V1, "kind": kind, "metadata": meta, "spec": spec});
        self.make(&format!("{AT}/{resource}ies"), object).await;
        let kind = format!("{kind}Binding");
        let object = json!({"apiVersion": V1, "kind": kind, "metadata": meta, "spec": binding});
        self.make(&format!("{AT}/{resource}ybindings"), object).await;
    }

    async fn validating(&self, name: &str, spec: Value, binding: Value) {
        self.policy("ValidatingAdmissionPolicy", name, spec, binding).await;
    }

    async fn map(&self, name: &str, data: Value) -> Answer {
        self.ask(Method::POST, MAPS, config_map(name, data)).await
    }
}

const V1: &str = "admissionregistration.k8s.io/v1";
const AT: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A house with a golden namespace.
async fn furnished() -> House {
    let house = house_with(Arc::new(NoSecrets)).await;
    let labels = json!({"metadata": {"labels": {"tier": "gold"}}});
    let merge = "application/merge-patch+json";
    assert_eq!(house.call(Method::PATCH, "/api/v1/namespaces/default", merge, labels).await.0, 200);
    house
}

#[track_caller]
fn check(answer: &Answer, expected: Expect) {
    expected.assert_eq(&answer.say());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_refuses_is_not_written() {
    let house = furnished().await;
    let spec = json!({
        "variables": [
            {"name": "size", "expression": "has(object.data) ? object.data.size() : 0"},
            {"name": "double", "expression": "variables.size * 2"},
        ],
        "matchConditions": [{"name": "not-free", "expression": "object.metadata.name != 'free'"}],
        "validations": [
            {"expression": "variables.double < 4", "messageExpression": "'%d entries are too many'.format([variables.size])"},
            {"expression": "!has(object.data) || !('secret' in object.data)", "message": "no secrets", "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.labels['tier'] == 'gold'"},
            {"expression": "request.userInfo.username == 'tester' && request.operation in ['CREATE', 'UPDATE']"},
            {"expression": "!authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"},
            {"expression": "authorizer.requestResource.check('delete').reason() == 'not a secret'"},
        ],
    });
    house.validating("strict", spec, json!({"validationActions": ["Deny"]})).await;
    check(
        &house.map("a", json!({"a": "1"})).await,
        expect![[r#"
        201
    "#]],
    );
    check(
        &house.map("b", json!({"a": "1", "b": "2"})).await,
        expect![[r#"
        422
        Invalid: configmaps "b" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: 2 entries are too many
    "#]],
    );
    check(
        &house.map("c", json!({"secret": "1"})).await,
        expect![[r#"
        403
        Forbidden: configmaps "c" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: no secrets
    "#]],
    );
    check(
        &house.map("free", json!({"a": "1", "b": "2", "secret": ""})).await,
        expect![[r#"
        201
    "#]],
    );
    let path = format!("{MAPS}/a");
    let put = house.ask(Method::PUT, &path, config_map("a", json!({"secret": "x", "b": "2"}))).await;
    check(
        &put,
        expect![[r#"
        422
        Invalid: configmaps "a" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: 2 entries are too many
    "#]],
    );
    // Deletion is no CREATE and no UPDATE, and has no object.
    check(
        &house.ask(Method::DELETE, &path, Value::Null).await,
        expect![[r#"
        422
        Invalid: configmaps "a" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: expression 'object.metadata.name != 'free'' resulted in error: no such key: metadata
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_may_only_warn() {
    let house = furnished().await;
    let spec = json!({
        "validations": [{"expression": "object.metadata.name.startsWith('good')", "message": "be good"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "string(object.metadata.name)"}],
    });
    house.validating("warner", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    check(
        &house.map("good-one", json!({})).await,
        expect![[r#"
        201
    "#]],
    );
    check(
        &house.map("bad-one", json!({})).await,
        expect![[r#"
        201
        warning: 299 - "Validation failed for ValidatingAdmissionPolicy 'warner' with binding 'warner': be good"
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_evaluated_follows_the_failure_policy() {
    let house = furnished().await;
    let validations = json!([{"expression": "object.data['x'] == 'y'"}]);
    let fail = json!({"validations": validations});
    let ignore = json!({"validations": validations, "failurePolicy": "Ignore"});
    house.validating("ignores", ignore, json!({"validationActions": ["Deny"]})).await;
    check(
        &house.map("a", json!({"y": ""})).await,
        expect![[r#"
        201
    "#]],
    );
    check(
        &house.map("b", json!({"x": "z"})).await,
        expect![[r#"
        422
        Invalid: configmaps "b" is forbidden: ValidatingAdmissionPolicy 'ignores' with binding 'ignores' denied request: failed expression: object.data['x'] == 'y'
    "#]],
    );
    house.validating("fails", fail, json!({"validationActions": ["Deny"]})).await;
    check(
        &house.map("c", json!({"y": ""})).await,
        expect![[r#"
        422
        Invalid: configmaps "c" is forbidden: ValidatingAdmissionPolicy 'fails' with binding 'fails' denied request: expression 'object.data['x'] == 'y'' resulted in error: no such key: x
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_objects() {
    let house = furnished().await;
    house.make(MAPS, config_map("limits", json!({"most": "2"}))).await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{
            "expression": "object.metadata.name == 'limits' || object.data.size() <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most",
        }],
    });
    let reference = |name: &str, absent: &str| {
        let reference = json!({"name": name, "namespace": "default", "parameterNotFoundAction": absent});
        json!({"validationActions": ["Deny"], "paramRef": reference})
    };
    house.validating("limited", spec.clone(), reference("limits", "Deny")).await;
    check(
        &house.map("a", json!({"a": "", "b": ""})).await,
        expect![[r#"
        201
    "#]],
    );
    check(
        &house.map("b", json!({"a": "", "b": "", "c": ""})).await,
        expect![[r#"
        422
        Invalid: configmaps "b" is forbidden: ValidatingAdmissionPolicy 'limited' with binding 'limited' denied request: at most 2
    "#]],
    );
    house.validating("lenient", spec.clone(), reference("absent", "Allow")).await;
    check(
        &house.map("c", json!({"a": ""})).await,
        expect![[r#"
        201
    "#]],
    );
    house.validating("lost", spec, reference("absent", "Deny")).await;
    check(
        &house.map("d", json!({"a": ""})).await,
        expect![[r#"
        422
        Invalid: configmaps "d" is forbidden: ValidatingAdmissionPolicy 'lost' with binding 'lost' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_compile_is_not_written() {
    let house = furnished().await;
    let object = json!({"metadata": {"name": "wrong"}, "spec": {
        "variables": [{"name": "x", "expression": "1 +"}],
        "validations": [
            {"expression": "object.metadata.name == nobody"},
            {"expression": "1"},
            {"expression": "true", "messageExpression": "authorizer"},
        ],
        "matchConstraints": {"resourceRules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]},
        ]},
    }});
    let path = format!("{AT}/validatingadmissionpolicies");
    check(
        &house.ask(Method::POST, &path, object).await,
        expect![[r#"
        422
        Invalid: ValidatingAdmissionPolicy.admissionregistration.k8s.io "wrong" is invalid: [spec.variables[0].expression: Invalid value: "1 +": compilation failed: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
         | 1 +
         | ...^, spec.validations[0].expression: Invalid value: "object.metadata.name == nobody": compilation failed: ERROR: <input>:1:25: undeclared reference to 'nobody' (in container '')
         | object.metadata.name == nobody
         | ........................^, spec.validations[1].expression: Invalid value: "1": must evaluate to bool but got int, spec.validations[2].messageExpression: Invalid value: "authorizer": compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer' (in container '')
         | authorizer
         | ^]
    "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_change_what_is_written() {
    let house = furnished().await;
    let apply = "Object{metadata: Object.metadata{labels: {'app': object.metadata.name}}, data: {'size': string(object.data.size())}}";
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}}],
    });
    let name = "MutatingAdmissionPolicy";
    house.policy(name, "labels", spec, json!({})).await;
    let patch = "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'seen': 'yes'}}, \
                 JSONPatch{op: 'test', path: '/data/keep', value: 'me'}, \
                 JSONPatch{op: 'remove', path: '/data/drop'}]";
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": [{"name": "old", "expression": "'drop' in object.data"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    });
    house.policy(name, "patch", spec, json!({})).await;
    let mut said = String::new();
    for data in [json!({"a": "b"}), json!({"keep": "me", "drop": "this"})] {
        let answer = house.map(if data["a"] == "b" { "one" } else { "two" }, data).await;
        let metadata = &answer.body["metadata"];
        let seen = json!({"labels": metadata["labels"], "annotations": metadata["annotations"], "data": answer.body["data"]});
        writeln!(said, "{}{seen}", answer.say()).unwrap();
    }
    expect![[r#"
        201
        {"annotations":null,"data":{"a":"b","size":"1"},"labels":{"app":"one"}}
        201
        {"annotations":{"seen":"yes"},"data":{"keep":"me","size":"2"},"labels":{"app":"two"}}
    "#]]
    .assert_eq(&said);
    check(
        &house.map("three", json!({"drop": "this"})).await,
        expect![[r#"
            201
        "#]],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_policies_read_must_be_able_to_read() {
    let house = furnished().await;
    for (kind, resource) in [
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
    ] {
        let bindings = resource.replace("policies", "policybindings");
        let mut said = String::new();
        let mut told = |what: &str, answer: Answer| write!(said, "{what}: {}", answer.say()).unwrap();
        let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}]);
        let policy = |name: &str, params: Value| {
            let mut spec = json!({"matchConstraints": {"resourceRules": rules}});
            if kind.starts_with("Mut") {
                spec["mutations"] = json!([{
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"},
                }]);
                spec["reinvocationPolicy"] = json!("Never");
            } else {
                spec["validations"] = json!([{"expression": "true"}]);
            }
            if params.is_object() {
                spec["paramKind"] = params;
            }
            json!({"apiVersion": V1, "kind": kind, "metadata": {"name": name}, "spec": spec})
        };
        for (name, params) in [
            ("plain", Value::Null),
            ("maps", json!({"apiVersion": "v1", "kind": "ConfigMap"})),
            ("secrets", json!({"apiVersion": "v1", "kind": "Secret"})),
            ("unknown", json!({"apiVersion": "example.com/v1", "kind": "Bogus"})),
        ] {
            let path = format!("{AT}/{resource}");
            told(name, house.ask(Method::POST, &path, policy(name, params)).await);
        }
        // The kind of parameters changes: the right is asked for again.
        let path = format!("{AT}/{resource}/plain");
        let mut plain = house.get(&path).await;
        plain["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "Secret"});
        told("plain, changed", house.ask(Method::PUT, &path, plain).await);
        for (name, policy, reference) in [
            ("b1", "maps", json!({"name": "x", "namespace": "default", "parameterNotFoundAction": "Deny"})),
            ("b2", "absent", json!({"name": "x", "namespace": "default", "parameterNotFoundAction": "Deny"})),
            ("b3", "unknown", json!({"selector": {}, "parameterNotFoundAction": "Deny"})),
        ] {
            let mut spec = json!({"policyName": policy, "paramRef": reference});
            if kind.starts_with("Val") {
                spec["validationActions"] = json!(["Deny"]);
            }
            let object = json!({"apiVersion": V1, "kind": format!("{kind}Binding"), "metadata": {"name": name}, "spec": spec});
            told(name, house.ask(Method::POST, &format!("{AT}/{bindings}"), object).await);
        }
        match kind.starts_with("Val") {
            true => expect![[r#"
                plain: 201
                maps: 201
                secrets: 422
                Invalid: ValidatingAdmissionPolicy.admissionregistration.k8s.io "secrets" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)
                unknown: 422
                Invalid: ValidatingAdmissionPolicy.admissionregistration.k8s.io "unknown" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Bogus, apiVersion=example.com/v1)
                plain, changed: 422
                Invalid: ValidatingAdmissionPolicy.admissionregistration.k8s.io "plain" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)
                b1: 201
                b2: 422
                Invalid: ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io "b2" is invalid: spec.paramRef: Forbidden: unable to get policy absent to determine minimum required permissions and user &{tester  [] map[]} does not have "get" permission for all groups, versions and resources
                b3: 422
                Invalid: ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io "b3" is invalid: spec.paramRef: Forbidden: unable to get policy unknown to determine minimum required permissions and user &{tester  [] map[]} does not have "list" permission for all groups, versions and resources
            "#]],
            false => expect![[r#"
                plain: 201
                maps: 201
                secrets: 422
                Invalid: MutatingAdmissionPolicy.admissionregistration.k8s.io "secrets" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)
                unknown: 422
                Invalid: MutatingAdmissionPolicy.admissionregistration.k8s.io "unknown" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Bogus, apiVersion=example.com/v1)
                plain, changed: 422
                Invalid: MutatingAdmissionPolicy.admissionregistration.k8s.io "plain" is invalid: spec.paramKind: Forbidden: user &{tester  [] map[]} must have "get" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)
                b1: 201
                b2: 422
                Invalid: MutatingAdmissionPolicyBinding.admissionregistration.k8s.io "b2" is invalid: spec.paramRef: Forbidden: unable to get policy absent to determine minimum required permissions and user &{tester  [] map[]} does not have "get" permission for all groups, versions and resources
                b3: 422
                Invalid: MutatingAdmissionPolicyBinding.admissionregistration.k8s.io "b3" is invalid: spec.paramRef: Forbidden: unable to get policy unknown to determine minimum required permissions and user &{tester  [] map[]} does not have "list" permission for all groups, versions and resources
            "#]],
        }
        .assert_eq(&said);
    }
}

/// What the metrics of checks say, without their durations.
fn checks(house: &House) -> String {
    let text = house.server.metrics.render();
    let counted = |line: &&str| line.contains("admission_policy_check_total{");
    text.lines().filter(counted).map(|line| format!("{line}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_are_counted() {
    let house = house_with(Arc::new(NoSecrets)).await;
    let everywhere = json!({"validationActions": ["Deny"]});
    let rule = |expression: &str, policy: &str| json!({"validations": [{"expression": expression}], "failurePolicy": policy});
    house
        .policy(
            "ValidatingAdmissionPolicy",
            "refuse",
            rule("object.metadata.name != 'a'", "Fail"),
            everywhere.clone(),
        )
        .await;
    let warns = json!({"validationActions": ["Warn", "Audit"]});
    house
        .policy("ValidatingAdmissionPolicy", "warn", rule("object.metadata.name != 'b'", "Fail"), warns)
        .await;
    house
        .policy("ValidatingAdmissionPolicy", "fails", rule("object.data['x'] == 'y'", "Ignore"), everywhere)
        .await;
    let label = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}}",
        }}],
    });
    house.policy("MutatingAdmissionPolicy", "label", label, json!({})).await;
    for name in ["a", "b", "c"] {
        let object = json!({"metadata": {"name": name, "namespace": "default"}});
        house.ask(Method::POST, "/api/v1/namespaces/default/configmaps", object).await;
    }
    expect![[r#"
        apiserver_mutating_admission_policy_check_total{error_type="no_error",policy="label",policy_binding="label"} 3
        apiserver_validating_admission_policy_check_total{enforcement_action="allow",error_type="invalid_error",policy="fails",policy_binding="fails"} 3
        apiserver_validating_admission_policy_check_total{enforcement_action="deny",error_type="invalid_error",policy="refuse",policy_binding="refuse"} 1
        apiserver_validating_admission_policy_check_total{enforcement_action="audit",error_type="invalid_error",policy="warn",policy_binding="warn"} 1
        apiserver_validating_admission_policy_check_total{enforcement_action="warn",error_type="invalid_error",policy="warn",policy_binding="warn"} 1
    "#]].assert_eq(&checks(&house));
    let text = house.server.metrics.render();
    assert!(text.contains("apiserver_cel_compilation_duration_seconds_count 4\n"), "{text}");
}
