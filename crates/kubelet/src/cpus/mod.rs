//! Processors for one container alone: with the policy `static`, a container of a Guaranteed pod that asks for whole
//! processors gets them, and everybody else shares the rest. What was given is kept in `cpu_manager_state`.
//! Upstream: `cm/cpumanager`.

mod accumulator;
mod assign;
mod distribute;
mod hints;
pub mod options;
pub mod set;
#[cfg(test)]
mod tests;

use crate::labels::{CONTAINER_NAME, POD_UID};
use crate::metrics::Pinned;
use crate::saved;
use crate::topology::hint::Hint;
use crate::topology::{Refusal, done_and_lasting};
use api::core::v1::{Container, Pod};
use assign::Topology;
use component::metrics::Counter;
use cri::RuntimeService;
use cri::v1;
use options::Options;
use parking_lot::Mutex;
use rules::qos::{QosClass, pod_qos};
use serde::{Deserialize, Serialize};
use set::CpuSet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// `--cpu-manager-policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Everybody shares everything.
    #[default]
    None,
    Static,
}

const FILE: &str = "cpu_manager_state";

/// What came of asking.
#[derive(Debug)]
enum Given {
    /// Nothing was needed, or it was there before.
    Nothing,
    Now(CpuSet),
}

/// By pod uid and container name.
type Entries = BTreeMap<String, BTreeMap<String, String>>;

/// The state on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default)]
    entries: Entries,
    checksum: u32,
}

/// Who has which processors.
#[derive(Debug, Clone, Default)]
struct State {
    shared: CpuSet,
    own: BTreeMap<String, BTreeMap<String, CpuSet>>,
}

impl State {
    /// What the ordinary init containers of a pod are done with, and no other container of it has.
    fn reusable(&self, pod: &Pod) -> CpuSet {
        let (done, lasting) = done_and_lasting(pod);
        let own = self.own.get(&pod.metadata.uid);
        let all = |names: Vec<&str>| {
            let sets = names.into_iter().filter_map(|name| own?.get(name));
            sets.fold(CpuSet::default(), |all, set| all.union(set))
        };
        all(done).difference(&all(lasting))
    }
}

/// The processors of the node, under the policy `static`.
#[derive(Debug)]
pub(crate) struct Cpus {
    topology: Topology,
    options: Options,
    reserved: CpuSet,
    path: PathBuf,
    state: Mutex<State>,
    /// What is shared; told when it changes.
    shared: watch::Sender<CpuSet>,
    counted: Counted,
}

/// What is counted of those who want processors alone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub pinned: Pinned,
    /// Who was promised whole cores and got them, or did not.
    pub cores: Counter,
    pub no_cores: Counter,
    /// Whose processors are all behind one cache.
    pub caches: Counter,
}

/// How many processors are shared, and how many are not.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub shared: usize,
    pub exclusive: usize,
    /// Of the latter, on each NUMA node.
    pub by_node: BTreeMap<u32, usize>,
}

impl Cpus {
    /// `None` with the policy `none`. `reserved` is never given to anybody alone; where none are named, so many are chosen.
    pub(crate) fn load(
        (policy, options): (Policy, Options),
        system: &Path,
        root_dir: &Path,
        (reserved, number): (&CpuSet, usize),
        counted: Counted,
    ) -> Result<Option<Self>, String> {
        if policy == Policy::None {
            return Ok(None);
        }
        let topology = assign::read(system);
        let all: CpuSet = topology.keys().copied().collect();
        if reserved.is_empty() && number == 0 {
            return Err(
                "the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
                    .into(),
            );
        }
        if !reserved.is_subset(&all) {
            return Err(format!("--reserved-cpus {reserved} are not among the machine's {all}"));
        }
        if options.by_socket && assign::sockets(&topology) > assign::nodes(&topology) {
            return Err("Align by socket is not compatible with hardware where number of sockets are more than number of NUMA".into());
        }
        let reserved = match reserved.is_empty() {
            true => assign::take(&topology, &all, number, options)?,
            false => reserved.clone(),
        };
        let path = root_dir.join(FILE);
        let state = read(&path, &all, &reserved, options)?;
        let shared = watch::Sender::new(state.shared.clone());
        let cpus = Cpus { topology, options, reserved, path, state: Mutex::new(state), shared, counted };
        cpus.write()?;
        Ok(Some(cpus))
    }

    fn write(&self) -> Result<(), String> {
        let state = self.state.lock().clone();
        let entries: Entries = state
            .own
            .iter()
            .map(|(pod, own)| {
                (pod.clone(), own.iter().map(|(name, set)| (name.clone(), set.to_string())).collect())
            })
            .collect();
        let file = File {
            policy_name: "static".into(),
            default_cpu_set: state.shared.to_string(),
            entries,
            checksum: 0,
        };
        saved::checkpoint(&self.path, file, |file| &mut file.checksum)
    }

