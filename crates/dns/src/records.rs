//! What is kept of Services, EndpointSlices and Namespaces: the projections of the informers, with addresses parsed.
//!
//! The informer and the index share one copy of each, behind an `Arc`.

use api::core::v1::{Namespace, Service};
use api::discovery::v1::EndpointSlice;
use client::Projection;
use hickory_proto::rr::Name;
use std::net::IpAddr;
use std::sync::Arc;

/// Which Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A named port: of a Service what it listens on, of a slice what its endpoints listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Empty for a port without a name, which has no SRV record of its own.
    pub name: Box<str>,
    pub protocol: Box<str>,
    pub port: u16,
}

impl Port {
    /// Whether this is the port of `_name._protocol`. Ports without a name match no label, for no label is empty.
    pub fn is(&self, name: &str, protocol: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.protocol.eq_ignore_ascii_case(protocol)
    }
}

/// How the name of a Service is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// With the virtual addresses; none as long as none was allocated.
    ClusterIps(Vec<IpAddr>),
    /// With the addresses of the ready endpoints.
    Endpoints,
    /// With an alias; `None` where `externalName` is not a name, such as an IP address.
    Name(Option<Name>),
}

/// What is kept of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFacts {
    pub target: Target,
    pub ports: Vec<Port>,
}

/// A ready endpoint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    /// `None` where the name is made of the address.
    pub hostname: Option<Box<str>>,
}

/// What is kept of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFacts {
    pub service: Arc<str>,
    /// Sorted, without duplicates.
    pub endpoints: Vec<Endpoint>,
    pub ports: Vec<Port>,
}

/// The shared projection of a Service.
#[derive(Debug)]
pub struct ServiceView(pub Arc<ServiceFacts>);

/// The shared projection of an EndpointSlice; `None` if it belongs to no Service.
#[derive(Debug)]
pub struct SliceView(pub Option<Arc<SliceFacts>>);

/// That a Namespace exists is all there is to know of it.
#[derive(Debug)]
pub struct NamespaceView;

impl Projection for ServiceView {
    type Kind = Service;

    fn project(service: &Service) -> Self {
        ServiceView(Arc::new(ServiceFacts::new(service)))
    }
}

impl Projection for SliceView {
    type Kind = EndpointSlice;

    fn project(slice: &EndpointSlice) -> Self {
        SliceView(SliceFacts::new(slice).map(Arc::new))
    }
}

impl Projection for NamespaceView {
    type Kind = Namespace;

    fn project(_: &Namespace) -> Self {
        NamespaceView
    }
}

impl ServiceFacts {
    pub fn new(service: &Service) -> Self {
        let spec = &service.spec;
        let target = if spec.type_ == "ExternalName" {
            Target::Name(external_name(&spec.external_name))
        } else if spec.cluster_ip == "None" {
            Target::Endpoints
        } else if spec.cluster_ips.is_empty() {
            Target::ClusterIps(spec.cluster_ip.parse().into_iter().collect())
        } else {
            Target::ClusterIps(spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect())
        };
        let ports = spec.ports.iter().filter_map(|p| port(&p.name, &p.protocol, p.port)).collect();
        ServiceFacts { target, ports }
    }
}

impl SliceFacts {
    pub fn new(slice: &EndpointSlice) -> Option<Self> {
        let service = slice.metadata.labels.get(SERVICE_NAME).filter(|name| !name.is_empty())?;
        // An unknown readiness counts as ready; what publishes unready addresses sets the condition.
        let ready = slice.endpoints.iter().filter(|e| e.conditions.ready != Some(false));
        let mut endpoints: Vec<Endpoint> = ready
            .flat_map(|e| {
                let hostname = e.hostname.as_deref().filter(|h| !h.is_empty());
                let addresses = e.addresses.iter().filter_map(|a| a.parse().ok());
                addresses.map(move |address| Endpoint { address, hostname: hostname.map(Box::from) })
            })
            .collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        let ports = slice.ports.iter().filter_map(|p| {
            port(p.name.as_deref().unwrap_or_default(), p.protocol.as_deref().unwrap_or("TCP"), p.port?)
        });
        Some(SliceFacts { service: service.as_str().into(), endpoints, ports: ports.collect() })
    }
}

fn port(name: &str, protocol: &str, port: i32) -> Option<Port> {
    let protocol = if protocol.is_empty() { "TCP" } else { protocol };
    Some(Port { name: name.into(), protocol: protocol.into(), port: port.try_into().ok()? })
}

fn external_name(name: &str) -> Option<Name> {
    if name.is_empty() || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The label of an endpoint without a hostname: its address with dashes.
pub fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

/// The address that a label of dashes spells: `10-0-0-1` or `fd00--1`.
pub fn undashed(label: &str) -> Option<IpAddr> {
    let dots = label.bytes().filter(|b| *b == b'-').count() == 3 && !label.contains("--");
    let text = label.replace('-', if dots { "." } else { ":" });
    text.parse().ok()
}
