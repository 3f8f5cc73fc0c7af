//! Taints keep pods away that do not tolerate them; `PreferNoSchedule` ones lower the score.

use crate::framework::{Candidate, Cycle, Event, Filter, Plugin, Refusal, Scale, Score, ranking, stateless};
use crate::queue::Waiter;
use rules::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, any_tolerates, first_untolerated};

pub(super) struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let tolerations = cycle.pod.tolerations();
        stateless(move |node| {
            let hard = |t: &api::core::v1::Taint| t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE;
            match first_untolerated(&node.facts.taints, tolerations, hard) {
                None => Ok(()),
                Some(_) => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
            }
        })
    }

    fn score<'a>(&self, cycle: Cycle<'a>, feasible: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let soft = |c: &Candidate<'_>| c.facts.taints.iter().any(|t| t.effect == PREFER_NO_SCHEDULE);
        if !feasible.iter().any(soft) {
            return None;
        }
        let tolerations = cycle.pod.tolerations();
        let intolerable = move |node: Candidate<'_>| {
            let soft = node.facts.taints.iter().filter(|t| t.effect == PREFER_NO_SCHEDULE);
            soft.filter(|t| !any_tolerates(tolerations, t)).count() as i64
        };
        ranking(intolerable, Scale::Down)
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        event.node_changed(|node| &node.taints)
    }
}
