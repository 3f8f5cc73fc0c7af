//! The built-in pod network: a veth per pod, a /32 (and /128) inside, a route to it outside, and no bridge.
//!
//! The pod's default route goes to a link-local gateway that exists only as a permanent neighbour entry, so nothing
//! is resolved and nothing answers for anybody else. Everything here blocks for a millisecond or two.

pub mod ipam;
mod packet_filter;
mod veth;

use std::net::IpAddr;

use linux::netns::Netns;
use linux::{netlink, sysctl};

pub use packet_filter::PacketFilter;
pub use veth::{Veth, interface_name};

use crate::Cidr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network of the pod")]
    Netlink(#[from] netlink::Error),
    #[error("{0}")]
    Io(String, #[source] std::io::Error),
    #[error("no addresses available in range set: {0}")]
    Full(Cidr),
    #[error("the node has no pod CIDR yet")]
    NoRange,
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    |error| Error::Io(what.into(), error)
}

/// The network namespace that plays the node: the process's own, or another in tests.
#[derive(Debug)]
pub struct Host(pub Option<Netns>);

impl Host {
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
        match &self.0 {
            Some(netns) => netns.run(work),
            None => Ok(work()),
        }
    }

    /// Turns the node into a router. Forwarding stops IPv6 router advertisements from being heeded, which would
    /// take the node's own default route away in an hour or so: interfaces that used them are told to go on.
    pub fn enable_forwarding(&self, ipv6: bool) -> Result<(), Error> {
        self.run(|| -> std::io::Result<()> {
            sysctl::write(&["net", "ipv4", "ip_forward"], "1")?;
            if !ipv6 || sysctl::read(&["net", "ipv6", "conf", "all", "forwarding"]).is_ok_and(|v| v == "1") {
                return Ok(());
            }
            for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf")? {
                let name = entry?.file_name();
                let name = name.to_string_lossy();
                let key = ["net", "ipv6", "conf", &name, "accept_ra"];
                if sysctl::read(&key).is_ok_and(|v| v == "1") {
                    sysctl::write(&key, "2")?;
                }
            }
            sysctl::write(&["net", "ipv6", "conf", "all", "forwarding"], "1")
        })
        .and_then(|r| r)
        .map_err(io("enable forwarding"))
    }

    /// The MTU that leaves the node: that of the default route's interface.
    pub fn mtu(&self) -> Result<u32, Error> {
        let mut routing = self.routing()?;
        let default =
            routing.routes()?.into_iter().filter(|r| r.prefix == 0).min_by_key(|r| r.destination.is_ipv6());
        let links = routing.links()?;
        let link = default.and_then(|d| links.into_iter().find(|l| l.index == d.link));
        Ok(link.map_or(1500, |l| l.mtu))
    }

    pub(crate) fn routing(&self) -> Result<netlink::route::Routing, netlink::Error> {
        match &self.0 {
            Some(netns) => netlink::route::Routing::open_in(netns),
            None => netlink::route::Routing::open(),
        }
    }

    pub(crate) fn nft(&self) -> Result<linux::nft::Nft, netlink::Error> {
        match &self.0 {
            Some(netns) => linux::nft::Nft::open_in(netns),
            None => linux::nft::Nft::open(),
        }
    }
}

/// An address with nothing beside it.
pub(crate) fn full_prefix(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}
