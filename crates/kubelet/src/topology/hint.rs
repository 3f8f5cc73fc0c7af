//! What resources say of where they are to be had, and what all of them together can have: pure. Upstream:
//! `topologymanager/policy*.go`.

use super::mask::Mask;
use super::numa::Numa;
use super::{Options, Policy};
use std::collections::BTreeMap;

/// A way to have something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    /// On these nodes; `None` says that it does not matter.
    pub affinity: Option<Mask>,
    /// There is none better.
    pub preferred: bool,
}

/// The ways to have each resource. `None` says that it does not matter, an empty list that it cannot be had.
pub(crate) type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// Says which ways of those `masks` that hold `request` there are, and which are as narrow as can be: `all` counts what
/// there is on some nodes, `free` what is free there (`None`: these nodes will not do).
pub(crate) fn ways(
    masks: &[Mask],
    nodes: usize,
    request: usize,
    all: impl Fn(Mask) -> usize,
    free: impl Fn(Mask) -> Option<usize>,
) -> Vec<Hint> {
    let least = masks.iter().filter(|mask| all(**mask) >= request).map(|mask| mask.count()).min();
    let least = least.unwrap_or(nodes);
    let possible = masks.iter().filter(|mask| free(**mask).is_some_and(|free| free >= request));
    possible.map(|mask| Hint { affinity: Some(*mask), preferred: mask.count() == least }).collect()
}

/// One list for each resource that cares.
fn lists(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let anywhere = Hint { affinity: None, preferred: true };
    let nowhere = Hint { affinity: None, preferred: false };
    let mut out = Vec::new();
    for hints in providers {
        if hints.is_empty() {
            out.push(vec![anywhere]);
        }
        for hints in hints.values() {
            out.push(match hints {
                None => vec![anywhere],
                Some(hints) if hints.is_empty() => vec![nowhere],
                Some(hints) => hints.clone(),
            });
        }
    }
    out
}

/// The best way for all, and whether the policy admits it.
pub(crate) fn merge(policy: Policy, options: Options, numa: &Numa, providers: &[Hints]) -> (Hint, bool) {
    let mut lists = lists(providers);
    let single = policy == Policy::SingleNumaNode;
    if single {
        for list in &mut lists {
            list.retain(|hint| hint.preferred && hint.affinity.is_none_or(|mask| mask.count() == 1));
        }
    }
    let merger = Merger {
        whole: numa.mask(),
        // As many nodes as the neediest resource takes at least.
        wanted: lists.iter().filter_map(|list| narrowest(list)).map(Mask::count).max().unwrap_or(0),
        closest: options.prefer_closest && !single,
        numa,
    };
    let mut best = merger.best(&lists);
    if single && best.affinity == Some(merger.whole) {
        best.affinity = None;
    }
    let admitted = match policy {
        Policy::None | Policy::BestEffort => true,
        Policy::Restricted | Policy::SingleNumaNode => best.preferred,
    };
    (best, admitted)
}

fn narrowest(hints: &[Hint]) -> Option<Mask> {
    let masks = hints.iter().filter_map(|hint| hint.affinity);
    masks.reduce(|best, mask| if mask.is_narrower_than(best) { mask } else { best })
}

struct Merger<'a> {
    whole: Mask,
    wanted: usize,
    closest: bool,
    numa: &'a Numa,
}

