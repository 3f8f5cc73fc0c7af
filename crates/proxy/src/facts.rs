//! What the proxy keeps of Services, EndpointSlices and its Node: projections of the informers.

use api::core::v1::{Node, Service};
use api::discovery::v1::EndpointSlice;
use apimachinery::time::Timestamp;
use apimachinery::validation::{Cidr, parse_cidr_sloppy, parse_ip_sloppy};
use client::informer::Index;
use client::{Cached, ObjectKey, Projection};
use std::net::IpAddr;
use std::sync::Arc;

/// Objects with this label are another proxy's.
const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Set by the cluster autoscaler before it deletes a node.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";
/// When the newest change that a slice holds was made.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const DEFAULT_AFFINITY_SECONDS: u32 = 10800;

/// A transport protocol that Services know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As IP numbers it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// Zero for none.
    pub node_port: u16,
}

/// A Service with virtual addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualService {
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// Those of the load balancer that reach the node unchanged (`ipMode: VIP`).
    pub load_balancer_ips: Vec<IpAddr>,
    /// Empty when every source is fine.
    pub source_ranges: Vec<Cidr>,
    pub ports: Vec<Port>,
    /// Seconds that a client keeps its endpoint.
    pub affinity: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
    pub health_check_node_port: Option<u16>,
}

/// A Service, if it is one this proxy serves.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceFacts(pub Option<VirtualService>);

fn is_ours(labels: &std::collections::BTreeMap<String, String>) -> bool {
    !labels.contains_key(SERVICE_PROXY_NAME) && !labels.contains_key(HEADLESS)
}

fn ips<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|t| parse_ip_sloppy(t)).collect()
}

impl Projection for ServiceFacts {
    type Kind = Service;

    fn project(service: &Service) -> Self {
        let spec = &service.spec;
        let headless = matches!(spec.cluster_ip.as_str(), "" | "None");
        if spec.type_ == "ExternalName" || headless || !is_ours(&service.metadata.labels) {
            return ServiceFacts(None);
        }
        let cluster_ips =
            if spec.cluster_ips.is_empty() { ips([&spec.cluster_ip]) } else { ips(&spec.cluster_ips) };
        let ingress = service.status.load_balancer.ingress.iter();
        let vips = ingress.filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP").map(|i| &i.ip);
        // Validation lets spaces through around a range.
        let ranges = spec.load_balancer_source_ranges.iter().filter_map(|r| parse_cidr_sloppy(r.trim()));
        let ports = spec.ports.iter().filter_map(|p| {
            Some(Port {
                name: p.name.clone(),
                protocol: Protocol::parse(&p.protocol)?,
                port: u16::try_from(p.port).ok()?,
                node_port: u16::try_from(p.node_port).ok()?,
            })
        });
        let affinity = (spec.session_affinity == "ClientIP").then(|| {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            let seconds = config.and_then(|c| c.timeout_seconds);
            seconds.and_then(|s| u32::try_from(s).ok()).unwrap_or(DEFAULT_AFFINITY_SECONDS)
        });
        let external_local = spec.external_traffic_policy == "Local";
        ServiceFacts(Some(VirtualService {
            cluster_ips,
            external_ips: ips(&spec.external_ips),
            load_balancer_ips: ips(vips),
            source_ranges: ranges.collect(),
            ports: ports.collect(),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local,
            health_check_node_port: u16::try_from(spec.health_check_node_port)
                .ok()
                .filter(|port| *port != 0 && external_local && spec.type_ == "LoadBalancer"),
        }))
    }
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    pub ip: Option<IpAddr>,
    pub node: Option<Box<str>>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub zone_hints: Vec<Box<str>>,
    pub node_hints: Vec<Box<str>>,
}

impl Endpoint {
    pub fn is_on(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }
}

/// An EndpointSlice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceFacts {
    /// The name of its Service; empty for a slice that is not ours.
    pub service: String,
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<(String, Protocol, u16)>,
    pub ipv4: bool,
    /// When the newest change in it was made.
    pub triggered: Option<Timestamp>,
}

impl SliceFacts {
    /// The Service it belongs to.
    pub fn service_key(slice: &Cached<Self>) -> Option<ObjectKey> {
        (!slice.service.is_empty()).then(|| ObjectKey::new(slice.namespace(), &slice.service))
    }
}

/// The index of slices by the key of their Service.
pub const BY_SERVICE: &str = "service";

impl Projection for SliceFacts {
    type Kind = EndpointSlice;

    fn project(slice: &EndpointSlice) -> Self {
        let labels = &slice.metadata.labels;
        let known = matches!(slice.address_type.as_str(), "IPv4" | "IPv6");
        let Some(service) = labels.get(SERVICE_NAME).filter(|_| known && is_ours(labels)) else {
            return SliceFacts::default();
        };
        let endpoints = slice.endpoints.iter().map(|e| {
            let hints = e.hints.as_ref();
            Endpoint {
                ip: e.addresses.first().and_then(|a| parse_ip_sloppy(a)),
                node: e.node_name.as_deref().map(Into::into),
                ready: e.conditions.ready.unwrap_or(true),
                serving: e.conditions.serving.unwrap_or(true),
                terminating: e.conditions.terminating.unwrap_or(false),
                zone_hints: hints.iter().flat_map(|h| &h.for_zones).map(|z| z.name.as_str().into()).collect(),
                node_hints: hints.iter().flat_map(|h| &h.for_nodes).map(|n| n.name.as_str().into()).collect(),
            }
        });
        let ports = slice.ports.iter().filter_map(|p| {
            let number = u16::try_from(p.port?).ok().filter(|n| *n != 0)?;
            let protocol = Protocol::parse(p.protocol.as_deref().unwrap_or_default())?;
            Some((p.name.clone().unwrap_or_default(), protocol, number))
        });
        SliceFacts {
            service: service.clone(),
            endpoints: endpoints.filter(|e| e.ip.is_some()).collect(),
            ports: ports.collect(),
            ipv4: slice.address_type == "IPv4",
            triggered: slice.metadata.annotations.get(TRIGGER_TIME).and_then(|t| t.parse().ok()),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_SERVICE, |slice| SliceFacts::service_key(slice).iter().map(ToString::to_string).collect())]
    }
}

/// What matters of a Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub zone: Arc<str>,
    /// Whether load balancers should send it new traffic.
    pub eligible: bool,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let leaving = node.metadata.deletion_timestamp.is_some()
            || node.spec.taints.iter().any(|t| t.key == TO_BE_DELETED);
        NodeFacts {
            zone: node.metadata.labels.get(ZONE).map(String::as_str).unwrap_or_default().into(),
            eligible: !leaving,
        }
    }
}
