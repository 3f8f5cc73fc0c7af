//! rtnetlink: links, addresses, routes and neighbours, each as a small value that is added, deleted or listed.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use super::{Attributes, Error, Family, Message, Result, Socket};
use crate::netns::Netns;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
const NEWNEIGH: u16 = 28;
const DELNEIGH: u16 = 29;
const GETNEIGH: u16 = 30;

const REPLACE: u16 = 0x100;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const IFF_UP: u32 = 1;

/// Marks the routes that Tiphys installs, so that they can be told from everybody else's.
pub const PROTOCOL: u8 = 117;
const RTPROT_BOOT: u8 = 3;

pub type Mac = [u8; 6];

/// A network interface as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub up: bool,
    /// The driver, such as `veth` or `vxlan`; empty for hardware.
    pub kind: String,
    /// For a vxlan link: what it was made with, to tell a changed configuration.
    pub vxlan: Option<Vxlan>,
}

/// One end of a veth pair.
#[derive(Debug, Clone)]
pub struct VethEnd<'a> {
    pub name: &'a str,
    pub mac: Mac,
}

/// The parameters of a VXLAN link without learning: the forwarding entries are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub port: u16,
    pub local: Option<IpAddr>,
    pub device: Option<u32>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// Link scope: never chosen as a source for traffic that leaves the link.
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    Link,
    Host,
}

impl Scope {
    fn raw(self) -> u8 {
        match self {
            Scope::Global => 0,
            Scope::Link => 253,
            Scope::Host => 254,
        }
    }

    fn of(raw: u8) -> Self {
        match raw {
            254 => Scope::Host,
            253 => Scope::Link,
            _ => Scope::Global,
        }
    }
}

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    pub destination: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub link: u32,
    pub source: Option<IpAddr>,
    pub scope: Scope,
    /// The gateway is on the link although no address of ours says so.
    pub onlink: bool,
    pub protocol: u8,
}

impl Route {
    /// A route to one host or network straight through a link.
    pub fn direct(destination: IpAddr, prefix: u8, link: u32) -> Self {
        let scope = if destination.is_ipv4() { Scope::Link } else { Scope::Global };
        Self {
            destination,
            prefix,
            gateway: None,
            link,
            source: None,
            scope,
            onlink: false,
            protocol: PROTOCOL,
        }
    }

    /// A route through a gateway.
    pub fn via(destination: IpAddr, prefix: u8, gateway: IpAddr, link: u32) -> Self {
        Self { gateway: Some(gateway), scope: Scope::Global, ..Self::direct(destination, prefix, link) }
    }

    pub fn default_via(gateway: IpAddr, link: u32) -> Self {
        let any = if gateway.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            "::".parse().unwrap_or(gateway)
        };
        Self::via(any, 0, gateway, link)
    }
}

/// A permanent neighbour (or, for a bridge family, a forwarding entry of a VXLAN link).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    pub link: u32,
    pub ip: IpAddr,
    pub mac: Mac,
    pub table: NeighbourTable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NeighbourTable {
    /// ARP and neighbour discovery: which hardware address has this IP.
    Resolution,
    /// The VXLAN forwarding database: behind which outer IP is this hardware address.
    Forwarding,
}

