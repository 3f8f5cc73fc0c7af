//! Pure: a Service, its slices and the node's own facts in; what the node must do with its packets out.
//!
//! A [`Plan`] is semantic: virtual addresses and node ports ([`Frontend`]) lead to [`Pool`]s of endpoints, or are
//! refused. How the kernel is told is the business of [`crate::nft`].

use crate::endpoints::{Reachable, reachable};
use crate::facts::{Endpoint, Port, Protocol, SliceFacts, VirtualService};
use apimachinery::validation::Cidr;
use client::ObjectKey;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What a plan depends on besides the Service.
#[derive(Debug, Clone, Default)]
pub struct NodeView {
    pub name: String,
    pub zone: String,
    pub ips: Vec<IpAddr>,
}

/// The address family of one half of the rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(ip: &IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// Where clients knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    pub family: Family,
    /// None for a port of the node.
    pub ip: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name();
        match (self.ip, self.family) {
            (Some(ip), _) => write!(f, "{}/{protocol}", SocketAddr::new(ip, self.port)),
            (None, Family::V4) => write!(f, "node:{}/{protocol}", self.port),
            (None, Family::V6) => write!(f, "node6:{}/{protocol}", self.port),
        }
    }
}

/// Which endpoints a pool holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    Cluster,
    Local,
}

/// Names a pool: a Service's port, in one family, under one traffic policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName {
    pub service: ObjectKey,
    pub port: String,
    pub protocol: Protocol,
    pub family: Family,
    pub policy: Policy,
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = if self.policy == Policy::Cluster { "cluster" } else { "local" };
        write!(f, "{policy}-{}:{}/{}", self.service, self.port, self.protocol.name())
    }
}

/// Endpoints of equal standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Sorted.
    pub endpoints: Vec<SocketAddr>,
    /// Seconds that a client keeps its endpoint.
    pub affinity: Option<u32>,
}

/// What becomes of a packet that no pool takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Reject,
    Drop,
}

/// How clients of a frontend are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A cluster IP: clients from outside the cluster are masqueraded.
    Internal,
    /// Every client is masqueraded, since the endpoint may be anywhere.
    External,
    /// Clients keep their address; those in the cluster may use the whole cluster's endpoints.
    ExternalLocal,
}

/// Where a frontend leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub entry: Entry,
    pub pool: Option<PoolName>,
    /// For clients on the node and in the cluster, when it is another pool than for those outside.
    pub short_circuit: Option<PoolName>,
    pub refusal: Option<Refusal>,
}

/// What is true of the tracked connections to one UDP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPort {
    pub frontends: Vec<Frontend>,
    /// Where established flows may go on to.
    pub serving: BTreeSet<SocketAddr>,
}

/// The health check of a Service for its load balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub local_endpoints: usize,
}

/// Everything one Service asks of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub pools: BTreeMap<PoolName, Pool>,
    pub frontends: BTreeMap<Frontend, Route>,
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Endpoints here that may be reached from themselves through the Service.
    pub hairpins: BTreeSet<(SocketAddr, Protocol)>,
    /// Frontends that only some sources may use.
    pub source_ranges: BTreeMap<Frontend, Vec<Cidr>>,
    pub health_check: Option<HealthCheck>,
    pub udp: Vec<UdpPort>,
}

/// Plans one Service. `slices` are all of its slices.
pub fn plan(key: &ObjectKey, service: &VirtualService, slices: &[&SliceFacts], node: &NodeView) -> Plan {
    let mut plan = Plan::default();
    let mut local_ready = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        let mine = |ip: &&IpAddr| Family::of(ip) == family;
        let Some(cluster_ip) = service.cluster_ips.iter().find(mine) else { continue };
        plan.cluster_ips.insert(*cluster_ip);
        for port in &service.ports {
            let endpoints = endpoints_of(port, family, slices);
            let ready_here = |e: &Endpoint| e.ready && e.is_on(&node.name);
            local_ready.extend(endpoints.values().filter(|e| ready_here(e)).filter_map(|e| e.ip));
            plan_port(&mut plan, key, service, port, *cluster_ip, &endpoints, node);
        }
    }
    plan.health_check =
        service.health_check_node_port.map(|port| HealthCheck { port, local_endpoints: local_ready.len() });
    plan
}

/// The endpoints of a port, each address once.
fn endpoints_of<'a>(
    port: &Port,
    family: Family,
    slices: &[&'a SliceFacts],
) -> BTreeMap<SocketAddr, &'a Endpoint> {
    let mut out = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|(n, p, _)| *n == port.name && *p == port.protocol);
        for (_, _, number) in ports {
            for endpoint in &slice.endpoints {
                let Some(ip) = endpoint.ip.filter(|ip| Family::of(ip) == family) else { continue };
                // Two pods may show one address while it changes hands: the one that stays counts.
                let known = out.entry(SocketAddr::new(ip, *number)).or_insert(endpoint);
                if !endpoint.terminating {
                    *known = endpoint;
                }
            }
        }
    }
    out
}

