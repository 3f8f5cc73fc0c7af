//! Memory of a NUMA node for containers of Guaranteed pods: with the policy `Static`, what they ask for is set aside on as
//! few nodes as hold it, and they use these nodes only. What was promised is kept in `memory_manager_state`. Upstream:
//! `cm/memorymanager`.

mod state;
#[cfg(test)]
mod tests;

use crate::metrics::Pinned;
use crate::saved;
use crate::topology::hint::{Hint, Hints};
use crate::topology::mask::Mask;
use crate::topology::numa::Numa;
use crate::topology::{Provider, Refusal, done_and_lasting, most_at_once};
use api::core::v1::{Container, Pod};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rules::qos::{QosClass, pod_qos};
use serde::{Deserialize, Serialize};
pub(crate) use state::Block;
use state::{Amounts, Entries, Node, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE: &str = "memory_manager_state";
const POLICY: &str = "Static";

/// `reservedMemory`: what the system keeps of each node, by node and resource, in bytes.
pub type Reserved = BTreeMap<u32, BTreeMap<String, u64>>;

/// The state on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    machine_state: BTreeMap<u32, Node>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
    checksum: u32,
}

/// The memory of the node, under the policy `Static`.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    state: Mutex<State>,
    pinned: Pinned,
}

/// What a container asks for. Upstream: `getContainerRequestedResources`.
fn asked(container: &Container) -> Amounts {
    let mine = |name: &str| name == "memory" || name.starts_with("hugepages-");
    let requests = container.resources.requests.iter().filter(|(name, _)| mine(name));
    requests.map(|(name, size)| (name.clone(), u64::try_from(size.value()).unwrap_or(0))).collect()
}

fn is_managed(pod: &Pod) -> bool {
    let pod_level = pod.spec.resources.as_ref();
    let pod_level = pod_level.is_some_and(|r| !r.requests.is_empty() || !r.limits.is_empty());
    pod_qos(pod) == QosClass::Guaranteed && !pod_level
}

fn error(text: &str) -> String {
    format!("[memorymanager] {text}")
}

impl Memory {
    /// `kept` is what node allocatable keeps of memory: as much must be reserved on the nodes together.
    pub(crate) fn load(
        root_dir: &Path,
        numa: &Numa,
        (reserved, kept): (&Reserved, u64),
        pinned: Pinned,
    ) -> Result<Self, String> {
        if let Some(node) = reserved.keys().find(|node| !numa.0.contains_key(node)) {
            return Err(format!(
                "the reserved memory configuration references a NUMA node {node} that does not exist on this machine"
            ));
        }
        let total: u64 = reserved.values().filter_map(|amounts| amounts.get("memory")).sum();
        if total != kept {
            return Err(format!(
                "the total amount {:?} of type \"memory\" is not equal to the value {:?} determined by Node Allocatable feature",
                total.to_string(),
                kept.to_string()
            ));
        }
        if total == 0 {
            return Err(error("you should specify the system reserved memory"));
        }
        let path = root_dir.join(FILE);
        let fresh = State::new(numa, reserved);
        let state = match read(&path)? {
            Some(known) if known.agrees_with(&fresh) => known,
            Some(_) => return Err(error("the expected machine state is different from the real one")),
            None => fresh,
        };
        let memory = Memory { path, state: Mutex::new(state), pinned };
        memory.write()?;
        Ok(memory)
    }

    fn write(&self) -> Result<(), String> {
        let state = self.state.lock().clone();
        let file = File {
            policy_name: POLICY.into(),
            machine_state: state.nodes,
            entries: state.entries,
            checksum: 0,
        };
        saved::checkpoint(&self.path, file, |file| &mut file.checksum)
    }

    /// Sets aside what a container asks for, and counts that.
    fn serve(&self, pod: &Pod, container: &Container, place: Hint) -> Result<(), String> {
        if !is_managed(pod) || asked(container).is_empty() {
            return Ok(());
        }
        self.pinned.requests.inc();
        self.give(pod, container, place).inspect_err(|_| self.pinned.errors.inc())
    }

