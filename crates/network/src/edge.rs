//! The kernel's routes, made to be as planned.

use crate::plan::{Peer, Plan, Range, Uplink, is_far, mac, plan};
use linux::netlink::route::{Address, NeighbourTable, PROTOCOL, Routing, Scope, Vxlan};
use linux::netlink::{Error, Result};
use linux::netns::Netns;
use std::net::{IpAddr, Ipv4Addr};

/// The tunnel's name.
pub const DEVICE: &str = "tiphys-vxlan";
/// Which of the networks on that port is ours: 36, for no other reason than that few take it.
const VNI: u32 = 36;
/// As IANA has it.
const PORT: u16 = 4789;
/// The outer headers: Ethernet, IPv4, UDP, VXLAN.
const OVERHEAD: u32 = 50;

/// What holds the routes of one network namespace.
pub(crate) struct Edge {
    routing: Routing,
    /// The links that routes lead over.
    links: Vec<u32>,
}

impl Edge {
    pub(crate) fn open_in(netns: &Netns) -> Result<Self> {
        Ok(Edge { routing: Routing::open_in(netns)?, links: Vec::new() })
    }

    /// Whether what becomes of a link matters here.
    pub(crate) fn uses(&self, link: u32) -> bool {
        self.links.contains(&link)
    }

    /// Makes the routes to the peers, and removes what leads to none. `own` are the ranges of this node's pods.
    pub(crate) fn apply(&mut self, node_ip: Ipv4Addr, own: &[Range], peers: &[Peer]) -> Result<()> {
        let uplink = self.uplink(node_ip)?;
        let needs_tunnel = peers.iter().any(|peer| is_far(uplink.as_ref(), peer));
        let tunnel = match needs_tunnel {
            true => Some(self.tunnel(node_ip, uplink.as_ref(), own)?),
            false => {
                self.routing.delete_link(DEVICE)?;
                None
            }
        };
        self.links = uplink.iter().map(|uplink| uplink.link).chain(tunnel).collect();
        self.write(&plan(uplink.as_ref(), tunnel, peers), tunnel)
    }

    /// Where the node's address is.
    fn uplink(&mut self, node_ip: Ipv4Addr) -> Result<Option<Uplink>> {
        let address = self.routing.addresses()?.into_iter().find(|address| address.ip == node_ip);
        Ok(address.map(|address| {
            let network = Range { network: node_ip, prefix: address.prefix };
            Uplink { link: address.link, network }
        }))
    }

    /// The tunnel's link, made if it is not there or made otherwise.
    fn tunnel(&mut self, node_ip: Ipv4Addr, uplink: Option<&Uplink>, own: &[Range]) -> Result<u32> {
        let device = uplink.map(|uplink| uplink.link);
        let outer = self.routing.links()?.into_iter().find(|link| Some(link.index) == device);
        let mtu = outer.map_or(1500, |link| link.mtu).saturating_sub(OVERHEAD);
        let wanted = Vxlan { vni: VNI, port: PORT, local: Some(IpAddr::V4(node_ip)), device };
        let mut there = self.routing.link(DEVICE)?;
        if there
            .as_ref()
            .is_some_and(|link| link.vxlan.as_ref() != Some(&wanted) || link.mac != Some(mac(node_ip)))
        {
            self.routing.delete_link(DEVICE)?;
            there = None;
        }
        if there.is_none() {
            self.routing.add_vxlan(DEVICE, mac(node_ip), mtu, &wanted)?;
            there = self.routing.link(DEVICE)?;
        }
        let link = there.ok_or(Error::NoAnswer("add vxlan"))?;
        if link.mtu != mtu {
            self.routing.set_mtu(link.index, mtu)?;
        }
        if !link.up {
            self.routing.set_up(link.index)?;
        }
        self.own_addresses(link.index, own)?;
        Ok(link.index)
    }

    /// What the node itself sends through the tunnel comes from its range's own address.
    fn own_addresses(&mut self, link: u32, own: &[Range]) -> Result<()> {
        let wanted = own.iter().map(|range| IpAddr::V4(range.network));
        let there: Vec<Address> =
            self.routing.addresses()?.into_iter().filter(|address| address.link == link).collect();
        for stale in
            there.iter().filter(|address| address.ip.is_ipv4() && !wanted.clone().any(|ip| ip == address.ip))
        {
            self.routing.delete_address(stale)?;
        }
        for ip in wanted.clone().filter(|ip| !there.iter().any(|address| address.ip == *ip)) {
            self.routing.add_address(&Address { link, ip, prefix: 32, scope: Scope::Global })?;
        }
        Ok(())
    }

    fn write(&mut self, plan: &Plan, tunnel: Option<u32>) -> Result<()> {
        // Routes to pods of this node have no gateway, and are not ours.
        let ours =
            |route: &linux::netlink::route::Route| route.protocol == PROTOCOL && route.gateway.is_some();
        let there: Vec<_> = self.routing.routes()?.into_iter().filter(ours).collect();
        let mut known = Vec::new();
        for table in tunnel.iter().flat_map(|_| [NeighbourTable::Resolution, NeighbourTable::Forwarding]) {
            let entries = self.routing.neighbours(table)?;
            known.extend(entries.into_iter().filter(|entry| Some(entry.link) == tunnel));
        }
        for entry in plan.neighbours.iter().filter(|entry| !known.contains(entry)) {
            self.routing.set_neighbour(entry)?;
        }
        for route in plan.routes.iter().filter(|route| !there.contains(route)) {
            self.routing.set_route(route)?;
        }
        let stale = |route: &&linux::netlink::route::Route| {
            !plan
                .routes
                .iter()
                .any(|wanted| (wanted.destination, wanted.prefix) == (route.destination, route.prefix))
        };
        for route in there.iter().filter(stale) {
            self.routing.delete_route(route)?;
        }
        for entry in known.iter().filter(|entry| !plan.neighbours.contains(entry)) {
            // A node with another address keeps its range's: what replaced an entry is not removed with it.
            let replaced =
                plan.neighbours.iter().any(|wanted| (wanted.ip, wanted.table) == (entry.ip, entry.table));
            if !replaced || entry.table == NeighbourTable::Forwarding {
                self.routing.delete_neighbour(entry)?;
            }
        }
        Ok(())
    }
}

/// Removes every route to other nodes, and the tunnel.
pub fn cleanup() -> Result<()> {
    let mut edge = Edge { routing: Routing::open()?, links: Vec::new() };
    edge.write(&Plan::default(), None)?;
    edge.routing.delete_link(DEVICE)
}
