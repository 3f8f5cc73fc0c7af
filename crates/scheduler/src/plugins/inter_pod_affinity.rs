//! InterPodAffinity: near the pods that a pod wants near, away from those it wants away or that want it away.

use super::topology::Counts;
use crate::facts::{Labels, PodFacts};
use crate::framework::{Candidate, Cycle, Event, Filter, MAX_SCORE, Plugin, Refusal, Score};
use crate::queue::Waiter;
use crate::terms::{Term, Terms};
use client::Cached;

/// What a required term of a placed pod counts when it likes the pod that comes.
const HARD_POD_AFFINITY_WEIGHT: i64 = 1;

pub(super) struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let mut filter =
            Affinity { cycle, near: Counts::default(), far: Counts::default(), unwanted: Counts::default() };
        let (affinity, anti_affinity) = required(cycle);
        let asks = !affinity.is_empty() || !anti_affinity.is_empty();
        for node in cycle.cache.nodes().filter(|n| asks || n.info.anti_affine > 0) {
            for pod in node.info.pods.values() {
                filter.count(pod, &node.facts.labels, 1);
            }
        }
        if !asks && filter.unwanted.is_empty() {
            return None;
        }
        Some(Box::new(filter))
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let preferred = terms(cycle).map_or(&[][..], |t| &t.preferred);
        let mut likes = Likes(Counts::default());
        for node in cycle.cache.nodes().filter(|n| !preferred.is_empty() || n.info.affine > 0) {
            for pod in node.info.pods.values() {
                for (weight, term) in preferred.iter().filter(|(_, term)| means(cycle, term, pod)) {
                    likes.0.add(&term.topology_key, node.label(&term.topology_key), *weight);
                }
                let Some(theirs) = &pod.terms else { continue };
                let required = theirs.affinity.iter().map(|term| (HARD_POD_AFFINITY_WEIGHT, term));
                let preferred = theirs.preferred.iter().map(|(weight, term)| (*weight, term));
                for (weight, term) in required.chain(preferred).filter(|(_, term)| means_us(cycle, term)) {
                    likes.0.add(&term.topology_key, node.label(&term.topology_key), weight);
                }
            }
        }
        if likes.0.is_empty() { None } else { Some(Box::new(likes)) }
    }

    fn helped_by(&self, event: &Event<'_>, _: &Waiter) -> bool {
        matches!(event, Event::PodGone(_) | Event::PodPlaced(_) | Event::Namespace)
            || event.node_changed(|node| &node.labels)
    }
}

fn terms(cycle: Cycle<'_>) -> Option<&Terms> {
    cycle.pod.facts.terms.as_deref()
}

fn required(cycle: Cycle<'_>) -> (&[Term], &[Term]) {
    terms(cycle).map_or((&[], &[]), |t| (&t.affinity, &t.anti_affinity))
}

fn means(cycle: Cycle<'_>, term: &Term, pod: &Cached<PodFacts>) -> bool {
    term.means(pod.namespace(), &pod.labels, || cycle.cache.surroundings.namespace(pod.namespace()))
}

fn means_us(cycle: Cycle<'_>, term: &Term) -> bool {
    means(cycle, term, &cycle.pod.facts)
}

#[derive(Clone)]
struct Affinity<'a> {
    cycle: Cycle<'a>,
    /// Pods that all our affinity terms mean.
    near: Counts,
    /// Pods that an anti-affinity term of ours means.
    far: Counts,
    /// Pods with an anti-affinity term that means us.
    unwanted: Counts,
}

impl Affinity<'_> {
    fn count(&mut self, pod: &Cached<PodFacts>, node: &Labels, by: i64) {
        let cycle = self.cycle;
        let value = |term: &Term| node.get(&term.topology_key).map(String::as_str);
        let (affinity, anti_affinity) = required(cycle);
        if !affinity.is_empty() && affinity.iter().all(|term| means(cycle, term, pod)) {
            for term in affinity {
                self.near.add(&term.topology_key, value(term), by);
            }
        }
        for term in anti_affinity.iter().filter(|term| means(cycle, term, pod)) {
            self.far.add(&term.topology_key, value(term), by);
        }
        let theirs = pod.terms.iter().flat_map(|t| &t.anti_affinity);
        for term in theirs.filter(|term| means_us(cycle, term)) {
            self.unwanted.add(&term.topology_key, value(term), by);
        }
    }

    fn near_enough(&self, node: Candidate<'_>) -> bool {
        let (affinity, _) = required(self.cycle);
        let mut present = true;
        for term in affinity {
            let Some(value) = node.label(&term.topology_key) else { return false };
            present &= self.near.get(&term.topology_key, value) > 0;
        }
        // The first of a series that wants its own kind near may go anywhere.
        present || self.near.is_empty() && affinity.iter().all(|term| means_us(self.cycle, term))
    }
}

impl<'a> Filter<'a> for Affinity<'a> {
    fn filter(&self, node: Candidate<'_>) -> Result<(), Refusal> {
        if !self.near_enough(node) {
            return Err(Refusal::unresolvable("node(s) didn't match pod affinity rules"));
        }
        let (_, anti_affinity) = required(self.cycle);
        let there = |counts: &Counts, key: &str| node.label(key).is_some_and(|v| counts.get(key, v) > 0);
        if anti_affinity.iter().any(|term| there(&self.far, &term.topology_key)) {
            return Err(Refusal::new("node(s) didn't match pod anti-affinity rules"));
        }
        if self.unwanted.keys().any(|key| there(&self.unwanted, key)) {
            return Err(Refusal::new("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        Ok(())
    }

    fn moved(&mut self, pod: &Cached<PodFacts>, node: Candidate<'_>, by: i64) {
        self.count(pod, &node.facts.labels, by);
    }

    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

struct Likes(Counts);

impl Score for Likes {
    fn score(&self, node: Candidate<'_>) -> i64 {
        let keys = self.0.keys().filter_map(|key| Some((key, node.label(key)?)));
        keys.map(|(key, value)| self.0.get(key, value)).sum()
    }

    fn normalize(&self, _: &[Candidate<'_>], scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or(0);
        let range = scores.iter().copied().max().unwrap_or(0) - min;
        for score in scores {
            let share = if range > 0 { (*score - min) as f64 / range as f64 } else { 0.0 };
            *score = (MAX_SCORE as f64 * share) as i64;
        }
    }
}
