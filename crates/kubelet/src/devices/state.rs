//! Which devices there are, how they are, and whose they are: pure. Upstream: the maps of `devicemanager.ManagerImpl`.

use crate::plugins::device_plugin::{ContainerAllocateResponse, Device};
use crate::topology::done_and_lasting;
use crate::topology::hint::{self, Hint};
use crate::topology::mask::{Mask, subsets};
use api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};

/// Upstream's constant.
const HEALTHY: &str = "Healthy";
/// Devices that belong to no NUMA node are counted under this one.
pub(crate) const NO_NODE: i64 = -1;

/// A device as its plugin told of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub healthy: bool,
    pub nodes: Vec<i64>,
}

/// What a container was given of one resource.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Given {
    /// By NUMA node.
    pub devices: BTreeMap<i64, Vec<String>>,
    pub response: ContainerAllocateResponse,
}

impl Given {
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.devices.values().flatten().cloned().collect()
    }
}

/// The uid of a pod and the name of a container.
pub(crate) type Owner = (String, String);

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Devices by resource and id. A resource without devices was registered before the kubelet's last start.
    pub resources: BTreeMap<String, BTreeMap<String, Known>>,
    /// By owner and resource.
    pub given: BTreeMap<Owner, BTreeMap<String, Given>>,
}

impl State {
    /// The list that a plugin has just sent.
    pub(crate) fn list(&mut self, resource: &str, devices: Vec<Device>) {
        let known = devices.into_iter().map(|device| {
            let nodes = device.topology.into_iter().flat_map(|t| t.nodes).map(|node| node.id).collect();
            (device.id, Known { healthy: device.health == HEALTHY, nodes })
        });
        self.resources.insert(resource.to_owned(), known.collect());
    }

    /// The plugin has gone: nobody vouches for its devices.
    pub(crate) fn unhealthy(&mut self, resource: &str) {
        for device in self.resources.get_mut(resource).into_iter().flat_map(BTreeMap::values_mut) {
            device.healthy = false;
        }
    }

    pub(crate) fn is_known(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.given.values().any(|given| given.contains_key(resource))
    }

    /// All devices of a resource, and the healthy ones among them.
    pub(crate) fn counts(&self, resource: &str) -> (usize, usize) {
        let devices = self.resources.get(resource);
        let healthy = devices.into_iter().flat_map(BTreeMap::values).filter(|device| device.healthy).count();
        (devices.map_or(0, BTreeMap::len), healthy)
    }

    fn in_use(&self, resource: &str) -> BTreeSet<String> {
        self.given.values().filter_map(|given| given.get(resource)).flat_map(Given::ids).collect()
    }

    /// Forgets what pods had that are not among these.
    pub(crate) fn retain(&mut self, alive: impl Fn(&str) -> bool) -> bool {
        let before = self.given.len();
        self.given.retain(|(uid, _), _| alive(uid));
        self.given.len() != before
    }

    /// What is to be had for a container: nothing to do, or what to choose from. Errors are upstream's.
    pub(crate) fn wanted(
        &self,
        owner: &Owner,
        resource: &str,
        required: usize,
        reuse: &BTreeSet<String>,
        place: Option<Mask>,
    ) -> Result<Option<Choice>, String> {
        let before = self.given.get(owner).and_then(|given| given.get(resource)).map(Given::ids);
        if let Some(had) = before.as_ref().map(BTreeSet::len).filter(|had| *had != required) {
            let (pod, container) = owner;
            return Err(format!(
                "pod {pod:?} container {container:?} changed request for resource {resource:?} from {had} to {required}"
            ));
        }
        let devices = self
            .resources
            .get(resource)
            .ok_or_else(|| format!("cannot allocate unregistered device {resource}"))?;
        let healthy: BTreeSet<String> =
            devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id.clone()).collect();
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if let Some(before) = before {
            if !before.is_subset(&healthy) {
                return Err(format!(
                    "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                ));
            }
            return Ok(None);
        }
        let reused: BTreeSet<String> = reuse.iter().take(required).cloned().collect();
        let needed = required - reused.len();
        let in_use = self.in_use(resource);
        let available: BTreeSet<String> = healthy.difference(&in_use).cloned().collect();
        if available.len() < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {}",
                available.len()
            ));
        }
        let part = |near: bool| match place {
            Some(mask) => {
                let nodes =
                    |id: &String| devices.get(id).map(|device| device.nodes.as_slice()).unwrap_or_default();
                let fits = |id: &&String| !nodes(id).is_empty() && mask.has_any(numbers(nodes(id))) == near;
                available.iter().filter(fits).cloned().collect()
            }
            None => BTreeSet::new(),
        };
        let (aligned, unaligned) = (part(true), part(false));
        Ok(Some(Choice { reused, aligned, unaligned, available, required }))
    }

    /// Notes what a container was given.
    pub(crate) fn give(
        &mut self,
        owner: Owner,
        resource: &str,
        ids: BTreeSet<String>,
        response: ContainerAllocateResponse,
    ) {
        let mut given = Given { response, ..Default::default() };
        for id in ids {
            let nodes = self.resources.get(resource).and_then(|devices| devices.get(&id)).map(|d| &d.nodes);
            match nodes.filter(|nodes| !nodes.is_empty()) {
                Some(nodes) => {
                    nodes.iter().for_each(|node| given.devices.entry(*node).or_default().push(id.clone()))
                }
                None => given.devices.entry(NO_NODE).or_default().push(id),
            }
        }
        self.given.entry(owner).or_default().insert(resource.to_owned(), given);
    }
}

