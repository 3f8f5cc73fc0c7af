//! The pools that have devices for a node, as far as their newest generation is published. Upstream: `GatherPools`.

use super::rows::Slice;
use super::{Devices, PoolId};
use crate::framework::Candidate;
use api::core::v1::NodeSelector;
use api::resource::v1::{Counter, CounterSet, Device};
use rules::node_affinity::matches_selector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether devices can be had of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Good,
    /// Not all of its slices are there.
    Incomplete,
    /// What its slices say cannot be.
    Invalid,
}

/// A pool, as a node sees it.
#[derive(Debug)]
pub(super) struct Pool<'a> {
    pub(super) id: PoolId,
    pub(super) state: State,
    /// Slices with devices for the node, by name.
    pub(super) slices: Vec<&'a Slice>,
    /// Those that have none for it.
    pub(super) elsewhere: Vec<&'a Slice>,
    pub(super) counters: BTreeMap<&'a str, &'a CounterSet>,
}

impl Pool<'_> {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.id.0, self.id.1)
    }
}

fn matches(
    node: Candidate<'_>,
    name: Option<&String>,
    all: Option<bool>,
    selector: Option<&NodeSelector>,
) -> bool {
    match (name.filter(|name| !name.is_empty()), all, selector) {
        (Some(name), ..) => **name == *node.info.name,
        (None, Some(true), _) => true,
        (None, _, Some(selector)) => matches_selector(selector, &node.info.name, &node.facts.labels),
        (None, _, None) => false,
    }
}

/// Whether a device of a slice whose devices say themselves where they are can be had on a node.
pub(super) fn device_is_for(device: &Device, node: Candidate<'_>) -> bool {
    matches(node, device.node_name.as_ref(), device.all_nodes, device.node_selector.as_ref())
}

impl Slice {
    /// Whether its devices overlap, or say themselves where they are.
    fn is_partitioned(&self) -> bool {
        self.spec.per_device_node_selection.is_some() || !self.spec.shared_counters.is_empty()
    }

    /// Whether a node need know the slice. One that says nothing that is known here is for no node.
    fn is_for(&self, node: Candidate<'_>) -> bool {
        let spec = &self.spec;
        if !spec.shared_counters.is_empty() {
            return true;
        }
        if spec.per_device_node_selection == Some(true) {
            return spec.devices.iter().any(|device| device_is_for(device, node));
        }
        matches(node, spec.node_name.as_ref(), spec.all_nodes, spec.node_selector.as_ref())
    }
}

impl Devices {
    /// The pools of a node: by driver and name, those last that have devices which take time to be bound.
    pub(super) fn pools(&self, node: Candidate<'_>) -> Vec<Pool<'_>> {
        let mut of_node: BTreeMap<PoolId, Vec<&Slice>> = BTreeMap::new();
        let own = self.of_node.get(&*node.info.name).into_iter().flatten();
        let names: BTreeSet<&String> = own.chain(&self.of_many).collect();
        let slices = names.into_iter().filter_map(|name| self.slices.get(name));
        let known = |slice: &&Arc<Slice>| self.features.partitionable_devices || !slice.is_partitioned();
        for slice in slices.filter(known).filter(|slice| slice.is_for(node)) {
            let known = of_node.entry(super::pool_of(slice)).or_default();
            let newest = known.first().map_or(i64::MIN, |first| first.spec.pool.generation);
            if slice.spec.pool.generation > newest {
                known.clear();
            }
            if slice.spec.pool.generation >= newest {
                known.push(slice);
            }
        }
        let pools = of_node.into_iter().filter_map(|(id, slices)| self.pool(id, slices));
        let (late, mut pools): (Vec<_>, Vec<_>) = pools.partition(Pool::waits);
        pools.extend(late);
        pools
    }

    /// A pool of which a node knows these slices; none if it is about to be replaced by one that has nothing for the node.
    fn pool<'a>(&'a self, id: PoolId, slices: Vec<&'a Slice>) -> Option<Pool<'a>> {
        let pool = &slices.first()?.spec.pool;
        let mut elsewhere = Vec::new();
        if slices.len() as i64 != pool.resource_slice_count {
            let names = self.of_pool.get(&id).into_iter().flatten();
            let all: Vec<&Slice> =
                names.filter_map(|name| self.slices.get(name)).map(|slice| &**slice).collect();
            if all.iter().any(|slice| slice.spec.pool.generation > pool.generation) {
                return None;
            }
            let known: BTreeSet<&str> = slices.iter().map(|slice| slice.name.as_str()).collect();
            let same = all.into_iter().filter(|slice| slice.spec.pool.generation == pool.generation);
            elsewhere = same.filter(|slice| !known.contains(slice.name.as_str())).collect();
        }
        let complete = (slices.len() + elsewhere.len()) as i64 == pool.resource_slice_count;
        let (shared, slices): (Vec<&Slice>, Vec<&Slice>) =
            slices.into_iter().partition(|slice| !slice.spec.shared_counters.is_empty());
        let counters = counters(&shared);
        // Without partitions nobody looks at counters.
        let are_counted = !self.features.partitionable_devices
            || counters.as_ref().is_some_and(|sets| counted(&slices, sets) && counted(&elsewhere, sets));
        let state = match complete {
            false => State::Incomplete,
            true if are_counted && names_are_unique(&slices) => State::Good,
            true => State::Invalid,
        };
        Some(Pool { id, state, slices, elsewhere, counters: counters.unwrap_or_default() })
    }
}

impl Pool<'_> {
    fn waits(&self) -> bool {
        let mut devices = self.slices.iter().flat_map(|slice| &slice.spec.devices);
        self.state == State::Good && devices.any(|device| !device.binding_conditions.is_empty())
    }
}

/// All sets of counters by name; nothing if two have one name.
fn counters<'a>(slices: &[&'a Slice]) -> Option<BTreeMap<&'a str, &'a CounterSet>> {
    let mut sets = BTreeMap::new();
    for set in slices.iter().flat_map(|slice| &slice.spec.shared_counters) {
        if sets.insert(set.name.as_str(), set).is_some() {
            return None;
        }
    }
    Some(sets)
}

fn names_are_unique(slices: &[&Slice]) -> bool {
    let mut names = BTreeSet::new();
    slices.iter().flat_map(|slice| &slice.spec.devices).all(|device| names.insert(&device.name))
}

/// Whether all counters that devices consume are there.
fn counted(slices: &[&Slice], sets: &BTreeMap<&str, &CounterSet>) -> bool {
    let devices = slices.iter().flat_map(|slice| &slice.spec.devices);
    devices.flat_map(|device| &device.consumes_counters).all(|consumed| {
        let set = sets.get(consumed.counter_set.as_str());
        set.is_some_and(|set| consumed.counters.keys().all(|name| set.counters.contains_key(name)))
    })
}

/// What a device consumes, by set and name of the counter.
pub(super) fn consumes(device: &Device) -> impl Iterator<Item = ((&str, &str), &Counter)> {
    device.consumes_counters.iter().flat_map(|consumed| {
        let set = consumed.counter_set.as_str();
        consumed.counters.iter().map(move |(name, counter)| ((set, name.as_str()), counter))
    })
}
