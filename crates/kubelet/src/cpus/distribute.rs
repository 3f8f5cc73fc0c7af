//! As many processors on each NUMA node, where one does not have enough: the fewest nodes that will do, and of those the
//! ones after which what is left is most alike everywhere. Pure. Upstream: `takeByTopologyNUMADistributed`.

use super::accumulator::{Accumulator, Level};
use super::assign::{Topology, short};
use super::options::Options;
use super::set::CpuSet;
use std::collections::BTreeMap;

type Node = (u32, u32);

/// A way to do it.
struct Way {
    balance: f64,
    nodes: Vec<Node>,
    /// Those that give the rest.
    rest: Vec<Node>,
}

/// Takes `count` of those that are free; `group` at a time stay together.
pub(super) fn take(
    topology: &Topology,
    free: &CpuSet,
    count: usize,
    group: usize,
    options: Options,
) -> Result<CpuSet, String> {
    let packed = || Accumulator::new(topology, free, count).run(Options { by_cache: false, ..options });
    if !count.is_multiple_of(group) {
        return packed();
    }
    let mut accumulator = Accumulator::new(topology, free, count);
    if accumulator.is_done() {
        return Ok(accumulator.taken);
    }
    if count > free.len() {
        return Err(short(count, free.len()));
    }
    let nodes = accumulator.order(Level::Node);
    let available: BTreeMap<Node, usize> =
        nodes.iter().map(|node| (*node, accumulator.free_in(Level::Node, *node).len())).collect();
    let all: std::collections::BTreeSet<u32> = topology.values().map(|place| place.node).collect();
    let per_node = topology.len().div_ceil(group).div_ceil(all.len().max(1));
    let groups = count.div_ceil(group);
    for number in groups.div_ceil(per_node.max(1))..=groups.min(nodes.len()) {
        let Some(way) = best(&nodes, number, &available, count, group) else { continue };
        let each = count / number / group * group;
        for node in &way.nodes {
            grab(topology, &mut accumulator, *node, each, options)?;
        }
        let mut rest = count - each * number;
        while rest > 0 {
            let before = rest;
            for node in &way.rest {
                if rest > 0 && accumulator.free_in(Level::Node, *node).len() >= group {
                    grab(topology, &mut accumulator, *node, group, options)?;
                    rest = rest.saturating_sub(group);
                }
            }
            if rest == before {
                return Err(format!("accounting error, not enough CPUs allocated, remaining: {rest}"));
            }
        }
        return Ok(accumulator.taken);
    }
    packed()
}

/// Some of one node.
fn grab(
    topology: &Topology,
    accumulator: &mut Accumulator<'_>,
    node: Node,
    count: usize,
    options: Options,
) -> Result<(), String> {
    let here = accumulator.free_in(Level::Node, node);
    let options = Options { by_cache: false, ..options };
    let taken = Accumulator::new(topology, &here, count).run(options)?;
    accumulator.take(&taken);
    Ok(())
}

/// The best choice of so many nodes.
fn best(
    nodes: &[Node],
    number: usize,
    available: &BTreeMap<Node, usize>,
    count: usize,
    group: usize,
) -> Option<Way> {
    let mut best: Option<Way> = None;
    for chosen in combinations(nodes, number) {
        if best.as_ref().is_some_and(|way| way.balance == 0.0) {
            break;
        }
        let has = |node: &Node| available.get(node).copied().unwrap_or(0);
        let each = count / number / group * group;
        let groups: usize = chosen.iter().map(|node| has(node) / group).sum();
        if groups * group < count || chosen.iter().any(|node| has(node) < each) {
            continue;
        }
        let mut left = available.clone();
        for node in &chosen {
            left.entry(*node).and_modify(|free| *free -= each);
        }
        let Some((balance, rest)) = best_rest(&chosen, left, count - each * number, group) else { continue };
        if best.as_ref().is_none_or(|way| balance < way.balance) {
            best = Some(Way { balance, nodes: chosen, rest });
        }
    }
    best
}

/// Which of the chosen nodes give what does not go into equal parts, and how alike all are then.
fn best_rest(
    chosen: &[Node],
    left: BTreeMap<Node, usize>,
    rest: usize,
    group: usize,
) -> Option<(f64, Vec<Node>)> {
    if rest == 0 {
        return Some((deviation(&left), Vec::new()));
    }
    let can: Vec<Node> = chosen.iter().copied().filter(|node| left[node] >= group).collect();
    let mut best: Option<(f64, Vec<Node>)> = None;
    for number in (1..=can.len()).rev() {
        for some in combinations(&can, number) {
            let (mut left, mut rest) = (left.clone(), rest);
            if some.iter().map(|node| left[node] / group * group).sum::<usize>() < rest {
                continue;
            }
            while rest > 0 {
                for node in &some {
                    if rest > 0 && left[node] >= group {
                        left.entry(*node).and_modify(|free| *free -= group);
                        rest = rest.saturating_sub(group);
                    }
                }
            }
            let balance = deviation(&left);
            if best.as_ref().is_none_or(|(known, _)| balance < *known) {
                best = Some((balance, some));
            }
        }
    }
    best
}

/// The ways to choose so many, in order.
fn combinations(of: &[Node], number: usize) -> Vec<Vec<Node>> {
    if number == 0 {
        return vec![Vec::new()];
    }
    let mut out = Vec::new();
    for (at, first) in of.iter().enumerate() {
        for mut rest in combinations(&of[at + 1..], number - 1) {
            rest.insert(0, *first);
            out.push(rest);
        }
    }
    out
}

fn deviation(values: &BTreeMap<Node, usize>) -> f64 {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let number = values.len().max(1) as f64;
    let mean = round(values.values().map(|value| *value as f64).sum::<f64>() / number);
    round((values.values().map(|value| (*value as f64 - mean).powi(2)).sum::<f64>() / number).sqrt())
}
