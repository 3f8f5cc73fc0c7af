//! What `kubectl get pods` shows. Upstream: `printPod`.

use crate::Column;
use crate::tree::{column, time_age};
use api::core::v1::{Container, ContainerState, ContainerStatus, Pod, PodStatus};
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) const COLUMNS: &[Column] = &[
    column(
        "Name",
        "string",
        0,
        "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    ),
    column("Ready", "string", 0, "The aggregate readiness state of this pod for accepting traffic."),
    column("Status", "string", 0, "The aggregate status of the containers in this pod."),
    column(
        "Restarts",
        "string",
        0,
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    column(
        "Age",
        "string",
        0,
        "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    ),
    column(
        "IP",
        "string",
        1,
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    column(
        "Node",
        "string",
        1,
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    column(
        "Nominated Node",
        "string",
        1,
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    column(
        "Readiness Gates",
        "string",
        1,
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// How often containers were restarted, and when last.
#[derive(Default)]
struct Restarts {
    count: i32,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += status.restart_count;
        let ended =
            status.last_state.terminated.as_ref().and_then(|t| t.finished_at).filter(|t| !t.is_zero());
        self.last = self.last.max(ended);
    }

    fn show(&self, now: Time) -> String {
        match self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, now.since(last).human()),
            _ => self.count.to_string(),
        }
    }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn condition(status: &PodStatus, ty: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == ty && c.status == "True")
}

fn ended(state: &ContainerState) -> Option<String> {
    let terminated = state.terminated.as_ref()?;
    Some(match (terminated.reason.as_str(), terminated.signal) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    })
}

/// Why the first init container that is not done is not, if there is one; counts readiness and restarts on its way.
fn initializing(pod: &Pod, ready: &mut usize, all: &mut Restarts, sidecars: &mut Restarts) -> Option<String> {
    for (i, status) in pod.status.init_container_statuses.iter().enumerate() {
        let container = pod.spec.init_containers.iter().find(|c| c.name == status.name);
        let sidecar = container.is_some_and(is_sidecar);
        all.add(status);
        if sidecar {
            sidecars.add(status);
        }
        let state = &status.state;
        if state.terminated.as_ref().is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if sidecar && status.started == Some(true) {
            *ready += usize::from(status.ready);
            continue;
        }
        let waiting = state.waiting.as_ref().map(|w| w.reason.as_str());
        let why = match (ended(state), waiting) {
            (Some(end), _) => end,
            (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => reason.to_owned(),
            _ => format!("{i}/{}", pod.spec.init_containers.len()),
        };
        return Some(format!("Init:{why}"));
    }
    None
}

/// The word under STATUS, ready containers, restarts.
fn summary(pod: &Pod) -> (String, usize, Restarts) {
    let status = &pod.status;
    let mut reason = if status.reason.is_empty() { status.phase.clone() } else { status.reason.clone() };
    if status.conditions.iter().any(|c| c.type_ == "PodScheduled" && c.reason == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let (mut ready, mut restarts, mut sidecars) = (0, Restarts::default(), Restarts::default());
    let init = initializing(pod, &mut ready, &mut restarts, &mut sidecars);
    let waits = init.is_some();
    if let Some(init) = init {
        reason = init;
    }
    if !waits || condition(status, "Initialized") {
        restarts = sidecars;
        let (mut running, mut error) = (false, None);
        for container in status.container_statuses.iter().rev() {
            restarts.add(container);
            let state = &container.state;
            if let Some(waiting) = state.waiting.as_ref().filter(|w| !w.reason.is_empty()) {
                reason = waiting.reason.clone();
            } else if let Some(end) = ended(state) {
                reason = end;
                if state.terminated.as_ref().is_some_and(|t| t.exit_code != 0) {
                    error = Some(reason.clone());
                }
            } else if container.ready && state.running.is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" {
            if running && condition(status, "Ready") {
                reason = "Running".into();
            } else if let Some(error) = error {
                reason = error;
            } else if running {
                reason = "NotReady".into();
            }
        }
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if status.reason == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    (reason, ready, restarts)
}

pub(super) fn cells(pod: &Pod, now: Time) -> Vec<Value> {
    let (reason, ready, restarts) = summary(pod);
    let total = pod.spec.containers.len() + pod.spec.init_containers.iter().filter(|c| is_sidecar(c)).count();
    let age = time_age(pod.metadata.creation_timestamp, now);
    let or_none = |text: &str| Value::from(if text.is_empty() { "<none>" } else { text });
    let gates = &pod.spec.readiness_gates;
    let passed = gates.iter().filter(|gate| condition(&pod.status, &gate.condition_type)).count();
    vec![
        pod.metadata.name.as_str().into(),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.show(now).into(),
        age.into(),
        or_none(pod.status.pod_ips.first().map_or("", |ip| ip.ip.as_str())),
        or_none(&pod.spec.node_name),
        or_none(&pod.status.nominated_node_name),
        if gates.is_empty() { "<none>".into() } else { format!("{passed}/{}", gates.len()).into() },
    ]
}
