//! Which endpoints a node may use: readiness, topology hints, and what remains when nothing is ready.
//! Upstream: `CategorizeEndpoints`.

use crate::facts::Endpoint;
use crate::plan::NodeView;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

/// The usable endpoints, sorted.
#[derive(Debug, PartialEq, Eq)]
pub struct Reachable {
    pub cluster: Vec<SocketAddr>,
    pub local: Vec<SocketAddr>,
    /// Whether the Service has a usable endpoint on any node.
    pub any: bool,
}

/// Picks the endpoints for each traffic policy in use. Each falls back on endpoints that end but still serve.
pub fn reachable(
    endpoints: &BTreeMap<SocketAddr, &Endpoint>,
    node: &NodeView,
    uses_cluster: bool,
    uses_local: bool,
) -> Reachable {
    let pick = |fits: &dyn Fn(&Endpoint) -> bool| -> Vec<SocketAddr> {
        endpoints.iter().filter(|(_, e)| fits(e)).map(|(address, _)| *address).collect()
    };
    let ending = |e: &Endpoint| e.serving && e.terminating;
    let here = |e: &Endpoint| e.is_on(&node.name);
    let or_ending = |ready: Vec<SocketAddr>, fits: &dyn Fn(&Endpoint) -> bool| {
        if ready.is_empty() { pick(&|e| ending(e) && fits(e)) } else { ready }
    };
    let mut cluster = Vec::new();
    if uses_cluster {
        let topology = topology(endpoints, node);
        cluster = or_ending(pick(&|e| e.ready && topology.allows(e, node)), &|_| true);
    }
    let mut local = Vec::new();
    if uses_local {
        local = or_ending(pick(&|e| e.ready && here(e)), &here);
    }
    let any = !cluster.is_empty() || uses_local && endpoints.values().any(|e| e.ready || ending(e));
    Reachable { cluster, local, any }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topology {
    Anywhere,
    SameZone,
    SameNode,
}

impl Topology {
    fn allows(self, e: &Endpoint, node: &NodeView) -> bool {
        match self {
            Topology::Anywhere => true,
            Topology::SameZone => e.zone_hints.iter().any(|z| **z == *node.zone),
            Topology::SameNode => e.node_hints.iter().any(|n| **n == *node.name),
        }
    }
}

/// Hints count only when every ready endpoint has them and one of them is for this node.
fn topology(endpoints: &BTreeMap<SocketAddr, &Endpoint>, node: &NodeView) -> Topology {
    let ready = || endpoints.values().filter(|e| e.ready);
    let counts = |topology: Topology, hints: fn(&Endpoint) -> &[Box<str>]| {
        ready().all(|e| !hints(e).is_empty()) && ready().any(|e| topology.allows(e, node))
    };
    if counts(Topology::SameNode, |e| &e.node_hints) {
        Topology::SameNode
    } else if counts(Topology::SameZone, |e| &e.zone_hints) {
        Topology::SameZone
    } else {
        Topology::Anywhere
    }
}

/// The order of a pool in the kernel: those who stay keep their place, the last fill the places of those who left,
/// newcomers come last. One endpoint less is then a change of two places, not of all.
pub fn arrange(before: &[SocketAddr], now: &[SocketAddr]) -> Vec<SocketAddr> {
    let wanted: HashSet<_> = now.iter().collect();
    let known: HashSet<_> = before.iter().collect();
    let mut newcomers = now.iter().filter(|a| !known.contains(a)).copied();
    let mut places: Vec<Option<SocketAddr>> =
        before.iter().map(|a| Some(*a).filter(|a| wanted.contains(a))).collect();
    for place in &mut places {
        if place.is_none() {
            *place = newcomers.next();
        }
    }
    places.extend(newcomers.map(Some));
    let mut at = 0;
    while at < places.len() {
        if places[at].is_some() {
            at += 1;
            continue;
        }
        let last = places.pop().flatten();
        if last.is_some() {
            places[at] = last;
        }
    }
    places.into_iter().flatten().collect()
}
