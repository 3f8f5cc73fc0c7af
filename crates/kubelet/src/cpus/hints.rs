//! Where processors are to be had. Upstream: `GetTopologyHints` of the static policy.

use super::set::CpuSet;
use super::{Cpus, State, assign, whole};
use crate::topology::hint::{self, Hint, Hints};
use crate::topology::mask::{Mask, subsets};
use crate::topology::{Provider, Refusal, most_at_once};
use api::core::v1::{Container, Pod};
use futures::future::BoxFuture;
use std::collections::BTreeSet;

impl Cpus {
    /// Those of a set that are on these nodes.
    pub(super) fn on(&self, mask: Mask, set: &CpuSet) -> CpuSet {
        let here = |cpu: &u32| self.topology.get(cpu).is_some_and(|place| mask.has(place.node));
        set.0.iter().copied().filter(here).collect()
    }

    /// Those of a set that count as near these nodes.
    pub(super) fn near(&self, mask: Mask, set: &CpuSet) -> CpuSet {
        if !self.options.by_socket {
            return self.on(mask, set);
        }
        let sockets = self.sockets(mask);
        let here = |cpu: &u32| self.topology.get(cpu).is_some_and(|place| sockets.contains(&place.socket));
        set.0.iter().copied().filter(here).collect()
    }

    fn sockets(&self, mask: Mask) -> BTreeSet<u32> {
        self.topology.values().filter(|place| mask.has(place.node)).map(|place| place.socket).collect()
    }

    /// Whether nodes are on as few sockets as so many nodes can be. Upstream: `isHintSocketAligned`.
    fn is_on_few_sockets(&self, mask: Mask, least_nodes: usize) -> bool {
        let per_socket = assign::nodes(&self.topology) / assign::sockets(&self.topology);
        per_socket > 0 && self.sockets(mask).len() == least_nodes.div_ceil(per_socket)
    }

    /// The ways to have so many.
    fn ways(&self, available: &CpuSet, reusable: &CpuSet, request: usize) -> Vec<Hint> {
        let numbers: BTreeSet<u32> = self.topology.values().map(|place| place.node).collect();
        let numbers: Vec<u32> = numbers.into_iter().collect();
        let all: CpuSet = self.topology.keys().copied().collect();
        let masks = subsets(&numbers);
        let mut ways = hint::ways(
            &masks,
            numbers.len(),
            request,
            |mask| self.on(mask, &all).len(),
            // What is there already must be part of it.
            |mask| {
                let reused = self.on(mask, reusable).len();
                (reused == reusable.len()).then(|| reused + self.on(mask, available).len())
            },
        );
        if self.options.by_socket {
            let enough = masks.iter().filter(|mask| self.on(**mask, &all).len() >= request);
            let least = enough.map(|mask| mask.count()).min().unwrap_or(numbers.len());
            for way in &mut ways {
                way.preferred |= way.affinity.is_some_and(|mask| self.is_on_few_sockets(mask, least));
            }
        }
        ways
    }

    /// Says where so many are to be had; `had` is what was given before.
    fn hints_for(&self, request: usize, had: Option<&CpuSet>, state: &State, reusable: &CpuSet) -> Hints {
        if request == 0 {
            return Hints::new();
        }
        let ways = match had {
            Some(had) if had.len() != request => Vec::new(),
            Some(had) => self.ways(had, &CpuSet::default(), request),
            None => self.ways(&state.shared.difference(&self.reserved), reusable, request),
        };
        [("cpu".to_owned(), Some(ways))].into()
    }
}

impl Provider for Cpus {
    fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let state = self.state.lock().clone();
        let had = state.own.get(&pod.metadata.uid).and_then(|own| own.get(&container.name));
        self.hints_for(whole(pod, container), had, &state, &state.reusable(pod))
    }

    fn pod_hints(&self, pod: &Pod) -> Hints {
        let count = |container: &Container| u64::try_from(whole(pod, container)).unwrap_or(0);
        let request = usize::try_from(most_at_once(pod, count)).unwrap_or(0);
        let state = self.state.lock().clone();
        let mut assigned = CpuSet::default();
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let had = state.own.get(&pod.metadata.uid).and_then(|own| own.get(&container.name));
            let Some(had) = had else { continue };
            if had.len() != whole(pod, container) {
                return [("cpu".to_owned(), Some(Vec::new()))].into();
            }
            assigned = assigned.union(had);
        }
        let had = (!assigned.is_empty() && assigned.len() == request).then_some(&assigned);
        self.hints_for(request, had, &state, &state.reusable(pod).union(&assigned))
    }

    fn allocate<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        place: Hint,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move { self.serve(pod, container, place) })
    }
}
