//! What is kept of a node.

use crate::plan::{Peer, Range};
use api::core::v1::Node;
use apimachinery::validation::parse_cidr_sloppy;
use client::Projection;
use std::net::{IpAddr, Ipv4Addr};

/// Where a node is, and the ranges of its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    pub address: Option<Ipv4Addr>,
    pub ranges: Vec<Range>,
}

impl NodeFacts {
    /// A node that others can be led to.
    pub(crate) fn peer(&self) -> Option<Peer> {
        let ranges = self.ranges.clone();
        Some(Peer { address: self.address?, ranges }).filter(|peer| !peer.ranges.is_empty())
    }
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let internal = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        let ranges = node.spec.pod_cidrs.iter().filter_map(|cidr| {
            let cidr = parse_cidr_sloppy(cidr)?;
            match cidr.network() {
                IpAddr::V4(network) => Some(Range { network, prefix: cidr.prefix }),
                IpAddr::V6(_) => None,
            }
        });
        NodeFacts {
            address: internal.filter_map(|address| address.address.parse().ok()).next(),
            ranges: ranges.collect(),
        }
    }
}