fn plan_port(
    plan: &mut Plan,
    key: &ObjectKey,
    service: &VirtualService,
    port: &Port,
    cluster_ip: IpAddr,
    endpoints: &BTreeMap<SocketAddr, &Endpoint>,
    node: &NodeView,
) {
    let family = Family::of(&cluster_ip);
    let at = |ip| Frontend { family, ip, protocol: port.protocol, port: port.port };
    let of_family = |ips: &[IpAddr]| -> Vec<IpAddr> {
        ips.iter().copied().filter(|ip| Family::of(ip) == family).collect()
    };
    let vips = of_family(&service.load_balancer_ips);
    let mut external: Vec<Frontend> =
        of_family(&service.external_ips).iter().chain(&vips).map(|ip| at(Some(*ip))).collect();
    if port.node_port != 0 {
        external.push(Frontend { port: port.node_port, ..at(None) });
    }
    let external_local = service.external_local && !external.is_empty();
    let uses_cluster = !service.internal_local || !external.is_empty();
    let uses_local = service.internal_local || external_local;
    let Reachable { cluster, local, any } = reachable(endpoints, node, uses_cluster, uses_local);

    for (address, endpoint) in endpoints {
        let used = cluster.binary_search(address).is_ok() || local.binary_search(address).is_ok();
        if used && endpoint.is_on(&node.name) {
            plan.hairpins.insert((*address, port.protocol));
        }
    }
    let mut pool = |policy, endpoints: Vec<SocketAddr>| {
        if endpoints.is_empty() {
            return None;
        }
        let name = PoolName {
            service: key.clone(),
            port: port.name.clone(),
            protocol: port.protocol,
            family,
            policy,
        };
        plan.pools.insert(name.clone(), Pool { endpoints, affinity: service.affinity });
        Some(name)
    };
    let cluster = pool(Policy::Cluster, cluster);
    let local = pool(Policy::Local, local);
    let route = |entry, local_only: bool| {
        let pool = if local_only { local.clone() } else { cluster.clone() };
        let refusal = match (&pool, any) {
            (Some(_), _) => None,
            (None, true) => Some(Refusal::Drop),
            (None, false) => Some(Refusal::Reject),
        };
        let short_circuit = cluster.clone().filter(|_| entry == Entry::ExternalLocal);
        Route { entry, pool, short_circuit, refusal }
    };
    let mut frontends = vec![at(Some(cluster_ip))];
    plan.frontends.insert(frontends[0], route(Entry::Internal, service.internal_local));
    let entry = if external_local { Entry::ExternalLocal } else { Entry::External };
    for frontend in external {
        frontends.push(frontend);
        plan.frontends.insert(frontend, route(entry, external_local));
    }
    if let Some(ranges) = source_ranges(service, family, &vips, node) {
        for vip in &vips {
            plan.source_ranges.insert(at(Some(*vip)), ranges.clone());
        }
    }
    let serving: BTreeSet<_> = endpoints.iter().filter(|(_, e)| e.serving).map(|(a, _)| *a).collect();
    if port.protocol == Protocol::Udp && !serving.is_empty() {
        plan.udp.push(UdpPort { frontends, serving });
    }
}

/// The ranges of sources that may use the load balancer's addresses; None when all may.
fn source_ranges(
    service: &VirtualService,
    family: Family,
    vips: &[IpAddr],
    node: &NodeView,
) -> Option<Vec<Cidr>> {
    let ranges = service.source_ranges.iter().filter(|r| Family::of(&r.address) == family);
    let mut ranges: Vec<Cidr> = ranges.copied().collect();
    if ranges.is_empty() || ranges.iter().any(|r| r.prefix == 0) {
        return None;
    }
    // A request from the node to an address that was added to the node loops back with that address as its source.
    if ranges.iter().any(|r| node.ips.iter().any(|ip| r.contains(*ip))) {
        let prefix = if family == Family::V4 { 32 } else { 128 };
        ranges.extend(vips.iter().map(|vip| Cidr { address: *vip, prefix }));
    }
    Some(disjoint(&ranges))
}

/// The same addresses in ranges that do not overlap: of two that share an address, one holds the other.
pub fn disjoint(ranges: &[Cidr]) -> Vec<Cidr> {
    let mut ranges: Vec<Cidr> =
        ranges.iter().map(|r| Cidr { address: r.network(), prefix: r.prefix }).collect();
    ranges.sort_by_key(|r| (r.address, r.prefix));
    ranges.dedup_by(|later, kept| kept.contains(later.address));
    ranges
}
