//! Devices, processors and memory of a pod are to be near each other: those who give them out say where they have some,
//! and are told where to take it from. Upstream: `cm/topologymanager`.

pub(crate) mod hint;
pub(crate) mod mask;
pub(crate) mod numa;

use crate::metrics::Managers;
use crate::pod_worker::Forced;
use api::core::v1::{Container, Pod};
use component::metrics::CounterVec;
use futures::future::BoxFuture;
use hint::{Hint, Hints, merge};
use numa::Numa;
use std::collections::BTreeMap;

/// `--topology-manager-policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nobody is asked.
    #[default]
    None,
    BestEffort,
    /// Pods that do not get what they prefer are refused.
    Restricted,
    /// So are those that would need more than one node.
    SingleNumaNode,
}

/// `--topology-manager-scope`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each container for itself.
    #[default]
    Container,
    /// All containers of a pod in one place.
    Pod,
}

/// `--topology-manager-policy-options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Among as many nodes, those that are nearest to each other.
    pub prefer_closest: bool,
    pub max_nodes: usize,
}

/// More nodes have too many sets.
const MAX_NODES: usize = 8;

impl Default for Options {
    fn default() -> Self {
        Options { prefer_closest: false, max_nodes: MAX_NODES }
    }
}

impl Options {
    /// From names and values as upstream has them.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Options, String> {
        let mut out = Options::default();
        for (name, value) in options {
            match name.as_str() {
                "prefer-closest-numa-nodes" => {
                    out.prefer_closest =
                        value.parse().map_err(|error| format!("bad value for option {name:?}: {error}"))?;
                }
                "max-allowable-numa-nodes" => {
                    out.max_nodes = value.parse().map_err(|error| {
                        format!("unable to convert policy option to integer {name:?}: {error}")
                    })?;
                    if out.max_nodes < MAX_NODES {
                        return Err(format!(
                            "the minimum value of {name:?} should not be less than {MAX_NODES}"
                        ));
                    }
                }
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        Ok(out)
    }
}

/// How it is told to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    pub policy: Policy,
    pub scope: Scope,
    pub options: Options,
}

/// Why somebody got nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub reason: &'static str,
    pub message: String,
}

impl From<String> for Refusal {
    /// What should not have happened.
    fn from(error: String) -> Self {
        let message = format!("Allocate failed due to {error}, which is unexpected");
        Refusal { reason: "UnexpectedAdmissionError", message }
    }
}

/// Who gives something out.
pub(crate) trait Provider: Send + Sync {
    /// Where a container could have it.
    fn hints(&self, pod: &Pod, container: &Container) -> Hints;
    /// Where all containers of a pod could have it.
    fn pod_hints(&self, pod: &Pod) -> Hints;
    /// Gives it, there as far as it goes.
    fn allocate<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        place: Hint,
    ) -> BoxFuture<'a, Result<(), Refusal>>;
}

/// Where things are, and what is wanted of that.
#[derive(Debug)]
pub(crate) struct Topology {
    settings: Settings,
    numa: Numa,
    turn: tokio::sync::Mutex<()>,
}

impl Topology {
    pub(crate) fn new(settings: Settings, numa: Numa) -> Result<Self, String> {
        let most = settings.options.max_nodes;
        if settings.policy != Policy::None && numa.0.len() > most {
            return Err(format!("unsupported on machines with more than {most} NUMA Nodes"));
        }
        Ok(Topology { settings, numa, turn: tokio::sync::Mutex::default() })
    }

    /// One pod after the other.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn merge(&self, hints: &[Hints]) -> Result<Hint, Forced> {
        let Settings { policy, options, .. } = self.settings;
        match merge(policy, options, &self.numa, hints) {
            (hint, true) => Ok(hint),
            _ => Err(Forced {
                reason: "TopologyAffinityError".into(),
                message: "Resources cannot be allocated with Topology locality".into(),
                ..Default::default()
            }),
        }
    }

    /// Has a pod given all it asks for, before it is admitted.
    pub(crate) async fn admit(
        &self,
        pod: &Pod,
        providers: &[&dyn Provider],
        metrics: &Managers,
    ) -> Result<(), Forced> {
        let is_promised = self.settings.policy == Policy::SingleNumaNode;
        let (is_pods, scope) = match self.settings.scope {
            Scope::Pod => (true, "pod"),
            Scope::Container => (false, "container"),
        };
        let count = |of: &CounterVec| {
            if is_promised {
                of.with(&[scope, "numa_node"]).inc();
            }
        };
        let merge = |hints: &[Hints]| self.merge(hints).inspect_err(|_| count(&metrics.misaligned));
        let whole = match self.settings.policy {
            Policy::None => Some(Hint { affinity: None, preferred: false }),
            _ if is_pods => {
                let hints: Vec<Hints> = providers.iter().map(|one| one.pod_hints(pod)).collect();
                Some(merge(&hints)?)
            }
            _ => None,
        };
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let place = match whole {
                Some(whole) => whole,
                None => {
                    let hints: Vec<Hints> = providers.iter().map(|one| one.hints(pod, container)).collect();
                    merge(&hints)?
                }
            };
            for provider in providers {
                provider.allocate(pod, container, place).await.map_err(|refused| Forced {
                    reason: refused.reason.into(),
                    message: refused.message,
                    ..Default::default()
                })?;
            }
            if !is_pods {
                count(&metrics.aligned);
            }
        }
        if is_pods {
            count(&metrics.aligned);
        }
        Ok(())
    }
}

/// What all containers of a pod need together: the long-running ones at once, ordinary init containers beside the sidecars
/// before them. Upstream: `podGuaranteedCPUs`, `getPodRequestedResources`, `getPodDeviceRequest`.
pub(crate) fn most_at_once(pod: &Pod, of: impl Fn(&Container) -> u64) -> u64 {
    let (mut sidecars, mut beginning) = (0, 0);
    for container in &pod.spec.init_containers {
        match rules::container_status::is_restartable_init_container(container) {
            true => sidecars += of(container),
            false => beginning = beginning.max(sidecars + of(container)),
        }
    }
    (pod.spec.containers.iter().map(of).sum::<u64>() + sidecars).max(beginning)
}

/// The ordinary init containers of a pod, and all others: what the former are done with is the latter's.
pub(crate) fn done_and_lasting(pod: &Pod) -> (Vec<&str>, Vec<&str>) {
    let sidecar = rules::container_status::is_restartable_init_container;
    let (lasting, done): (Vec<&Container>, Vec<&Container>) =
        pod.spec.init_containers.iter().partition(|container| sidecar(container));
    let lasting = lasting.into_iter().chain(&pod.spec.containers);
    (done.into_iter().map(|c| c.name.as_str()).collect(), lasting.map(|c| c.name.as_str()).collect())
}
