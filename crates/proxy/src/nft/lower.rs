//! From plans to elements of sets.

use super::skeleton::{Pick, REJECT, Which, entry_chain};
use crate::plan::{Family, Frontend, Plan, Pool, PoolName, Refusal, disjoint};
use apimachinery::validation::Cidr;
use linux::nft::{Data, Element, Verdict, key};
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A pool's number in the kernel, and the order of its endpoints there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) id: u32,
    pub(super) order: Vec<SocketAddr>,
}

pub(super) fn pick(pool: &Pool) -> Pick {
    Pick { endpoints: pool.endpoints.len() as u32, affinity: pool.affinity }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn frontend_key(frontend: &Frontend) -> Vec<u8> {
    let any = match frontend.family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let address = bytes(frontend.ip.unwrap_or(any));
    key(&[&address, &[frontend.protocol.number()], &frontend.port.to_be_bytes()])
}

fn pair(a: u32, b: u32) -> Vec<u8> {
    key(&[&a.to_ne_bytes(), &b.to_ne_bytes()])
}

fn endpoint_data(endpoint: &SocketAddr) -> Data {
    Data::Value(key(&[&bytes(endpoint.ip()), &endpoint.port().to_be_bytes()]))
}

/// Reads the endpoint back from an element.
pub(super) fn read_endpoint(data: Option<&Data>) -> Option<SocketAddr> {
    let Some(Data::Value(value)) = data else { return None };
    let (ip, rest): (IpAddr, _) = match value.len() {
        8 => (<[u8; 4]>::try_from(&value[..4]).ok()?.into(), &value[4..]),
        20 => (<[u8; 16]>::try_from(&value[..16]).ok()?.into(), &value[16..]),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([rest[0], rest[1]])))
}

/// Reads a pair of numbers back.
pub(super) fn read_pair(key: &[u8]) -> Option<(u32, u32)> {
    let number = |at: usize| Some(u32::from_ne_bytes(key.get(at..at + 4)?.try_into().ok()?));
    Some((number(0)?, number(4)?))
}

/// A number for a name: the first free one from its hash on, which is the same after a restart.
pub(super) fn number(name: &str, taken: &HashSet<u32>) -> u32 {
    // FNV-1a.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let mut id = hash;
    while taken.contains(&id) {
        id = id.wrapping_add(1);
    }
    id
}

/// The range of addresses as a set of one field takes it.
fn range(cidr: &Cidr) -> (Vec<u8>, Vec<u8>) {
    let first = bytes(cidr.network());
    let mut last = first.clone();
    for (i, byte) in last.iter_mut().enumerate() {
        let fixed = usize::from(cidr.prefix).saturating_sub(i * 8).min(8) as u32;
        *byte |= 0xff_u8.checked_shr(fixed).unwrap_or(0);
    }
    (first, last)
}

fn element(first: Vec<u8>, last: Vec<u8>) -> Element {
    if first == last { Element::new(first) } else { Element::range(first, last) }
}

/// The elements of a set of networks.
pub(super) fn networks(cidrs: &[Cidr], family: Family) -> Vec<Element> {
    let mine: Vec<Cidr> = cidrs.iter().filter(|c| Family::of(&c.address) == family).copied().collect();
    disjoint(&mine)
        .iter()
        .map(|c| {
            let (first, last) = range(c);
            element(first, last)
        })
        .collect()
}

/// What a plan puts into the sets of one family.
pub(super) fn lower(
    plan: &Plan,
    family: Family,
    placed: impl Fn(&PoolName) -> Option<Placed>,
) -> BTreeSet<(Which, Element)> {
    let mut out = BTreeSet::new();
    for ip in plan.cluster_ips.iter().filter(|ip| Family::of(ip) == family) {
        out.insert((Which::ClusterIps, Element::new(bytes(*ip))));
    }
    for (address, protocol) in plan.hairpins.iter().filter(|(a, _)| Family::of(&a.ip()) == family) {
        let ip = bytes(address.ip());
        let key = key(&[&ip, &ip, &[protocol.number()], &address.port().to_be_bytes()]);
        out.insert((Which::Hairpins, Element::new(key)));
    }
    for (frontend, route) in plan.frontends.iter().filter(|(f, _)| f.family == family) {
        let at = || Element::new(frontend_key(frontend));
        let mut led = false;
        for (which, pool) in
            [(Which::ServicePools, &route.pool), (Which::ShortCircuits, &route.short_circuit)]
        {
            if let Some(placed) = pool.as_ref().and_then(&placed) {
                out.insert((which, at().to(Data::Value(placed.id.to_ne_bytes().to_vec()))));
                led = true;
            }
        }
        if led {
            let chain = entry_chain(route.entry, frontend.ip.is_none());
            out.insert((Which::Services, at().to(Data::Verdict(Verdict::Goto(chain.into())))));
        }
        let verdict = match route.refusal {
            None => continue,
            Some(Refusal::Drop) => Verdict::Drop,
            Some(Refusal::Reject) => Verdict::Goto(REJECT.into()),
        };
        out.insert((Which::NoEndpoints, at().to(Data::Verdict(verdict))));
    }
    for (frontend, ranges) in plan.source_ranges.iter().filter(|(f, _)| f.family == family) {
        let key_to = |last: &[u8]| {
            let ip = bytes(frontend.ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
            key(&[&ip, &[frontend.protocol.number()], &frontend.port.to_be_bytes(), last])
        };
        out.insert((Which::Firewalled, Element::new(frontend_key(frontend))));
        for cidr in ranges {
            let (first, last) = range(cidr);
            out.insert((Which::SourceRanges, element(key_to(&first), key_to(&last))));
        }
    }
    for (name, pool) in plan.pools.iter().filter(|(n, _)| n.family == family) {
        if let Some(placed) = placed(name) {
            lower_pool(&mut out, pool, &placed);
        }
    }
    out
}

fn lower_pool(out: &mut BTreeSet<(Which, Element)>, pool: &Pool, placed: &Placed) {
    let to_chain = Data::Verdict(Verdict::Goto(pick(pool).chain()));
    out.insert((Which::Pools, Element::new(placed.id.to_ne_bytes().to_vec()).to(to_chain)));
    let mut taken = HashSet::new();
    for (index, endpoint) in placed.order.iter().enumerate() {
        let place = Element::new(pair(placed.id, index as u32));
        if pool.affinity.is_none() {
            out.insert((Which::Endpoints, place.to(endpoint_data(endpoint))));
            continue;
        }
        let id = number(&endpoint.to_string(), &taken);
        taken.insert(id);
        out.insert((Which::Sticky, place.to(Data::Value(id.to_ne_bytes().to_vec()))));
        out.insert((Which::ById, Element::new(pair(placed.id, id)).to(endpoint_data(endpoint))));
    }
}
