//! UDP flows that no longer lead anywhere. A client that keeps its port keeps its flow, so an entry that was made
//! before the Service had endpoints, or for one that is gone, would hold the client for good.

use crate::facts::Protocol;
use crate::plan::{Family, Frontend, UdpPort};
use linux::conntrack::{Conntrack, Tuple};
use linux::netlink::Result;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// What the connections to some UDP ports should look like.
#[derive(Debug)]
pub struct Truth<'a> {
    serving: HashMap<Frontend, &'a BTreeSet<SocketAddr>>,
    node_ips: &'a [IpAddr],
}

impl<'a> Truth<'a> {
    pub fn new(ports: impl IntoIterator<Item = &'a UdpPort>, node_ips: &'a [IpAddr]) -> Self {
        let each = |port: &'a UdpPort| port.frontends.iter().map(|f| (*f, &port.serving));
        Self { serving: ports.into_iter().flat_map(each).collect(), node_ips }
    }

    pub fn is_empty(&self) -> bool {
        self.serving.is_empty()
    }

    /// Whether a flow leads to none of the endpoints that serve its port.
    pub fn denies(&self, original: &Tuple, reply: &Tuple) -> bool {
        let to = SocketAddr::new(original.destination, original.destination_port);
        let from = SocketAddr::new(reply.source, reply.source_port);
        let at = Frontend {
            family: Family::of(&to.ip()),
            ip: Some(to.ip()),
            protocol: Protocol::Udp,
            port: to.port(),
        };
        if let Some(serving) = self.serving.get(&at) {
            return !serving.contains(&from);
        }
        // A port of another host that happens to have the number of a node port is none of ours.
        let ours = from != to || self.node_ips.contains(&to.ip());
        let serving = self.serving.get(&Frontend { ip: None, ..at });
        serving.is_some_and(|serving| ours && !serving.contains(&from))
    }
}

/// Deletes the flows that the truth denies; returns the family of each.
pub fn clean(conntrack: &mut Conntrack, truth: &Truth<'_>) -> Result<Vec<Family>> {
    let mut deleted = Vec::new();
    if truth.is_empty() {
        return Ok(deleted);
    }
    let flows = conntrack.flows(Protocol::Udp.number())?;
    for flow in flows.iter().filter(|f| truth.denies(&f.original, &f.reply)) {
        conntrack.delete(flow)?;
        deleted.push(Family::of(&flow.original.destination));
    }
    Ok(deleted)
}
