//! Which slices a Service should have. Pure.
//!
//! Endpoints stay in the slice where they are; new ones fill slices that change anyway, then slices with room, then new
//! slices. Upstream: `staging/src/k8s.io/endpointslice`.

use super::{MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::pods::controller_reference;
use crate::service_pods::PodFacts;
use api::Kind as _;
use api::core::v1::{ObjectReference, Service};
use api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use client::Cached;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// How many endpoints a slice has at most.
pub(super) const MAX_ENDPOINTS: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";

pub(super) struct Observed<'a> {
    pub service: &'a Service,
    /// The pods that it selects.
    pub pods: &'a [Arc<Cached<PodFacts>>],
    /// Zones of nodes.
    pub zones: &'a HashMap<&'a str, String>,
    /// The slices that are there.
    pub slices: Vec<EndpointSlice>,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    /// Names.
    pub delete: Vec<String>,
    /// Endpoints that come and go.
    pub added: usize,
    pub removed: usize,
    /// How many endpoints each of the service's groups is to have.
    pub groups: Vec<usize>,
}

/// What endpoints of one slice share, in an order that tells equal ones.
type Group = (String, String);

fn group(address_type: &str, ports: &[EndpointPort]) -> Group {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|p| format!("{:?} {:?} {:?} {:?}", p.name, p.protocol, p.port, p.app_protocol))
        .collect();
    keys.sort();
    (address_type.to_owned(), keys.join("\n"))
}

struct Wanted {
    ports: Vec<EndpointPort>,
    /// By the uid of the pod.
    endpoints: BTreeMap<String, Endpoint>,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let Observed { service, pods, zones, .. } = *observed;
    let mut plan = Plan::default();
    let families = families(service, pods);
    let mut wanted: BTreeMap<Group, Wanted> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.ended) {
        let ports = ports(service, pod);
        for family in &families {
            let Some(address) = pod.ips.iter().find(|ip| is_of(ip, family)) else { continue };
            let wanted = wanted
                .entry(group(family, &ports))
                .or_insert_with(|| Wanted { ports: ports.clone(), endpoints: BTreeMap::new() });
            wanted.endpoints.insert(pod.uid.to_string(), endpoint(service, pod, address, zones));
        }
    }
    let mut groups: BTreeMap<Group, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in &observed.slices {
        let owner = slice.metadata.owner_references.iter().find(|owner| owner.kind == "Service");
        let ours = owner.is_none_or(|owner| owner.uid == service.metadata.uid);
        // A service of the same name came before, or stopped having addresses of this family.
        if !ours || !families.contains(&slice.address_type.as_str()) {
            plan.delete.push(slice.metadata.name.clone());
        } else if slice.metadata.deletion_timestamp.is_none() {
            groups.entry(group(&slice.address_type, &slice.ports)).or_default().push(slice.clone());
        }
    }
    // A family without any endpoint keeps one empty slice: it says that somebody looked.
    for family in &families {
        if !wanted.keys().any(|(address_type, _)| address_type == family) {
            let there = groups.iter().find(|((address_type, _), _)| address_type == family);
            let (key, ports) = match there.and_then(|(key, slices)| Some((key, slices.first()?))) {
                Some((key, slice)) => (key.clone(), slice.ports.clone()),
                None => (group(family, &[]), Vec::new()),
            };
            wanted.insert(key, Wanted { ports, endpoints: BTreeMap::new() });
        }
    }
    for (key, slices) in &groups {
        if !wanted.contains_key(key) {
            plan.delete.extend(slices.iter().map(|slice| slice.metadata.name.clone()));
        }
    }
    for (key, wanted) in wanted {
        let slices = groups.remove(&key).unwrap_or_default();
        plan.groups.push(wanted.endpoints.len());
        place(service, &key.0, wanted, slices, &mut plan);
    }
    plan
}

/// The families of the service's addresses, as slices name them.
fn families(service: &Service, pods: &[Arc<Cached<PodFacts>>]) -> Vec<&'static str> {
    let mut families: Vec<&str> = Vec::new();
    for family in &service.spec.ip_families {
        families.push(if family == "IPv6" { "IPv6" } else { "IPv4" });
    }
    if families.is_empty() {
        // A headless service of old: what its pods have.
        let six = pods.iter().find_map(|pod| pod.ips.first()).is_some_and(|ip| is_of(ip, "IPv6"));
        families.push(if six { "IPv6" } else { "IPv4" });
    }
    families
}

fn is_of(ip: &str, family: &str) -> bool {
    ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == (family == "IPv6"))
}

