//! PodTopologySpread: like pods spread evenly over zones, hosts or any other topology. Hard constraints filter, soft ones
//! and, for a pod without any, the cluster's own defaults score.

use crate::facts::{Labels, PodFacts, PodInfo};
use crate::framework::{Candidate, Cycle, Event, Filter, MAX_SCORE, Plugin, Refusal, Score};
use crate::queue::Waiter;
use api::core::v1::TopologySpreadConstraint;
use apimachinery::labels::Selector;
use client::Cached;
use rules::node_affinity::required_node_affinity;
use rules::taints::{NO_EXECUTE, NO_SCHEDULE, first_untolerated};
use std::collections::HashMap;

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

pub(super) struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let constraints = Constraint::of(cycle.pod, "DoNotSchedule");
        if constraints.is_empty() {
            return None;
        }
        let mut counts = vec![HashMap::<String, i64>::new(); constraints.len()];
        for node in cycle.cache.nodes().filter(|n| has_all(&constraints, &n.facts.labels)) {
            for (constraint, counts) in constraints.iter().zip(&mut counts) {
                if constraint.includes(cycle.pod, node)
                    && let Some(value) = node.label(&constraint.key)
                {
                    *counts.entry(value.into()).or_default() += constraint.count(cycle.pod, node);
                }
            }
        }
        let fewest = constraints.iter().zip(&counts).map(|(c, counts)| c.fewest(counts)).collect();
        Some(Box::new(Spread { cycle, constraints, counts, fewest }))
    }

    fn score<'a>(&self, cycle: Cycle<'a>, feasible: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let own = !cycle.pod.pod.spec.topology_spread_constraints.is_empty();
        let constraints =
            if own { Constraint::of(cycle.pod, "ScheduleAnyway") } else { Constraint::defaults(cycle) };
        if constraints.is_empty() {
            return None;
        }
        // By its own constraints, a node without one of the labels does not take part; by the defaults, it does.
        let takes_part = |labels: &Labels| !own || has_all(&constraints, labels);
        let mut domains = vec![HashMap::<String, i64>::new(); constraints.len()];
        let mut hosts = 0;
        for node in feasible.iter().filter(|n| takes_part(&n.facts.labels)) {
            hosts += 1;
            for (constraint, domains) in constraints.iter().zip(&mut domains) {
                if constraint.key != HOSTNAME {
                    domains.insert(node.label(&constraint.key).unwrap_or_default().into(), 0);
                }
            }
        }
        for node in cycle.cache.nodes().filter(|n| takes_part(&n.facts.labels)) {
            for (constraint, domains) in constraints.iter().zip(&mut domains) {
                if constraint.includes(cycle.pod, node)
                    && let Some(count) = domains.get_mut(node.label(&constraint.key).unwrap_or_default())
                {
                    *count += constraint.count(cycle.pod, node);
                }
            }
        }
        let size = |(c, d): (&Constraint, &HashMap<_, _>)| if c.key == HOSTNAME { hosts } else { d.len() };
        let weights = constraints.iter().zip(&domains).map(|pair| ((size(pair) + 2) as f64).ln()).collect();
        Some(Box::new(Crowding { cycle, own, constraints, domains, weights }))
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        matches!(event, Event::PodGone(_) | Event::PodPlaced(_))
            || event.node_changed(|node| &node.labels)
            || event.node_changed(|node| &node.taints)
    }
}

#[derive(Debug, Clone)]
struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    selector: Selector,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    /// The pod's own.
    fn of(pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Self> {
        let constraints = pod.pod.spec.topology_spread_constraints.iter();
        constraints
            .filter(|c| c.when_unsatisfiable == when_unsatisfiable)
            .map(|c| Self::new(pod, c))
            .collect()
    }

    fn new(pod: &PodInfo, constraint: &TopologySpreadConstraint) -> Self {
        // What validation let in parses; what does not, means no pod.
        let selector = Selector::from_label_selector(constraint.label_selector.as_ref())
            .unwrap_or_else(|_| Selector::nothing());
        let labels = constraint.match_label_keys.iter().filter_map(|k| pod.facts.labels.get_key_value(k));
        let exact = Selector::from_set(labels).requirements().unwrap_or_default().to_vec();
        let honors = |policy: &Option<String>, default| policy.as_ref().map_or(default, |p| p == "Honor");
        Constraint {
            key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew.into(),
            min_domains: constraint.min_domains.map_or(1, |n| n.max(0) as usize),
            selector: selector.and(exact),
            honor_affinity: honors(&constraint.node_affinity_policy, true),
            honor_taints: honors(&constraint.node_taints_policy, false),
        }
    }

    /// The cluster's, for pods that a Service or a controller selects.
    fn defaults(cycle: Cycle<'_>) -> Vec<Self> {
        let selector = cycle.cache.surroundings.selector_of(cycle.pod);
        if selector.is_empty() {
            return Vec::new();
        }
        let constraint = |key: &str, max_skew| Constraint {
            key: key.into(),
            max_skew,
            min_domains: 1,
            selector: selector.clone(),
            honor_affinity: true,
            honor_taints: false,
        };
        vec![constraint(HOSTNAME, 3), constraint(ZONE, 5)]
    }

    /// Whether the pods of a node count.
    fn includes(&self, pod: &PodInfo, node: Candidate<'_>) -> bool {
        let spec = &pod.pod.spec;
        if self.honor_affinity && !required_node_affinity(spec, &node.info.name, &node.facts.labels) {
            return false;
        }
        let hard = |t: &api::core::v1::Taint| t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE;
        !self.honor_taints || first_untolerated(&node.facts.taints, &spec.tolerations, hard).is_none()
    }

    /// Like pods in the emptiest domain; none while there are fewer domains than there must be.
    fn fewest(&self, counts: &HashMap<String, i64>) -> i64 {
        if counts.len() < self.min_domains {
            return 0;
        }
        counts.values().copied().min().unwrap_or(i64::from(i32::MAX))
    }

    fn count(&self, pod: &PodInfo, node: Candidate<'_>) -> i64 {
        if self.selector.is_empty() {
            return 0;
        }
        let like = |p: &Cached<PodFacts>| {
            // Pods that are going would keep their successors out (kubernetes/kubernetes#87621).
            !p.deleting && p.namespace() == pod.namespace() && self.selector.matches(&p.labels)
        };
        node.info.pods.values().filter(|p| like(p)).count() as i64
    }
}

