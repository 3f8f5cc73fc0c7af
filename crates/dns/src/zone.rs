//! The index of the zone: what the informers tell goes in, one change at a time; what a name stands for comes out.
//!
//! A change costs what changed: a slice is compared with its last version, and only endpoints that came or went touch
//! the reverse index.

use crate::records::{Endpoint, Port, ServiceFacts, SliceFacts, Target, dashed};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// All names below the zone.
#[derive(Debug, Default)]
pub struct Index {
    namespaces: HashMap<Box<str>, Namespace>,
    slices: HashMap<(Arc<str>, Arc<str>), Arc<SliceFacts>>,
    reverse: HashMap<IpAddr, Vec<Owner>>,
    revision: u64,
}

#[derive(Debug, Default)]
struct Namespace {
    /// Objects may be seen before their namespace, and stay a while after it.
    exists: bool,
    services: HashMap<Box<str>, Service>,
}

/// A Service and the slices that name it, either of which may be seen first.
#[derive(Debug, Default)]
pub struct Service {
    facts: Option<Arc<ServiceFacts>>,
    slices: Vec<(Arc<str>, Arc<SliceFacts>)>,
}

/// What an address belongs to.
#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    /// Of an endpoint; `None` for a Service's own address.
    pub endpoint: Option<OwnedEndpoint>,
}

/// An endpoint in the reverse index.
#[derive(Debug, PartialEq, Eq)]
pub struct OwnedEndpoint {
    slice: Arc<str>,
    pub hostname: Option<Box<str>>,
}

/// What is asked of a Service.
#[derive(Debug, Clone, Copy)]
pub enum Filter<'a> {
    All,
    /// The endpoint of this hostname.
    Endpoint(&'a str),
    /// Port name and protocol, without underscores.
    Port(&'a str, &'a str),
}

/// An address that answers a question about a Service, with the ports that were asked for still to be picked.
#[derive(Debug)]
pub struct Hit<'a> {
    pub address: IpAddr,
    pub endpoint: Option<&'a Endpoint>,
    pub ports: &'a [Port],
}

impl Filter<'_> {
    pub fn port(&self, port: &Port) -> bool {
        match self {
            Filter::Port(name, protocol) => port.is(name, protocol),
            _ => true,
        }
    }

    fn ports(&self, ports: &[Port]) -> bool {
        !matches!(self, Filter::Port(..)) || ports.iter().any(|p| self.port(p))
    }
}

impl Endpoint {
    /// The endpoint's label below its Service.
    pub fn label(&self) -> String {
        self.hostname.as_deref().map_or_else(|| dashed(self.address), str::to_owned)
    }
}

impl Service {
    /// The facts, once the Service itself was seen.
    pub fn facts(&self) -> Option<&ServiceFacts> {
        self.facts.as_deref()
    }

    /// Calls `visit` with every address that passes the filter; returns whether there was one. An address that is in
    /// two slices comes twice.
    pub fn visit<'a>(&'a self, filter: Filter<'_>, visit: &mut dyn FnMut(Hit<'a>)) -> bool {
        let mut found = false;
        let Some(facts) = self.facts() else { return false };
        match (&facts.target, filter) {
            (Target::Name(_), _) => {}
            (Target::ClusterIps(ips), Filter::All | Filter::Port(..)) => {
                if filter.ports(&facts.ports) {
                    for address in ips {
                        found = true;
                        visit(Hit { address: *address, endpoint: None, ports: &facts.ports });
                    }
                }
            }
            // Endpoints have names whether or not their Service is headless.
            (Target::Endpoints, _) | (Target::ClusterIps(_), Filter::Endpoint(_)) => {
                let address = match filter {
                    Filter::Endpoint(label) => crate::records::undashed(label),
                    _ => None,
                };
                for (_, slice) in self.slices.iter().filter(|(_, s)| filter.ports(&s.ports)) {
                    for endpoint in &slice.endpoints {
                        let hit = match (filter, &endpoint.hostname) {
                            (Filter::Endpoint(label), Some(hostname)) => hostname.eq_ignore_ascii_case(label),
                            (Filter::Endpoint(_), None) => address == Some(endpoint.address),
                            _ => true,
                        };
                        if hit {
                            found = true;
                            let ports = &slice.ports;
                            visit(Hit { address: endpoint.address, endpoint: Some(endpoint), ports });
                        }
                    }
                }
            }
        }
        found
    }

    /// Whether there are records below `_protocol` of this Service: such a name exists, without records of its own.
    pub fn has_protocol(&self, protocol: &str) -> bool {
        let Some(facts) = self.facts() else { return false };
        let has = |p: &Port| !p.name.is_empty() && p.protocol.eq_ignore_ascii_case(protocol);
        match &facts.target {
            Target::ClusterIps(ips) => !ips.is_empty() && facts.ports.iter().any(has),
            Target::Endpoints => {
                self.slices.iter().any(|(_, s)| !s.endpoints.is_empty() && s.ports.iter().any(has))
            }
            Target::Name(_) => false,
        }
    }
}

