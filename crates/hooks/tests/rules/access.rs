//! What roles and flow schemas must be.

use crate::{check, check_update};
use apimachinery::json;
use expect_test::expect;

#[test]
fn roles() {
    const GROUP: &str = "rbac.authorization.k8s.io";
    check(
        GROUP,
        "Role",
        json!({"rules": [{"nonResourceURLs": ["/a"]}, {"verbs": ["get"]}]}),
        expect![[r#"
        rules[0].verbs: Required value: verbs must contain at least one value
        rules[0].nonResourceURLs: Invalid value: ["/a"]: namespaced rules cannot apply to non-resource URLs
        rules[1].apiGroups: Required value: resource rules must supply at least one api group
        rules[1].resources: Required value: resource rules must supply at least one resource"#]],
    );
    check(
        GROUP,
        "ClusterRole",
        json!({"aggregationRule": {}}),
        expect![
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
        ],
    );
    check(
        GROUP,
        "ClusterRoleBinding",
        json!({"roleRef": {"kind": "Role"}, "subjects": [{"kind": "ServiceAccount", "name": "A"}, {"kind": "X"}]}),
        expect![[r#"
            roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"
            roleRef.name: Required value
            subjects[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            subjects[0].namespace: Required value
            subjects[1].name: Required value
            subjects[1].kind: Unsupported value: "X": supported values: "ServiceAccount", "User", "Group""#]],
    );
    check_update(
        GROUP,
        "RoleBinding",
        json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "a"}}),
        json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "b"}}),
        expect![[
            r#"roleRef: Invalid value: {"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"b"}: cannot change roleRef"#
        ]],
    );
}

#[test]
fn flow_control() {
    const GROUP: &str = "flowcontrol.apiserver.k8s.io";
    check(
        GROUP,
        "FlowSchema",
        json!({"metadata": {"name": "a"}, "spec": {"matchingPrecedence": 1, "priorityLevelConfiguration": {}, "rules": [
            {"subjects": [{"kind": "User"}, {"kind": "Group", "group": {"name": "g"}, "user": {"name": "u"}}]},
            {"subjects": [], "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [], "resources": ["*", "a"]}],
             "nonResourceRules": [{"verbs": ["fly"], "nonResourceURLs": ["a", "/*/b"]}]},
        ]}}),
        expect![[r#"
            spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
            spec.priorityLevelConfiguration.name: Required value: must reference a priority level
            spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'
            spec.rules[0].subjects[1].user: Forbidden: user is forbidden when subject kind is not 'User'
            spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty
            spec.rules[1].subjects: Required value: subjects must contain at least one value
            spec.rules[1].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs
            spec.rules[1].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group
            spec.rules[1].resourceRules[0].resources: Invalid value: ["*","a"]: if '*' is present, must not specify other resources
            spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
            spec.rules[1].nonResourceRules[0].verbs: Unsupported value: ["fly"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
            spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash
            spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "/*/b": wildcard can only do suffix matching"#]],
    );
    check(
        GROUP,
        "PriorityLevelConfiguration",
        json!({"metadata": {"name": "exempt"}, "spec": {"type": "Limited", "limited": {
            "lendablePercent": 101, "limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 8, "queueLengthLimit": -1}},
        }}}),
        expect![[r#"
            spec.type: Invalid value: "Limited": must be 'Exempt' if and only if `name` is 'exempt'
            spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive
            spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)
            spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive"#]],
    );
}
