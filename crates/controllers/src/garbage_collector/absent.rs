//! Owners that are known to be gone: the last few hundred, so that a thousand dependents ask the server once.

use super::names::Coordinates;
use std::collections::{HashSet, VecDeque};

/// Upstream's size of this cache.
const MOST: usize = 500;

#[derive(Debug, Default)]
pub(super) struct AbsentOwners {
    known: HashSet<Coordinates>,
    order: VecDeque<Coordinates>,
}

impl AbsentOwners {
    pub(super) fn add(&mut self, at: Coordinates) {
        if !self.known.insert(at.clone()) {
            return;
        }
        self.order.push_back(at);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, at: &Coordinates) -> bool {
        self.known.contains(at)
    }
}