impl Index {
    /// The newest revision that was told. All nodes that saw the same say the same, so it serves as the zone's serial.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Notes that everything up to this revision is in.
    pub fn reached(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(name).is_some_and(|n| n.exists)
    }

    /// The Service, in a namespace that exists. Names are lower case.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        let namespace = self.namespaces.get(namespace).filter(|n| n.exists)?;
        namespace.services.get(name).filter(|s| s.facts.is_some())
    }

    /// Who has this address.
    pub fn owners(&self, address: IpAddr) -> &[Owner] {
        self.reverse.get(&address).map_or(&[], Vec::as_slice)
    }

    pub fn put_namespace(&mut self, name: &str) {
        self.namespaces.entry(name.into()).or_default().exists = true;
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.exists = false;
        }
        self.sweep(name, None);
    }

    pub fn put_service(&mut self, namespace: &Arc<str>, name: &Arc<str>, facts: Arc<ServiceFacts>) {
        let old = self.entry(namespace, name).facts.replace(facts.clone());
        if old.as_ref() == Some(&facts) {
            return;
        }
        for ip in old.iter().flat_map(|f| cluster_ips(f)) {
            self.disown(*ip, namespace, name, None);
        }
        for ip in cluster_ips(&facts) {
            self.own(*ip, Owner { namespace: namespace.clone(), service: name.clone(), endpoint: None });
        }
    }

    pub fn remove_service(&mut self, namespace: &Arc<str>, name: &Arc<str>) {
        let old = self.entry(namespace, name).facts.take();
        for ip in old.iter().flat_map(|f| cluster_ips(f)) {
            self.disown(*ip, namespace, name, None);
        }
        self.sweep(namespace, Some(name));
    }

    /// Takes the newest version of a slice; `None` for one that was deleted or belongs to no Service.
    pub fn put_slice(&mut self, namespace: &Arc<str>, name: &Arc<str>, facts: Option<Arc<SliceFacts>>) {
        let key = (namespace.clone(), name.clone());
        let old = match &facts {
            Some(facts) => self.slices.insert(key, facts.clone()),
            None => self.slices.remove(&key),
        };
        if old == facts {
            return;
        }
        let moved = match (&old, &facts) {
            (Some(old), Some(new)) => old.service != new.service,
            _ => true,
        };
        let kept = |here: &Option<Arc<SliceFacts>>, endpoint: &Endpoint| {
            !moved && here.as_ref().is_some_and(|f| f.endpoints.binary_search(endpoint).is_ok())
        };
        if let Some(old) = &old {
            for endpoint in old.endpoints.iter().filter(|e| !kept(&facts, e)) {
                let owned = OwnedEndpoint { slice: name.clone(), hostname: endpoint.hostname.clone() };
                self.disown(endpoint.address, namespace, &old.service, Some(&owned));
            }
            if moved {
                self.entry(namespace, &old.service).slices.retain(|(n, _)| n != name);
                self.sweep(namespace, Some(&old.service));
            }
        }
        if let Some(new) = facts.clone() {
            for endpoint in new.endpoints.iter().filter(|e| !kept(&old, e)) {
                let endpoint_of = OwnedEndpoint { slice: name.clone(), hostname: endpoint.hostname.clone() };
                let (namespace, service) = (namespace.clone(), new.service.clone());
                self.own(endpoint.address, Owner { namespace, service, endpoint: Some(endpoint_of) });
            }
            let slices = &mut self.entry(namespace, &new.service).slices;
            match slices.iter_mut().find(|(n, _)| n == name) {
                Some((_, slot)) => *slot = new,
                None => slices.push((name.clone(), new)),
            }
        }
    }

    fn entry(&mut self, namespace: &str, service: &str) -> &mut Service {
        self.namespaces.entry(namespace.into()).or_default().services.entry(service.into()).or_default()
    }

    fn own(&mut self, address: IpAddr, owner: Owner) {
        self.reverse.entry(address).or_default().push(owner);
    }

    fn disown(&mut self, address: IpAddr, namespace: &str, service: &str, endpoint: Option<&OwnedEndpoint>) {
        let Some(owners) = self.reverse.get_mut(&address) else { return };
        let same = |o: &Owner| {
            *o.namespace == *namespace && *o.service == *service && o.endpoint.as_ref() == endpoint
        };
        if let Some(i) = owners.iter().position(same) {
            owners.swap_remove(i);
        }
        if owners.is_empty() {
            self.reverse.remove(&address);
        }
    }

    /// Drops what nothing is known of any more.
    fn sweep(&mut self, namespace: &str, service: Option<&str>) {
        let Some(entry) = self.namespaces.get_mut(namespace) else { return };
        if let Some(service) = service
            && entry.services.get(service).is_some_and(|s| s.facts.is_none() && s.slices.is_empty())
        {
            entry.services.remove(service);
        }
        if !entry.exists && entry.services.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Whether nothing is held any more.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.slices.is_empty() && self.reverse.is_empty()
    }
}

fn cluster_ips(facts: &ServiceFacts) -> &[IpAddr] {
    match &facts.target {
        Target::ClusterIps(ips) => ips,
        _ => &[],
    }
}
