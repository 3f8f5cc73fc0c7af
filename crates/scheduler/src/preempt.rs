//! Pure: what it would take to make room for a pod that found none: the node where the least is lost, and the pods of
//! lower priority that must go there. Upstream: `DefaultPreemption`.

use crate::cache::{NodeInfo, Pod};
use crate::decide::{Filters, FitError};
use crate::framework::{Candidate, Cycle, Refusal};
use crate::stopwatch::Status;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// How many nodes with a way are compared, at least.
const MIN_CANDIDATES: usize = 100;

/// What came of looking for room.
#[derive(Debug)]
pub enum Preemption {
    /// Once these pods are gone, the pod fits on this node.
    Room { node: Arc<str>, victims: Vec<Pod> },
    /// Nothing is to be gained, and an earlier nomination is void.
    Hopeless(FitError),
    /// The pod may not push others out, now or ever.
    NotEligible(&'static str),
    /// There are no nodes.
    Nothing,
}

impl Preemption {
    /// What came of it, as upstream has it.
    pub(crate) fn status(&self) -> Status {
        match self {
            Preemption::Room { .. } => Status::Success,
            Preemption::Hopeless(_) | Preemption::NotEligible(_) | Preemption::Nothing => {
                Status::Unschedulable
            }
        }
    }

    /// As it stands behind the reasons in `FailedScheduling`.
    pub fn message(&self) -> Option<String> {
        match self {
            Preemption::Hopeless(error) => Some(error.to_string()),
            Preemption::NotEligible(why) => Some((*why).into()),
            Preemption::Room { .. } | Preemption::Nothing => None,
        }
    }
}

struct Way<'a> {
    node: Candidate<'a>,
    /// The most important first.
    victims: Vec<Pod>,
    /// How many of them a disruption budget protects.
    violations: usize,
}

/// Looks for room among the nodes that refused the pod, beginning at the `turn`-th.
pub(crate) fn preempt(
    cycle: Cycle<'_>,
    filters: &Filters<'_>,
    refused: &[(Candidate<'_>, Refusal)],
    turn: usize,
) -> Preemption {
    if let Err(why) = eligible(cycle, refused) {
        return Preemption::NotEligible(why);
    }
    let mut error = FitError::new(cycle.cache.len());
    let possible: Vec<Candidate<'_>> =
        refused.iter().filter(|(_, r)| !r.unresolvable).map(|(n, _)| *n).collect();
    let enough = MIN_CANDIDATES.max(possible.len() / 10);
    let mut ways: Vec<Way<'_>> = Vec::new();
    let mut harmless = false;
    let start = if possible.is_empty() { 0 } else { turn % possible.len() };
    for node in possible[start..].iter().chain(&possible[..start]) {
        match way(cycle, filters, *node) {
            Ok(way) => {
                harmless |= way.violations == 0;
                ways.push(way);
                if harmless && ways.len() >= enough {
                    break;
                }
            }
            Err(refusal) => refusal.reasons.iter().for_each(|reason| error.count(reason, 1)),
        }
    }
    match ways.into_iter().min_by_key(cost) {
        Some(way) => Preemption::Room { node: way.node.info.name.clone(), victims: way.victims },
        None => {
            let others = cycle.cache.len() - possible.len();
            error.count("Preemption is not helpful for scheduling", others);
            Preemption::Hopeless(error)
        }
    }
}

fn eligible(cycle: Cycle<'_>, refused: &[(Candidate<'_>, Refusal)]) -> Result<(), &'static str> {
    if cycle.pod.pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let Some(node) = cycle.cache.nomination(&cycle.pod.facts.uid).and_then(|n| cycle.cache.node(n)) else {
        return Ok(());
    };
    if refused.iter().any(|(n, r)| n.info.name == node.info.name && r.unresolvable) {
        return Ok(());
    }
    let ours = cycle.pod.facts.priority;
    if node.info.pods.values().any(|p| p.priority < ours && p.deleting && p.preempted) {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

/// The fewest pods that must leave a node: all of lower priority leave, then come back, the most important first, those
/// that a disruption budget protects before the others, as long as our pod still fits.
fn way<'a>(cycle: Cycle<'_>, filters: &Filters<'_>, node: Candidate<'a>) -> Result<Way<'a>, Refusal> {
    let ours = cycle.pod.facts.priority;
    let mut lower: Vec<Pod> = node.info.pods.values().filter(|p| p.priority < ours).cloned().collect();
    if lower.is_empty() {
        return Err(Refusal::unresolvable("No preemption victims found for incoming pod"));
    }
    let (mut filters, mut info) = (filters.clone(), node.info.clone());
    let fits = |filters: &Filters<'_>, info: &NodeInfo| {
        filters
            .ask_with_nominated(cycle, Candidate { info, facts: node.facts })
            .map_err(|(_, refusal)| refusal)
    };
    for pod in &lower {
        info.remove(&pod.uid);
        filters.moved(pod, node, -1);
    }
    fits(&filters, &info)?;
    lower.sort_by_key(importance);
    let (protected, others) = by_budget(cycle, lower);
    let (mut victims, mut violations) = (Vec::new(), 0);
    let count = protected.len();
    for (i, pod) in protected.into_iter().chain(others).enumerate() {
        info.add(&pod);
        filters.moved(&pod, node, 1);
        if fits(&filters, &info).is_err() {
            info.remove(&pod.uid);
            filters.moved(&pod, node, -1);
            violations += usize::from(i < count);
            victims.push(pod);
        }
    }
    victims.sort_by_key(importance);
    Ok(Way { node, victims, violations })
}

/// Orders pods: the one of higher priority first, then the one that runs longer.
fn importance(pod: &Pod) -> (Reverse<i32>, Option<apimachinery::time::Time>, Arc<str>) {
    (Reverse(pod.priority), pod.started, pod.uid.clone())
}

/// Parts the pods whose going would violate a disruption budget from the others, keeping their order.
fn by_budget(cycle: Cycle<'_>, pods: Vec<Pod>) -> (Vec<Pod>, Vec<Pod>) {
    let mut counted: HashMap<client::ObjectKey, i32> = HashMap::new();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        let budgets = cycle.cache.surroundings.budgets(pod.namespace());
        for (key, budget) in
            budgets.filter(|(_, b)| !b.selector.is_empty() && b.selector.matches(&pod.labels))
        {
            if budget.disrupted.contains(pod.name()) {
                continue;
            }
            let disruptions = counted.entry(key.clone()).or_default();
            *disruptions += 1;
            violates |= *disruptions > budget.allowed;
        }
        violates
    })
}

/// What is lost: budgets first, then the highest priority, the sum of priorities, the number of pods; of equals, the
/// one whose most important pods started last.
fn cost(way: &Way<'_>) -> impl Ord + use<> {
    let highest = way.victims.first().map_or(0, |p| p.priority);
    // Priorities may be negative; each pod must count.
    let sum: i64 = way.victims.iter().map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1).sum();
    let oldest = way.victims.iter().filter(|p| p.priority == highest).filter_map(|p| p.started).min();
    (way.violations, highest, sum, way.victims.len(), Reverse(oldest))
}
