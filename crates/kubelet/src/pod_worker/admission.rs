//! Whether a pod may run on this node: pure. The scheduler has judged already; the kubelet judges again, because binding
//! and state may differ. Upstream: `pkg/kubelet/lifecycle/predicate.go`.

use super::status::Forced;
use crate::config::Config;
use api::core::v1::{Container, Node, Pod};
use rules::pod_requests::{Options, amount, requests_as};
use rules::quota::is_extended;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A resource that the node has too little of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lack {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl Lack {
    pub(super) fn missing(&self) -> i64 {
        self.requested - (self.capacity - self.used)
    }

    fn refusal(&self) -> Forced {
        let Lack { resource, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Forced { reason: format!("OutOf{resource}"), message, ..Default::default() }
    }
}

/// A pod without the requests that are not the node's to meet: of extended resources that devices give it, and of those that
/// the node does not know. Upstream: `removeMissingExtendedResources`.
fn without_foreign<'a>(config: &Config, pod: &'a Pod, node: &Node) -> Cow<'a, Pod> {
    let mappings = config.extended_claims().of(pod).into_iter().flat_map(|status| &status.request_mappings);
    let by_devices: Vec<(&str, &str)> =
        mappings.map(|m| (m.container_name.as_str(), m.resource_name.as_str())).collect();
    let is_foreign = |container: &Container, name: &String| {
        let unknown = is_extended(name) && !node.status.allocatable.contains_key(name);
        unknown || by_devices.contains(&(&container.name, name))
    };
    let has_foreign = |c: &Container| c.resources.requests.keys().any(|name| is_foreign(c, name));
    if !pod.spec.containers.iter().chain(&pod.spec.init_containers).any(has_foreign) {
        return Cow::Borrowed(pod);
    }
    let mut own = pod.clone();
    for container in own.spec.containers.iter_mut().chain(&mut own.spec.init_containers) {
        let foreign: Vec<String> =
            container.resources.requests.keys().filter(|name| is_foreign(container, name)).cloned().collect();
        container.resources.requests.retain(|name, _| !foreign.contains(name));
    }
    Cow::Owned(own)
}

/// What the node lacks for a pod beside others. Upstream: `noderesources.Fits`.
pub(super) fn lacks(config: &Config, pod: &Pod, node: &Node, others: &[Arc<Pod>]) -> Vec<Lack> {
    let allocatable = &node.status.allocatable;
    let requests = requests_as::<i64>(&without_foreign(config, pod, node), Options::default());
    let mut out = Vec::new();
    let pods = allocatable.get("pods").map_or(0, |q| q.value());
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > pods {
        out.push(Lack { resource: "pods".into(), requested: 1, used: count, capacity: pods });
    }
    let mut taken: BTreeMap<String, i64> = BTreeMap::new();
    for other in others {
        for (name, more) in requests_as::<i64>(other, Options { use_status: true, ..Default::default() }) {
            *taken.entry(name).or_default() += more;
        }
    }
    for (name, requested) in requests.into_iter().filter(|(_, requested)| *requested > 0) {
        let capacity = allocatable.get(&name).map_or(0, |q| amount(&name, q));
        let used = taken.get(&name).copied().unwrap_or(0);
        if requested > capacity - used {
            out.push(Lack { resource: name, requested, used, capacity });
        }
    }
    out
}

/// Refuses with upstream's reason and message.
pub(crate) fn admit(config: &Config, pod: &Pod, node: &Node, others: &[Arc<Pod>]) -> Result<(), Forced> {
    let refuse = |reason: String, message: String| Err(Forced { reason, message, ..Default::default() });
    if let Some(os) = &pod.spec.os
        && os.name != "linux"
    {
        return refuse(
            "PodOSNotSupported".into(),
            "Failed to admit pod as the OS field doesn't match node OS".into(),
        );
    }
    declares(pod, &crate::node::status::DECLARED)?;
    if node.metadata.name.is_empty() {
        // Without a node object nothing can be compared; upstream waits for it, and so do our callers.
        return Ok(());
    }
    if let Some(lack) = lacks(config, pod, node, others).first() {
        return Err(lack.refusal());
    }
    suits(pod, node, others)
}

