//! The node object and its status: pure. Upstream: `kubelet_node_status.go`, `nodestatus/setters.go`.

use super::conditions::conditions;
use super::machine::Machine;
use crate::config::{Config, Signal, VERSION};
use crate::context::RuntimeInfo;
use crate::devices::Counted;
use crate::eviction::thresholds::Pressure;
use api::Kind as _;
use api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use apimachinery::quantity::Quantity;
use apimachinery::time::Time;
use rules::pod_requests::ResourceList;
use std::collections::BTreeMap;

/// What of newer versions this kubelet can do, so that no pod that needs it comes to one that cannot. Upstream:
/// `nodedeclaredfeatures`, as far as they are on by default.
pub(crate) const DECLARED: [&str; 4] = [
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
];
/// Names shown of each.
const MAX_NAMES: usize = 5;

/// What changes while the kubelet runs.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub runtime: Result<cri::v1::RuntimeStatus, String>,
    pub handlers: Vec<cri::v1::RuntimeHandler>,
    pub features: Option<cri::v1::RuntimeFeatures>,
    pub images: Vec<cri::v1::Image>,
    pub pressures: Vec<Pressure>,
    pub shutting_down: bool,
    /// What device plugins have.
    pub devices: Vec<Counted>,
    pub port: u16,
    pub now: Time,
}

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap_or_default()
}

/// Bytes as upstream writes capacities.
fn kibi(bytes: i64) -> Quantity {
    quantity(&format!("{}Ki", bytes / 1024))
}

/// What the machine has.
pub(crate) fn capacity(machine: &Machine, max_pods: i64) -> ResourceList {
    let mut out = ResourceList::from([
        ("cpu".to_owned(), quantity(&machine.cpus.to_string())),
        ("memory".to_owned(), kibi(machine.memory)),
        ("ephemeral-storage".to_owned(), kibi(machine.disk)),
        ("pods".to_owned(), quantity(&max_pods.to_string())),
    ]);
    for (size, pages) in &machine.huge_pages {
        let name = match size >> 20 {
            mebi if mebi >= 1024 => format!("hugepages-{}Gi", mebi >> 10),
            mebi if mebi >= 1 => format!("hugepages-{mebi}Mi"),
            _ => format!("hugepages-{}Ki", size >> 10),
        };
        let total = size.saturating_mul(*pages);
        let text = if total == 0 { "0".to_owned() } else { format!("{}Mi", total >> 20) };
        out.insert(name, quantity(&text));
    }
    out
}

/// How many pods the node takes.
fn max_pods(config: &Config, machine: &Machine) -> i64 {
    match config.pods_per_core {
        0 => config.max_pods,
        each => config.max_pods.min(each.saturating_mul(machine.cpus)),
    }
}

/// What pods may have: capacity less reservations, less what eviction keeps free.
pub(crate) fn allocatable(machine: &Machine, config: &Config) -> ResourceList {
    let mut out = capacity(machine, max_pods(config, machine));
    // What huge pages hold is nobody's else.
    let in_pages: i64 = machine.huge_pages.iter().map(|(size, pages)| size.saturating_mul(*pages)).sum();
    for (name, value) in &mut out {
        if let Some(reserved) = config.reserved.get(name) {
            value.sub(reserved);
        }
        // Named processors are as much reserved as counted ones.
        if name == "cpu" && !config.reserved_cpus.is_empty() {
            value.sub(&quantity(&config.reserved_cpus.len().to_string()));
        }
        match name.as_str() {
            "memory" => {
                let kept = config.kept_free(Signal::MemoryAvailable, value.value());
                *value = kibi((value.value() - kept - in_pages).max(0));
            }
            "ephemeral-storage" => {
                let kept = config.kept_free(Signal::NodeFsAvailable, value.value());
                *value = quantity(&(value.value() - kept).max(0).to_string());
            }
            _ => {}
        }
    }
    out
}

/// Bytes of memory that no pod may have.
pub(crate) fn kept_memory(config: &Config, machine: &Machine) -> i64 {
    let reserved = config.reserved.get("memory").map_or(0, Quantity::value);
    reserved + config.kept_free(Signal::MemoryAvailable, machine.memory)
}

/// Labels that every kubelet sets, and the configured ones.
pub(crate) fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), config.hostname.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), machine.architecture.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), machine.architecture.clone()),
    ]);
    out.extend(config.node_labels.clone());
    out
}

