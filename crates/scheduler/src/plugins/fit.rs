//! NodeResourcesFit: what a pod requests must be free; emptier nodes score higher (LeastAllocated).

use crate::facts::PodInfo;
use crate::framework::{
    Candidate, Cycle, Event, Filter, MAX_SCORE, Plugin, Refusal, Scale, Score, ranking, stateless,
};
use crate::queue::Waiter;

pub(super) struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let requests = &cycle.pod.facts.requests;
        let devices = &cycle.cache.surroundings.devices;
        stateless(move |node| {
            let allocatable = &node.facts.allocatable;
            let mut refusal = Refusal::default();
            if node.info.pods.len() as i64 + 1 > allocatable.get("pods") {
                refusal.reasons.push("Too many pods".into());
            }
            for (name, asked) in requests.iter() {
                let capacity = allocatable.get(name);
                // What devices may give instead is for another plugin to say.
                if capacity == 0 && devices.gives(name) {
                    continue;
                }
                if asked > capacity - node.info.requested.get(name) {
                    refusal.reasons.push(format!("Insufficient {name}"));
                    refusal.unresolvable |= asked > capacity;
                }
            }
            if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
        })
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let pod = cycle.pod;
        let least_allocated = move |node: Candidate<'_>| {
            let (mut sum, mut known) = (0, 0);
            for (asked, capacity) in shares(pod, node) {
                if capacity > 0 {
                    known += 1;
                    sum += (capacity - asked).max(0) * MAX_SCORE / capacity;
                }
            }
            if known == 0 { 0 } else { sum / known }
        };
        ranking(least_allocated, Scale::Raw)
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        matches!(event, Event::PodGone(_) | Event::PodShrank | Event::DeviceClass { .. })
            || event.node_changed(|node| &node.allocatable)
    }
}

/// Requested and allocatable CPU and memory, the pod included.
fn shares(pod: &PodInfo, node: Candidate<'_>) -> [(i64, i64); 2] {
    [
        (node.info.non_zero.0 + pod.facts.non_zero.0, node.facts.allocatable.cpu),
        (node.info.non_zero.1 + pod.facts.non_zero.1, node.facts.allocatable.memory),
    ]
}
