//! Where the machine's processors are, and which of them a container gets for itself. Upstream:
//! `cm/cpumanager/cpu_assignment.go`, `topology`.

use super::accumulator::Accumulator;
use super::distribute;
use super::options::Options;
use super::set::CpuSet;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a processor is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub socket: u32,
    /// NUMA node.
    pub node: u32,
    pub core: u32,
    /// The last cache before memory.
    pub cache: u32,
}

/// All processors of the machine.
pub(crate) type Topology = BTreeMap<u32, Place>;

/// Takes `count` of those that are free.
pub(crate) fn take(
    topology: &Topology,
    free: &CpuSet,
    count: usize,
    options: Options,
) -> Result<CpuSet, String> {
    if options.across_numa {
        let group = if options.full_cores { per_core(topology) } else { 1 };
        return distribute::take(topology, free, count, group, options);
    }
    Accumulator::new(topology, free, count).run(options)
}

pub(super) fn short(count: usize, available: usize) -> String {
    format!("not enough cpus available to satisfy request: requested={count}, available={available}")
}

pub(super) fn taken_as_one(cpu: u32) -> CpuSet {
    std::iter::once(cpu).collect()
}

/// How many processors a core has.
pub(super) fn per_core(topology: &Topology) -> usize {
    (topology.len() / number(topology, |at| (at.socket, at.core))).max(1)
}

pub(super) fn sockets(topology: &Topology) -> usize {
    number(topology, |at| (0, at.socket))
}

pub(super) fn nodes(topology: &Topology) -> usize {
    number(topology, |at| (0, at.node))
}

fn number(topology: &Topology, of: impl Fn(&Place) -> (u32, u32)) -> usize {
    topology.values().map(of).collect::<BTreeSet<_>>().len().max(1)
}

/// Some processors, and all others of their cores.
pub(super) fn with_siblings(topology: &Topology, cpus: &CpuSet) -> CpuSet {
    let core = |cpu: &u32| topology.get(cpu).map(|at| (at.socket, at.core));
    let cores: BTreeSet<_> = cpus.0.iter().filter_map(core).collect();
    topology.keys().copied().filter(|cpu| core(cpu).is_some_and(|core| cores.contains(&core))).collect()
}

/// Reads the machine's, beneath `/sys/devices/system`.
pub(crate) fn read(system: &Path) -> Topology {
    let mut out = Topology::new();
    for entry in std::fs::read_dir(system.join("cpu")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        let Some(cpu) = number else { continue };
        let fact = |file: &str| {
            let text = std::fs::read_to_string(entry.path().join("topology").join(file)).ok()?;
            text.trim().parse::<u32>().ok()
        };
        // One that is offline has no place.
        if let Some(core) = fact("core_id") {
            let socket = fact("physical_package_id").unwrap_or(0);
            let cache = std::fs::read_to_string(entry.path().join("cache/index3/id")).ok();
            let cache = cache.and_then(|text| text.trim().parse().ok()).unwrap_or(socket);
            out.insert(cpu, Place { socket, node: 0, core, cache });
        }
    }
    for entry in std::fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let list = std::fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
        let (Some(node), Ok(set)) = (number, list.trim().parse::<CpuSet>()) else { continue };
        for cpu in set.0 {
            if let Some(place) = out.get_mut(&cpu) {
                place.node = node;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of two cores with two threads, numbered as usual: siblings are four apart.
    fn machine() -> Topology {
        let place =
            |cpu: u32| Place { socket: cpu % 4 / 2, node: cpu % 4 / 2, core: cpu % 4, cache: cpu % 4 / 2 };
        (0..8).map(|cpu| (cpu, place(cpu))).collect()
    }

    /// One socket with two NUMA nodes, each with two caches, each of four processors in two cores.
    fn caches() -> Topology {
        let place = |cpu: u32| Place { socket: 0, node: cpu / 8, core: cpu / 2, cache: cpu / 4 };
        (0..16).map(|cpu| (cpu, place(cpu))).collect()
    }

    #[track_caller]
    fn check(topology: &Topology, options: Options, free: &str, count: usize, want: &str) {
        let taken = take(topology, &free.parse().unwrap(), count, options);
        assert_eq!(taken.map_or_else(|error| error, |set| set.to_string()), want, "{count} of {free}");
    }

    #[test]
    fn whole_ones_first() {
        for (free, count, want) in [
            ("0-7", 4, "0-1,4-5"),
            ("0-7", 2, "0,4"),
            ("0-7", 1, "0"),
            ("1-7", 1, "4"),
            ("1-7", 2, "1,5"),
            ("1-7", 4, "2-3,6-7"),
            ("1-7", 3, "1,4-5"),
            ("3", 1, "3"),
        ] {
            check(&machine(), Options::default(), free, count, want);
        }
        let short = "not enough cpus available to satisfy request: requested=3, available=2";
        check(&machine(), Options::default(), "1-2", 3, short);
        assert!(!read(Path::new("/sys/devices/system")).is_empty());
    }

    #[test]
    fn one_of_each_core() {
        let spread = Options { across_cores: true, ..Default::default() };
        for (free, count, want) in
            [("0-7", 2, "0-1"), ("0-7", 3, "0-1,4"), ("1-7", 2, "1,4"), ("2,6", 2, "2,6")]
        {
            check(&machine(), spread, free, count, want);
        }
    }

    #[test]
    fn alike_on_each_node() {
        let alike = Options { across_numa: true, ..Default::default() };
        // The first has enough of one node.
        for (free, count, want) in
            [("0-7", 4, [4, 0]), ("0-7", 6, [3, 3]), ("1-7", 5, [2, 3]), ("0-7", 8, [4, 4])]
        {
            let taken = take(&machine(), &free.parse().unwrap(), count, alike).unwrap();
            let on = |node: u32| taken.0.iter().filter(|cpu| machine()[cpu].node == node).count();
            assert_eq!([on(0), on(1)], want, "{count} of {free}");
        }
        // Whole cores stay whole.
        let cores = Options { full_cores: true, ..alike };
        check(&machine(), cores, "0-7", 6, "0-2,4-6");
    }

    #[test]
    fn behind_one_cache() {
        let near = Options { by_cache: true, ..Default::default() };
        for (free, count, packed, want) in [
            ("0-15", 4, "0-3", "0-3"),
            ("1-15", 4, "2-5", "4-7"),
            ("2-15", 2, "2-3", "2-3"),
            ("2-15", 6, "2-7", "2-7"),
        ] {
            check(&caches(), Options::default(), free, count, packed);
            check(&caches(), near, free, count, want);
        }
    }
}
