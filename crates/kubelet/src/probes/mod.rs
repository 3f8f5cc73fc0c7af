//! Startup, liveness and readiness probes of one pod. [`Probes`] runs one task per running container and kind; results
//! are read by the plan and the status, and every change wakes the pod's worker. Upstream: `pkg/kubelet/prober`.

mod action;
mod grpc;
mod prober;

use crate::events::Events;
use crate::labels;
use crate::runtime_pod::{RuntimePod, State};
use api::core::v1::{Container, Pod, Probe};
use component::metrics::{CounterVec, HistogramVec};
use cri::RuntimeService;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As it stands in events.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    fn spec(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The state of a probe, its thresholds considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unknown,
    Success,
    Failure,
}

/// Outcomes by kind and container id.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Results(HashMap<(Kind, String), Outcome>);

impl Results {
    pub(crate) fn get(&self, kind: Kind, container_id: &str) -> Option<Outcome> {
        // A container has three probes at most, a pod few containers: a scan beats allocating a key.
        self.0.iter().find(|((k, id), _)| *k == kind && id == container_id).map(|(_, outcome)| *outcome)
    }

    /// Sets an outcome; says whether it changed.
    pub(crate) fn set(&mut self, kind: Kind, container_id: &str, outcome: Outcome) -> bool {
        self.0.insert((kind, container_id.to_owned()), outcome) != Some(outcome)
    }
}

/// What probing needs besides the pod.
#[derive(Clone)]
pub(crate) struct Context {
    pub runtime: Arc<dyn RuntimeService>,
    pub events: Events,
    /// Nanoseconds since the epoch when this kubelet started: older containers were adopted.
    pub started_at: i64,
    /// Upstream's `prober_probe_total`.
    pub counted: CounterVec,
    /// Upstream's `prober_probe_duration_seconds`.
    pub timed: HistogramVec,
}

impl Context {
    fn count(&self, pod: &Pod, container: &str, kind: Kind, (result, took): (&str, Duration)) {
        self.counted.with(&Context::labels(pod, container, kind, result)).inc();
        self.timed.with(&Context::timed_labels(pod, container, kind)).observe(took.as_secs_f64());
    }

    /// What is not probed any more is not told of.
    fn forget(&self, pod: &Pod, container: &str, kind: Kind) {
        for result in ["successful", "failed", "unknown"] {
            self.counted.remove(&Context::labels(pod, container, kind, result));
        }
        self.timed.remove(&Context::timed_labels(pod, container, kind));
    }

    fn timed_labels<'a>(pod: &'a Pod, container: &'a str, kind: Kind) -> [&'a str; 4] {
        [kind.as_str(), container, &pod.metadata.name, &pod.metadata.namespace]
    }

    fn labels<'a>(pod: &'a Pod, container: &'a str, kind: Kind, result: &'a str) -> [&'a str; 6] {
        let meta = &pod.metadata;
        [kind.as_str(), result, container, &meta.name, &meta.namespace, &meta.uid]
    }
}

/// State shared with the probing tasks.
pub(crate) struct Shared {
    results: watch::Sender<Results>,
    changed: Arc<Notify>,
    pod: Mutex<Arc<Pod>>,
    pod_ip: Mutex<String>,
}

/// The probes of one pod.
pub(crate) struct Probes {
    context: Context,
    shared: Arc<Shared>,
    tasks: HashMap<(Kind, String), AbortHandle>,
    stopped: bool,
}

impl Probes {
    /// `changed` is woken when an outcome changes.
    pub(crate) fn new(context: Context, pod: Arc<Pod>, changed: Arc<Notify>) -> Self {
        let shared = Shared {
            results: watch::Sender::new(Results::default()),
            changed,
            pod: Mutex::new(pod),
            pod_ip: Mutex::default(),
        };
        Probes { context, shared: Arc::new(shared), tasks: HashMap::new(), stopped: false }
    }

    /// All outcomes.
    pub(crate) fn results(&self) -> Results {
        self.shared.results.borrow().clone()
    }