/// The node as it registers itself.
pub(crate) fn initial(config: &Config, machine: &Machine, status: NodeStatus) -> Node {
    let mut node = Node::new();
    node.metadata.name = config.node_name.clone();
    node.metadata.labels = labels(config, machine);
    node.metadata
        .annotations
        .insert("volumes.kubernetes.io/controller-managed-attach-detach".into(), "true".into());
    node.spec.provider_id = config.provider_id.clone();
    node.spec.taints = config.register_with_taints.clone();
    node.spec.unschedulable = !config.register_schedulable;
    node.status = status;
    node
}

/// The whole status that the kubelet owns.
pub(crate) fn status(
    config: &Config,
    machine: &Machine,
    runtime: &RuntimeInfo,
    old: &NodeStatus,
    observed: Observed,
) -> NodeStatus {
    let address = |kind: &str, address: &str| NodeAddress { type_: kind.into(), address: address.into() };
    let mut addresses: Vec<NodeAddress> =
        config.node_ips.iter().map(|ip| address("InternalIP", ip)).collect();
    addresses.push(address("Hostname", &config.hostname));
    let (mut capacity, mut allocatable) =
        (capacity(machine, max_pods(config, machine)), allocatable(machine, config));
    for device in observed.devices {
        capacity.insert(device.resource.clone(), quantity(&device.capacity.to_string()));
        allocatable.insert(device.resource, quantity(&device.allocatable.to_string()));
    }
    NodeStatus {
        capacity,
        allocatable,
        conditions: conditions(
            observed.runtime,
            &observed.pressures,
            observed.shutting_down,
            &old.conditions,
            observed.now,
        ),
        addresses,
        daemon_endpoints: NodeDaemonEndpoints {
            kubelet_endpoint: DaemonEndpoint { port: i32::from(observed.port) },
        },
        node_info: NodeSystemInfo {
            machine_id: machine.machine_id.clone(),
            system_uuid: machine.system_uuid.clone(),
            boot_id: machine.boot_id.clone(),
            kernel_version: machine.kernel_version.clone(),
            os_image: machine.os_image.clone(),
            container_runtime_version: format!("{}://{}", runtime.name, runtime.version),
            kubelet_version: VERSION.into(),
            kube_proxy_version: String::new(),
            operating_system: "linux".into(),
            architecture: machine.architecture.clone(),
            swap: (machine.swap > 0).then_some(NodeSwapStatus { capacity: Some(machine.swap) }),
        },
        images: images(observed.images, config.node_status_max_images),
        declared_features: DECLARED.map(str::to_owned).into(),
        runtime_handlers: handlers(observed.handlers),
        features: observed
            .features
            .map(|f| NodeFeatures { supplemental_groups_policy: Some(f.supplemental_groups_policy) }),
        ..Default::default()
    }
}

/// The runtime's ways of running pods, and what each of them can.
fn handlers(all: Vec<cri::v1::RuntimeHandler>) -> Vec<NodeRuntimeHandler> {
    let shown = all.into_iter().map(|handler| {
        let features = handler.features.map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        });
        NodeRuntimeHandler { name: handler.name, features }
    });
    shown.collect()
}

/// The largest images, each with a few of its names.
fn images(mut images: Vec<cri::v1::Image>, most: i64) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.into_iter().take(usize::try_from(most).unwrap_or(usize::MAX)).map(|image| {
        let names = image.repo_digests.into_iter().chain(image.repo_tags).take(MAX_NAMES).collect();
        ContainerImage { names, size_bytes: i64::try_from(image.size).unwrap_or(i64::MAX) }
    });
    shown.collect()
}

/// The strategic merge patch from one status to another, heartbeats aside; `None` when nothing changed.
pub(crate) fn patch(old: &NodeStatus, new: &NodeStatus) -> Option<apimachinery::value::Value> {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        status.conditions.iter_mut().for_each(|c| c.last_heartbeat_time = None);
        apimachinery::value::to_value(status).ok()
    };
    let (old, quiet_new) = (quiet(old)?, quiet(new)?);
    let full = apimachinery::value::to_value(new).ok()?;
    let mut out = apimachinery::value::Map::new();
    for (key, value) in quiet_new.as_object()? {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "conditions" => {
                // Others' conditions are not ours to compare.
                let known = old.get(key).and_then(|o| o.as_array());
                let ours = value.as_array()?;
                if ours.iter().all(|c| known.is_some_and(|k| k.contains(c))) {
                    continue;
                }
                full.get(key).cloned()?
            }
            "addresses" => {
                let mut list = vec![apimachinery::json!({ "$patch": "replace" })];
                list.extend(value.as_array().cloned().unwrap_or_default());
                apimachinery::value::Value::Array(list)
            }
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    (!out.is_empty()).then_some(apimachinery::value::Value::Object(out))
}
