//! Taints keep pods away that do not tolerate them; `PreferNoSchedule` ones lower the score.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, Refusal, Score, normalize};
use rules::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, any_tolerates};

pub(super) struct TaintToleration;

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        let hard = node.facts.taints.iter().filter(|t| t.effect == NO_SCHEDULE || t.effect == NO_EXECUTE);
        match hard.into_iter().find(|t| !any_tolerates(pod.tolerations(), t)) {
            None => Ok(()),
            Some(_) => Err(Refusal::unresolvable("node(s) had untolerated taint(s)")),
        }
    }
}

impl Score for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, pod: &PodInfo, node: Candidate<'_>) -> i64 {
        let soft = node.facts.taints.iter().filter(|t| t.effect == PREFER_NO_SCHEDULE);
        soft.filter(|t| !any_tolerates(pod.tolerations(), t)).count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize(scores, true);
    }
}