fn family(ip: &IpAddr) -> u8 {
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

fn octets(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// The routing socket of one network namespace.
#[derive(Debug)]
pub struct Routing(Socket);

impl Routing {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Socket::open(Family::Route).map(Self)
    }

    pub fn open_in(netns: &Netns) -> Result<Self> {
        Socket::open_in(netns, Family::Route).map(Self)
    }

    pub fn links(&mut self) -> Result<Vec<Link>> {
        let replies = self.0.dump("list links", Message::new(GETLINK, 0, &ifinfo(0, 0, 0)))?;
        Ok(replies.iter().filter_map(|r| r.split(16)).filter_map(|(h, a)| parse_link(h, a)).collect())
    }

    /// The link of that name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut message = Message::new(GETLINK, 0, &ifinfo(0, 0, 0));
        message.str(IFLA_IFNAME, name);
        match self.0.get("get link", message) {
            Ok(replies) => Ok(replies.iter().filter_map(|r| r.split(16)).find_map(|(h, a)| parse_link(h, a))),
            Err(e) if e.is_absent() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a veth pair, this side up, the peer born (down) inside `netns`: at no moment is it visible here.
    pub fn add_veth(
        &mut self,
        host: &VethEnd<'_>,
        peer: &VethEnd<'_>,
        netns: BorrowedFd<'_>,
        mtu: u32,
    ) -> Result<()> {
        let mut message = Message::new(NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP));
        message.str(IFLA_IFNAME, host.name).attr(IFLA_ADDRESS, &host.mac).ne32(IFLA_MTU, mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.str(INFO_KIND, "veth").nest(INFO_DATA, |m| {
                const VETH_INFO_PEER: u16 = 1;
                // The peer cannot be up before the pair is joined.
                m.nest_after(VETH_INFO_PEER, &ifinfo(0, 0, 0), |m| {
                    m.str(IFLA_IFNAME, peer.name).attr(IFLA_ADDRESS, &peer.mac).ne32(IFLA_MTU, mtu);
                    m.ne32(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32);
                });
            });
        });
        self.0.request("add veth", message)
    }

    pub fn add_vxlan(&mut self, name: &str, mac: Mac, mtu: u32, vxlan: &Vxlan) -> Result<()> {
        let mut message = Message::new(NEWLINK, CREATE | EXCL, &ifinfo(0, IFF_UP, IFF_UP));
        message.str(IFLA_IFNAME, name).attr(IFLA_ADDRESS, &mac).ne32(IFLA_MTU, mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.str(INFO_KIND, "vxlan").nest(INFO_DATA, |m| {
                m.ne32(1, vxlan.vni).attr(7, &[0]).attr(15, &vxlan.port.to_be_bytes());
                if let Some(device) = vxlan.device {
                    m.ne32(3, device);
                }
                match vxlan.local {
                    Some(IpAddr::V4(ip)) => {
                        m.attr(4, &ip.octets());
                    }
                    Some(IpAddr::V6(ip)) => {
                        m.attr(17, &ip.octets());
                    }
                    None => {}
                }
            });
        });
        self.0.request("add vxlan", message)
    }

    pub fn set_up(&mut self, link: u32) -> Result<()> {
        self.0.request("set link up", Message::new(NEWLINK, 0, &ifinfo(link, IFF_UP, IFF_UP)))
    }

    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> Result<()> {
        let mut message = Message::new(NEWLINK, 0, &ifinfo(link, 0, 0));
        message.ne32(IFLA_MTU, mtu);
        self.0.request("set link mtu", message)
    }

    /// Deletes a link by name; absent is fine.
    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let mut message = Message::new(DELLINK, 0, &ifinfo(0, 0, 0));
        message.str(IFLA_IFNAME, name);
        absent_is_fine(self.0.request("delete link", message))
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let replies = self.0.dump("list addresses", Message::new(GETADDR, 0, &[0; 8]))?;
        Ok(replies.iter().filter_map(|r| r.split(8)).filter_map(|(h, a)| parse_address(h, a)).collect())
    }

    /// Adds an address without duplicate detection; present is fine.
    pub fn add_address(&mut self, address: &Address) -> Result<()> {
        self.0.request("add address", address_message(NEWADDR, CREATE | REPLACE, address))
    }

    pub fn delete_address(&mut self, address: &Address) -> Result<()> {
        absent_is_fine(self.0.request("delete address", address_message(DELADDR, 0, address)))
    }

    /// The unicast routes of the main table, IPv4 and IPv6.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let replies = self.0.dump("list routes", Message::new(GETROUTE, 0, &[0; 12]))?;
        Ok(replies.iter().filter_map(|r| r.split(12)).filter_map(|(h, a)| parse_route(h, a)).collect())
    }

    /// Adds the route, or replaces the one to the same destination.
    pub fn set_route(&mut self, route: &Route) -> Result<()> {
        self.0.request("set route", route_message(NEWROUTE, CREATE | REPLACE, route))
    }

    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        absent_is_fine(self.0.request("delete route", route_message(DELROUTE, 0, route)))
    }

    /// The permanent entries of one table.
    pub fn neighbours(&mut self, table: NeighbourTable) -> Result<Vec<Neighbour>> {
        let mut header = [0; 12];
        if table == NeighbourTable::Forwarding {
            header[0] = libc::AF_BRIDGE as u8;
        }
        let replies = self.0.dump("list neighbours", Message::new(GETNEIGH, 0, &header))?;
        let parse = |(h, a): (&[u8], Attributes<'_>)| {
            let state = u16::from_ne_bytes([h[8], h[9]]);
            Some(Neighbour {
                link: u32::from_ne_bytes([h[4], h[5], h[6], h[7]]),
                ip: ip(a.find(1)?)?,
                mac: a.find(2)?.try_into().ok()?,
                table,
            })
            .filter(|_| state & NUD_PERMANENT != 0)
        };
        Ok(replies.iter().filter_map(|r| r.split(12)).filter_map(parse).collect())
    }

    pub fn set_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        self.0.request("set neighbour", neighbour_message(NEWNEIGH, CREATE | REPLACE, neighbour))
    }

    pub fn delete_neighbour(&mut self, neighbour: &Neighbour) -> Result<()> {
        absent_is_fine(self.0.request("delete neighbour", neighbour_message(DELNEIGH, 0, neighbour)))
    }
}

/// The group that is told of every change to links.
const RTNLGRP_LINK: i32 = 1;

/// Hears of changes to links in one network namespace. Its descriptor is readable when there is news.
#[derive(Debug)]
pub struct LinkMonitor(Socket);

impl LinkMonitor {
    pub fn open_in(netns: &Netns) -> Result<Self> {
        Socket::listen_in(netns, Family::Route, RTNLGRP_LINK).map(Self)
    }

