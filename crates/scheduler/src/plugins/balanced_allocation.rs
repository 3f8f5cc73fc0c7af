//! NodeResourcesBalancedAllocation: CPU and memory should be used up together.

use crate::framework::{Candidate, Cycle, MAX_SCORE, Plugin, Scale, Score, ranking};

pub(super) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let asked = &cycle.pod.facts.requests;
        if asked.cpu == 0 && asked.memory == 0 {
            // A pod that asks for nothing unbalances nothing (kubernetes/kubernetes#129138).
            return None;
        }
        let improvement = move |node: Candidate<'_>| {
            let (used, all) = (&node.info.requested, &node.facts.allocatable);
            let before = balance([(used.cpu, all.cpu), (used.memory, all.memory)]);
            let after = balance([(used.cpu + asked.cpu, all.cpu), (used.memory + asked.memory, all.memory)]);
            // Either is between 50 and 100; a pod that changes nothing scores 75.
            MAX_SCORE / 2 + (MAX_SCORE / 2 + after - before) / 2
        };
        ranking(improvement, Scale::Raw)
    }
}

/// 100 when CPU and memory are used in equal shares, 50 when only one of them is.
fn balance([cpu, memory]: [(i64, i64); 2]) -> i64 {
    if cpu.1 == 0 || memory.1 == 0 {
        return MAX_SCORE;
    }
    let fraction = |(used, all): (i64, i64)| (used as f64 / all as f64).min(1.0);
    let deviation = ((fraction(cpu) - fraction(memory)) / 2.0).abs();
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}
