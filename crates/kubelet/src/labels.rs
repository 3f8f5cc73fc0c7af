//! How the kubelet marks sandboxes and containers in the runtime, so that it knows them again after a restart:
//! upstream's labels and annotations (`io.kubernetes.*`), the container hash among them.

use api::core::v1::{Container, ContainerPort, LifecycleHandler, Pod};
use std::collections::HashMap;

pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";
const TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";

/// Where static pods say they come from, and which version of the manifest they are.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
pub(crate) const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Labels of a pod's sandbox: the pod's own, and its identity.
pub(crate) fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().into_iter().collect();
    labels.extend(identity(pod));
    labels
}

/// Labels of a container.
pub(crate) fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = identity(pod).into();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    let meta = &pod.metadata;
    [
        (POD_NAME.into(), meta.name.clone()),
        (POD_NAMESPACE.into(), meta.namespace.clone()),
        (POD_UID.into(), meta.uid.clone()),
    ]
}

/// Annotations of a container: what killing and judging it needs when the pod object is gone.
pub(crate) fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut out = HashMap::from([
        (HASH.into(), format!("{:x}", container_hash(container))),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (TERMINATION_MESSAGE_PATH.into(), container.termination_message_path.clone()),
        (TERMINATION_MESSAGE_POLICY.into(), container.termination_message_policy.clone()),
    ]);
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        out.insert(DELETION_GRACE_PERIOD.into(), seconds.to_string());
    }
    if let Some(seconds) = pod.spec.termination_grace_period_seconds {
        out.insert(TERMINATION_GRACE_PERIOD.into(), seconds.to_string());
    }
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref())
        && let Ok(json) = serde_json::to_string(hook)
    {
        out.insert(PRE_STOP_HANDLER.into(), json);
    }
    if !container.ports.is_empty()
        && let Ok(json) = serde_json::to_string(&container.ports)
    {
        out.insert(PORTS.into(), json);
    }
    out
}

/// What makes a container another one, so that it must be restarted: its name and image.
pub(crate) fn container_hash(container: &Container) -> u64 {
    let picked = apimachinery::json!({"image": container.image, "name": container.name});
    u64::from(rules::template_hash::hash(&picked, None))
}

/// What the annotations of a container say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Annotated {
    pub hash: u64,
    pub restart_count: i32,
    pub termination_message_path: String,
    pub termination_message_policy: String,
    pub deletion_grace_period: Option<i64>,
    pub termination_grace_period: Option<i64>,
    pub pre_stop: Option<LifecycleHandler>,
    pub ports: Vec<ContainerPort>,
}

impl Annotated {
    /// Reads annotations; what is absent or damaged is left at its default.
    pub(crate) fn read(annotations: &HashMap<String, String>) -> Self {
        let text = |key: &str| annotations.get(key).map(String::as_str).unwrap_or_default();
        Annotated {
            hash: u64::from_str_radix(text(HASH), 16).unwrap_or(0),
            restart_count: text(RESTART_COUNT).parse().unwrap_or(0),
            termination_message_path: text(TERMINATION_MESSAGE_PATH).into(),
            termination_message_policy: text(TERMINATION_MESSAGE_POLICY).into(),
            deletion_grace_period: text(DELETION_GRACE_PERIOD).parse().ok(),
            termination_grace_period: text(TERMINATION_GRACE_PERIOD).parse().ok(),
            pre_stop: serde_json::from_str(text(PRE_STOP_HANDLER)).ok(),
            ports: serde_json::from_str(text(PORTS)).unwrap_or_default(),
        }
    }
}

/// Whether the pod was read from a manifest on this node.
pub(crate) fn is_static_pod(pod: &Pod) -> bool {
    pod.metadata.annotations.get(CONFIG_SOURCE).is_some_and(|s| s != "api")
}

/// Whether the pod is the API's image of a static pod.
pub(crate) fn is_mirror_pod(pod: &Pod) -> bool {
    pod.metadata.annotations.contains_key(CONFIG_MIRROR)
}

/// `name_namespace(uid)`, as upstream prints a pod in events.
pub(crate) fn format_pod(pod: &Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}
