//! The pod network: CNI plugins when a configuration names them, else routed veths of our own.
//!
//! In goes a sandbox with its network namespace, out come its addresses. Everything is keyed by sandbox id,
//! idempotent, and remembered on disk, so that a restart neither leaks nor reuses an address.

/// The built-in network: IPAM, veths, host ports, masquerading.
pub mod builtin;
mod network;
/// Running CNI plugins by exec, spec 1.1.
pub mod plugin;
mod state;

pub use network::{Config, Error, PodNetwork, Result};

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A sandbox that wants a network.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Where its network namespace is pinned.
    pub netns: std::path::PathBuf,
    pub port_mappings: Vec<PortMapping>,
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
    /// Only on this address of the node; absent or unspecified: on all of them.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

/// The addresses of a pod, the primary one first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIps(pub Vec<IpAddr>);

impl PodIps {
    pub fn primary(&self) -> Option<IpAddr> {
        self.0.first().copied()
    }
}

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    pub ip: IpAddr,
    pub prefix: u8,
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("invalid CIDR address: {text}");
        let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > if ip.is_ipv4() { 32 } else { 128 } {
            return Err(bad());
        }
        Ok(Self { ip, prefix }.network())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Cidr {
    fn bits(ip: IpAddr) -> u128 {
        match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        }
    }

    fn width(&self) -> u8 {
        if self.ip.is_ipv4() { 32 } else { 128 }
    }

    fn host_mask(&self) -> u128 {
        let host = u32::from(self.width() - self.prefix);
        1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1)
    }

    fn at(&self, bits: u128) -> IpAddr {
        match self.ip {
            IpAddr::V4(_) => IpAddr::V4((bits as u32).into()),
            IpAddr::V6(_) => IpAddr::V6(bits.into()),
        }
    }

    fn network(self) -> Self {
        Self { ip: self.at(Self::bits(self.ip) & !self.host_mask()), prefix: self.prefix }
    }

    pub fn first(&self) -> IpAddr {
        self.ip
    }

    pub fn last(&self) -> IpAddr {
        self.at(Self::bits(self.ip) | self.host_mask())
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.ip.is_ipv4() && Self::bits(ip) & !self.host_mask() == Self::bits(self.ip)
    }
}
