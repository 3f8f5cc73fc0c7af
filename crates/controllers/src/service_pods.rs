//! Services and the pods behind them, as the endpoint controllers see them.

use api::core::v1::{ContainerPort, Pod, Service, ServicePort};
use apimachinery::int_or_string::IntOrString;
use apimachinery::time::Time;
use client::informer::Index;
use client::{Cached, Change, Informer, ObjectKey, Projection, Queue};
use rules::pod_conditions;
use std::collections::BTreeMap;

pub(crate) const BY_NAMESPACE: &str = "namespace";

/// What is kept of a Service: whom it selects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServiceFacts {
    /// None for what has no pods of its own.
    pub selector: Option<BTreeMap<String, String>>,
    /// Whether its endpoints are written by somebody else, who may know only `Endpoints`.
    pub mirrors: bool,
}

impl Projection for ServiceFacts {
    type Kind = Service;

    fn project(service: &Service) -> Self {
        let selects = !service.spec.selector.is_empty() && service.spec.type_ != "ExternalName";
        ServiceFacts {
            selector: selects.then(|| service.spec.selector.clone()),
            mirrors: service.spec.selector.is_empty(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |service| vec![service.namespace().to_owned()])]
    }
}

impl ServiceFacts {
    pub(crate) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let Some(selector) = &self.selector else { return false };
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What is kept of a pod: all that shows in endpoints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodFacts {
    pub labels: BTreeMap<String, String>,
    pub ips: Vec<String>,
    pub ready: bool,
    /// When it last became ready, or stopped being so.
    pub ready_changed: Option<Time>,
    pub deleting: bool,
    pub ended: bool,
    pub node: String,
    pub hostname: String,
    pub subdomain: String,
    pub ports: Vec<ContainerPort>,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let sidecars =
            pod.spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let containers = pod.spec.containers.iter().chain(sidecars);
        let mut ips: Vec<String> = pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect();
        if ips.is_empty() && !pod.status.pod_ip.is_empty() {
            ips.push(pod.status.pod_ip.clone());
        }
        PodFacts {
            labels: pod.metadata.labels.clone(),
            ips,
            ready: pod_conditions::is_ready(&pod.status),
            ready_changed: pod_conditions::find(&pod.status.conditions, pod_conditions::READY)
                .and_then(|condition| condition.last_transition_time),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            ended: pod_conditions::is_terminal(&pod.status.phase),
            node: pod.spec.node_name.clone(),
            hostname: pod.spec.hostname.clone(),
            subdomain: pod.spec.subdomain.clone(),
            ports: containers.flat_map(|c| c.ports.iter().cloned()).collect(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |pod| vec![pod.namespace().to_owned()])]
    }
}

impl PodFacts {
    /// The number behind a service's port in this pod; none if the pod has no port of that name.
    pub(crate) fn port(&self, port: &ServicePort) -> Option<i32> {
        match &port.target_port {
            IntOrString::Int(0) => Some(port.port),
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(name) => {
                let named = self
                    .ports
                    .iter()
                    .find(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol));
                named.map(|p| p.container_port)
            }
        }
    }
}

fn protocol(text: &str) -> &str {
    if text.is_empty() { "TCP" } else { text }
}

/// Adds the services that a pod's change concerns: those that select it, or selected it before.
pub(crate) fn feed_pods(
    pods: &Informer<PodFacts>,
    services: &Informer<ServiceFacts>,
    queue: &Queue<ObjectKey>,
) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.subscribe(move |change: &Change<PodFacts>| {
        let new = change.object();
        if change.old().is_some_and(|old| old.projection == new.projection) {
            return;
        }
        for service in services.by_index(BY_NAMESPACE, new.namespace()) {
            let concerned = change.old().into_iter().chain([new]).any(|pod| service.selects(&pod.labels));
            if concerned {
                queue.add(service.key().clone());
            }
        }
    });
}

/// The pods that a service selects, by name.
pub(crate) fn selected(
    pods: &Informer<PodFacts>,
    service: &Cached<ServiceFacts>,
) -> Vec<std::sync::Arc<Cached<PodFacts>>> {
    let mut selected = pods.by_index(BY_NAMESPACE, service.namespace());
    selected.retain(|pod| service.selects(&pod.labels));
    selected
}
