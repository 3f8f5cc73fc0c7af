//! What objects use of a ResourceQuota, and which of its scopes they are in: shared by the controller that counts and by
//! the admission plugin that refuses. Upstream: `pkg/quota/v1` and its evaluators.

/// What claims to devices use.
pub mod devices;

use crate::pod_requests::{Options, pod_limits, pod_requests};
use crate::resource_claim::CLASS_PREFIX;
use api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement, Service,
};
use apimachinery::quantity::{Format, Quantity};
use apimachinery::time::{Duration, Time};
use devices::DeviceClasses;
use std::collections::BTreeMap;

pub type Usage = BTreeMap<String, Quantity>;

/// Kinds that can be counted by their bare name, too.
const COUNTED_BY_NAME: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// What pods use beside `count/pods`; requests of extended resources and huge pages come to these.
const OF_PODS: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
const OF_SERVICES: [&str; 3] = ["services", "services.nodeports", "services.loadbalancers"];
const OF_CLAIMS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn one() -> Quantity {
    number(1)
}

fn number(count: usize) -> Quantity {
    Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSI)
}

/// `count/deployments.apps`, or `count/pods`.
pub fn object_count(group: &str, resource: &str) -> String {
    match group {
        "" => format!("count/{resource}"),
        group => format!("count/{resource}.{group}"),
    }
}

/// The names under which so many objects of a kind that has no rules of its own are counted.
pub fn count_usage(group: &str, resource: &str, count: usize) -> Usage {
    let mut usage = Usage::from([(object_count(group, resource), number(count))]);
    if group.is_empty() && COUNTED_BY_NAME.contains(&resource) {
        usage.insert(resource.to_owned(), number(count));
    }
    usage
}

/// Whether the named constraint is on objects of this resource; it may be on those of others, too. The classes matter for
/// claims to devices alone.
pub fn constrains(name: &str, group: &str, resource: &str, classes: &DeviceClasses) -> bool {
    if name == object_count(group, resource) {
        return true;
    }
    match (group, resource) {
        ("", "pods") => {
            OF_PODS.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || extended_request(name).is_some()
        }
        ("", "services") => OF_SERVICES.contains(&name),
        ("", "persistentvolumeclaims") => OF_CLAIMS.contains(&name) || name.contains(BY_CLASS),
        (devices::GROUP, devices::RESOURCE) => devices::constrains(name, classes),
        ("", resource) => COUNTED_BY_NAME.contains(&resource) && name == resource,
        _ => false,
    }
}

/// Whether a container resource is neither of Kubernetes' own nor a plain word.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// The extended resource whose requests a constraint is on.
pub fn extended_request(name: &str) -> Option<&str> {
    name.strip_prefix("requests.").filter(|resource| may_be_devices(resource))
}

/// Whether a container resource is extended, or the one that is named after a class of devices.
pub fn may_be_devices(resource: &str) -> bool {
    is_extended(resource) || resource.starts_with(CLASS_PREFIX)
}

/// Whether a pod still counts: one that ended does not, nor one whose time to end is over.
pub fn pod_counts(pod: &Pod, now: Time) -> bool {
    if crate::pod_conditions::is_terminal(&pod.status.phase) {
        return false;
    }
    match (pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds) {
        (Some(at), Some(grace)) => now <= at.plus(Duration::from_seconds(grace)),
        _ => true,
    }
}

/// What a pod uses.
pub fn pod_usage(pod: &Pod, now: Time) -> Usage {
    let mut usage = Usage::from([(object_count("", "pods"), one())]);
    if !pod_counts(pod, now) {
        return usage;
    }
    usage.insert("pods".into(), one());
    let options = Options { use_status: true, ..Default::default() };
    for (name, request) in pod_requests(pod, options) {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(format!("requests.{name}"), request.clone());
                usage.insert(name, request);
            }
            huge if huge.starts_with("hugepages-") => {
                usage.insert(format!("requests.{name}"), request.clone());
                usage.insert(name, request);
            }
            extended if may_be_devices(extended) => drop(usage.insert(format!("requests.{name}"), request)),
            _ => {}
        }
    }
    for (name, limit) in pod_limits(pod, options) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), limit);
        }
    }
    usage
}

/// What a Service uses.
pub fn service_usage(service: &Service) -> Usage {
    let spec = &service.spec;
    let balanced = spec.type_ == "LoadBalancer";
    let node_ports = match spec.type_.as_str() {
        "NodePort" => spec.ports.len(),
        // Ports are counted as they are meant, for they are not allocated yet.
        "LoadBalancer" if spec.allocate_load_balancer_node_ports == Some(false) => {
            spec.ports.iter().filter(|port| port.node_port != 0).count()
        }
        "LoadBalancer" => spec.ports.len(),
        _ => 0,
    };
    Usage::from([
        (object_count("", "services"), one()),
        ("services".into(), one()),
        ("services.nodeports".into(), number(node_ports)),
        ("services.loadbalancers".into(), number(usize::from(balanced))),
    ])
}