/// What a container's devices are chosen from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Where all else is, of those available.
    pub aligned: BTreeSet<String>,
    /// On other nodes.
    pub unaligned: BTreeSet<String>,
    /// Those of the pod's init containers, which come first.
    pub reused: BTreeSet<String>,
    pub available: BTreeSet<String>,
    pub required: usize,
}

impl Choice {
    fn needed(&self) -> usize {
        self.required - self.reused.len()
    }

    /// What its plugin may choose from, if there is anything left to prefer.
    pub(crate) fn open(&self) -> Option<&BTreeSet<String>> {
        let from = if self.needed() < self.aligned.len() { &self.aligned } else { &self.available };
        (self.needed() > 0 && self.needed() < from.len()).then_some(from)
    }

    /// Those that are near if they are enough, the preferred ones first; else all that are near, then the preferred ones,
    /// then any: those that are elsewhere before those that are nowhere.
    pub(crate) fn pick(self, preferred: &[String]) -> BTreeSet<String> {
        let near = self.needed() < self.aligned.len();
        let mut out = self.reused;
        let from = if near { &self.aligned } else { &self.available };
        let preferred = preferred.iter().filter(|id| from.contains(*id));
        let first: &BTreeSet<String> = &self.aligned;
        let (before, behind) = if near { (None, Some(first)) } else { (Some(first), None) };
        let before = before.into_iter().flatten();
        let rest = behind.into_iter().flatten().chain(&self.unaligned).chain(&self.available);
        for id in before.chain(preferred).chain(rest) {
            if out.len() == self.required {
                break;
            }
            out.insert(id.clone());
        }
        out
    }
}

/// The NUMA nodes that there are.
fn numbers(nodes: &[i64]) -> impl Iterator<Item = u32> {
    nodes.iter().filter_map(|node| u32::try_from(*node).ok())
}

impl State {
    /// What the ordinary init containers of a pod are done with, and no other container of it has.
    pub(crate) fn reusable(&self, pod: &Pod, resource: &str) -> BTreeSet<String> {
        let (done, lasting) = done_and_lasting(pod);
        let all = |names: Vec<&str>| -> BTreeSet<String> {
            let given = names.into_iter().filter_map(|name| {
                self.given.get(&(pod.metadata.uid.clone(), name.to_owned()))?.get(resource)
            });
            given.flat_map(Given::ids).collect()
        };
        all(done).difference(&all(lasting)).cloned().collect()
    }

