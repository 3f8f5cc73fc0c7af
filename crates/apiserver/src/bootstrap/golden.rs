//! Upstream's bootstrap policy, compared with what stands here while the gates are as by default: every role, binding and
//! rule.

use super::{binding, gated, policy, role, with_rules};
use crate::features::Features;
use apimachinery::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The single permissions of a list of rules.
fn atoms(rules: &Value) -> BTreeSet<String> {
    let list = |rule: &Value, key: &str| -> Vec<String> {
        let items = rule[key].as_array().cloned().unwrap_or_default();
        items.iter().map(|i| i.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut atoms = BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for verb in list(rule, "verbs") {
            for url in list(rule, "nonResourceURLs") {
                atoms.insert(format!("{verb} {url}"));
            }
            for group in list(rule, "apiGroups") {
                for resource in list(rule, "resources") {
                    let names = list(rule, "resourceNames");
                    let names = if names.is_empty() { vec![String::new()] } else { names };
                    atoms.extend(names.iter().map(|name| format!("{verb} {group}/{resource} {name}")));
                }
            }
        }
    }
    atoms
}

/// What counts of an object, as lines.
fn lines(object: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for key in ["labels", "annotations"] {
        for (name, value) in object["metadata"][key].as_object().into_iter().flatten() {
            lines.insert(format!("{key} {name}={value}"));
        }
    }
    if object["aggregationRule"].is_object() {
        // Rules are the aggregation controller's there.
        lines.insert(format!("aggregates {}", object["aggregationRule"]));
    } else {
        lines.extend(atoms(&object["rules"]));
    }
    if object["roleRef"].is_object() {
        lines.insert(format!("of {} {}", object["roleRef"]["kind"], object["roleRef"]["name"]));
    }
    for subject in object["subjects"].as_array().into_iter().flatten() {
        lines.insert(format!("to {} {} {}", subject["kind"], subject["namespace"], subject["name"]));
    }
    lines
}

#[test]
fn roles_and_bindings_are_upstreams() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/rbac");
    if !root.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} is missing", root.display());
        println!("skipped: {} is missing", root.display());
        return;
    }
    let name = |object: &Value| {
        let meta = &object["metadata"];
        let namespace = meta["namespace"].as_str().unwrap_or_default();
        format!("{namespace}/{}", meta["name"].as_str().unwrap_or_default())
    };
    let mut ours = BTreeMap::new();
    let gates = &Features::parse("", "").unwrap().0.gates;
    let cluster_roles =
        policy::CLUSTER_ROLES.iter().chain(policy::CONTROLLER_ROLES).chain(gated::roles(gates));
    for object in cluster_roles.map(|role| with_rules(role, gated::rules_of(role.name, gates))) {
        ours.insert(format!("ClusterRole {}", name(&object)), object);
    }
    for object in policy::NAMESPACE_ROLES.iter().map(role) {
        ours.insert(format!("Role {}", name(&object)), object);
    }
    let bindings = policy::CLUSTER_ROLE_BINDINGS.iter().chain(policy::CONTROLLER_ROLE_BINDINGS);
    for object in bindings.chain(gated::bindings(gates)).map(binding) {
        ours.insert(format!("ClusterRoleBinding {}", name(&object)), object);
    }
    for object in policy::NAMESPACE_ROLE_BINDINGS.iter().map(binding) {
        ours.insert(format!("RoleBinding {}", name(&object)), object);
    }
    let mut wrong = Vec::new();
    for file in [
        "cluster-roles.yaml",
        "cluster-role-bindings.yaml",
        "controller-roles.yaml",
        "controller-role-bindings.yaml",
        "namespace-roles.yaml",
        "namespace-role-bindings.yaml",
    ] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let list = schema::decode::free_yaml(&text, schema::decode::FieldValidation::Ignore).unwrap().value;
        for object in list["items"].as_array().unwrap() {
            let key = format!("{} {}", object["kind"].as_str().unwrap(), name(object));
            // What a distribution adds is none of upstream's.
            if key.contains("openshift") {
                continue;
            }
            let Some(have) = ours.remove(&key) else {
                wrong.push(format!("{key} is missing"));
                continue;
            };
            let (wanted, have) = (lines(object), lines(&have));
            wrong.extend(wanted.difference(&have).map(|line| format!("{key}: without {line}")));
            wrong.extend(have.difference(&wanted).map(|line| format!("{key}: beyond {line}")));
        }
    }
    wrong.extend(ours.keys().map(|key| format!("{key} is not upstream's")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
