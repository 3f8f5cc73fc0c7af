//! Processors for one container alone: with the policy `static`, a container of a Guaranteed pod that asks for whole
//! processors gets them, and everybody else shares the rest. What was given is kept in `cpu_manager_state`.
//! Upstream: `cm/cpumanager`.

mod assign;
pub mod set;

use crate::labels::{CONTAINER_NAME, POD_UID};
use api::core::v1::{Container, Pod};
use assign::Topology;
use cri::RuntimeService;
use cri::v1;
use parking_lot::Mutex;
use rules::container_status::is_restartable_init_container;
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

/// The processors of the node, under the policy `static`.
#[derive(Debug)]
pub(crate) struct Cpus {
    topology: Topology,
    reserved: CpuSet,
    path: PathBuf,
    state: Mutex<State>,
    /// What is shared; told when it changes.
    shared: watch::Sender<CpuSet>,
}

impl Cpus {
    /// `None` with the policy `none`. `reserved` is never given to anybody alone.
    pub(crate) fn load(policy: Policy, root_dir: &Path, reserved: &CpuSet) -> Result<Option<Self>, String> {
        if policy == Policy::None {
            return Ok(None);
        }
        let topology = assign::read();
        let all: CpuSet = topology.keys().copied().collect();
        if reserved.is_empty() {
            return Err(
                "the static policy requires systemreserved.cpu + kubereserved.cpu to be greater than zero"
                    .into(),
            );
        }
        if !reserved.is_subset(&all) {
            return Err(format!("--reserved-cpus {reserved} are not among the machine's {all}"));
        }
        let path = root_dir.join(FILE);
        let state = read(&path, &all)?;
        let shared = watch::Sender::new(state.shared.clone());
        let cpus = Cpus { topology, reserved: reserved.clone(), path, state: Mutex::new(state), shared };
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
        let mut file = File {
            policy_name: "static".into(),
            default_cpu_set: state.shared.to_string(),
            entries,
            checksum: 0,
        };
        let failed = |error: &dyn std::fmt::Display| format!("could not save state to checkpoint: {error}");
        let bytes = serde_json::to_vec(&file).map_err(|error| failed(&error))?;
        file.checksum = apimachinery::rand_name::fnv32a(&bytes);
        let bytes = serde_json::to_vec(&file).map_err(|error| failed(&error))?;
        let temporary = self.path.with_extension("tmp");
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .map_err(|error| failed(&error))
    }

    /// Gives the containers of a pod what they ask for, before it is admitted.
    pub(crate) fn allocate(&self, pod: &Pod) -> Result<(), String> {
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let wanted: Vec<(&Container, usize)> =
            all.map(|container| (container, whole(pod, container))).collect();
        if wanted.iter().all(|(_, count)| *count == 0) {
            return Ok(());
        }
        let mut next = self.state.lock().clone();
        let init = pod.spec.init_containers.len();
        // What an init container is done with is the next one's; a sidecar keeps what it has.
        let mut reuse = CpuSet::default();
        for (index, (container, count)) in wanted.into_iter().enumerate().filter(|(_, (_, count))| *count > 0)
        {
            let own = next.own.entry(pod.metadata.uid.clone()).or_default();
            let given = match own.get(&container.name) {
                Some(before) => before.clone(),
                None => {
                    let free = next.shared.difference(&self.reserved).union(&reuse);
                    let taken = match count <= reuse.len() {
                        true => assign::take(&self.topology, &reuse, count),
                        false => assign::take(&self.topology, &free, count),
                    };
                    let taken = taken.map_err(|_| {
                        format!(
                            "not enough cpus available to satisfy request: requested={count}, available={}",
                            free.len()
                        )
                    })?;
                    next.shared = next.shared.difference(&taken);
                    own.insert(container.name.clone(), taken.clone());
                    taken
                }
            };
            reuse = match index < init && !is_restartable_init_container(container) {
                true => reuse.union(&given),
                false => reuse.difference(&given),
            };
        }
        self.put(next)
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
        // An init container's may be another's by now.
        let kept =
            next.own.values().flat_map(BTreeMap::values).fold(CpuSet::default(), |all, set| all.union(set));
        next.shared = next.shared.union(&back.difference(&kept));
        if let Err(error) = self.put(next) {
            tracing::warn!(error, "the state of CPUs was not written");
        }
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
    if pod_qos(pod) != QosClass::Guaranteed {
        return 0;
    }
    let asked = container.resources.requests.get("cpu").or_else(|| container.resources.limits.get("cpu"));
    let milli = asked.map_or(0, |quantity| quantity.milli_value());
    if milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or(0) } else { 0 }
}

fn read(path: &Path, all: &CpuSet) -> Result<State, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, cpu: &str) -> Pod {
        let resources = serde_json::json!({ "limits": { "cpu": cpu, "memory": "8Mi" }, "requests": { "cpu": cpu, "memory": "8Mi" } });
        serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": uid, "uid": uid },
            "spec": { "containers": [{ "name": "main", "resources": resources }] },
        }))
        .unwrap()
    }

    #[test]
    fn whole_processors_of_guaranteed_pods_only() {
        let dir = tempfile::tempdir().unwrap();
        let topology: Topology = (0..4).map(|cpu| (cpu, assign::Place { socket: 0, core: cpu })).collect();
        let all: CpuSet = topology.keys().copied().collect();
        let cpus = || Cpus {
            topology: topology.clone(),
            reserved: "0".parse().unwrap(),
            path: dir.path().join(FILE),
            state: Mutex::new(read(&dir.path().join(FILE), &all).unwrap()),
            shared: watch::Sender::new(all.clone()),
        };
        let one = cpus();
        let place = |cpus: &Cpus, uid: &str| cpus.of(uid, "main").to_string();
        one.allocate(&pod("shares", "1500m")).unwrap();
        one.allocate(&pod("a", "2")).unwrap();
        assert_eq!((place(&one, "shares").as_str(), place(&one, "a").as_str()), ("0,3", "1-2"));
        assert_eq!(
            one.allocate(&pod("b", "2")).unwrap_err(),
            "not enough cpus available to satisfy request: requested=2, available=1"
        );
        // The next kubelet knows.
        let two = cpus();
        assert_eq!((place(&two, "a").as_str(), place(&two, "x").as_str()), ("1-2", "0,3"));
        two.retain(|uid| uid != "a");
        two.allocate(&pod("c", "3")).unwrap();
        assert_eq!((place(&two, "c").as_str(), place(&two, "x").as_str()), ("1-3", "0"));
        std::fs::write(dir.path().join(FILE), r#"{"policyName":"none","defaultCpuSet":"","checksum":1}"#)
            .unwrap();
        assert!(read(&dir.path().join(FILE), &all).unwrap_err().contains("differs from state checkpoint"));
    }
}
