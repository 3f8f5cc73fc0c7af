//! Environment variables that tell a container where Services are, as Docker's links once did. Pure.
//! Upstream: `envvars.FromServices`.

use api::core::v1::{Service, ServicePort};
use client::{Cached, Projection};
use std::collections::BTreeMap;

/// What is kept of a Service.
#[derive(Debug, Clone)]
pub(crate) struct ServiceView {
    pub cluster_ip: String,
    pub ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
}

impl Projection for ServiceView {
    type Kind = Service;

    fn project(service: &Service) -> Self {
        let ports = service.spec.ports.iter().map(|p: &ServicePort| Port {
            name: p.name.clone(),
            protocol: p.protocol.clone(),
            port: p.port,
        });
        let cluster_ip = match service.spec.type_.as_str() {
            // An external name has no address of its own.
            "ExternalName" => String::new(),
            _ => service.spec.cluster_ip.clone(),
        };
        ServiceView { cluster_ip, ports: ports.collect() }
    }

    fn indices() -> &'static [client::informer::Index<Self>] {
        &[("namespace", |s: &Cached<Self>| vec![s.namespace().to_owned()])]
    }
}

/// The variables of one Service.
pub(crate) fn variables(name: &str, service: &ServiceView) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Some(first) = service.ports.first() else { return out };
    let ip = &service.cluster_ip;
    if ip.is_empty() || ip == "None" {
        return out;
    }
    let prefix = upper(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.clone());
    out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in service.ports.iter().filter(|p| !p.name.is_empty()) {
        out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
    }
    for (i, port) in service.ports.iter().enumerate() {
        let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        if i == 0 {
            out.insert(format!("{prefix}_PORT"), url.clone());
        }
        out.insert(format!("{port_prefix}_PROTO"), protocol.to_lowercase());
        out.insert(format!("{port_prefix}_PORT"), port.port.to_string());
        out.insert(format!("{port_prefix}_ADDR"), ip.clone());
        out.insert(port_prefix, url);
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
