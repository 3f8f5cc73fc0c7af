//! Which nodes have devices for claims that ask for the same, remembered from pod to pod: looking for devices takes far
//! longer than seeing that nothing has changed on a node since they were looked for.

use super::allocate::Refused;
use super::rows::{Claim, Slice};
use super::{Devices, PoolId, node_of, pool_of};
use crate::facts::Labels;
use crate::framework::Candidate;
use api::resource::v1::{AllocationResult, DeviceClaim};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// So many sorts of claims are remembered.
const KEPT: usize = 16;

/// Which change of what is known of devices was the last: where it matters to every node, and where to one.
pub(super) type Stamp = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// How many there were.
    count: u64,
    everywhere: u64,
    /// Of nodes that have slices of their own: those without are alike, whatever they had.
    on: HashMap<String, u64>,
}

impl Changes {
    fn stamp(&self, node: &str) -> Stamp {
        (self.everywhere, self.on.get(node).copied().unwrap_or(0))
    }

    pub(super) fn happened(&mut self) {
        self.count += 1;
        self.everywhere = self.count;
    }

    fn happened_on(&mut self, node: &str) {
        self.count += 1;
        self.on.insert(node.to_owned(), self.count);
    }

    /// A node has no slices of its own any more.
    pub(super) fn forget(&mut self, node: &str) {
        self.on.remove(node);
    }
}

/// What was found out about a node, as long as nothing changes that it depends on.
#[derive(Debug)]
struct Verdict {
    stamp: Stamp,
    /// Of the node, where not only its name decides which devices it has.
    labels: Option<Labels>,
    refused: Option<&'static str>,
}

/// What is known of nodes for claims that ask for this, by their names.
#[derive(Debug)]
pub struct Known {
    asks: Vec<DeviceClaim>,
    by_node: Mutex<HashMap<Arc<str>, Verdict>>,
}

/// Those that were asked about last come last.
#[derive(Debug, Default)]
pub(super) struct Verdicts(Mutex<Vec<Arc<Known>>>);

impl Devices {
    /// What is known for claims that ask for the same as these.
    pub fn known(&self, claims: &[&Claim]) -> Arc<Known> {
        let mut all = self.verdicts.0.lock();
        let is_it = |known: &Arc<Known>| {
            known.asks.len() == claims.len()
                && known.asks.iter().zip(claims).all(|(asks, claim)| *asks == claim.asks)
        };
        let known = match all.iter().position(is_it) {
            Some(at) => all.remove(at),
            None => {
                let asks = claims.iter().map(|claim| claim.asks.clone()).collect();
                Arc::new(Known { asks, by_node: Mutex::default() })
            }
        };
        if all.len() == KEPT {
            all.remove(0);
        }
        all.push(known.clone());
        known
    }

    /// Whether a node has devices for the claims, which `look` finds out where it is not known. That a claim is wrong is not
    /// remembered.
    pub fn has(
        &self,
        node: Candidate<'_>,
        known: &Known,
        look: impl FnOnce() -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let told = |refused: Option<&'static str>| refused.map_or(Ok(()), |why| Err(Refused::Here(why)));
        let stamp = self.changes.stamp(&node.info.name);
        let by_labels = !self.of_many.is_empty();
        if let Some(verdict) = known.by_node.lock().get(&node.info.name)
            && verdict.stamp == stamp
            && (!by_labels || verdict.labels.as_ref() == Some(&node.facts.labels))
        {
            return told(verdict.refused);
        }
        let refused = match look() {
            Ok(()) => None,
            Err(Refused::Here(why)) => Some(why),
            Err(broken) => return Err(broken),
        };
        let labels = by_labels.then(|| node.facts.labels.clone());
        known.by_node.lock().insert(node.info.name.clone(), Verdict { stamp, labels, refused });
        told(refused)
    }

    /// A node is gone.
    pub fn forget_node(&self, node: &str) {
        self.verdicts.0.lock().iter().for_each(|known| drop(known.by_node.lock().remove(node)));
    }

    /// Something about a pool is otherwise than before: to all nodes that have slices of it.
    fn pool_changed(&mut self, pool: &PoolId) {
        for name in self.of_pool.get(pool).into_iter().flatten() {
            match self.slices.get(name).and_then(|slice| node_of(slice)) {
                Some(node) => self.changes.happened_on(node),
                None => self.changes.happened(),
            }
        }
    }

    /// A slice came, or is about to go.
    pub(super) fn slice_changed(&mut self, slice: &Slice) {
        self.pool_changed(&pool_of(slice));
    }

    /// Devices are taken now, or free again.
    pub(super) fn taken_changed(&mut self, allocation: &AllocationResult) {
        for given in &allocation.devices.results {
            self.pool_changed(&(given.driver.clone(), given.pool.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::facts::NodeFacts;
    use api::resource::v1::ResourceSlice;
    use apimachinery::json;
    use apimachinery::value::from_value;
    use client::Projection as _;

    /// Nodes come and go under ever new names: nothing stays of those that went.
    #[test]
    fn what_is_gone_is_forgotten() {
        let mut cache = Cache::default();
        let mut known = None;
        for i in 0..3 {
            let name = format!("node-{i}");
            cache.set_node(&name, &NodeFacts::project(&Default::default()));
            let slice: ResourceSlice = from_value(json!({"metadata": {"name": name}, "spec": {
                "driver": "d", "nodeName": name, "pool": {"name": name, "resourceSliceCount": 1}}}))
            .unwrap();
            let devices = &mut cache.surroundings.devices;
            devices.set_slice(Arc::new(Slice::of(&slice)));
            assert_eq!(devices.changes.on.len(), 1);
            let known = known.get_or_insert_with(|| devices.known(&[]));
            cache.surroundings.devices.has(cache.node(&name).unwrap(), known, || Ok(())).unwrap();
            assert_eq!(known.by_node.lock().len(), 1);
            cache.surroundings.devices.remove_slice(&name);
            cache.remove_node(&name);
            assert!(known.by_node.lock().is_empty() && cache.surroundings.devices.changes.on.is_empty());
        }
    }
}
