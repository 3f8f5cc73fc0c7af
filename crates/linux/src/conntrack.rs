//! The kernel's connection table: entries listed and deleted one by one, for translations that no longer hold.

use std::net::IpAddr;

use crate::netlink::{Attributes, Family, Message, Result, Socket, attributes};
use crate::netns::Netns;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ZONE: u16 = 18;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuple {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub destination_port: u16,
}

/// A tracked connection of UDP, TCP or SCTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    /// As the client sent it: its destination is the virtual address.
    pub original: Tuple,
    /// As the answer comes back: its source is the endpoint.
    pub reply: Tuple,
    raw_original: Vec<u8>,
    zone: Option<[u8; 2]>,
}

/// The conntrack socket of one network namespace.
#[derive(Debug)]
pub struct Conntrack(Socket);

impl Conntrack {
    pub fn open() -> Result<Self> {
        Socket::open(Family::Netfilter).map(Self)
    }

    pub fn open_in(netns: &Netns) -> Result<Self> {
        Socket::open_in(netns, Family::Netfilter).map(Self)
    }

    /// The flows of one protocol (`libc::IPPROTO_UDP`, …), both families.
    pub fn flows(&mut self, protocol: u8) -> Result<Vec<Flow>> {
        let replies = self.0.dump("list conntrack", Message::new(GET, 0, &[0; 4]))?;
        Ok(replies
            .iter()
            .filter_map(|r| r.split(4))
            .filter_map(|(_, a)| parse(a))
            .filter(|f| f.protocol == protocol)
            .collect())
    }

    /// Forgets a flow; gone already is fine.
    pub fn delete(&mut self, flow: &Flow) -> Result<()> {
        let family = if flow.original.source.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
        let mut message = Message::new(DELETE, 0, &[family, 0, 0, 0]);
        message.nest(TUPLE_ORIGINAL, |m| m.raw(&flow.raw_original));
        if let Some(zone) = flow.zone {
            message.attr(ZONE, &zone);
        }
        match self.0.request("delete conntrack entry", message) {
            Err(e) if e.is_absent() => Ok(()),
            other => other,
        }
    }
}

fn parse(a: Attributes<'_>) -> Option<Flow> {
    let raw_original = a.find(TUPLE_ORIGINAL)?.to_vec();
    let (protocol, original) = tuple(attributes(&raw_original))?;
    let (_, reply) = tuple(a.nested(TUPLE_REPLY)?)?;
    let zone = a.find(ZONE).and_then(|z| z.try_into().ok());
    Some(Flow { protocol, original, reply, raw_original, zone })
}

fn tuple(a: Attributes<'_>) -> Option<(u8, Tuple)> {
    let (ip, proto) = (a.nested(1)?, a.nested(2)?);
    let v4 = |kind| ip.find(kind).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(IpAddr::from);
    let v6 = |kind| ip.find(kind).and_then(|b| <[u8; 16]>::try_from(b).ok()).map(IpAddr::from);
    let port = |kind| proto.find(kind).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes);
    let tuple = Tuple {
        source: v4(1).or_else(|| v6(3))?,
        destination: v4(2).or_else(|| v6(4))?,
        source_port: port(2)?,
        destination_port: port(3)?,
    };
    Some((*proto.find(1)?.first()?, tuple))
}
