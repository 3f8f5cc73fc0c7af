//! From nodes to routes, neighbours and forwarding entries.

use linux::netlink::route::{Mac, Neighbour, NeighbourTable, Route};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub network: Ipv4Addr,
    pub prefix: u8,
}

impl Range {
    fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        (self.network.to_bits() ^ address.to_bits()) & mask == 0
    }
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub address: Ipv4Addr,
    pub ranges: Vec<Range>,
}

/// The link that the node's address is on, and what else is on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub link: u32,
    pub network: Range,
}

/// How the kernel should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub routes: BTreeSet<Route>,
    pub neighbours: BTreeSet<Neighbour>,
}

/// The hardware address of a node's end of the tunnel: locally administered, and the node's own address.
pub(crate) fn mac(node: Ipv4Addr) -> Mac {
    let [a, b, c, d] = node.octets();
    [0x0a, 0x54, a, b, c, d]
}

/// Whether a node must be reached through the tunnel.
pub(crate) fn is_far(uplink: Option<&Uplink>, peer: &Peer) -> bool {
    !uplink.is_some_and(|uplink| uplink.network.contains(peer.address))
}

/// The way to each peer. `tunnel` is the link of the tunnel; without it, peers that need it are left out.
pub(crate) fn plan(uplink: Option<&Uplink>, tunnel: Option<u32>, peers: &[Peer]) -> Plan {
    let mut plan = Plan::default();
    for peer in peers {
        let far = is_far(uplink, peer);
        let link = if far { tunnel } else { uplink.map(|uplink| uplink.link) };
        let Some(link) = link else { continue };
        for range in &peer.ranges {
            // The other end of the tunnel is called by the range's own address, which no pod has.
            let gateway = if far { range.network } else { peer.address };
            let mut route = Route::via(range.network.into(), range.prefix, gateway.into(), link);
            route.onlink = far;
            plan.routes.insert(route);
            if far {
                let mac = mac(peer.address);
                let entry = |ip: Ipv4Addr, table| Neighbour { link, ip: IpAddr::V4(ip), mac, table };
                plan.neighbours.insert(entry(gateway, NeighbourTable::Resolution));
                plan.neighbours.insert(entry(peer.address, NeighbourTable::Forwarding));
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        let (network, prefix) = text.split_once('/').unwrap();
        Range { network: network.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn peer(address: &str, ranges: &[&str]) -> Peer {
        Peer { address: address.parse().unwrap(), ranges: ranges.iter().map(|r| range(r)).collect() }
    }

    #[test]
    fn near_nodes_are_gateways_and_far_ones_are_behind_the_tunnel() {
        let uplink = Uplink { link: 2, network: range("192.0.2.0/24") };
        let peers = [peer("192.0.2.11", &["10.244.1.0/24"]), peer("198.51.100.7", &["10.244.2.0/24"])];
        let plan = plan(Some(&uplink), Some(9), &peers);
        let routes: Vec<_> = plan
            .routes
            .iter()
            .map(|r| {
                format!(
                    "{}/{} via {} link {} onlink {}",
                    r.destination,
                    r.prefix,
                    r.gateway.unwrap(),
                    r.link,
                    r.onlink
                )
            })
            .collect();
        assert_eq!(
            routes,
            [
                "10.244.1.0/24 via 192.0.2.11 link 2 onlink false",
                "10.244.2.0/24 via 10.244.2.0 link 9 onlink true"
            ]
        );
        let mac = [0x0a, 0x54, 198, 51, 100, 7];
        let seen: Vec<_> = plan.neighbours.iter().map(|n| (n.ip.to_string(), n.mac, n.table)).collect();
        assert_eq!(
            seen,
            [
                ("10.244.2.0".to_owned(), mac, NeighbourTable::Resolution),
                ("198.51.100.7".to_owned(), mac, NeighbourTable::Forwarding)
            ]
        );
    }

    #[test]
    fn without_a_tunnel_far_nodes_are_left_out() {
        let uplink = Uplink { link: 2, network: range("192.0.2.0/24") };
        assert_eq!(plan(Some(&uplink), None, &[peer("198.51.100.7", &["10.244.2.0/24"])]), Plan::default());
        assert_eq!(plan(None, None, &[peer("192.0.2.11", &["10.244.1.0/24"])]), Plan::default());
    }

    #[test]
    fn a_link_with_everything_on_it_has_no_far_nodes() {
        let uplink = Uplink { link: 2, network: range("0.0.0.0/0") };
        assert!(!is_far(Some(&uplink), &peer("198.51.100.7", &[])));
        assert!(is_far(None, &peer("192.0.2.11", &[])));
    }
}
