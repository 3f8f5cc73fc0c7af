//! How much memory and how many huge pages each NUMA node has, and who has been promised what of it: pure, and as it
//! stands in `memory_manager_state`. Upstream: `memorymanager/state`, `policy_static.go`.

use crate::topology::hint::Hint;
use crate::topology::mask::{Mask, subsets};
use crate::topology::numa::Numa;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Bytes by resource: `memory`, `hugepages-2Mi`.
pub(crate) type Amounts = BTreeMap<String, u64>;

/// One resource of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    pub total: u64,
    pub system_reserved: u64,
    pub allocatable: u64,
    pub reserved: u64,
    pub free: u64,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Node {
    pub number_of_assignments: i64,
    pub memory_map: BTreeMap<String, Table>,
    /// The nodes that are given out together with this one.
    pub cells: Vec<u32>,
}

/// What a container was promised of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Block {
    #[serde(rename = "numaAffinity")]
    pub nodes: Vec<u32>,
    #[serde(rename = "type")]
    pub resource: String,
    pub size: u64,
}

/// By pod and container.
pub(crate) type Entries = BTreeMap<String, BTreeMap<String, Vec<Block>>>;

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub nodes: BTreeMap<u32, Node>,
    pub entries: Entries,
}

/// `hugepages-2Mi` for a page of so many bytes.
pub(crate) fn huge_page_name(bytes: u64) -> String {
    let size: apimachinery::quantity::Quantity = bytes.to_string().parse().unwrap_or_default();
    format!("hugepages-{}", size.with_format(apimachinery::quantity::Format::BinarySI))
}

impl State {
    /// A machine of which nobody has anything; `reserved` is the system's.
    pub(crate) fn new(numa: &Numa, reserved: &BTreeMap<u32, Amounts>) -> Self {
        let mut nodes = BTreeMap::new();
        for (number, node) in &numa.0 {
            let kept = |resource: &str| {
                reserved.get(number).and_then(|amounts| amounts.get(resource)).copied().unwrap_or(0)
            };
            let table = |total: u64, resource: &str, other: u64| {
                let system_reserved = kept(resource);
                let allocatable = total.saturating_sub(system_reserved).saturating_sub(other);
                Table { total, system_reserved, allocatable, reserved: 0, free: allocatable }
            };
            let mut memory_map = BTreeMap::new();
            let mut in_pages = 0;
            for (size, count) in &node.huge_pages {
                let name = huge_page_name(*size);
                in_pages += size * count;
                memory_map.insert(name.clone(), table(size * count, &name, 0));
            }
            memory_map.insert("memory".to_owned(), table(node.memory, "memory", in_pages));
            let cells = vec![*number];
            nodes.insert(*number, Node { number_of_assignments: 0, memory_map, cells });
        }
        State { nodes, entries: Entries::new() }
    }

    fn table(&self, node: u32, resource: &str) -> Option<&Table> {
        self.nodes.get(&node)?.memory_map.get(resource)
    }

    fn free(&self, mask: Mask, resource: &str) -> u64 {
        mask.nodes().filter_map(|node| self.table(node, resource)).map(|table| table.free).sum()
    }

    /// The ways to have these amounts; `reusable` is what the pod has there already and is done with. A node that is
    /// given out alone is not given out together with others, nor the other way round.
    pub(crate) fn ways(&self, asked: &Amounts, reusable: impl Fn(Mask, &str) -> u64) -> Vec<Hint> {
        let numbers: Vec<u32> = self.nodes.keys().copied().collect();
        let masks = subsets(&numbers);
        let allocatable = |mask: Mask, resource: &str| {
            let tables = mask.nodes().filter_map(|node| self.table(node, resource));
            tables.map(|table| table.allocatable).sum::<u64>()
        };
        let holds =
            |mask: &&Mask| asked.iter().all(|(resource, size)| allocatable(**mask, resource) >= *size);
        let possible: Vec<Mask> = masks.iter().filter(holds).copied().collect();
        let least = possible.iter().map(|mask| mask.count()).min().unwrap_or(numbers.len());
        let ways = possible.into_iter().filter(|mask| {
            self.groups_allow(*mask)
                && asked
                    .iter()
                    .all(|(resource, size)| self.free(*mask, resource) + reusable(*mask, resource) >= *size)
        });
        ways.map(|mask| Hint { affinity: Some(mask), preferred: mask.count() == least }).collect()
    }

