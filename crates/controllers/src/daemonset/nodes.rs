//! Which nodes a DaemonSet wants its pods on, and how a pod is made for one. Pure.

use crate::history::REVISION_LABEL;
use crate::pods::from_template;
use api::apps::v1::DaemonSet;
use api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Taint, Toleration,
};
use client::Projection;
use rules::node_affinity::required_node_affinity;
use rules::taints::{NO_EXECUTE, NO_SCHEDULE, first_untolerated, keeps_pods_away};
use std::collections::BTreeMap;

/// The label and the annotation of a time before revisions: the number of the template.
const GENERATION_LABEL: &str = "pod-template-generation";
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// What is kept of a node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NodeFacts {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        NodeFacts { labels: node.metadata.labels.clone(), taints: node.spec.taints.clone() }
    }
}

/// Whether a pod should be started on a node, and whether one that is there may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    pub run: bool,
    pub stay: bool,
}

/// Judges nodes for one set.
pub(super) struct Judge<'a> {
    spec: &'a PodSpec,
    tolerations: Vec<Toleration>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(set: &'a DaemonSet) -> Self {
        let spec = &set.spec.template.spec;
        Judge { spec, tolerations: tolerations(spec) }
    }

    pub(super) fn fit(&self, name: &str, node: &NodeFacts) -> Fit {
        let elsewhere = !self.spec.node_name.is_empty() && self.spec.node_name != name;
        if elsewhere || !required_node_affinity(self.spec, name, &node.labels) {
            return Fit { run: false, stay: false };
        }
        let bears =
            |counts: fn(&Taint) -> bool| first_untolerated(&node.taints, &self.tolerations, counts).is_none();
        let run = bears(keeps_pods_away);
        Fit { run, stay: run || bears(|taint| taint.effect == NO_EXECUTE) }
    }
}

/// The template's tolerations, and those that every daemon has: it runs on nodes that are not well.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone();
    let own = [
        ("not-ready", NO_EXECUTE),
        ("unreachable", NO_EXECUTE),
        ("disk-pressure", NO_SCHEDULE),
        ("memory-pressure", NO_SCHEDULE),
        ("pid-pressure", NO_SCHEDULE),
        ("unschedulable", NO_SCHEDULE),
    ];
    let network = spec.host_network.then_some(("network-unavailable", NO_SCHEDULE));
    for (key, effect) in own.into_iter().chain(network) {
        let new = Toleration {
            key: format!("node.kubernetes.io/{key}"),
            operator: "Exists".into(),
            effect: effect.into(),
            ..Default::default()
        };
        let same = |old: &&mut Toleration| {
            old.key == new.key
                && old.effect == new.effect
                && old.operator == new.operator
                && old.value == new.value
        };
        match all.iter_mut().find(same) {
            Some(old) => *old = new,
            None => all.push(new),
        }
    }
    all
}

fn generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.get(GENERATION)?.parse().ok()
}

/// Whether a pod is of the set's template.
pub(super) fn is_updated(set: &DaemonSet, labels: &BTreeMap<String, String>, hash: &str) -> bool {
    let by_number =
        generation(set).is_some_and(|number| labels.get(GENERATION_LABEL) == Some(&number.to_string()));
    by_number || labels.get(REVISION_LABEL).is_some_and(|label| label == hash)
}

/// The set's pod, for no node yet.
pub(super) fn pod(set: &DaemonSet, hash: &str) -> Pod {
    let mut pod = from_template(set, &set.spec.template);
    pod.spec.tolerations = tolerations(&set.spec.template.spec);
    if let Some(number) = generation(set) {
        pod.metadata.labels.insert(GENERATION_LABEL.into(), number.to_string());
    }
    pod.metadata.labels.insert(REVISION_LABEL.into(), hash.into());
    pod
}

/// Binds a pod to a node by affinity, so that the scheduler places it like any other.
pub(super) fn for_node(mut pod: Pod, node: &str) -> Pod {
    let term = NodeSelectorTerm {
        match_fields: vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: vec![node.into()],
        }],
        ..Default::default()
    };
    let affinity = pod.spec.affinity.get_or_insert_with(Affinity::default);
    let affinity = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = &mut affinity.required_during_scheduling_ignored_during_execution;
    *required = Some(NodeSelector { node_selector_terms: vec![term] });
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(spec: apimachinery::value::Value, node: apimachinery::value::Value, expected: Expect) {
        let set =
            json!({"metadata": {}, "spec": {"selector": {}, "template": {"metadata": {}, "spec": spec}}});
        let set: DaemonSet = apimachinery::value::from_value(set).unwrap();
        let node: Node = apimachinery::value::from_value(node).unwrap();
        let Fit { run, stay } = Judge::new(&set).fit(&node.metadata.name, &NodeFacts::project(&node));
        expected.assert_eq(&format!("run {run} stay {stay}"));
    }

    #[test]
    fn where_daemons_run() {
        let node = |taints: apimachinery::value::Value| json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        check(json!({}), node(json!([])), expect!["run true stay true"]);
        check(json!({"nodeSelector": {"disk": "hdd"}}), node(json!([])), expect!["run false stay false"]);
        check(json!({"nodeName": "other"}), node(json!([])), expect!["run false stay false"]);
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        check(json!({}), node(taint("k", "NoSchedule")), expect!["run false stay true"]);
        check(json!({}), node(taint("k", "NoExecute")), expect!["run false stay false"]);
        check(json!({}), node(taint("k", "PreferNoSchedule")), expect!["run true stay true"]);
        check(
            json!({}),
            node(taint("node.kubernetes.io/not-ready", "NoExecute")),
            expect!["run true stay true"],
        );
        check(
            json!({}),
            node(taint("node.kubernetes.io/unschedulable", "NoSchedule")),
            expect!["run true stay true"],
        );
        let network = taint("node.kubernetes.io/network-unavailable", "NoSchedule");
        check(json!({}), node(network.clone()), expect!["run false stay true"]);
        check(json!({"hostNetwork": true}), node(network), expect!["run true stay true"]);
    }
}
