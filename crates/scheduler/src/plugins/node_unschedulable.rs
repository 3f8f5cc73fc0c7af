//! Cordoned nodes take only pods that tolerate it.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;
use api::core::v1::Taint;

pub(super) struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: rules::taints::NO_SCHEDULE.into(),
            ..Default::default()
        };
        if rules::taints::any_tolerates(cycle.pod.tolerations(), &taint) {
            return None;
        }
        stateless(|node| {
            if !node.facts.unschedulable {
                return Ok(());
            }
            Err(Refusal::unresolvable("node(s) were unschedulable"))
        })
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        event.node_changed(|node| &node.unschedulable)
    }
}
