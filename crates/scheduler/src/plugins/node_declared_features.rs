//! NodeDeclaredFeatures: a pod goes where what it needs of newer versions is declared.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;
use rules::declared_features::{missing, to_run};

pub(super) struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let needed = to_run(&cycle.pod.pod.spec);
        if needed.is_empty() {
            return None;
        }
        stateless(move |node| {
            if missing(&needed, &node.facts.declared_features).is_empty() {
                return Ok(());
            }
            Err(Refusal::unresolvable("node(s) didn't match Pod's required features"))
        })
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        event.node_changed(|node| &node.declared_features)
    }
}
