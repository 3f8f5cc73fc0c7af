//! The machine's NUMA nodes: their memory, huge pages and how far they are from each other.

use super::mask::Mask;
use std::collections::BTreeMap;
use std::path::Path;

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NumaNode {
    /// Bytes.
    pub memory: u64,
    /// Bytes of a page, and how many there are.
    pub huge_pages: Vec<(u64, u64)>,
    /// From each node, in order.
    pub distances: Vec<u64>,
}

/// All nodes, by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numa(pub(crate) BTreeMap<u32, NumaNode>);

impl Numa {
    /// Reads `/sys/devices/system/node`. A machine without it is one node, of which `memory` says how large it is.
    pub(crate) fn read(system: &Path, memory: u64) -> Self {
        let mut nodes = BTreeMap::new();
        for entry in std::fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
            if let Some(number) = number {
                nodes.insert(number, read(&entry.path()));
            }
        }
        if nodes.is_empty() {
            nodes.insert(0, NumaNode { memory, distances: vec![10], ..Default::default() });
        }
        Numa(nodes)
    }

    pub(crate) fn mask(&self) -> Mask {
        self.0.keys().copied().collect()
    }

    /// How far the nodes are from each other on average, in thousandths.
    pub(crate) fn distance(&self, of: Mask) -> u64 {
        let far = |from: u32, to: u32| {
            let place = self.0.keys().position(|number| *number == to);
            let distances = self.0.get(&from).map(|node| node.distances.as_slice()).unwrap_or_default();
            place.and_then(|place| distances.get(place)).copied().unwrap_or(0)
        };
        let sum: u64 = of.nodes().flat_map(|from| of.nodes().map(move |to| far(from, to))).sum();
        let count = u64::try_from(of.count()).unwrap_or(1).max(1);
        sum * 1000 / (count * count)
    }

    #[cfg(test)]
    pub(crate) fn of(nodes: &[(u32, &[u64])]) -> Self {
        let node = |distances: &[u64]| NumaNode { distances: distances.to_vec(), ..Default::default() };
        Numa(nodes.iter().map(|(number, distances)| (*number, node(distances))).collect())
    }
}

fn read(dir: &Path) -> NumaNode {
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let total = text("meminfo").lines().find_map(|line| {
        let (_, rest) = line.split_once("MemTotal:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    let mut huge_pages = Vec::new();
    for entry in std::fs::read_dir(dir.join("hugepages")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name
            .to_str()
            .and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        if let Some(size) = size {
            huge_pages.push((size * 1024, count.trim().parse().unwrap_or(0)));
        }
    }
    huge_pages.sort_unstable();
    NumaNode {
        memory: total.unwrap_or(0) * 1024,
        huge_pages,
        distances: text("distance").split_whitespace().filter_map(|far| far.parse().ok()).collect(),
    }
}
