//! NodeResourcesFit: what a pod requests must be free; emptier nodes score higher (LeastAllocated).

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, MAX_SCORE, Refusal, Score};

pub(super) struct Fit;

impl Filter for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        let allocatable = &node.facts.allocatable;
        let mut refusal = Refusal { reasons: Vec::new(), unresolvable: false };
        if node.info.pods.len() as i64 + 1 > allocatable.get("pods") {
            refusal.reasons.push("Too many pods".into());
        }
        for (name, asked) in &pod.facts.requests.0 {
            let capacity = allocatable.get(name);
            if *asked > 0 && *asked > capacity - node.info.requested.get(name) {
                refusal.reasons.push(format!("Insufficient {name}"));
                refusal.unresolvable |= *asked > capacity;
            }
        }
        if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
    }
}

/// Requested and allocatable CPU and memory, the pod included.
pub(super) fn shares(pod: &PodInfo, node: Candidate<'_>) -> [(i64, i64); 2] {
    [
        (node.info.non_zero.0 + pod.facts.non_zero.0, node.facts.allocatable.get("cpu")),
        (node.info.non_zero.1 + pod.facts.non_zero.1, node.facts.allocatable.get("memory")),
    ]
}

impl Score for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: Candidate<'_>) -> i64 {
        let known = shares(pod, node).into_iter().filter(|(_, capacity)| *capacity > 0);
        let free: Vec<i64> = known
            .map(
                |(asked, capacity)| {
                    if asked > capacity { 0 } else { (capacity - asked) * MAX_SCORE / capacity }
                },
            )
            .collect();
        if free.is_empty() { 0 } else { free.iter().sum::<i64>() / free.len() as i64 }
    }
}
