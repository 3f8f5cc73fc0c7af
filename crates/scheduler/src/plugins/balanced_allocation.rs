//! NodeResourcesBalancedAllocation: CPU and memory should be used up together.

use super::fit::shares;
use crate::facts::PodInfo;
use crate::framework::{Candidate, MAX_SCORE, Score};

pub(super) struct BalancedAllocation;

impl Score for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, pod: &PodInfo, node: Candidate<'_>) -> i64 {
        if pod.facts.requests.0.is_empty() {
            // A pod that asks for nothing unbalances nothing (upstream skips it).
            return 0;
        }
        let known = shares(pod, node).into_iter().filter(|(_, capacity)| *capacity > 0);
        let fractions: Vec<f64> =
            known.map(|(asked, capacity)| (asked as f64 / capacity as f64).min(1.0)).collect();
        let deviation = match fractions[..] {
            [a, b] => ((a - b) / 2.0).abs(),
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