    /// Gives a container what it asks for, and counts that.
    fn serve(&self, pod: &Pod, container: &Container, place: Hint) -> Result<(), Refusal> {
        if whole(pod, container) == 0 {
            return Ok(());
        }
        self.counted.pinned.requests.inc();
        let outcome = self.give(pod, container, place);
        match &outcome {
            Ok(Given::Now(set)) if self.is_behind_one_cache(set) => self.counted.caches.inc(),
            Ok(_) => {}
            Err(_) => self.counted.pinned.errors.inc(),
        }
        if self.options.full_cores {
            let counter = if outcome.is_ok() { &self.counted.cores } else { &self.counted.no_cores };
            counter.inc();
        }
        outcome.map(drop)
    }

    fn is_behind_one_cache(&self, set: &CpuSet) -> bool {
        let mut caches = set.0.iter().filter_map(|cpu| self.topology.get(cpu)).map(|place| place.cache);
        let first = caches.next();
        caches.all(|cache| Some(cache) == first)
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock().clone();
        let own = state.own.values().flat_map(BTreeMap::values);
        let exclusive = own.fold(CpuSet::default(), |all, set| all.union(set));
        let mut by_node = BTreeMap::new();
        for (cpu, place) in &self.topology {
            *by_node.entry(place.node).or_default() += usize::from(exclusive.0.contains(cpu));
        }
        Counts { shared: state.shared.len(), exclusive: exclusive.len(), by_node }
    }

    /// Gives a container what it asks for, near `place` as far as that goes, before its pod is admitted.
    fn give(&self, pod: &Pod, container: &Container, place: Hint) -> Result<Given, Refusal> {
        let count = whole(pod, container);
        let uid = &pod.metadata.uid;
        let mut next = self.state.lock().clone();
        if count == 0 {
            return Ok(Given::Nothing);
        }
        self.align(count, &next)?;
        if next.own.get(uid).is_some_and(|own| own.contains_key(&container.name)) {
            return Ok(Given::Nothing);
        }
        let reuse = next.reusable(pod);
        let free = next.shared.difference(&self.reserved).union(&reuse);
        let short = |_| assign::short(count, free.len());
        let from = if count <= reuse.len() { &reuse } else { &free };
        let near = place.affinity.map_or_else(CpuSet::default, |mask| self.near(mask, from));
        let first = count.min(near.len());
        let taken = assign::take(&self.topology, &near, first, self.options).map_err(short)?;
        let rest = from.difference(&taken);
        let rest = assign::take(&self.topology, &rest, count - first, self.options).map_err(short)?;
        let taken = taken.union(&rest);
        next.shared = next.shared.difference(&taken);
        next.own.entry(uid.clone()).or_default().insert(container.name.clone(), taken.clone());
        self.put(next)?;
        Ok(Given::Now(taken))
    }

    /// Whether whole cores come to that, where nothing else will do. Upstream: `enforceSMTAlignment`.
    fn align(&self, count: usize, state: &State) -> Result<(), Refusal> {
        if !self.options.full_cores {
            return Ok(());
        }
        let per_core = assign::per_core(&self.topology);
        // Who has a sibling of a reserved processor has no core for itself.
        let reserved = assign::with_siblings(&self.topology, &self.reserved);
        let available = state.shared.difference(&reserved).len();
        let message = if !count.is_multiple_of(per_core) {
            format!("SMT Alignment Error: requested {count} cpus not multiple cpus per core = {per_core}")
        } else if count > available {
            format!(
                "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {count}, CPUs per core = {per_core}"
            )
        } else {
            return Ok(());
        };
        Err(Refusal { reason: "SMTAlignmentError", message })
    }

    /// Takes back what ordinary init containers had that ran before this one.
    pub(crate) fn begins(&self, pod: &Pod, container: &str) {
        let (done, _) = done_and_lasting(pod);
        let mut next = self.state.lock().clone();
        let Some(own) = next.own.get_mut(&pod.metadata.uid) else { return };
        let before = own.len();
        let gone = done.into_iter().take_while(|name| *name != container);
        let back = gone.filter_map(|name| own.remove(name));
        let back = back.fold(CpuSet::default(), |all, set| all.union(&set));
        if own.len() != before {
            self.give_back(next, &back);
        }
    }

    /// Lets everybody have what nobody has any more: an init container's may be another's by now.
    fn give_back(&self, mut next: State, back: &CpuSet) {
        let kept =
            next.own.values().flat_map(BTreeMap::values).fold(CpuSet::default(), |all, set| all.union(set));
        next.shared = next.shared.union(&back.difference(&kept));
        if let Err(error) = self.put(next) {
            tracing::warn!(error, "the state of CPUs was not written");
        }
    }

