//! Which processors a container gets for itself: whole sockets, then whole cores, then what completes begun ones. Pure.
//! Upstream: `cm/cpumanager/cpu_assignment.go`, the packed policy.

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
}

/// All processors of the machine.
pub(crate) type Topology = BTreeMap<u32, Place>;

/// Takes `count` of those that are free.
pub(crate) fn take(topology: &Topology, free: &CpuSet, count: usize) -> Result<CpuSet, String> {
    if free.len() < count {
        return Err("not enough cpus available to satisfy request".into());
    }
    let mut left = free.clone();
    let mut taken = CpuSet::default();
    let by_socket = |place: Place| (place.socket, u32::MAX);
    let by_core = |place: Place| (place.socket, place.core);
    let by_node = |place: Place| (place.node, u32::MAX);
    let number =
        |of: &dyn Fn(Place) -> (u32, u32)| topology.values().map(|at| of(*at)).collect::<BTreeSet<_>>().len();
    // The larger of the two first.
    if number(&by_socket) <= number(&by_node) {
        groups(topology, &mut left, &mut taken, count, by_socket);
        groups(topology, &mut left, &mut taken, count, by_node);
    } else {
        groups(topology, &mut left, &mut taken, count, by_node);
        groups(topology, &mut left, &mut taken, count, by_socket);
    }
    groups(topology, &mut left, &mut taken, count, by_core);
    while taken.len() < count {
        let size = |of: &dyn Fn(Place) -> (u32, u32), set: &CpuSet, cpu: u32| {
            let own = of(place(topology, cpu));
            set.0.iter().filter(|other| of(place(topology, **other)) == own).count()
        };
        // Where something was taken already first, then where least is left over.
        let key = |cpu: &u32| {
            let begun = size(&by_socket, &taken, *cpu);
            (usize::MAX - begun, size(&by_socket, &left, *cpu), size(&by_core, &left, *cpu), *cpu)
        };
        let Some(next) = left.0.iter().copied().min_by_key(key) else { break };
        left.0.remove(&next);
        taken.0.insert(next);
    }
    Ok(taken)
}

fn place(topology: &Topology, cpu: u32) -> Place {
    topology.get(&cpu).copied().unwrap_or_default()
}

/// Takes groups that are wholly free, as many as fit.
fn groups(
    topology: &Topology,
    left: &mut CpuSet,
    taken: &mut CpuSet,
    count: usize,
    of: impl Fn(Place) -> (u32, u32),
) {
    let mut whole: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for at in topology.values() {
        *whole.entry(of(*at)).or_default() += 1;
    }
    for (group, size) in whole {
        let members: CpuSet =
            left.0.iter().copied().filter(|cpu| of(place(topology, *cpu)) == group).collect();
        if members.len() == size && taken.len() + size <= count {
            *left = left.difference(&members);
            *taken = taken.union(&members);
        }
    }
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
            out.insert(cpu, Place { socket: fact("physical_package_id").unwrap_or(0), node: 0, core });
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
        (0..8).map(|cpu| (cpu, Place { socket: cpu % 4 / 2, node: cpu % 4 / 2, core: cpu % 4 })).collect()
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
            let taken = take(&machine(), &free.parse().unwrap(), count).unwrap();
            assert_eq!(taken.to_string(), want, "{count} of {free}");
        }
        assert!(take(&machine(), &"1-2".parse().unwrap(), 3).is_err());
        assert!(!read(Path::new("/sys/devices/system")).is_empty());
    }
}
