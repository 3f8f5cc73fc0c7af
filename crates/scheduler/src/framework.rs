//! What a plugin is. Filters say why a node is out of the question; scores rank the others from 0 to 100.

use crate::cache::NodeInfo;
use crate::facts::{NodeFacts, PodInfo};

pub const MAX_SCORE: i64 = 100;

/// Why a node is out of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As it is counted in `FailedScheduling`: `Insufficient cpu`, `node(s) had untolerated taint(s)`.
    pub reasons: Vec<String>,
    /// Removing pods from the node would not help.
    pub unresolvable: bool,
}

impl Refusal {
    pub fn new(reason: impl Into<String>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: false }
    }

    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Refusal { reasons: vec![reason.into()], unresolvable: true }
    }
}

/// A node under consideration.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub info: &'a NodeInfo,
    pub facts: &'a NodeFacts,
}

/// Says why a node is out of the question.
pub trait Filter: Send + Sync {
    /// Upstream's plugin name.
    fn name(&self) -> &'static str;
    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal>;
}

/// Ranks nodes.
pub trait Score: Send + Sync {
    fn name(&self) -> &'static str;
    /// Upstream's default weight.
    fn weight(&self) -> i64;
    fn score(&self, pod: &PodInfo, node: Candidate<'_>) -> i64;
    /// Brings raw scores into 0 to 100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales scores so that the highest is 100; with `reverse`, the lowest raw one is.
pub fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        let scaled = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - scaled } else { scaled };
    }
}
