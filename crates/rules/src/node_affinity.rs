//! Whether a node satisfies a pod's `nodeSelector` and node affinity. Upstream: component-helpers nodeaffinity.
//! Nodes are given by name and labels only, so that projections serve as well as whole nodes.

use api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PreferredSchedulingTerm,
};
use std::collections::BTreeMap;

/// Reads one label of a node.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// Whether the node satisfies `spec.nodeSelector` and the required node affinity, as the scheduler and the kubelet ask.
pub fn required_node_affinity(spec: &PodSpec, node_name: &str, labels: &impl Labels) -> bool {
    if !spec.node_selector.iter().all(|(k, v)| labels.label(k) == Some(v)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    match affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) {
        Some(selector) => matches_selector(selector, node_name, labels),
        None => true,
    }
}

/// Whether any term matches; terms are or-ed, an empty term matches nothing.
pub fn matches_selector(selector: &NodeSelector, node_name: &str, labels: &impl Labels) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node_name, labels))
}

/// Whether all requirements of a term hold; an empty term matches nothing.
pub fn matches_term(term: &NodeSelectorTerm, node_name: &str, labels: &impl Labels) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    term.match_expressions.iter().all(|r| matches(r, labels.label(&r.key)))
        && term.match_fields.iter().all(|r| {
            let value = (r.key == "metadata.name").then_some(node_name);
            // Field selectors know only In and NotIn, with one value.
            r.values.len() == 1 && matches!(r.operator.as_str(), "In" | "NotIn") && matches(r, value)
        })
}

/// The sum of the weights of the preferred terms that match.
pub fn preferred_score(terms: &[PreferredSchedulingTerm], node_name: &str, labels: &impl Labels) -> i64 {
    let matching = terms.iter().filter(|t| t.weight != 0 && matches_term(&t.preference, node_name, labels));
    matching.map(|t| i64::from(t.weight)).sum()
}

/// One requirement against the value a node has, if any. An invalid requirement matches nothing.
pub fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = &requirement.values;
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.iter().any(|x| x == v)),
        "NotIn" => !values.is_empty() && value.is_none_or(|v| values.iter().all(|x| x != v)),
        "Exists" => values.is_empty() && value.is_some(),
        "DoesNotExist" => values.is_empty() && value.is_none(),
        operator @ ("Gt" | "Lt") => {
            let bound = match values.as_slice() {
                [one] => one.parse::<i64>().ok(),
                _ => None,
            };
            match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
                (Some(have), Some(bound)) => {
                    if operator == "Gt" {
                        have > bound
                    } else {
                        have < bound
                    }
                }
                _ => false,
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        for (operator, values, value, want) in [
            ("In", vec!["a", "b"], Some("b"), true),
            ("In", vec!["a"], None, false),
            ("NotIn", vec!["a"], Some("a"), false),
            ("NotIn", vec!["a"], None, true),
            ("Exists", vec![], Some(""), true),
            ("DoesNotExist", vec![], Some(""), false),
            ("Gt", vec!["3"], Some("4"), true),
            ("Lt", vec!["3"], Some("4"), false),
            ("Gt", vec!["x"], Some("4"), false),
            ("Near", vec!["x"], Some("x"), false),
        ] {
            let values = values.into_iter().map(str::to_owned).collect();
            let requirement = NodeSelectorRequirement { key: "k".into(), operator: operator.into(), values };
            assert_eq!(matches(&requirement, value), want, "{requirement:?} {value:?}");
        }
    }

    #[test]
    fn an_empty_term_matches_nothing() {
        let term = NodeSelectorTerm::default();
        assert!(!matches_term(&term, "n", &BTreeMap::new()));
        let fields = vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: vec!["n".into()],
        }];
        let term = NodeSelectorTerm { match_fields: fields, ..Default::default() };
        assert!(matches_term(&term, "n", &BTreeMap::new()) && !matches_term(&term, "m", &BTreeMap::new()));
    }
}
