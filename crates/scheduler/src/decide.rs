//! Pure: a pod and a snapshot in; a node, or the reasons against all of them, out. Every node is filtered and scored;
//! nothing is sampled.

use crate::cache::NodeInfo;
use crate::facts::PodInfo;
use crate::framework::{Candidate, Refusal};
use crate::plugins::{FILTERS, SCORES};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why no node would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    refusals: Vec<Refusal>,
    /// Per refusal: whether pods of lower priority run on that node.
    victims: Vec<bool>,
}

impl std::fmt::Display for FitError {
    /// Upstream's `FailedScheduling` message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(
            f,
            "0/{} nodes are available: {}.",
            self.nodes,
            histogram(self.refusals.iter().flat_map(|r| &r.reasons))
        )?;
        let unhelpful = "Preemption is not helpful for scheduling".to_owned();
        let none = "No preemption victims found for incoming pod".to_owned();
        let preemption = self.refusals.iter().map(|r| if r.unresolvable { &unhelpful } else { &none });
        if self.victims.iter().any(|v| *v) {
            return Ok(());
        }
        write!(
            f,
            " no new claims to deallocate, preemption: 0/{} nodes are available: {}.",
            self.nodes,
            histogram(preemption)
        )
    }
}

fn histogram<'a>(reasons: impl Iterator<Item = &'a String>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    lines.sort();
    lines.join(", ")
}

/// Chooses a node. Among equals, `turn` decides, so that equal nodes fill evenly.
pub fn decide(pod: &PodInfo, nodes: &[Arc<NodeInfo>], turn: usize) -> Result<Arc<str>, FitError> {
    let mut error = FitError { nodes: nodes.len(), refusals: Vec::new(), victims: Vec::new() };
    let mut feasible: Vec<(&Arc<NodeInfo>, Candidate<'_>)> = Vec::new();
    for node in nodes {
        let Some(facts) = &node.facts else { continue };
        let candidate = Candidate { info: node, facts };
        match FILTERS.iter().find_map(|f| f.filter(pod, candidate).err()) {
            None => feasible.push((node, candidate)),
            Some(refusal) => {
                let lower = |p: &crate::facts::PodFacts| p.priority < pod.facts.priority;
                error.victims.push(!refusal.unresolvable && node.pods.values().any(|p| lower(p)));
                error.refusals.push(refusal);
            }
        }
    }
    match feasible[..] {
        [] => return Err(error),
        [(only, _)] => return Ok(only.name.clone()),
        _ => {}
    }
    let mut totals = vec![0_i64; feasible.len()];
    for plugin in SCORES {
        let mut scores: Vec<i64> = feasible.iter().map(|(_, c)| plugin.score(pod, *c)).collect();
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    let best = totals.iter().copied().max().unwrap_or(0);
    let winners: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == best).collect();
    Ok(feasible[winners[turn % winners.len()]].0.name.clone())
}