/// What a claim uses.
pub fn claim_usage(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::from([
        (object_count("", "persistentvolumeclaims"), one()),
        ("persistentvolumeclaims".into(), one()),
    ]);
    let annotated = claim.metadata.annotations.get(CLASS_ANNOTATION).map(String::as_str);
    let class = annotated.or(claim.spec.storage_class_name.as_deref()).unwrap_or_default();
    if !class.is_empty() {
        usage.insert(format!("{class}{BY_CLASS}persistentvolumeclaims"), one());
    }
    let asked = claim.spec.resources.requests.get("storage");
    // While it grows, what was allocated counts if it is more.
    let allocated = claim.status.allocated_resources.get("storage");
    let storage = match (asked, allocated) {
        (Some(asked), Some(allocated)) if allocated > asked => Some(allocated),
        (asked, _) => asked,
    };
    if let Some(storage) = storage {
        usage.insert("requests.storage".into(), storage.clone());
        if !class.is_empty() {
            usage.insert(format!("{class}{BY_CLASS}requests.storage"), storage.clone());
        }
    }
    usage
}

/// A quota's scopes, all of which an object must be in.
pub fn scopes(quota: &ResourceQuota) -> Vec<ScopedResourceSelectorRequirement> {
    let plain = quota.spec.scopes.iter().map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".into(),
        values: Vec::new(),
    });
    let selected = quota.spec.scope_selector.iter().flat_map(|selector| &selector.match_expressions);
    plain.chain(selected.cloned()).collect()
}

/// What tells in which scopes a pod is: so little can be kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodScopes {
    pub terminating: bool,
    pub best_effort: bool,
    pub priority_class: String,
    pub cross_namespace_affinity: bool,
}

impl PodScopes {
    pub fn of(pod: &Pod) -> Self {
        PodScopes {
            terminating: pod.spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0),
            best_effort: crate::qos::pod_qos(pod).as_str() == "BestEffort",
            priority_class: pod.spec.priority_class_name.clone(),
            cross_namespace_affinity: crosses_namespaces(pod),
        }
    }

    /// Whether the pod is in all of the scopes.
    pub fn in_all(&self, scopes: &[ScopedResourceSelectorRequirement]) -> bool {
        scopes.iter().all(|scope| match scope.scope_name.as_str() {
            "Terminating" => self.terminating,
            "NotTerminating" => !self.terminating,
            "BestEffort" => self.best_effort,
            "NotBestEffort" => !self.best_effort,
            "PriorityClass" => {
                let class = &self.priority_class;
                match scope.operator.as_str() {
                    "Exists" => !class.is_empty(),
                    "DoesNotExist" => class.is_empty(),
                    "In" => !class.is_empty() && scope.values.contains(class),
                    "NotIn" => class.is_empty() || !scope.values.contains(class),
                    _ => false,
                }
            }
            "CrossNamespacePodAffinity" => self.cross_namespace_affinity,
            _ => false,
        })
    }
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let crosses = |term: &PodAffinityTerm| !term.namespaces.is_empty() || term.namespace_selector.is_some();
    let Some(affinity) = &pod.spec.affinity else { return false };
    let with = affinity.pod_affinity.iter().any(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .any(|w| crosses(&w.pod_affinity_term))
    });
    let apart = affinity.pod_anti_affinity.iter().any(|a| {
        a.required_during_scheduling_ignored_during_execution.iter().any(crosses)
            || a.preferred_during_scheduling_ignored_during_execution
                .iter()
                .any(|w| crosses(&w.pod_affinity_term))
    });
    with || apart
}

/// Whether a claim is in all of the scopes.
pub fn claim_in_all(claim: &PersistentVolumeClaim, scopes: &[ScopedResourceSelectorRequirement]) -> bool {
    // The class that is asked for and those that it comes from or has.
    let classes: Vec<&String> = claim
        .spec
        .volume_attributes_class_name
        .iter()
        .chain(&claim.status.current_volume_attributes_class_name)
        .chain(claim.status.modify_volume_status.iter().map(|m| &m.target_volume_attributes_class_name))
        .filter(|class| !class.is_empty())
        .collect();
    scopes.iter().all(|scope| {
        let named = |class: &&String| scope.values.contains(class);
        match (scope.scope_name.as_str(), scope.operator.as_str()) {
            ("VolumeAttributesClass", "Exists") => !classes.is_empty(),
            ("VolumeAttributesClass", "DoesNotExist") => classes.is_empty(),
            ("VolumeAttributesClass", "In") => classes.iter().any(named),
            ("VolumeAttributesClass", "NotIn") => !classes.iter().any(named),
            _ => false,
        }
    })
}

/// Adds one usage to another.
pub fn add(total: &mut Usage, more: &Usage) {
    for (name, quantity) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(quantity),
            None => drop(total.insert(name.clone(), quantity.clone())),
        }
    }
}