/// The ports of a pod behind the service's. As upstream, a pod without any of the named ports is listed with none.
fn ports(service: &Service, pod: &PodFacts) -> Vec<EndpointPort> {
    service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone()),
                protocol: Some(if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() }),
                port: Some(pod.port(port)?),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn endpoint(
    service: &Service,
    pod: &Cached<PodFacts>,
    address: &str,
    zones: &HashMap<&str, String>,
) -> Endpoint {
    let zone = zones.get(pod.node.as_str()).cloned();
    let named = !pod.hostname.is_empty()
        && pod.subdomain == service.metadata.name
        && pod.namespace() == service.metadata.namespace;
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: EndpointConditions {
            ready: Some(service.spec.publish_not_ready_addresses || (pod.ready && !pod.deleting)),
            serving: Some(pod.ready),
            terminating: Some(pod.deleting),
        },
        hostname: named.then(|| pod.hostname.clone()),
        target_ref: Some(ObjectReference {
            kind: "Pod".into(),
            namespace: pod.namespace().into(),
            name: pod.name().into(),
            uid: pod.uid.to_string(),
            ..Default::default()
        }),
        node_name: (!pod.node.is_empty()).then(|| pod.node.clone()),
        hints: hints(service, pod, zone.as_deref()),
        zone,
        ..Default::default()
    }
}

/// Who should use the endpoint, as `trafficDistribution` says.
fn hints(service: &Service, pod: &PodFacts, zone: Option<&str>) -> Option<EndpointHints> {
    let (by_zone, by_node) = match service.spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => return None,
    };
    let usable = service.spec.publish_not_ready_addresses || (pod.ready && !pod.deleting);
    let hints = EndpointHints {
        for_zones: zone
            .filter(|_| by_zone && usable)
            .map(|name| ForZone { name: name.into() })
            .into_iter()
            .collect(),
        for_nodes: (by_node && usable && !pod.node.is_empty())
            .then(|| ForNode { name: pod.node.clone() })
            .into_iter()
            .collect(),
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// Labels of the service's slices: its own, and ours.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    if service.spec.cluster_ip == "None" {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

fn uid(endpoint: &Endpoint) -> &str {
    endpoint.target_ref.as_ref().map_or("", |target| &target.uid)
}

/// Puts the endpoints of one group into slices.
fn place(service: &Service, family: &str, wanted: Wanted, slices: Vec<EndpointSlice>, plan: &mut Plan) {
    let Wanted { ports, mut endpoints } = wanted;
    let labels = labels(service);
    let mut now: Vec<(EndpointSlice, EndpointSlice)> = Vec::new();
    for old in slices {
        let mut new = old.clone();
        new.endpoints.clear();
        for endpoint in &old.endpoints {
            new.endpoints.extend(endpoints.remove(uid(endpoint)));
        }
        plan.removed += old.endpoints.len() - new.endpoints.len();
        new.metadata.labels.clone_from(&labels);
        now.push((old, new));
    }
    // Slices that change anyway are filled first, the fullest of them before others.
    now.sort_by_key(|(old, new)| (old == new, std::cmp::Reverse(new.endpoints.len())));
    let mut rest: Vec<Endpoint> = endpoints.into_values().collect();
    plan.added += rest.len();
    rest.reverse();
    for (_, new) in &mut now {
        while new.endpoints.len() < MAX_ENDPOINTS
            && let Some(endpoint) = rest.pop()
        {
            new.endpoints.push(endpoint);
        }
    }
    let mut made = 0;
    while !rest.is_empty() || now.is_empty() {
        let mut new =
            EndpointSlice { address_type: family.into(), ports: ports.clone(), ..EndpointSlice::new() };
        new.metadata.generate_name = format!("{}-", service.metadata.name);
        new.metadata.namespace = service.metadata.namespace.clone();
        new.metadata.labels.clone_from(&labels);
        new.metadata.owner_references = vec![controller_reference(service)];
        let from = rest.len().saturating_sub(MAX_ENDPOINTS);
        new.endpoints = rest.drain(from..).rev().collect();
        let done = rest.is_empty();
        plan.create.push(new);
        made += 1;
        if done {
            break;
        }
    }
    // Empty slices go, but for the last of the group.
    let mut left = now.iter().filter(|(_, new)| !new.endpoints.is_empty()).count() + made;
    for (old, new) in now {
        if new.endpoints.is_empty() && left > 0 {
            plan.delete.push(old.metadata.name);
        } else if old != new {
            left += 1;
            plan.update.push(new);
        } else {
            left += 1;
        }
    }
}
