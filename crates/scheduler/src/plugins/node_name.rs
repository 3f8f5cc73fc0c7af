//! A pod that names its node goes there or nowhere.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;

pub(super) struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let wanted = &cycle.pod.pod.spec.node_name;
        if wanted.is_empty() {
            return None;
        }
        stateless(move |node| {
            if **wanted == *node.info.name {
                return Ok(());
            }
            Err(Refusal::unresolvable("node(s) didn't match the requested node name"))
        })
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        matches!(event, Event::Node { old: None, .. })
    }
}