    /// The links that changed or went since the last time, without waiting; `None` when more was told than there was
    /// room for: any may have.
    pub fn take(&self) -> Result<Option<Vec<u32>>> {
        let told = match self.0.told() {
            Err(Error::Io(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
            other => other?,
        };
        let changed = told.iter().filter(|reply| matches!(reply.kind, NEWLINK | DELLINK));
        Ok(Some(
            changed
                .filter_map(|reply| Some(u32::from_ne_bytes(reply.split(16)?.0[4..8].try_into().ok()?)))
                .collect(),
        ))
    }
}

impl AsFd for LinkMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LinkMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.is_absent() => Ok(()),
        other => other,
    }
}

fn parse_link(header: &[u8], attributes: Attributes<'_>) -> Option<Link> {
    let flags = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    let info = attributes.nested(IFLA_LINKINFO);
    let kind = info.and_then(|i| i.str(INFO_KIND)).unwrap_or_default();
    let vxlan = info.filter(|_| kind == "vxlan").and_then(|i| i.nested(INFO_DATA)).map(|data| Vxlan {
        vni: data.ne32(1).unwrap_or_default(),
        port: data.find(15).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes),
        local: data.find(4).or_else(|| data.find(17)).and_then(ip),
        device: data.ne32(3).filter(|i| *i != 0),
    });
    Some(Link {
        index: u32::from_ne_bytes(header[4..8].try_into().ok()?),
        name: attributes.str(IFLA_IFNAME)?,
        mac: attributes.find(IFLA_ADDRESS).and_then(|b| b.try_into().ok()),
        mtu: attributes.ne32(IFLA_MTU).unwrap_or_default(),
        up: flags & IFF_UP != 0,
        kind,
        vxlan,
    })
}

fn parse_address(header: &[u8], attributes: Attributes<'_>) -> Option<Address> {
    Some(Address {
        link: u32::from_ne_bytes(header[4..8].try_into().ok()?),
        // On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL, when given, is ours.
        ip: ip(attributes.find(2).or_else(|| attributes.find(1))?)?,
        prefix: header[1],
        scope: Scope::of(header[3]),
    })
}

fn address_message(kind: u16, flags: u16, address: &Address) -> Message {
    const IFA_F_NODAD: u8 = 2;
    let nodad = if address.ip.is_ipv6() { IFA_F_NODAD } else { 0 };
    let mut header = [family(&address.ip), address.prefix, nodad, address.scope.raw(), 0, 0, 0, 0];
    header[4..].copy_from_slice(&address.link.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    let bytes = octets(&address.ip);
    message.attr(1, &bytes).attr(2, &bytes);
    message
}

const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

fn parse_route(header: &[u8], attributes: Attributes<'_>) -> Option<Route> {
    if header[4] != RT_TABLE_MAIN || header[7] != RTN_UNICAST {
        return None;
    }
    let any = if header[0] == libc::AF_INET as u8 { ip(&[0; 4]) } else { ip(&[0; 16]) };
    Some(Route {
        destination: attributes.find(1).and_then(ip).or(any)?,
        prefix: header[1],
        gateway: attributes.find(5).and_then(ip),
        link: attributes.ne32(4)?,
        source: attributes.find(7).and_then(ip),
        scope: Scope::of(header[6]),
        onlink: u32::from_ne_bytes(header[8..12].try_into().ok()?) & RTNH_F_ONLINK != 0,
        protocol: header[5],
    })
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let protocol = if route.protocol == 0 { RTPROT_BOOT } else { route.protocol };
    let mut header = [
        family(&route.destination),
        route.prefix,
        0,
        0,
        RT_TABLE_MAIN,
        protocol,
        route.scope.raw(),
        RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    if route.onlink {
        header[8..].copy_from_slice(&RTNH_F_ONLINK.to_ne_bytes());
    }
    let mut message = Message::new(kind, flags, &header);
    if route.prefix > 0 {
        message.attr(1, &octets(&route.destination));
    }
    message.ne32(4, route.link);
    if let Some(gateway) = &route.gateway {
        message.attr(5, &octets(gateway));
    }
    if let Some(source) = &route.source {
        message.attr(7, &octets(source));
    }
    message
}

const NUD_PERMANENT: u16 = 0x80;

fn neighbour_message(kind: u16, flags: u16, neighbour: &Neighbour) -> Message {
    const NTF_SELF: u8 = 2;
    let (family, ntf) = match neighbour.table {
        NeighbourTable::Resolution => (family(&neighbour.ip), 0),
        NeighbourTable::Forwarding => (libc::AF_BRIDGE as u8, NTF_SELF),
    };
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&neighbour.link.to_ne_bytes());
    header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    header[10] = ntf;
    let mut message = Message::new(kind, flags, &header);
    message.attr(1, &octets(&neighbour.ip)).attr(2, &neighbour.mac);
    message
}

/// Whether a name fits the kernel's limit of fifteen bytes for interfaces.
pub fn valid_name(name: &str) -> Result<&str> {
    let fine = !name.is_empty() && name.len() < 16 && !name.contains(['/', ' ', '\0']);
    if fine { Ok(name) } else { Err(Error::Malformed("interface name")) }
}