    /// Starts probing new containers and stops probing those that no longer run.
    pub(crate) fn sync(&mut self, pod: &Arc<Pod>, runtime: &RuntimePod, host_ips: &[String]) {
        *self.shared.pod.lock() = pod.clone();
        let ips = if pod.spec.host_network { host_ips } else { runtime.ips() };
        *self.shared.pod_ip.lock() = ips.first().cloned().unwrap_or_default();
        let mut wanted = Vec::new();
        let sidecars = pod
            .spec
            .init_containers
            .iter()
            .filter(|c| rules::container_status::is_restartable_init_container(c));
        for container in pod.spec.containers.iter().chain(sidecars) {
            let Some(status) = runtime.container(&container.name).filter(|s| s.state == State::Running)
            else {
                continue;
            };
            for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
                if kind.spec(container).is_some() {
                    wanted.push((kind, status, container));
                }
            }
        }
        let known = |kind: Kind, id: &str| wanted.iter().any(|(k, s, _)| *k == kind && s.id == id);
        self.tasks.retain(|(kind, id), task| {
            let keep = known(*kind, id);
            if !keep {
                task.abort();
            }
            keep
        });
        self.shared.results.send_if_modified(|results| {
            let before = results.0.len();
            results.0.retain(|(kind, id), _| known(*kind, id));
            results.0.len() != before
        });
        if self.stopped {
            return;
        }
        for (kind, status, container) in wanted {
            let key = (kind, status.id.clone());
            if self.tasks.contains_key(&key) {
                continue;
            }
            let initial = self.initial(kind, pod, container, &status.id, status.started_at);
            self.shared.results.send_modify(|results| {
                results.set(kind, &status.id, initial);
            });
            let target = prober::Target {
                kind,
                container_id: status.id.clone(),
                started_at: status.started_at,
                container: container.clone(),
            };
            let task = tokio::spawn(prober::run(self.context.clone(), self.shared.clone(), target));
            self.tasks.insert(key, task.abort_handle());
        }
    }

    /// Before the first probe a container is alive and not ready; an adopted one is what it was.
    fn initial(&self, kind: Kind, pod: &Pod, container: &Container, id: &str, started_at: i64) -> Outcome {
        let mut statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let old = statuses.find(|s| s.name == container.name && s.container_id.ends_with(id));
        let adopted = started_at > 0 && started_at < self.context.started_at;
        match (kind, old.filter(|_| adopted)) {
            (Kind::Startup, Some(old)) if old.started == Some(true) => Outcome::Success,
            (Kind::Readiness, Some(old)) if old.ready => Outcome::Success,
            (Kind::Startup, _) => Outcome::Unknown,
            (Kind::Liveness, _) => Outcome::Success,
            (Kind::Readiness, _) => Outcome::Failure,
        }
    }

    /// A pod that is told to go is no longer killed for its health; readiness goes on being watched.
    pub(crate) fn stop_liveness_and_startup(&mut self) {
        self.tasks.retain(|(kind, _), task| {
            if *kind != Kind::Readiness {
                task.abort();
            }
            *kind == Kind::Readiness
        });
        self.shared.results.send_modify(|results| {
            for ((kind, _), outcome) in &mut results.0 {
                if *kind == Kind::Liveness {
                    *outcome = Outcome::Success;
                }
            }
        });
        self.stopped = true;
    }

    /// Ends all probing.
    pub(crate) fn stop(&mut self) {
        self.tasks.drain().for_each(|(_, task)| task.abort());
        let pod = self.shared.pod.lock().clone();
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
                if kind.spec(container).is_some() {
                    self.context.forget(&pod, &container.name, kind);
                }
            }
        }
        self.stopped = true;
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn set(&self, kind: Kind, container_id: &str, outcome: Outcome) {
        if self.results.send_if_modified(|results| results.set(kind, container_id, outcome)) {
            let pod = self.pod.lock().clone();
            tracing::debug!(pod = %labels::format_pod(&pod), probe = kind.as_str(), ?outcome, "probe outcome changed");
            self.changed.notify_one();
        }
    }
}
