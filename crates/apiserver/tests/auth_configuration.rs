//! Files of authentication and authorization: what is wrong with them, in upstream's words.
#![allow(clippy::unwrap_used)]

use apiserver::authn::configuration::AuthenticationConfiguration;
use apiserver::authn::validation::validate;
use apiserver::authz::validation::load;
use expect_test::{Expect, expect};
use std::collections::BTreeSet;

fn said(text: &str) -> String {
    match AuthenticationConfiguration::parse(text) {
        Err(error) => error,
        Ok(configuration) => {
            let errors = validate(&configuration, &["https://own".to_owned()]);
            errors.iter().map(|e| format!("{e}\n")).collect()
        }
    }
}

fn authentication(text: &str, expected: Expect) {
    expected.assert_eq(&said(text));
}

/// Of one authenticator, below `jwt[0]`.
fn said_of(text: &str) -> String {
    let text = text.replace('\n', "\n  ");
    said(&format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- {text}\n"
    ))
}

fn jwt(text: &str, expected: Expect) {
    expected.assert_eq(&said_of(text));
}

const ISSUER: &str = "issuer: {url: 'https://a', audiences: [x]}";
const NAME: &str = "claimMappings: {username: {claim: sub, prefix: ''}}";

#[test]
fn files_are_read_strictly() {
    let head = "apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n";
    authentication(head, expect![""]);
    authentication("", expect!["empty config data"]);
    authentication(
        "kind: AuthenticationConfiguration",
        expect![[r#"no kind "AuthenticationConfiguration" is registered for version """#]],
    );
    authentication(
        "apiVersion: apiserver.config.k8s.io/v9\nkind: AuthenticationConfiguration",
        expect![[
            r#"no kind "AuthenticationConfiguration" is registered for version "apiserver.config.k8s.io/v9""#
        ]],
    );
    authentication(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: Other",
        expect![[r#"no kind "Other" is registered for version "apiserver.config.k8s.io/v1""#]],
    );
    authentication(
        "apiVersion: apiserver.config.k8s.io/v1",
        expect![[r#"Object 'Kind' is missing in '{"apiVersion":"apiserver.config.k8s.io/v1"}'"#]],
    );
    authentication(
        &format!("{head}jwt: [{{issuer: {{uri: x}}, claims: y}}]\nextra: 1"),
        expect![[
            r#"strict decoding error: unknown field "extra", unknown field "jwt[0].claims", unknown field "jwt[0].issuer.uri""#
        ]],
    );
    authentication(
        &format!("{head}jwt: []\njwt: []"),
        expect![[r#"
            strict decoding error: yaml: unmarshal errors:
              line 4: key "jwt" already set in map"#]],
    );
    authentication(
        &format!("{head}anonymous: {{enabled: false, conditions: [{{path: /livez}}]}}"),
        expect![[r#"
            anonymous.conditions: Invalid value: [{"Path":"/livez"}]: enabled should be set to true when conditions are defined
        "#]],
    );
}

#[test]
fn issuers() {
    jwt(&format!("{ISSUER}\n{NAME}"), expect![""]);
    jwt(
        &format!("issuer: {{}}\n{NAME}"),
        expect![[r#"
        jwt[0].issuer.url: Required value
        jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required
    "#]],
    );
    let check = |issuer: &str, expected| jwt(&format!("issuer: {{{issuer}}}\n{NAME}"), expected);
    check(
        "url: 'http://a', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.url: Invalid value: "http://a": URL scheme must be https
    "#]],
    );
    check(
        "url: 'https://u:p@a/?q#f', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.url: Invalid value: "https://u:p@a/?q#f": URL must not contain a username or password
        jwt[0].issuer.url: Invalid value: "https://u:p@a/?q#f": URL must not contain a query
        jwt[0].issuer.url: Invalid value: "https://u:p@a/?q#f": URL must not contain a fragment
    "#]],
    );
    check(
        "url: 'https://own', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.url: Invalid value: "https://own": URL must not overlap with disallowed issuers: [https://own]
    "#]],
    );
    check(
        "url: 'https://a b', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.url: Invalid value: "https://a b": parse "https://a b": invalid character " " in host name
    "#]],
    );
    check(
        "url: 'https://a', discoveryURL: 'https://a/', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.discoveryURL: Invalid value: "https://a/": discoveryURL must be different from URL
    "#]],
    );
    check(
        "url: 'https://a', discoveryURL: 'http://b', audiences: [x]",
        expect![[r#"
        jwt[0].issuer.discoveryURL: Invalid value: "http://b": URL scheme must be https
    "#]],
    );
    check(
        "url: 'https://a', audiences: [x, x, '']",
        expect![[r#"
        jwt[0].issuer.audiences[1]: Duplicate value: "x"
        jwt[0].issuer.audiences[2]: Required value
        jwt[0].issuer.audienceMatchPolicy: Invalid value: "": audienceMatchPolicy must be MatchAny for multiple audiences
    "#]],
    );
    check(
        "url: 'https://a', audiences: [x], audienceMatchPolicy: MatchAll",
        expect![[r#"
        jwt[0].issuer.audienceMatchPolicy: Invalid value: "MatchAll": audienceMatchPolicy must be empty or MatchAny for single audience
    "#]],
    );
    check(
        "url: 'https://a', audiences: [x], certificateAuthority: nonsense",
        expect![[r#"
        jwt[0].issuer.certificateAuthority: Invalid value: "<omitted>": data does not contain any valid RSA or ECDSA certificates
    "#]],
    );
    check(
        "url: 'https://a', audiences: [x], egressSelectorType: etcd",
        expect![[r#"
        jwt[0].issuer.egressSelectorType: Invalid value: "etcd": egress selector must be either controlplane or cluster
    "#]],
    );
    authentication(
        &format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- {{{ISSUER}, {NAME}}}\n- {{{ISSUER}, {NAME}}}"
        ),
        expect![[r#"
            jwt[1].issuer.url: Duplicate value: "https://a"
        "#]],
    );
}

#[test]
fn mappings_and_rules() {
    let check = |rest: &str, expected| jwt(&format!("{ISSUER}\n{rest}"), expected);
    check(
        "claimMappings: {}",
        expect![[r#"
        jwt[0].claimMappings.username: Required value: claim or expression is required
    "#]],
    );
    check(
        "claimMappings: {username: {claim: a}}",
        expect![[r#"
        jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing
    "#]],
    );
    check(
        "claimMappings: {username: {claim: a, expression: claims.b}}",
        expect![[r#"
        jwt[0].claimMappings.username: Invalid value: "": claim and expression can't both be set
    "#]],
    );
    check(
        "claimMappings: {username: {expression: claims.b, prefix: x}}",
        expect![[r#"
        jwt[0].claimMappings.username.prefix: Invalid value: "x": may not be specified when expression is set
    "#]],
    );
    check(
        "claimMappings: {username: {expression: 'claims.'}}",
        expect![[r#"
        jwt[0].claimMappings.username.expression: Invalid value: "claims.": compilation failed: ERROR: <input>:1:8: Syntax error: no viable alternative at input '.'
         | claims.
         | .......^
    "#]],
    );
    check(
        "claimMappings: {username: {expression: user.name}}",
        expect![[r#"
        jwt[0].claimMappings.username.expression: Invalid value: "user.name": compilation failed: ERROR: <input>:1:1: undeclared reference to 'user' (in container '')
         | user.name
         | ^
    "#]],
    );
    let unverified = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
    for expression in
        ["claims.email", "claims.?email.orValue('')", "has(claims.email) ? 'a' : 'b'", "[claims.email][0]"]
    {
        let wanted = format!(
            "jwt[0].claimMappings.username.expression: Invalid value: \"{expression}\": {unverified}\n"
        );
        assert_eq!(
            said_of(&format!("{ISSUER}\nclaimMappings: {{username: {{expression: \"{expression}\"}}}}")),
            wanted
        );
    }
    check(
        "claimMappings: {username: {expression: claims.email}, extra: [{key: a.b/c, valueExpression: string(claims.email_verified)}]}",
        expect![""],
    );
    check(
        "claimMappings: {username: {claim: a, prefix: ''}, groups: {claim: g}, uid: {claim: u, expression: claims.u}}",
        expect![[r#"
            jwt[0].claimMappings.groups.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing
            jwt[0].claimMappings.uid: Invalid value: "": claim and expression can't both be set
        "#]],
    );
    check(
        "claimMappings: {username: {claim: a, prefix: ''}, extra: [{key: nodomain, valueExpression: claims.a}, {key: A.b/C, valueExpression: claims.a}, {key: x.kubernetes.io/y, valueExpression: claims.a}, {key: a.b/c}, {key: a.b/c, valueExpression: claims.a}]}",
        expect![[r#"
            jwt[0].claimMappings.extra[0].key: Invalid value: "nodomain": must be a domain-prefixed path (such as "acme.io/foo")
            jwt[0].claimMappings.extra[1].key: Invalid value: "A.b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            jwt[0].claimMappings.extra[1].key: Invalid value: "A.b/C": must be lowercase
            jwt[0].claimMappings.extra[2].key: Invalid value: "x.kubernetes.io/y": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use
            jwt[0].claimMappings.extra[3].valueExpression: Required value
            jwt[0].claimMappings.extra[4].key: Duplicate value: "a.b/c"
        "#]],
    );
    let rules = |rules: &str, expected| check(&format!("{NAME}\n{rules}"), expected);
    rules(
        "claimValidationRules: [{}, {claim: a, expression: claims.b}, {claim: a, requiredValue: x, message: m}, {claim: a}, {expression: 'true', requiredValue: x}, {expression: 'true'}, {expression: claims.a}]",
        expect![[r#"
            jwt[0].claimValidationRules[0]: Required value: claim or expression is required
            jwt[0].claimValidationRules[1]: Invalid value: "a": claim and expression can't both be set
            jwt[0].claimValidationRules[2].message: Invalid value: "m": may not be specified when claim is set
            jwt[0].claimValidationRules[3].claim: Duplicate value: "a"
            jwt[0].claimValidationRules[4].requiredValue: Invalid value: "x": may not be specified when expression is set
            jwt[0].claimValidationRules[5].expression: Duplicate value: "true"
            jwt[0].claimValidationRules[6].expression: Invalid value: "claims.a": must evaluate to bool
        "#]],
    );
    rules(
        "userValidationRules: [{}, {expression: 'true'}, {expression: 'true'}, {expression: user.username}, {expression: claims.a}, {expression: user.nothing == ''}]",
        expect![[r#"
            jwt[0].userValidationRules[0].expression: Required value
            jwt[0].userValidationRules[2].expression: Duplicate value: "true"
            jwt[0].userValidationRules[3].expression: Invalid value: "user.username": must evaluate to bool
            jwt[0].userValidationRules[4].expression: Invalid value: "claims.a": compilation failed: ERROR: <input>:1:1: undeclared reference to 'claims' (in container '')
             | claims.a
             | ^
            jwt[0].userValidationRules[5].expression: Invalid value: "user.nothing == ''": compilation failed: ERROR: <input>:1:5: undefined field 'nothing'
             | user.nothing == ''
             | ....^
        "#]],
    );
}

fn authorization(text: &str, required: &[&str], expected: Expect) {
    let required: BTreeSet<String> = required.iter().map(|r| (*r).to_owned()).collect();
    let said = match load(text, &required) {
        Err(error) => error,
        Ok(configuration) => {
            format!("{:?}", configuration.authorizers.iter().map(|a| &a.name).collect::<Vec<_>>())
        }
    };
    expected.assert_eq(&said);
}

#[test]
fn authorizers() {
    let check = |authorizers: &str, expected| {
        authorization(
            &format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}"
            ),
            &["RBAC"],
            expected,
        );
    };
    check("[{type: Node, name: node}, {type: RBAC, name: rbac}]", expect![[r#"["node", "rbac"]"#]]);
    check("[]", expect!["authorizers: Required value: at least one authorization mode must be defined"]);
    check("[{type: Node, name: node}]", expect!["missing required types: [RBAC]"]);
    check("[{type: RBAC, name: roles}]", expect!["expected name rbac for authorizer RBAC instead of roles"]);
    check(
        "[{type: RBAC, name: rbac}, {}, {type: Nobody}, {type: RBAC, name: again}, {type: Node, name: rbac}, {type: ABAC, name: 'A B'}, {type: AlwaysDeny, name: alwaysdeny, webhook: {}}, {type: Webhook, name: hook}]",
        expect![[
            r#"[authorizers[1].type: Required value, authorizers[2].type: Unsupported value: "Nobody": supported values: "ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook", authorizers[3].type: Duplicate value: "RBAC", authorizers[4].name: Duplicate value: "rbac", authorizers[5].name: Invalid value: "A B": authorizer name is invalid: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'), authorizers[6].webhook: Invalid value: "non-null": may only be specified when type=Webhook, authorizers[7].webhook: Required value: required when type=Webhook]"#
        ]],
    );
    let hook = |hook: &str, expected| {
        check(
            &format!("[{{type: RBAC, name: rbac}}, {{type: Webhook, name: w, webhook: {{{hook}}}}}]"),
            expected,
        );
    };
    hook(
        "",
        expect![
            "[authorizers[1].timeout: Required value, authorizers[1].subjectAccessReviewVersion: Required value, authorizers[1].failurePolicy: Required value, authorizers[1].connectionInfo.type: Required value]"
        ],
    );
    let good = "timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny";
    hook(&format!("{good}, connectionInfo: {{type: InClusterConfig}}"), expect![[r#"["rbac", "w"]"#]]);
    hook(
        &format!("{good}, connectionInfo: {{type: InClusterConfig, kubeConfigFile: /x}}"),
        expect![[
            r#"authorizers[1].connectionInfo.kubeConfigFile: Invalid value: "/x": can only be set when type=KubeConfigFile"#
        ]],
    );
    hook(
        &format!("{good}, connectionInfo: {{type: KubeConfigFile}}"),
        expect!["authorizers[1].connectionInfo.kubeConfigFile: Required value"],
    );
    hook(
        &format!("{good}, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: x}}"),
        expect![[
            r#"authorizers[1].connectionInfo.kubeConfigFile: Invalid value: "x": must be an absolute path"#
        ]],
    );
    hook(
        &format!("{good}, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /none/such}}"),
        expect![[
            r#"authorizers[1].connectionInfo.kubeConfigFile: Invalid value: "/none/such": error loading file: stat /none/such: no such file or directory"#
        ]],
    );
    hook(
        &format!("{good}, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /proc}}"),
        expect![[
            r#"authorizers[1].connectionInfo.kubeConfigFile: Invalid value: "/proc": must be a regular file"#
        ]],
    );
    hook(
        &format!("{good}, connectionInfo: {{type: Other}}"),
        expect![[
            r#"authorizers[1].connectionInfo.type: Unsupported value: {"Type":"Other","KubeConfigFile":null}: supported values: "InClusterConfig", "KubeConfigFile""#
        ]],
    );
    let info = "connectionInfo: {type: InClusterConfig}";
    hook(
        &format!(
            "{info}, timeout: 31s, authorizedTTL: -1s, unauthorizedTTL: -1s, subjectAccessReviewVersion: v2, failurePolicy: Allow, matchConditionSubjectAccessReviewVersion: v1beta1"
        ),
        expect![[
            r#"[authorizers[1].timeout: Invalid value: "31s": must be > 0s and <= 30s, authorizers[1].authorizedTTL: Invalid value: "-1s": must be > 0s, authorizers[1].unauthorizedTTL: Invalid value: "-1s": must be > 0s, authorizers[1].subjectAccessReviewVersion: Unsupported value: "v2": supported values: "v1", "v1beta1", authorizers[1].matchConditionSubjectAccessReviewVersion: Unsupported value: "v1beta1": supported values: "v1", authorizers[1].failurePolicy: Unsupported value: "Allow": supported values: "NoOpinion", "Deny"]"#
        ]],
    );
    let conditions = |conditions: &str, expected| {
        hook(
            &format!(
                "{good}, {info}, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{conditions}]"
            ),
            expected,
        );
    };
    conditions("{expression: \"request.user == 'a'\"}", expect![[r#"["rbac", "w"]"#]]);
    conditions(
        "{expression: ' '}, {expression: 'true'}, {expression: 'true'}, {expression: request.user}, {expression: request.nobody}, {expression: 'x +'}",
        expect![[r#"
            [authorizers[1].matchConditions[0].expression: Required value, authorizers[1].matchConditions[2].expression: Duplicate value: "true", authorizers[1].matchConditions[3].expression: Invalid value: "request.user": must evaluate to bool but got string, authorizers[1].matchConditions[4].expression: Invalid value: "request.nobody": compilation failed: ERROR: <input>:1:8: undefined field 'nobody'
             | request.nobody
             | .......^, authorizers[1].matchConditions[5].expression: Invalid value: "x +": compilation failed: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}
             | x +
             | ...^]"#]],
    );
    hook(
        &format!("{good}, {info}, matchConditions: [{{expression: 'true'}}]"),
        expect![
            "authorizers[1].matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified"
        ],
    );
}
