//! Takes processors one group after the other: whole NUMA nodes and sockets, what is behind one cache, whole cores, then
//! single ones; the group with the least that is free first. Pure. Upstream: `cpuAccumulator`.

use super::assign::{Place, Topology, taken_as_one};
use super::options::Options;
use super::set::CpuSet;
use std::collections::BTreeSet;

/// A kind of group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Node,
    Socket,
    Cache,
    Core,
}

impl Level {
    pub(super) fn of(self, place: Place) -> (u32, u32) {
        match self {
            Level::Node => (0, place.node),
            Level::Socket => (0, place.socket),
            Level::Cache => (0, place.cache),
            // Cores are numbered within their socket.
            Level::Core => (place.socket, place.core),
        }
    }
}

type Key = (u32, u32);

pub(super) struct Accumulator<'a> {
    topology: &'a Topology,
    pub(super) free: CpuSet,
    pub(super) taken: CpuSet,
    pub(super) needed: usize,
    /// The larger kind of group first.
    levels: [Level; 2],
}

impl<'a> Accumulator<'a> {
    pub(super) fn new(topology: &'a Topology, free: &CpuSet, count: usize) -> Self {
        let mut new = Accumulator {
            topology,
            free: free.clone(),
            taken: CpuSet::default(),
            needed: count,
            levels: [Level::Node, Level::Socket],
        };
        if new.number(Level::Socket) < new.number(Level::Node) {
            new.levels = [Level::Socket, Level::Node];
        }
        new
    }

    fn place(&self, cpu: u32) -> Place {
        self.topology.get(&cpu).copied().unwrap_or_default()
    }

    /// How many groups of a kind there are.
    fn number(&self, level: Level) -> usize {
        self.topology.values().map(|place| level.of(*place)).collect::<BTreeSet<_>>().len()
    }

    /// How many processors a group has on average.
    fn size(&self, level: Level) -> usize {
        self.topology.len() / self.number(level).max(1)
    }

    /// What is free of a group.
    pub(super) fn free_in(&self, level: Level, key: Key) -> CpuSet {
        self.free.0.iter().copied().filter(|cpu| level.of(self.place(*cpu)) == key).collect()
    }

    /// All of a group.
    fn all_in(&self, level: Level, key: Key) -> CpuSet {
        self.topology.iter().filter(|(_, place)| level.of(**place) == key).map(|(cpu, _)| *cpu).collect()
    }

    fn sorted(&self, level: Level, among: &CpuSet) -> Vec<Key> {
        let keys: BTreeSet<Key> = among.0.iter().map(|cpu| level.of(self.place(*cpu))).collect();
        let mut keys: Vec<Key> = keys.into_iter().collect();
        keys.sort_by_key(|key| (self.free_in(level, *key).len(), *key));
        keys
    }

    /// Groups in which something is free: those within a larger one together.
    pub(super) fn order(&self, level: Level) -> Vec<Key> {
        let [larger, smaller] = self.levels;
        let outer = match level {
            level if level == larger => return self.sorted(level, &self.free),
            level if level == smaller => larger,
            Level::Cache => Level::Node,
            _ => smaller,
        };
        let keys = self.order(outer).into_iter();
        keys.flat_map(|key| self.sorted(level, &self.free_in(outer, key))).collect()
    }

    pub(super) fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.union(cpus);
        self.free = self.free.difference(cpus);
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    pub(super) fn is_done(&self) -> bool {
        self.needed == 0
    }

    /// Groups of which nothing was taken, as long as they are not too large.
    fn take_whole(&mut self, level: Level) {
        let whole = |key: &Key| {
            let free = self.free_in(level, *key).len();
            free == match level {
                Level::Node | Level::Cache => self.all_in(level, *key).len(),
                Level::Socket | Level::Core => self.size(level),
            }
        };
        let keys: Vec<Key> = self.order(level).into_iter().filter(whole).collect();
        for key in keys {
            let all = self.all_in(level, key);
            if self.needed >= all.len() && all.is_subset(&self.free) {
                self.take(&all);
            }
        }
    }

    /// What is needed behind one cache, if it is all there.
    fn take_behind(&mut self, cache: Key) {
        let per_core = self.size(Level::Core).max(1);
        let wanted = self.needed.div_ceil(per_core);
        let here = self.free_in(Level::Cache, cache);
        let cores: BTreeSet<Key> = here.0.iter().map(|cpu| Level::Core.of(self.place(*cpu))).collect();
        let cores: BTreeSet<Key> = cores.into_iter().take(wanted).collect();
        let mut cpus: Vec<u32> = self.free.0.iter().copied().collect();
        cpus.retain(|cpu| cores.contains(&Level::Core.of(self.place(*cpu))));
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.take(&cpus.into_iter().collect());
        }
    }

    fn take_by_cache(&mut self) {
        let size = self.size(Level::Cache);
        for cache in self.order(Level::Cache) {
            if self.needed >= size {
                self.take_whole(Level::Cache);
            }
            if !self.is_done() {
                self.take_behind(cache);
            }
            if self.is_done() {
                return;
            }
        }
    }

    fn take_rest(&mut self, spread: bool) {
        let level = if spread { Level::Socket } else { Level::Core };
        let order: Vec<u32> =
            self.order(level).into_iter().flat_map(|key| self.free_in(level, key).0).collect();
        for cpu in order {
            if self.is_done() {
                return;
            }
            self.take(&taken_as_one(cpu));
        }
    }

    /// Takes all that is needed. Upstream: `takeByTopologyNUMAPacked`.
    pub(super) fn run(mut self, options: Options) -> Result<CpuSet, String> {
        if self.needed > self.free.len() {
            return Err(super::assign::short(self.needed, self.free.len()));
        }
        let [larger, smaller] = self.levels;
        self.take_whole(larger);
        self.take_whole(smaller);
        if options.by_cache && !self.is_done() {
            self.take_by_cache();
        }
        if !options.across_cores && !self.is_done() {
            self.take_whole(Level::Core);
        }
        self.take_rest(options.across_cores);
        match self.is_done() {
            true => Ok(self.taken),
            false => Err("failed to allocate cpus".into()),
        }
    }
}
