//! What to do about the pods of an owner. Pure.

use crate::pods::{PodFacts, deletion_order};
use apimachinery::time::Time;
use client::Cached;
use std::collections::HashMap;
use std::sync::Arc;

/// How many pods one look creates or deletes at most.
const BURST: usize = 500;

type Pod = Arc<Cached<PodFacts>>;

/// The next step towards the wanted number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub create: usize,
    /// Names.
    pub delete: Vec<String>,
}

/// `crowds` are active pods per node, siblings' included.
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