    fn give(&self, pod: &Pod, container: &Container, place: Hint) -> Result<(), String> {
        let asked = asked(container);
        let uid = &pod.metadata.uid;
        let mut next = self.state.lock().clone();
        if next.entries.get(uid).is_some_and(|own| own.contains_key(&container.name)) {
            return Ok(());
        }
        let (done, _) = done_and_lasting(pod);
        let before: Vec<&str> = done.into_iter().take_while(|name| *name != container.name).collect();
        let best = choose(&next, &asked, place, |mask, resource| next.held(uid, &before, mask, resource))?;
        let nodes: Vec<u32> = best.nodes().collect();
        let blocks: Vec<Block> = asked
            .into_iter()
            .map(|(resource, size)| Block { nodes: nodes.clone(), resource, size })
            .collect();
        for block in &blocks {
            let reused = next.held(uid, &before, best, &block.resource).min(block.size);
            next.take(&nodes, &block.resource, block.size - reused);
            next.hand_over(uid, &before, block);
        }
        next.entries.entry(uid.clone()).or_default().insert(container.name.clone(), blocks);
        *self.state.lock() = next;
        self.write()
    }

    /// Takes back what ordinary init containers had that ran before this one.
    pub(crate) fn begins(&self, pod: &Pod, container: &str) {
        let (done, _) = done_and_lasting(pod);
        let mut state = self.state.lock();
        let mut changed = false;
        for name in done.into_iter().take_while(|name| *name != container) {
            changed |= state.release(&pod.metadata.uid, name);
        }
        drop(state);
        self.note(changed);
    }

    /// Takes back what pods had that are not among these.
    pub(crate) fn retain(&self, alive: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let gone = state.entries.iter().filter(|(uid, _)| !alive(uid));
        let gone: Vec<(String, String)> =
            gone.flat_map(|(uid, own)| own.keys().map(|name| (uid.clone(), name.clone()))).collect();
        gone.iter().for_each(|(uid, name)| {
            state.release(uid, name);
        });
        drop(state);
        self.note(!gone.is_empty());
    }

    fn note(&self, changed: bool) {
        if changed && let Err(error) = self.write() {
            tracing::warn!(error, "the state of memory was not written");
        }
    }

    /// The nodes whose memory a container uses; nothing for one that may use all.
    pub(crate) fn nodes_of(&self, uid: &str, container: &str) -> BTreeSet<u32> {
        self.blocks(uid, container).into_iter().flat_map(|block| block.nodes).collect()
    }

    /// What a container was promised.
    pub(crate) fn blocks(&self, uid: &str, container: &str) -> Vec<Block> {
        let state = self.state.lock();
        state.entries.get(uid).and_then(|own| own.get(container)).cloned().unwrap_or_default()
    }

    /// What there is to give out, by node.
    pub(crate) fn allocatable(&self) -> Vec<Block> {
        let state = self.state.lock();
        let each = state.nodes.iter().flat_map(|(number, node)| {
            let tables = node.memory_map.iter().filter(|(_, table)| table.allocatable > 0);
            tables.map(|(resource, table)| Block {
                nodes: vec![*number],
                resource: resource.clone(),
                size: table.allocatable,
            })
        });
        each.collect()
    }

    /// Those that a container has already, or else those that are to be had.
    fn hints_for(&self, asked: &Amounts, had: Option<&[Block]>, ways: impl Fn(&State) -> Vec<Hint>) -> Hints {
        let each = |hints: &dyn Fn(&str) -> Vec<Hint>| -> Hints {
            asked.keys().map(|resource| (resource.clone(), Some(hints(resource)))).collect()
        };
        let Some(blocks) = had else {
            let ways = ways(&self.state.lock());
            // Upstream's, too, says nothing then: that there is none is told when it is to be given.
            return if ways.is_empty() { Hints::new() } else { each(&|_| ways.clone()) };
        };
        let same = blocks.len() == asked.len()
            && blocks.iter().all(|block| asked.get(&block.resource) == Some(&block.size));
        if !same {
            return Hints::new();
        }
        each(&|resource| {
            let blocks = blocks.iter().filter(|block| block.resource == resource);
            let hint = |block: &Block| Hint {
                affinity: Some(block.nodes.iter().copied().collect()),
                preferred: true,
            };
            blocks.map(hint).collect()
        })
    }
}

