//! Two pods cannot have the same host port on one node.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;

pub(super) struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let wanted = &cycle.pod.facts.ports;
        if wanted.is_empty() {
            return None;
        }
        stateless(move |node| {
            let taken = |port| node.info.ports.iter().any(|p| p.conflicts(port));
            if wanted.iter().any(taken) {
                return Err(Refusal::new("node(s) didn't have free ports for the requested pod ports"));
            }
            Ok(())
        })
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        match event {
            Event::PodGone(pod) => !pod.ports.is_empty(),
            Event::Node { old, .. } => old.is_none(),
            _ => false,
        }
    }
}
