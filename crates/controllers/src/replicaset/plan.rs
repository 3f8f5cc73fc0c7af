//! What to do about the pods of an owner. Pure.

use crate::pods::{Claim, PodFacts, claim, deletion_order};
use apimachinery::labels::Selector;
use apimachinery::time::Time;
use client::Cached;
use std::collections::HashMap;
use std::sync::Arc;

/// How many pods one look creates or deletes at most.
const BURST: usize = 500;

type Pod = Arc<Cached<PodFacts>>;

/// Pods by what the owner does about whose they are.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub ours: Vec<Pod>,
    pub adopt: Vec<Pod>,
    pub release: Vec<Pod>,
}

pub(super) fn claims(seen: Vec<Pod>, uid: &str, owner_deleting: bool, selector: &Selector) -> Claims {
    let mut claims = Claims::default();
    for pod in seen {
        match claim(&pod, uid, owner_deleting, selector) {
            Claim::Ours => claims.ours.push(pod),
            Claim::Adopt if pod.active() => claims.adopt.push(pod),
            Claim::Release if pod.active() => claims.release.push(pod),
            _ => {}
        }
    }
    claims
}

/// The next step towards the wanted number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub create: usize,
    /// Names.
    pub delete: Vec<String>,
}

/// `crowds` are ready pods per node, siblings' included.
pub(super) fn step(active: &[Pod], wanted: usize, crowds: &HashMap<String, usize>, now: Time) -> Step {
    if active.len() <= wanted {
        return Step { create: (wanted - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - wanted).min(BURST);
    let mut ranked: Vec<&Pod> = active.iter().collect();
    let crowd = |pod: &PodFacts| crowds.get(&pod.node).copied().unwrap_or(0);
    ranked.sort_by(|a, b| deletion_order(a, b, crowd, now));
    Step { create: 0, delete: ranked[..surplus].iter().map(|pod| pod.name().to_owned()).collect() }
}