    /// Where so many of a resource are to be had; `had` are those that were given before. Upstream:
    /// `generateDeviceTopologyHints`.
    pub(crate) fn hints(
        &self,
        resource: &str,
        request: usize,
        had: &BTreeSet<String>,
        reusable: &BTreeSet<String>,
    ) -> Option<Vec<Hint>> {
        let devices = self.resources.get(resource)?;
        let on: BTreeSet<u32> = devices.values().flat_map(|device| numbers(&device.nodes)).collect();
        if on.is_empty() {
            return None;
        }
        let available: BTreeSet<String> = match had.is_empty() {
            false if had.len() != request => return Some(Vec::new()),
            false => had.clone(),
            true => {
                let in_use = self.in_use(resource);
                let healthy = devices.iter().filter(|(id, device)| device.healthy && !in_use.contains(*id));
                healthy.map(|(id, _)| id.clone()).collect()
            }
        };
        let none = BTreeSet::new();
        let reusable = if had.is_empty() { reusable } else { &none };
        if available.union(reusable).count() < request {
            return Some(Vec::new());
        }
        let nodes: Vec<u32> = on.into_iter().collect();
        let here = |mask: Mask, id: &String| {
            devices.get(id).is_some_and(|device| mask.has_any(numbers(&device.nodes)))
        };
        let ways = hint::ways(
            &subsets(&nodes),
            nodes.len(),
            request,
            |mask| devices.values().filter(|device| mask.has_any(numbers(&device.nodes))).count(),
            |mask| {
                // Who is nowhere is no part of any place, and no obstacle.
                let placed = |id: &&String| devices.get(*id).is_some_and(|device| !device.nodes.is_empty());
                let reused = reusable.iter().filter(placed);
                let fits = reused.clone().all(|id| here(mask, id));
                fits.then(|| reused.count() + available.iter().filter(|id| here(mask, id)).count())
            },
        );
        Some(ways)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::device_plugin::{NumaNode, TopologyInfo};
    use expect_test::{Expect, expect};

    fn state() -> State {
        let device = |id: &str, health: &str| Device { id: id.into(), health: health.into(), topology: None };
        let mut state = State::default();
        state
            .list("x.io/gpu", vec![device("a", "Healthy"), device("b", "Healthy"), device("c", "Unhealthy")]);
        state
    }

    fn owner(pod: &str) -> Owner {
        (pod.into(), "main".into())
    }

    #[track_caller]
    fn check(state: &State, pod: &str, resource: &str, required: usize, reuse: &[&str], expected: Expect) {
        let reuse = reuse.iter().map(|id| (*id).to_owned()).collect();
        let text = match state.wanted(&owner(pod), resource, required, &reuse, None) {
            Ok(Some(choice)) => {
                choice.pick(&["b".into(), "zzz".into()]).into_iter().collect::<Vec<_>>().join(",")
            }
            Ok(None) => "as before".into(),
            Err(error) => error,
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn devices_are_chosen() {
        let mut state = state();
        assert_eq!(state.counts("x.io/gpu"), (3, 2));
        check(&state, "p", "x.io/gpu", 1, &[], expect![["b"]]);
        check(&state, "p", "x.io/gpu", 2, &[], expect![["a,b"]]);
        check(&state, "p", "x.io/gpu", 1, &["a"], expect![["a"]]);
        check(
            &state,
            "p",
            "x.io/gpu",
            3,
            &[],
            expect![["requested number of devices unavailable for x.io/gpu. Requested: 3, Available: 2"]],
        );
        check(&state, "p", "x.io/fpga", 1, &[], expect![["cannot allocate unregistered device x.io/fpga"]]);
        state.give(owner("p"), "x.io/gpu", BTreeSet::from(["b".into()]), Default::default());
        check(&state, "p", "x.io/gpu", 1, &[], expect![["as before"]]);
        check(&state, "q", "x.io/gpu", 1, &[], expect![["a"]]);
        check(
            &state,
            "p",
            "x.io/gpu",
            2,
            &[],
            expect![[r#"pod "p" container "main" changed request for resource "x.io/gpu" from 1 to 2"#]],
        );
        state.unhealthy("x.io/gpu");
        check(
            &state,
            "q",
            "x.io/gpu",
            1,
            &[],
            expect![["no healthy devices present; cannot allocate unhealthy devices x.io/gpu"]],
        );
        assert!(state.retain(|uid| uid != "p") && state.given.is_empty());
    }

    #[test]
    fn near_ones_come_first() {
        let mut state = State::default();
        let device = |id: &str, nodes: &[i64]| {
            let nodes: Vec<_> = nodes.iter().map(|id| NumaNode { id: *id }).collect();
            let topology = (!nodes.is_empty()).then_some(TopologyInfo { nodes });
            Device { id: id.into(), health: "Healthy".into(), topology }
        };
        let all = vec![
            device("a", &[0]),
            device("b", &[1]),
            device("c", &[1]),
            device("d", &[0, 1]),
            device("e", &[]),
        ];
        state.list("x.io/gpu", all);
        let pick = |required: usize, node: u32, preferred: &[&str]| {
            let mask = Some([node].into_iter().collect());
            let choice =
                state.wanted(&owner("p"), "x.io/gpu", required, &BTreeSet::new(), mask).unwrap().unwrap();
            let open = choice.open().map(|ids| ids.iter().cloned().collect::<String>()).unwrap_or_default();
            let preferred: Vec<String> = preferred.iter().map(|id| (*id).to_owned()).collect();
            format!("{} of {open}", choice.pick(&preferred).into_iter().collect::<String>())
        };
        assert_eq!(pick(1, 1, &[]), "b of bcd");
        assert_eq!(pick(1, 1, &["a", "d"]), "d of bcd");
        assert_eq!(pick(3, 0, &["e"]), "ade of abcde");
        assert_eq!(pick(3, 0, &[]), "abd of abcde");
        let shown = |request: usize| {
            let hints = state.hints("x.io/gpu", request, &BTreeSet::new(), &BTreeSet::new());
            let shown = hints.into_iter().flatten().map(|hint| {
                let nodes: String = hint.affinity.unwrap().nodes().map(|node| node.to_string()).collect();
                format!("{nodes}{}", if hint.preferred { "!" } else { "" })
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        assert_eq!([shown(1), shown(3), shown(4), shown(6)], ["0! 1! 01", "1! 01", "01!", ""]);
    }
}
