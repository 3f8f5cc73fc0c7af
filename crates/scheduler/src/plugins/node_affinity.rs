//! Node selector and node affinity: required terms filter, preferred ones score.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, Refusal, Score, normalize};
use rules::node_affinity::{preferred_score, required_node_affinity};

pub(super) struct NodeAffinity;

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        if required_node_affinity(&pod.pod.spec, &node.info.name, &node.facts.labels) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }
}

impl Score for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn score(&self, pod: &PodInfo, node: Candidate<'_>) -> i64 {
        preferred_score(pod.preferred_node_terms(), &node.info.name, &node.facts.labels)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, false);
    }
}
