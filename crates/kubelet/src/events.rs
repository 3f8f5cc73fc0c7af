//! Events about pods and their containers, with the container's field path. A thin face of the client's recorder.

use api::core::v1::{Node, ObjectReference, Pod};
use client::Recorder;
use client::recorder::{EventType, reference};

/// Records the kubelet's events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events(pub(crate) Recorder);

fn of_container(pod: &Pod, container: &str) -> ObjectReference {
    let spec = &pod.spec;
    let field = if spec.containers.iter().any(|c| c.name == container) {
        "containers"
    } else if spec.init_containers.iter().any(|c| c.name == container) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    ObjectReference { field_path: format!("spec.{field}{{{container}}}"), ..reference(pod) }
}

impl Events {
    pub(crate) fn normal(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.0.normal(pod, reason, message);
    }

    pub(crate) fn warning(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.0.warning(pod, reason, message);
    }

    pub(crate) fn container_normal(
        &self,
        pod: &Pod,
        container: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.0.event(&of_container(pod, container), EventType::Normal, reason, message);
    }

    pub(crate) fn container_warning(
        &self,
        pod: &Pod,
        container: &str,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.0.event(&of_container(pod, container), EventType::Warning, reason, message);
    }

    /// An event about the node itself, whose reference carries its name as uid, as upstream does.
    pub(crate) fn node(&self, node: &str, kind: EventType, reason: &str, message: impl Into<String>) {
        let about = ObjectReference {
            kind: "Node".into(),
            name: node.into(),
            uid: node.into(),
            ..reference(&Node::default())
        };
        self.0.event(&about, kind, reason, message);
    }
}