/// Whether what the pod needs of newer versions is among what this kubelet can do.
fn declares(pod: &Pod, declared: &[&str]) -> Result<(), Forced> {
    let declared: Vec<String> = declared.iter().map(|name| (*name).to_owned()).collect();
    let missing = rules::declared_features::missing(&rules::declared_features::to_run(&pod.spec), &declared);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("Pod requires node features that are not available: {}", missing.join(", "));
    Err(Forced { reason: "PodFeatureUnsupported".into(), message, ..Default::default() })
}

/// Whether the node would be right if it had enough of everything.
pub(super) fn suits(pod: &Pod, node: &Node, others: &[Arc<Pod>]) -> Result<(), Forced> {
    let refuse = |reason: String, message: String| Err(Forced { reason, message, ..Default::default() });
    if !rules::node_affinity::required_node_affinity(&pod.spec, &node.metadata.name, &node.metadata.labels) {
        return refuse(
            "NodeAffinity".into(),
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
        );
    }
    if !pod.spec.node_name.is_empty() && pod.spec.node_name != node.metadata.name {
        return refuse(
            "NodeName".into(),
            "Predicate NodeName failed: node(s) didn't match the requested node name".into(),
        );
    }
    if others.iter().any(|other| ports_conflict(pod, other)) {
        return refuse(
            "NodePorts".into(),
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
        );
    }
    let no_execute = |taint: &api::core::v1::Taint| taint.effect == rules::taints::NO_EXECUTE;
    let tolerations = &pod.spec.tolerations;
    if !crate::labels::is_static_pod(pod)
        && rules::taints::first_untolerated(&node.spec.taints, tolerations, no_execute).is_some()
    {
        return refuse(
            "TaintToleration".into(),
            "Predicate TaintToleration failed: node(s) had untolerated taint(s)".into(),
        );
    }
    Ok(())
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = (&str, &str, i32)> {
    pod.spec.containers.iter().flat_map(|c| &c.ports).filter(|p| p.host_port > 0).map(|p| {
        let ip = if p.host_ip.is_empty() { "0.0.0.0" } else { p.host_ip.as_str() };
        let protocol = if p.protocol.is_empty() { "TCP" } else { p.protocol.as_str() };
        (ip, protocol, p.host_port)
    })
}

fn ports_conflict(a: &Pod, b: &Pod) -> bool {
    let any = "0.0.0.0";
    host_ports(a).any(|(ip, protocol, port)| {
        host_ports(b).any(|(i, pr, po)| protocol == pr && port == po && (ip == i || ip == any || i == any))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::{Value, from_value};

    /// A container asks for so much of a resource, of which the node has one; with this in the pod's status.
    fn check(config: &Config, name: &str, count: &str, status: Value, want: &[&str]) {
        let asked = json!({"requests": {"cpu": "1", name: count}});
        let pod = json!({"spec": {"containers": [{"name": "main", "resources": asked}]}, "status": status});
        let has = json!({"cpu": "2", "pods": "9", "example.com/known": "1"});
        let node: Node = from_value(json!({"status": {"allocatable": has}})).unwrap();
        let lacks = lacks(config, &from_value(pod).unwrap(), &node, &[]);
        let lacks: Vec<&str> = lacks.iter().map(|lack| lack.resource.as_str()).collect();
        assert_eq!(lacks, want, "{name} {count}");
    }

    #[test]
    fn what_devices_give_is_not_the_nodes_to_meet() {
        let on = Config::new("n", "10.0.0.1");
        let mut off = Config::new("n", "10.0.0.1");
        off.features.insert("DRAExtendedResource".into(), false);
        check(&on, "example.com/known", "1", json!({}), &[]);
        check(&on, "example.com/known", "2", json!({}), &["example.com/known"]);
        check(&on, "example.com/unknown", "1", json!({}), &[]);
        let class = "deviceclass.resource.kubernetes.io/gpu";
        check(&on, class, "1", json!({}), &[class]);
        for name in ["example.com/known", class] {
            let mapping = json!({"containerName": "main", "resourceName": name, "requestName": "container-0-request-1"});
            let status = json!({"extendedResourceClaimStatus":
                {"resourceClaimName": "c", "requestMappings": [mapping]}});
            check(&on, name, "2", status.clone(), &[]);
            check(&off, name, "2", status, &[name]);
        }
    }
}