impl Merger<'_> {
    /// The best of all combinations.
    fn best(&self, lists: &[Vec<Hint>]) -> Hint {
        let mut best: Option<(Mask, bool)> = None;
        let mut chosen = vec![0; lists.len()];
        if lists.iter().all(|list| !list.is_empty()) {
            loop {
                let hints = lists.iter().zip(&chosen).map(|(list, at)| list[*at]);
                let candidate = self.together(hints);
                best = self.better(best, candidate);
                // The last place turns fastest.
                let Some(place) = (0..lists.len()).rev().find(|i| chosen[*i] + 1 < lists[*i].len()) else {
                    break;
                };
                chosen[place] += 1;
                chosen[place + 1..].fill(0);
            }
        }
        let (mask, preferred) = best.unwrap_or((self.whole, false));
        Hint { affinity: Some(mask), preferred }
    }

    /// What is left where all are; preferred if they are all in the same place, and prefer to be.
    fn together(&self, hints: impl Iterator<Item = Hint>) -> (Mask, bool) {
        let (mut mask, mut preferred, mut first) = (self.whole, true, None);
        for hint in hints {
            preferred &= hint.preferred;
            if let Some(affinity) = hint.affinity {
                preferred &= *first.get_or_insert(affinity) == affinity;
                mask = mask.and(affinity);
            }
        }
        (mask, preferred)
    }

    fn better(&self, best: Option<(Mask, bool)>, candidate: (Mask, bool)) -> Option<(Mask, bool)> {
        if candidate.0.is_empty() {
            return best;
        }
        let Some(best) = best else { return Some(candidate) };
        let wins = match (best.1, candidate.1) {
            (false, true) => true,
            (true, false) => false,
            (true, true) => self.fits_better(best.0, candidate.0),
            // Neither is good: as near as can be, from below, to what the neediest takes.
            (false, false) => {
                let (is, new, wanted) = (best.0.count(), candidate.0.count(), self.wanted);
                match (is.cmp(&wanted), new.cmp(&wanted)) {
                    (std::cmp::Ordering::Greater, _) => self.fits_better(best.0, candidate.0),
                    (std::cmp::Ordering::Equal, order) => {
                        order.is_eq() && self.fits_better(best.0, candidate.0)
                    }
                    (_, std::cmp::Ordering::Greater) => false,
                    (_, std::cmp::Ordering::Equal) => true,
                    _ if new == is => self.fits_better(best.0, candidate.0),
                    _ => new > is,
                }
            }
        };
        Some(if wins { candidate } else { best })
    }

    fn fits_better(&self, is: Mask, new: Mask) -> bool {
        if !self.closest || is.count() != new.count() {
            return new.is_narrower_than(is);
        }
        let (before, after) = (self.numa.distance(is), self.numa.distance(new));
        if before == after { new < is } else { after < before }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// `cpu:0! 1! 01` for a resource that prefers one of the nodes; `gpu:` for none to be had, `nic:*` for whatever.
    fn hints(text: &str) -> Hints {
        let mut out = Hints::new();
        for part in text.split("; ").filter(|part| !part.is_empty()) {
            let (resource, ways) = part.split_once(':').unwrap();
            let hints = ways.split_whitespace().map(|way| {
                let nodes = way.trim_end_matches('!').chars().map(|node| node.to_digit(10).unwrap());
                Hint { affinity: Some(nodes.collect()), preferred: way.ends_with('!') }
            });
            out.insert(resource.into(), if ways == "*" { None } else { Some(hints.collect()) });
        }
        out
    }

    #[track_caller]
    fn check(text: &[&str], expected: Expect) {
        let numa = Numa::of(&[
            (0, &[10, 20, 30, 30]),
            (1, &[20, 10, 30, 30]),
            (2, &[30, 30, 10, 11]),
            (3, &[30, 30, 11, 10]),
        ]);
        let providers: Vec<Hints> = text.iter().map(|text| hints(text)).collect();
        let show = |policy, prefer_closest| {
            let options = Options { prefer_closest, ..Default::default() };
            let (hint, admitted) = merge(policy, options, &numa, &providers);
            let nodes = hint
                .affinity
                .map_or("any".into(), |mask| mask.nodes().map(|n| n.to_string()).collect::<String>());
            format!(
                "{nodes}{}{}",
                if hint.preferred { "!" } else { "" },
                if admitted { "" } else { " refused" }
            )
        };
        expected.assert_eq(&format!(
            "{}, {}, {}, closest {}",
            show(Policy::BestEffort, false),
            show(Policy::Restricted, false),
            show(Policy::SingleNumaNode, false),
            show(Policy::BestEffort, true),
        ));
    }

    #[test]
    fn all_together() {
        check(&[], expect!["0123!, 0123!, any!, closest 0123!"]);
        check(&["", "cpu:0! 1! 01"], expect!["0!, 0!, 0!, closest 0!"]);
        check(&["gpu:1!", "cpu:0! 1! 01"], expect!["1!, 1!, 1!, closest 1!"]);
        // Not to be had on one node.
        check(&["gpu:1!", "cpu:0!"], expect!["0123, 0123 refused, any refused, closest 0123"]);
        check(&["gpu:1! 01", "cpu:0! 01"], expect!["0, 0 refused, any refused, closest 0"]);
        check(&["gpu:01!", "cpu:01!"], expect!["01!, 01!, any refused, closest 01!"]);
        check(&["gpu:", "cpu:0!"], expect!["0, 0 refused, any refused, closest 0"]);
        check(&["gpu:*", "cpu:2!"], expect!["2!, 2!, 2!, closest 2!"]);
        // As narrow, but nearer.
        check(&["cpu:01! 23! 0123"], expect!["01!, 01!, any refused, closest 23!"]);
        check(&["cpu:012 23", "gpu:12 23"], expect!["12, 12 refused, any refused, closest 23"]);
    }
}
