//! The objects of a hollow node, as a kubelet of v1.36 would write them. Pure.

use crate::Config;
use api::Kind as _;
use api::coordination::v1::Lease;
use api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSystemInfo,
};
use apimachinery::meta::OwnerReference;
use apimachinery::time::{MicroTime, Time};
use std::net::Ipv4Addr;

const KUBELET_VERSION: &str = "v1.36.2";
/// Nodes have addresses of 100.64.0.0/10, which belongs to nobody.
const ADDRESSES: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// Seconds; the node controller believes a node for as long. Upstream: `nodeLeaseDurationSeconds`.
const LEASE_SECONDS: i32 = 40;

/// The name of the node with this number.
pub fn name(config: &Config, number: u32) -> String {
    format!("{}-{number:05}", config.name)
}

/// The number of the node with this name, if it is one of ours.
pub fn number(config: &Config, name: &str) -> Option<u32> {
    let number: u32 = name.strip_prefix(&config.name)?.strip_prefix('-')?.parse().ok()?;
    (number < config.nodes && self::name(config, number) == name).then_some(number)
}

/// Where a node would be reached.
pub fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(ADDRESSES.to_bits() + 1 + number)
}

/// The node as it registers itself: ready at once.
pub fn node(config: &Config, number: u32, now: Time) -> Node {
    let name = name(config, number);
    let mut node = Node::new();
    node.metadata.labels = config.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", "amd64"),
    ] {
        node.metadata.labels.insert(key.into(), value.into());
    }
    node.spec.provider_id = format!("simulated://{name}");
    node.spec.taints = config.taints.clone();
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    node.status = NodeStatus {
        capacity: config.capacity.clone(),
        allocatable: config.capacity.clone(),
        conditions: conditions(now, now),
        addresses: vec![
            address("InternalIP", self::address(number).to_string()),
            address("Hostname", name.clone()),
        ],
        daemon_endpoints: NodeDaemonEndpoints { kubelet_endpoint: DaemonEndpoint { port: 10250 } },
        node_info: NodeSystemInfo {
            machine_id: format!("{number:032x}"),
            system_uuid: format!("{number:032x}"),
            boot_id: format!("{number:032x}"),
            kernel_version: "6.1.0".into(),
            os_image: "simulated".into(),
            container_runtime_version: "simulated://1.0".into(),
            kubelet_version: KUBELET_VERSION.into(),
            operating_system: "linux".into(),
            architecture: "amd64".into(),
            ..Default::default()
        },
        ..Default::default()
    };
    node.metadata.name = name;
    node
}

/// A node's conditions, unchanged since `since`.
pub fn conditions(since: Time, now: Time) -> Vec<NodeCondition> {
    let all = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let condition = |(type_, status, reason, message): (&str, &str, &str, &str)| NodeCondition {
        type_: type_.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_heartbeat_time: Some(now),
        last_transition_time: Some(since),
    };
    all.into_iter().map(condition).collect()
}

/// A node's lease as it is first written. `uid` is the node's.
pub fn lease(config: &Config, number: u32, uid: &str, now: MicroTime) -> Lease {
    let name = name(config, number);
    let mut lease = Lease::new();
    lease.metadata.namespace = "kube-node-lease".into();
    lease.metadata.owner_references = vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: uid.into(),
        ..Default::default()
    }];
    lease.spec.holder_identity = Some(name.clone());
    lease.spec.lease_duration_seconds = Some(LEASE_SECONDS);
    lease.spec.renew_time = Some(now);
    lease.metadata.name = name;
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers() {
        let config = Config::new(20_000);
        for n in [0, 7, 19_999] {
            assert_eq!(number(&config, &name(&config, n)), Some(n));
        }
        for other in ["hollow-node-20000", "hollow-node-7", "hollow-node-", "node-00007", "hollow-node-0000x"]
        {
            assert_eq!(number(&config, other), None, "{other}");
        }
        assert_eq!(address(0).to_string(), "100.64.0.1");
        assert_eq!(address(299).to_string(), "100.64.1.44");
    }
}