/// The part of a usage that is constrained, with zero for what is not used.
pub fn mask<'a>(usage: &Usage, names: impl IntoIterator<Item = &'a String>) -> Usage {
    let of = |name: &String| (name.clone(), usage.get(name).cloned().unwrap_or_else(|| number(0)));
    names.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    pub(super) fn show(usage: &Usage) -> String {
        usage.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect::<Vec<_>>().join(" ")
    }

    fn pod(spec: Value, status: Value) -> Pod {
        apimachinery::value::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status}))
            .unwrap()
    }

    #[test]
    fn what_pods_use() {
        let resources = json!({
            "requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "1"},
            "limits": {"cpu": "200m", "example.com/gpu": "1"}});
        let spec = json!({"containers": [{"name": "a", "resources": resources}]});
        let check = |status: Value, want: &str| {
            assert_eq!(show(&pod_usage(&pod(spec.clone(), status), Time::from_unix(0))), want);
        };
        check(
            json!({}),
            "count/pods=1 cpu=100m limits.cpu=200m memory=1Gi pods=1 requests.cpu=100m requests.example.com/gpu=1 requests.memory=1Gi",
        );
        check(json!({"phase": "Succeeded"}), "count/pods=1");
        let requests = json!({"deviceclass.resource.kubernetes.io/gpu": "2", "kubernetes.io/other": "1"});
        let by_class = json!({"containers": [{"name": "a", "resources": {"requests": requests}}]});
        assert_eq!(
            show(&pod_usage(&pod(by_class, json!({})), Time::from_unix(0))),
            "count/pods=1 pods=1 requests.deviceclass.resource.kubernetes.io/gpu=2"
        );
    }

    #[test]
    fn what_services_and_claims_use() {
        let service = |spec: Value| -> String {
            show(&service_usage(&apimachinery::value::from_value(json!({"spec": spec})).unwrap()))
        };
        let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
        assert_eq!(
            service(json!({"type": "ClusterIP", "ports": ports})),
            "count/services=1 services=1 services.loadbalancers=0 services.nodeports=0"
        );
        assert_eq!(
            service(json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false})),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1"
        );
        let claim: PersistentVolumeClaim = apimachinery::value::from_value(
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}}),
        )
        .unwrap();
        assert_eq!(
            show(&claim_usage(&claim)),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             fast.storageclass.storage.k8s.io/requests.storage=5Gi persistentvolumeclaims=1 requests.storage=5Gi"
        );
        assert_eq!(show(&count_usage("", "secrets", 3)), "count/secrets=3 secrets=3");
        assert_eq!(show(&count_usage("apps", "deployments", 2)), "count/deployments.apps=2");
    }

    #[test]
    fn scopes_of_pods() {
        let best_effort = pod(json!({"containers": [{"name": "a"}], "activeDeadlineSeconds": 5}), json!({}));
        let scope = |name: &str, operator: &str, values: &[&str]| ScopedResourceSelectorRequirement {
            scope_name: name.into(),
            operator: operator.into(),
            values: values.iter().map(|value| value.to_string()).collect(),
        };
        let within =
            |scopes: &[ScopedResourceSelectorRequirement]| PodScopes::of(&best_effort).in_all(scopes);
        assert!(within(&[scope("BestEffort", "Exists", &[]), scope("Terminating", "Exists", &[])]));
        assert!(!within(&[scope("BestEffort", "Exists", &[]), scope("NotTerminating", "Exists", &[])]));
        assert!(within(&[scope("PriorityClass", "NotIn", &["high"])]));
        assert!(!within(&[scope("PriorityClass", "In", &["high"])]));
        assert!(!within(&[scope("VolumeAttributesClass", "Exists", &[])]));
    }

    #[test]
    fn names_of_constraints() {
        for (name, group, resource, want) in [
            ("pods", "", "pods", true),
            ("requests.example.com/gpu", "", "pods", true),
            ("requests.hugepages-2Mi", "", "pods", true),
            ("requests.deviceclass.resource.kubernetes.io/gpu", "", "pods", true),
            ("requests.kubernetes.io/gpu", "", "pods", false),
            ("gpu.deviceclass.resource.k8s.io/devices", "", "pods", false),
            ("requests.storage", "", "pods", false),
            ("requests.storage", "", "persistentvolumeclaims", true),
            ("fast.storageclass.storage.k8s.io/requests.storage", "", "persistentvolumeclaims", true),
            ("services.nodeports", "", "services", true),
            ("secrets", "", "secrets", true),
            ("endpoints", "", "endpoints", false),
            ("count/endpoints", "", "endpoints", true),
            ("count/jobs.batch", "batch", "jobs", true),
            ("count/jobs.batch", "apps", "jobs", false),
        ] {
            assert_eq!(
                constrains(name, group, resource, &DeviceClasses::default()),
                want,
                "{name} {group} {resource}"
            );
        }
    }
}