    fn groups_allow(&self, mask: Mask) -> bool {
        let members: Vec<u32> = mask.nodes().collect();
        let mut nodes = members.iter().filter_map(|number| self.nodes.get(number));
        match members.len() {
            1 => nodes.all(|node| node.cells.len() <= 1),
            _ => nodes
                .all(|node| node.number_of_assignments == 0 || node.cells.len() > 1 && node.cells == members),
        }
    }

    /// Whether the nodes have so much free. Upstream: `isAffinitySatisfyRequest`.
    pub(crate) fn satisfies(&self, mask: Mask, asked: &Amounts) -> bool {
        asked.iter().all(|(resource, size)| self.free(mask, resource) >= *size)
    }

    /// Whether the nodes may not be given out together. Upstream: `isAffinityViolatingNUMAAllocations`.
    pub(crate) fn violates(&self, mask: Mask) -> bool {
        mask.count() > 1 && !self.groups_allow(mask)
    }

    /// Promises an amount on these nodes, the first ones first.
    pub(crate) fn take(&mut self, nodes: &[u32], resource: &str, mut size: u64) {
        for number in nodes {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            node.number_of_assignments += 1;
            node.cells = nodes.to_vec();
            if let Some(table) = node.memory_map.get_mut(resource) {
                let here = table.free.min(size);
                table.free -= here;
                table.reserved += here;
                size -= here;
            }
        }
    }

    /// Takes a promise back.
    fn give_back(&mut self, block: &Block) {
        let mut size = block.size;
        for number in &block.nodes {
            let Some(node) = self.nodes.get_mut(number) else { continue };
            node.number_of_assignments -= 1;
            if node.number_of_assignments == 0 {
                node.cells = vec![*number];
            }
            if let Some(table) = node.memory_map.get_mut(&block.resource) {
                let here = table.reserved.min(size);
                table.reserved -= here;
                table.free += here;
                size -= here;
            }
        }
    }

    /// Forgets a container.
    pub(crate) fn release(&mut self, uid: &str, container: &str) -> bool {
        let Some(own) = self.entries.get_mut(uid) else { return false };
        let blocks = own.remove(container);
        if own.is_empty() {
            self.entries.remove(uid);
        }
        blocks.iter().flatten().for_each(|block| self.give_back(block));
        blocks.is_some()
    }

    /// What the containers of these names have of a resource on these nodes.
    pub(crate) fn held(&self, uid: &str, names: &[&str], mask: Mask, resource: &str) -> u64 {
        let own = self.entries.get(uid);
        let blocks = names.iter().filter_map(|name| own?.get(*name)).flatten();
        let here = blocks.filter(|block| {
            block.resource == resource && block.nodes.iter().copied().collect::<Mask>() == mask
        });
        here.map(|block| block.size).sum()
    }

    /// Hands what the containers of these names have on these nodes over to another.
    pub(crate) fn hand_over(&mut self, uid: &str, names: &[&str], block: &Block) {
        let mut left = block.size;
        let Some(own) = self.entries.get_mut(uid) else { return };
        for name in names {
            for other in own.get_mut(*name).into_iter().flatten() {
                if other.resource == block.resource && other.nodes == block.nodes {
                    let moved = other.size.min(left);
                    other.size -= moved;
                    left -= moved;
                }
            }
        }
    }

    /// Whether this is what it would be had all entries just been made on this machine: nobody took memory out, and
    /// nobody reserved otherwise since.
    pub(crate) fn agrees_with(&self, fresh: &State) -> bool {
        let mut expected = fresh.clone();
        for block in self.entries.values().flat_map(BTreeMap::values).flatten() {
            expected.take(&block.nodes, &block.resource, block.size);
        }
        let sums = |state: &State, cells: &[u32], resource: &str| {
            let tables = cells.iter().filter_map(|cell| state.table(*cell, resource));
            tables.fold((0, 0), |(free, reserved), table| (free + table.free, reserved + table.reserved))
        };
        self.nodes.len() == expected.nodes.len()
            && self.nodes.iter().all(|(number, node)| {
                let Some(other) = expected.nodes.get(number) else { return false };
                let fixed = |table: &Table| (table.total, table.system_reserved, table.allocatable);
                node.number_of_assignments == other.number_of_assignments
                    && node.cells == other.cells
                    && node.memory_map.len() == other.memory_map.len()
                    && node.memory_map.iter().all(|(resource, table)| {
                        other.memory_map.get(resource).is_some_and(|other| fixed(table) == fixed(other))
                            && sums(self, &node.cells, resource) == sums(&expected, &node.cells, resource)
                    })
            })
    }
}