    fn put(&self, next: State) -> Result<(), String> {
        let shared = next.shared.clone();
        *self.state.lock() = next;
        self.shared.send_if_modified(|known| {
            let changed = *known != shared;
            *known = shared;
            changed
        });
        self.write()
    }

    /// Takes back what pods had that are not among these.
    pub(crate) fn retain(&self, alive: impl Fn(&str) -> bool) {
        let mut next = self.state.lock().clone();
        let before = next.own.len();
        let mut back = CpuSet::default();
        next.own.retain(|uid, own| {
            let stays = alive(uid);
            if !stays {
                back = own.values().fold(std::mem::take(&mut back), |all, set| all.union(set));
            }
            stays
        });
        if next.own.len() == before {
            return;
        }
        self.give_back(next, &back);
    }

    /// Those that a container has for itself.
    pub(crate) fn own(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.state.lock().own.get(uid).and_then(|own| own.get(container)).cloned()
    }

    /// Where a container runs.
    pub(crate) fn of(&self, uid: &str, container: &str) -> CpuSet {
        self.own(uid, container).unwrap_or_else(|| self.state.lock().shared.clone())
    }

    /// Those that may be given to one container alone.
    pub(crate) fn allocatable(&self) -> CpuSet {
        self.topology.keys().copied().collect::<CpuSet>().difference(&self.reserved)
    }

    /// Moves containers that share off what one got for itself, and back when it is free again.
    pub(crate) async fn follow(&self, runtime: Arc<dyn RuntimeService>) {
        let mut shared = self.shared.subscribe();
        while shared.changed().await.is_ok() {
            shared.borrow_and_update();
            let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
            let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
            let listed = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await;
            for container in listed.map(|answer| answer.containers).unwrap_or_default() {
                let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
                let set = self.of(&label(POD_UID), &label(CONTAINER_NAME));
                let linux =
                    v1::LinuxContainerResources { cpuset_cpus: set.to_string(), ..Default::default() };
                let request = v1::UpdateContainerResourcesRequest {
                    container_id: container.id.clone(),
                    linux: Some(linux),
                    ..Default::default()
                };
                if let Err(error) = runtime.update_container_resources(request).await
                    && !error.is_not_found()
                {
                    tracing::warn!(id = %container.id, %error, "a container was not moved to other CPUs");
                }
            }
        }
    }
}

/// Whole processors that a container gets for itself. Upstream: `guaranteedCPUs`.
fn whole(pod: &Pod, container: &Container) -> usize {
    let pod_level = pod.spec.resources.as_ref();
    let pod_level = pod_level.is_some_and(|r| !r.requests.is_empty() || !r.limits.is_empty());
    if pod_qos(pod) != QosClass::Guaranteed || pod_level {
        return 0;
    }
    let asked = container.resources.requests.get("cpu").or_else(|| container.resources.limits.get("cpu"));
    let milli = asked.map_or(0, |quantity| quantity.milli_value());
    if milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or(0) } else { 0 }
}

fn read(path: &Path, all: &CpuSet, reserved: &CpuSet, options: Options) -> Result<State, String> {
    let kept = if options.strict_reservation { reserved.clone() } else { CpuSet::default() };
    let all = &all.difference(&kept);
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(State { shared: all.clone(), ..Default::default() });
        }
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| {
        format!("could not restore state from checkpoint: {error}, please drain this node and delete the CPU manager checkpoint file {:?} before restarting Kubelet", path.display().to_string())
    })?;
    if file.policy_name != "static" {
        return Err(format!(
            "configured policy \"static\" differs from state checkpoint policy {:?}",
            file.policy_name
        ));
    }
    let shared: CpuSet = file.default_cpu_set.parse()?;
    let shown = reserved.difference(&reserved.difference(&shared));
    if options.strict_reservation && !shown.is_empty() {
        return Err(format!(
            "some of strictly reserved cpus: \"{shown}\" are present in defaultCpuSet: \"{shared}\""
        ));
    }
    if !options.strict_reservation && !shared.is_empty() && !reserved.is_subset(&shared) {
        return Err(format!(
            "not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\""
        ));
    }
    let mut own = BTreeMap::new();
    let mut taken = CpuSet::default();
    for (pod, entries) in file.entries {
        let mut sets = BTreeMap::new();
        for (name, text) in entries {
            let set: CpuSet = text.parse()?;
            taken = taken.union(&set);
            sets.insert(name, set);
        }
        own.insert(pod, sets);
    }
    // Processors may have come or gone since.
    Ok(State { shared: all.difference(&taken), own })
}