fn has_all(constraints: &[Constraint], labels: &Labels) -> bool {
    constraints.iter().all(|c| labels.contains_key(&c.key))
}

#[derive(Clone)]
struct Spread<'a> {
    cycle: Cycle<'a>,
    constraints: Vec<Constraint>,
    /// Per constraint: like pods by domain.
    counts: Vec<HashMap<String, i64>>,
    /// Per constraint: like pods in the emptiest domain.
    fewest: Vec<i64>,
}

impl<'a> Filter<'a> for Spread<'a> {
    fn filter(&self, node: Candidate<'_>) -> Result<(), Refusal> {
        let counts = self.counts.iter().zip(&self.fewest);
        for (constraint, (counts, fewest)) in self.constraints.iter().zip(counts) {
            let Some(value) = node.label(&constraint.key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::unresolvable(reason));
            };
            let itself = i64::from(constraint.selector.matches(&self.cycle.pod.facts.labels));
            let here = counts.get(value).copied().unwrap_or(0);
            if here + itself - *fewest > constraint.max_skew {
                return Err(Refusal::new("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn moved(&mut self, pod: &Cached<PodFacts>, node: Candidate<'_>, by: i64) {
        if pod.namespace() != self.cycle.pod.namespace() || !has_all(&self.constraints, &node.facts.labels) {
            return;
        }
        let counts = self.counts.iter_mut().zip(&mut self.fewest);
        for (constraint, (counts, fewest)) in self.constraints.iter().zip(counts) {
            if constraint.selector.matches(&pod.labels)
                && constraint.includes(self.cycle.pod, node)
                && let Some(count) = node.label(&constraint.key).and_then(|value| counts.get_mut(value))
            {
                *count += by;
                *fewest = constraint.fewest(counts);
            }
        }
    }

    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

struct Crowding<'a> {
    cycle: Cycle<'a>,
    own: bool,
    constraints: Vec<Constraint>,
    domains: Vec<HashMap<String, i64>>,
    /// The more domains there are, the more one pod in one of them says.
    weights: Vec<f64>,
}

impl Crowding<'_> {
    fn ignores(&self, node: Candidate<'_>) -> bool {
        self.own && !has_all(&self.constraints, &node.facts.labels)
    }
}

impl Score for Crowding<'_> {
    fn score(&self, node: Candidate<'_>) -> i64 {
        if self.ignores(node) {
            return 0;
        }
        let mut crowd = 0.0;
        for ((constraint, domains), weight) in self.constraints.iter().zip(&self.domains).zip(&self.weights) {
            let Some(value) = node.label(&constraint.key) else { continue };
            let count = match &*constraint.key {
                HOSTNAME => constraint.count(self.cycle.pod, node),
                _ => domains.get(value).copied().unwrap_or(0),
            };
            crowd += count as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        crowd.round() as i64
    }

    fn normalize(&self, nodes: &[Candidate<'_>], scores: &mut [i64]) {
        let counted = nodes.iter().zip(&*scores).filter(|(node, _)| !self.ignores(**node)).map(|(_, s)| *s);
        let (min, max) = counted.fold((i64::MAX, 0), |(min, max), s| (min.min(s), max.max(s)));
        for (node, score) in nodes.iter().zip(scores) {
            *score = match max {
                _ if self.ignores(*node) => 0,
                0 => MAX_SCORE,
                _ => MAX_SCORE * (max + min - *score) / max,
            };
        }
    }
}
