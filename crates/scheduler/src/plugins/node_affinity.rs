//! Node selector and node affinity: required terms filter, preferred ones score.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Cycle, Event, Filter, Plugin, Refusal, Scale, Score, ranking, stateless};
use crate::queue::Waiter;
use rules::node_affinity::{preferred_score, required_node_affinity};
use std::collections::BTreeSet;

pub(super) struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    /// The nodes that all terms ask for by name, as a DaemonSet's pods do.
    fn only(&self, pod: &PodInfo) -> Option<BTreeSet<String>> {
        let affinity = pod.pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
        let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
        let mut all = BTreeSet::new();
        for term in &required.node_selector_terms {
            let names = term.match_fields.iter().filter(|f| f.key == "metadata.name" && f.operator == "In");
            let names = names.map(|f| f.values.iter().cloned().collect::<BTreeSet<_>>());
            // Requirements of a term are and-ed, terms or-ed: one without a name leaves all nodes in.
            all.extend(names.reduce(|a, b| &a & &b)?);
        }
        (!required.node_selector_terms.is_empty()).then_some(all)
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let spec = &cycle.pod.pod.spec;
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        if spec.node_selector.is_empty() && required.is_none() {
            return None;
        }
        stateless(move |node| {
            if required_node_affinity(spec, &node.info.name, &node.facts.labels) {
                return Ok(());
            }
            Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector"))
        })
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let terms = cycle.pod.preferred_node_terms();
        if terms.is_empty() {
            return None;
        }
        let preference =
            move |node: Candidate<'_>| preferred_score(terms, &node.info.name, &node.facts.labels);
        ranking(preference, Scale::Up)
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        event.node_changed(|node| &node.labels)
    }
}
