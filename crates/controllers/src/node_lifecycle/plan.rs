//! What a node's conditions, taints and labels should be. Pure.

use api::core::v1::{Node, NodeCondition, Taint};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use rules::taints::{NO_EXECUTE, NO_SCHEDULE};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that a node's kubelet keeps, `Ready` first.
const KEPT: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Which condition with which status is which taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// Labels of old, and the ones they copy.
const LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// The status of the condition `Ready`; none if the node never said.
pub(super) fn ready(node: &Node) -> Option<&str> {
    condition(node, "Ready").map(|condition| condition.status.as_str())
}

/// Says of a node that is silent that nothing is known of it. Returns whether its readiness changed.
pub(super) fn mark_unknown(node: &mut Node, now: Time) -> bool {
    let before = condition(node, "Ready").cloned();
    let created = node.metadata.creation_timestamp;
    for kind in KEPT {
        match node.status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => node.status.conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                last_heartbeat_time: Some(created),
                last_transition_time: Some(now),
                reason: "NodeStatusNeverUpdated".into(),
                message: "Kubelet never posted node status.".into(),
            }),
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = "NodeStatusUnknown".into();
                condition.message = "Kubelet stopped posting node status.".into();
                condition.last_transition_time = Some(now);
            }
            Some(_) => {}
        }
    }
    condition(node, "Ready").cloned() != before
}

/// The taint that evicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Evicting {
    None,
    NotReady,
    Unreachable,
    /// As it is: more must not be evicted now.
    Keep,
}

/// What the node's readiness asks for: the taint, and whether it is a new one, which has to wait its turn.
pub(super) fn evicting(node: &Node) -> (Evicting, bool) {
    let has = |key: &str| node.spec.taints.iter().any(|taint| taint.key == key && taint.effect == NO_EXECUTE);
    let tainted = has(NOT_READY) || has(UNREACHABLE);
    match ready(node) {
        Some("False") => (Evicting::NotReady, !tainted),
        Some("Unknown") => (Evicting::Unreachable, !tainted),
        Some("True") => (Evicting::None, false),
        _ => (Evicting::Keep, false),
    }
}

/// The node's taints as they should be; none if they are.
pub(super) fn taints(node: &Node, evicting: Evicting, now: Time) -> Option<Vec<Taint>> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if condition(node, kind).is_some_and(|condition| condition.status == status) {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    match evicting {
        Evicting::NotReady => wanted.push((NOT_READY, NO_EXECUTE)),
        Evicting::Unreachable => wanted.push((UNREACHABLE, NO_EXECUTE)),
        Evicting::None | Evicting::Keep => {}
    }
    let ours = |taint: &Taint| match taint.effect.as_str() {
        NO_SCHEDULE => taint.key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key),
        NO_EXECUTE => evicting != Evicting::Keep && matches!(taint.key.as_str(), NOT_READY | UNREACHABLE),
        _ => false,
    };
    let is = |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut taints: Vec<Taint> = node
        .spec
        .taints
        .iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|wanted| is(taint, wanted)))
        .cloned()
        .collect();
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| is(taint, &(key, effect))) {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                time_added: Some(now),
                ..Default::default()
            });
        }
    }
    (taints != node.spec.taints).then_some(taints)
}

/// Labels to write.
pub(super) fn labels(node: &Node) -> Option<Value> {
    let have = &node.metadata.labels;
    let changed: apimachinery::value::Map = LABELS
        .iter()
        .filter_map(|(from, to)| {
            let value = have.get(*from)?;
            (have.get(*to) != Some(value)).then(|| (to.to_string(), json!(value)))
        })
        .collect();
    (!changed.is_empty()).then_some(Value::Object(changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn node(ready: &str, taints: &[(&str, &str)]) -> Node {
        let mut node = Node::default();
        if !ready.is_empty() {
            node.status.conditions.push(NodeCondition {
                type_: "Ready".into(),
                status: ready.into(),
                ..Default::default()
            });
        }
        node.spec.taints = taints
            .iter()
            .map(|(key, effect)| Taint {
                key: key.to_string(),
                effect: effect.to_string(),
                ..Default::default()
            })
            .collect();
        node
    }

    fn check(node: &Node, expected: Expect) {
        let (evicting, waits) = evicting(node);
        let taints = taints(node, evicting, Time::from_unix(7));
        let taints = taints.map_or("as they are".to_owned(), |taints| {
            let one = |t: &Taint| format!("{}:{}@{}", t.key, t.effect, t.time_added.map_or(0, Time::unix));
            taints.iter().map(one).collect::<Vec<_>>().join(" ")
        });
        expected.assert_eq(&format!("{evicting:?} waits={waits} {taints}"));
    }

    #[test]
    fn taints_follow_conditions() {
        check(&node("True", &[]), expect!["None waits=false as they are"]);
        check(&node("", &[(NOT_READY, NO_SCHEDULE)]), expect!["Keep waits=false "]);
        check(
            &node("False", &[("mine", NO_EXECUTE)]),
            expect![
                "NotReady waits=true mine:NoExecute@0 node.kubernetes.io/not-ready:NoSchedule@7 node.kubernetes.io/not-ready:NoExecute@7"
            ],
        );
        check(
            &node("Unknown", &[(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
            expect![
                "Unreachable waits=false node.kubernetes.io/unreachable:NoSchedule@7 node.kubernetes.io/unreachable:NoExecute@7"
            ],
        );
        check(
            &node("True", &[(UNREACHABLE, NO_EXECUTE), (UNREACHABLE, NO_SCHEDULE)]),
            expect!["None waits=false "],
        );
        let mut cordoned = node("True", &[]);
        cordoned.spec.unschedulable = true;
        check(&cordoned, expect!["None waits=false node.kubernetes.io/unschedulable:NoSchedule@7"]);
    }

    #[test]
    fn a_silent_node_is_unknown() {
        let mut silent = node("True", &[]);
        assert!(mark_unknown(&mut silent, Time::from_unix(9)));
        let line = |c: &NodeCondition| format!("{} {} {} {}\n", c.type_, c.status, c.reason, c.message);
        expect![[r#"
            Ready Unknown NodeStatusUnknown Kubelet stopped posting node status.
            MemoryPressure Unknown NodeStatusNeverUpdated Kubelet never posted node status.
            DiskPressure Unknown NodeStatusNeverUpdated Kubelet never posted node status.
            PIDPressure Unknown NodeStatusNeverUpdated Kubelet never posted node status.
        "#]]
        .assert_eq(&silent.status.conditions.iter().map(line).collect::<String>());
        assert!(!mark_unknown(&mut silent, Time::from_unix(10)));
    }
}
