//! Which events a node's status is worth: its conditions as they change, and whether it takes pods. Pure. Upstream:
//! `recordNodeStatusEvent` in the setters of `nodestatus`.

use api::core::v1::NodeStatus;
use std::collections::BTreeMap;

/// A condition, and the events when it becomes true and when it becomes false.
const CONDITIONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// What was told last.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    conditions: BTreeMap<String, String>,
    unschedulable: bool,
}

fn statuses(status: &NodeStatus) -> BTreeMap<String, String> {
    status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect()
}

impl Telling {
    /// Of a node whose conditions were these; a new one has none.
    pub(crate) fn since(before: &NodeStatus) -> Telling {
        Telling { conditions: statuses(before), unschedulable: false }
    }

    /// The reasons of the events that are due, in upstream's order.
    pub(crate) fn changes(&mut self, status: &NodeStatus, unschedulable: bool) -> Vec<&'static str> {
        let now = statuses(status);
        let mut due = Vec::new();
        for (type_, when_true, when_false) in CONDITIONS {
            match now.get(type_) {
                Some(new) if self.conditions.get(type_) != Some(new) => {
                    due.push(if new == "True" { when_true } else { when_false });
                }
                _ => {}
            }
        }
        if self.unschedulable != unschedulable {
            due.push(if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
        (self.conditions, self.unschedulable) = (now, unschedulable);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::NodeCondition;
    use expect_test::{Expect, expect};

    /// `MemoryPressure=False Ready=True`.
    fn status(text: &str) -> NodeStatus {
        let condition = |(type_, status): (&str, &str)| NodeCondition {
            type_: type_.into(),
            status: status.into(),
            ..Default::default()
        };
        let conditions =
            text.split_whitespace().filter_map(|one| one.split_once('=')).map(condition).collect();
        NodeStatus { conditions, ..Default::default() }
    }

    fn check(before: &str, now: &[(&str, bool)], expected: Expect) {
        let mut telling = Telling::since(&status(before));
        let told: Vec<String> =
            now.iter().map(|(now, closed)| telling.changes(&status(now), *closed).join(" ")).collect();
        expected.assert_eq(&told.join("\n"));
    }

    #[test]
    fn conditions_are_told_when_they_change() {
        let well = "MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True";
        check(
            "",
            &[("Ready=False", false), (well, false), (well, false)],
            expect![[r#"
            NodeNotReady
            NodeHasSufficientMemory NodeHasNoDiskPressure NodeHasSufficientPID NodeReady
        "#]],
        );
        check(
            well,
            &[(well, false), ("MemoryPressure=True Ready=True", true), (well, false)],
            expect![[r#"

            NodeHasInsufficientMemory NodeNotSchedulable
            NodeHasSufficientMemory NodeHasNoDiskPressure NodeHasSufficientPID NodeSchedulable"#]],
        );
    }
}