/// The nodes to take memory from: those that all prefer, extended if they do not hold it. Upstream: `Allocate`.
fn choose(
    state: &State,
    asked: &Amounts,
    place: Hint,
    reusable: impl Fn(Mask, &str) -> u64,
) -> Result<Mask, String> {
    let ways = state.ways(asked, &reusable);
    let mut best = match place.affinity {
        Some(mask) => Hint { affinity: Some(mask), preferred: place.preferred },
        None => {
            let none =
                "failed to get the default NUMA affinity, no NUMA nodes with enough memory is available";
            let found = best_of(&ways).ok_or_else(|| error(none))?;
            if place.preferred && !found.preferred {
                return Err(error("failed to find the default preferred hint"));
            }
            found
        }
    };
    let mask = best.affinity.unwrap_or_default();
    if !state.satisfies(mask, asked) {
        let wider: Vec<Hint> =
            ways.into_iter().filter(|way| way.affinity.is_some_and(|way| way.covers(mask))).collect();
        let none = "failed to find NUMA nodes to extend the current topology hint";
        let found = best_of(&wider).ok_or_else(|| error(none))?;
        if best.preferred && !found.preferred {
            return Err(error("failed to find the extended preferred hint"));
        }
        best = found;
    }
    let mask = best.affinity.unwrap_or_default();
    if state.violates(mask) {
        return Err(error("preferred hint violates NUMA node allocation"));
    }
    Ok(mask)
}

fn best_of(ways: &[Hint]) -> Option<Hint> {
    ways.iter().copied().reduce(|best, way| {
        let narrower = match (way.affinity, best.affinity) {
            (Some(way), Some(best)) => way.is_narrower_than(best),
            _ => false,
        };
        let wins = way.preferred && !best.preferred || way.preferred == best.preferred && narrower;
        if wins { way } else { best }
    })
}

impl Provider for Memory {
    fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let asked = asked(container);
        if !is_managed(pod) || asked.is_empty() {
            return Hints::new();
        }
        let uid = &pod.metadata.uid;
        let had = self.state.lock().entries.get(uid).and_then(|own| own.get(&container.name)).cloned();
        let (done, _) = done_and_lasting(pod);
        let before: Vec<&str> = done.into_iter().take_while(|name| *name != container.name).collect();
        self.hints_for(&asked, had.as_deref(), |state| {
            state.ways(&asked, |mask, resource| state.held(uid, &before, mask, resource))
        })
    }

    fn pod_hints(&self, pod: &Pod) -> Hints {
        if !is_managed(pod) {
            return Hints::new();
        }
        let names: BTreeSet<String> = pod.spec.containers.iter().flat_map(|c| asked(c).into_keys()).collect();
        let asked: Amounts = names
            .into_iter()
            .map(|name| {
                let size = most_at_once(pod, |c| asked(c).get(&name).copied().unwrap_or(0));
                (name, size)
            })
            .collect();
        if asked.is_empty() {
            return Hints::new();
        }
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let had = {
            let state = self.state.lock();
            let own = state.entries.get(&pod.metadata.uid);
            all.into_iter().find_map(|c| own?.get(&c.name)).cloned()
        };
        self.hints_for(&asked, had.as_deref(), |state| state.ways(&asked, |_, _| 0))
    }

    fn allocate<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        place: Hint,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move { Ok(self.serve(pod, container, place)?) })
    }
}

fn read(path: &Path) -> Result<Option<State>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| {
        format!("could not restore state from checkpoint: {error}, please drain this node and delete the memory manager checkpoint file {:?} before restarting Kubelet", path.display().to_string())
    })?;
    if file.policy_name != POLICY {
        return Err(error(&format!(
            "configured policy {POLICY:?} differs from state checkpoint policy {:?}",
            file.policy_name
        )));
    }
    Ok(Some(State { nodes: file.machine_state, entries: file.entries }))
}
