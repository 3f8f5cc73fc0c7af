//! The priority levels and flow schemas that every cluster has: two of each that nobody can do without, and upstream's
//! suggestion for the rest.

use api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use apimachinery::decode::Decode;
use apimachinery::json;
use apimachinery::value::Value;

/// Says whether the server keeps the spec as it suggests it.
pub(super) const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
pub(crate) const GROUP: &str = "flowcontrol.apiserver.k8s.io";
pub(super) const EXEMPT: &str = "exempt";
pub(super) const CATCH_ALL: &str = "catch-all";

/// Whether a default is one that nobody can do without, and nobody changes.
pub(super) fn is_mandatory(name: &str) -> bool {
    matches!(name, EXEMPT | CATCH_ALL)
}

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

/// Name, shares, percent lendable, queues, hand size.
const LEVELS: &[(&str, i32, i32, i32, i32)] = &[
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
];

/// The levels as objects, in the order in which they are written.
pub(crate) fn priority_level_values() -> Vec<Value> {
    let mut all: Vec<Value> = LEVELS
        .iter()
        .map(|(name, shares, lendable, queues, hand)| {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
            object(
                name,
                json!({"type": "Limited", "limited": {
                    "nominalConcurrencyShares": shares,
                    "lendablePercent": lendable,
                    "limitResponse": {"type": "Queue", "queuing": queuing},
                }}),
            )
        })
        .collect();
    all.push(object(
        CATCH_ALL,
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
        }}),
    ));
    all.push(object(
        EXEMPT,
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
    ));
    all
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}

/// Every resource, and every path that is none.
fn everything(subjects: Vec<Value>) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

fn schema(name: &str, level: &str, precedence: i32, distinguisher: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object(name, spec)
}

/// The flow schemas as objects, in the order in which they are written.
pub(crate) fn flow_schema_values() -> Vec<Value> {
    const USER: &str = "ByUser";
    const NAMESPACE: &str = "ByNamespace";
    const COORDINATION: &str = "coordination.k8s.io";
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let mut electors = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    electors.push(system_accounts());
    vec![
        schema("system-nodes", "system", 500, USER, everything(nodes())),
        schema(
            "system-node-high",
            "node-high",
            400,
            USER,
            json!([{"subjects": nodes(), "resourceRules": [
                resources(&["*"], "", &["nodes", "nodes/status"], true),
                resources(&["*"], COORDINATION, &["leases"], false),
            ]}]),
        ),
        schema(
            "probes",
            EXEMPT,
            2,
            "",
            json!([{"subjects": everybody(), "nonResourceRules": [
                {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},
            ]}]),
        ),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            USER,
            json!([{"subjects": electors, "resourceRules": [
                resources(&["get", "create", "update"], COORDINATION, &["leases"], false),
            ]}]),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            NAMESPACE,
            everything(users(&["system:kube-controller-manager"])),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            NAMESPACE,
            everything(users(&["system:kube-scheduler"])),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            NAMESPACE,
            everything(vec![system_accounts()]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            USER,
            everything(groups(&["system:serviceaccounts"])),
        ),
        schema("global-default", "global-default", 9900, USER, everything(everybody())),
        schema(EXEMPT, EXEMPT, 1, "", everything(groups(&["system:masters"]))),
        schema(CATCH_ALL, CATCH_ALL, 10000, USER, everything(everybody())),
    ]
}

/// All of them, as (group, resource, object).
pub(crate) fn objects() -> Vec<(&'static str, &'static str, Value)> {
    let levels =
        priority_level_values().into_iter().map(|value| (GROUP, "prioritylevelconfigurations", value));
    levels.chain(flow_schema_values().into_iter().map(|value| (GROUP, "flowschemas", value))).collect()
}

fn typed<K: Decode>(values: Vec<Value>) -> Vec<K> {
    values.iter().filter_map(|value| K::from_value(value).ok()).collect()
}

pub(super) fn priority_levels() -> Vec<PriorityLevelConfiguration> {
    typed(priority_level_values())
}

pub(super) fn flow_schemas() -> Vec<FlowSchema> {
    typed(flow_schema_values())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_can_be_read() {
        assert_eq!((priority_levels().len(), flow_schemas().len()), (8, 11));
        assert!(flow_schemas().iter().all(|schema| {
            let level = &schema.spec.priority_level_configuration.name;
            priority_levels().iter().any(|known| known.metadata.name == *level)
        }));
    }
}
