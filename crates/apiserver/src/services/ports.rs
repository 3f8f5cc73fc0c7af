//! Node ports: which are in use, as upstream keeps it, and those that a Service needs. Pure.
//!
//! What is kept is a `RangeAllocation`: the range and a number whose bits are the ports in use, the lowest port the
//! lowest bit, as Go's `big.Int` writes it.

use super::ranges::PortRange;
use super::spec::{needs_health_check, needs_node_port, node_port, ports, text};
use apimachinery::field::{Error, Path};
use apimachinery::value::Value;
use bytes::Bytes;
use prost::Message as _;
use schema::protobuf;
use std::collections::{BTreeSet, HashMap};

/// What a dry run counts on from, where it has no port yet: the first beyond the default range.
const DRY_RUN: u16 = 32768;

/// The object as upstream stores it; its metadata has nothing that we know of.
#[derive(Clone, PartialEq, prost::Message)]
struct Stored {
    #[prost(bytes = "bytes", tag = "1")]
    metadata: Bytes,
    #[prost(string, tag = "2")]
    range: String,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// The ports in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    range: PortRange,
    taken: BTreeSet<u16>,
    metadata: Bytes,
}

impl Allocation {
    /// No port is in use yet.
    pub(super) fn new(range: PortRange) -> Self {
        Allocation { range, taken: BTreeSet::new(), metadata: Bytes::new() }
    }

    /// What was stored, be it of another range: of its ports, those of this one are in use.
    pub(super) fn decode(bytes: &[u8], range: PortRange) -> Result<Self, String> {
        let envelope = protobuf::read_envelope(bytes).map_err(|error| error.to_string())?;
        let stored = Stored::decode(envelope.raw).map_err(|error| error.to_string())?;
        let first = match &*stored.range {
            "" => range.first,
            stored => stored.parse::<PortRange>()?.first,
        };
        let set = stored.data.iter().rev().enumerate().flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
        });
        let ports = set.filter_map(|offset| first.checked_add(u16::try_from(offset).ok()?));
        let taken = ports.filter(|port| range.contains(*port)).collect();
        Ok(Allocation { range, taken, metadata: stored.metadata })
    }

    pub(super) fn encode(&self) -> Bytes {
        let first = self.range.first;
        let length = self.taken.last().map_or(0, |port| usize::from(port - first) / 8 + 1);
        let mut data = vec![0_u8; length];
        for port in &self.taken {
            let offset = usize::from(port - first);
            data[length - 1 - offset / 8] |= 1 << (offset % 8);
        }
        let stored =
            Stored { metadata: self.metadata.clone(), range: self.range.to_string(), data: data.into() };
        protobuf::wrap(&stored.encode_to_vec(), "RangeAllocation", "v1").into()
    }

    pub(super) fn range(&self) -> PortRange {
        self.range
    }

    pub(super) fn has(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// False when somebody has it.
    pub(super) fn take(&mut self, port: u16) -> bool {
        self.range.contains(port) && self.taken.insert(port)
    }

    pub(super) fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }

    /// The same object with no port in use.
    pub(super) fn emptied(&self) -> Self {
        Allocation { metadata: self.metadata.clone(), ..Self::new(self.range) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u16> + '_ {
        self.taken.iter().copied()
    }
}

/// The ports of one Service. Several of its ports may share a node port.
pub(super) fn held(spec: &Value) -> BTreeSet<u16> {
    let health = spec["healthCheckNodePort"].as_u64().filter(|port| *port > 0);
    let all = ports(spec).filter_map(node_port).chain(health);
    all.filter_map(|port| u16::try_from(port).ok()).collect()
}

/// Why a Service cannot have what it asks for.
#[derive(Debug)]
pub(super) enum Failed {
    Invalid(Error),
    Internal(String),
}

/// How often what became of it: ports that were asked for by number, and any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub chosen: u64,
    pub refused_chosen: u64,
    pub found: u64,
    pub refused_any: u64,
}

/// What one request takes.
pub(super) struct Operation<'a> {
    allocation: &'a Allocation,
    own: BTreeSet<u16>,
    dry_run: bool,
    pub(super) tally: Tally,
}

impl<'a> Operation<'a> {
    pub(super) fn new(allocation: &'a Allocation, dry_run: bool) -> Self {
        Operation { allocation, own: BTreeSet::new(), dry_run, tally: Tally::default() }
    }

    fn take(&mut self, port: u64) -> Result<u16, String> {
        let taken = self.reserve(port);
        let Tally { chosen, refused_chosen, .. } = &mut self.tally;
        *if taken.is_ok() { chosen } else { refused_chosen } += 1;
        taken
    }

    fn take_next(&mut self) -> Result<u16, String> {
        let taken = self.reserve_next();
        let Tally { found, refused_any, .. } = &mut self.tally;
        *if taken.is_ok() { found } else { refused_any } += 1;
        taken
    }

    fn reserve(&mut self, port: u64) -> Result<u16, String> {
        let range = self.allocation.range;
        if let Some(port) = u16::try_from(port).ok().filter(|port| self.dry_run && !range.contains(*port)) {
            // As upstream, which looks up only whether somebody has it when nothing is to be kept.
            return Ok(port);
        }
        let number = u16::try_from(port).ok().filter(|port| range.contains(*port));
        let number = number.ok_or_else(|| {
            format!("provided port is not in the valid range. The range of valid ports is {range}")
        })?;
        if self.allocation.has(number) || !self.own.insert(number) {
            return Err("provided port is already allocated".into());
        }
        Ok(number)
    }

    fn reserve_next(&mut self) -> Result<u16, String> {
        if self.dry_run {
            // As upstream, whatever the range: a number that shows where one would be.
            let next = self.own.last().copied().unwrap_or(DRY_RUN);
            let next = next.checked_add(1).ok_or("range is full")?;
            self.own.insert(next);
            return Ok(next);
        }
        let range = self.allocation.range;
        let reserved = range.reserved();
        let upper = range.size() - reserved;
        let (start, low) = (super::random(upper), super::random(reserved));
        let above = (0..upper).map(|n| reserved + (start + n) % upper);
        let below = (0..reserved).map(|n| (low + n) % reserved);
        let mut all = above.chain(below).map(|offset| range.first + offset as u16);
        let free = all.find(|port| !self.allocation.has(*port) && !self.own.contains(port));
        let port = free.ok_or("range is full")?;
        self.own.insert(port);
        Ok(port)
    }
}

fn allocates(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn invalid(index: usize, port: u64, why: String) -> Failed {
    let at = Path::new("spec").child("ports").index(index).child("nodePort");
    Failed::Invalid(Error::invalid(&at, i64::try_from(port).unwrap_or(i64::MAX), why))
}

fn full(why: String) -> Failed {
    Failed::Internal(format!("failed to allocate a nodePort: {why}"))
}

/// Gives the Service the node ports that it needs and does not have.
pub(super) fn complete(
    spec: &mut Value,
    old: Option<&Value>,
    operation: &mut Operation<'_>,
) -> Result<(), Failed> {
    if needs_node_port(spec) {
        match old {
            None => complete_new(spec, operation)?,
            Some(old) => complete_changed(spec, old, operation)?,
        }
    }
    let needed = old.is_some_and(needs_health_check);
    if !needed && needs_health_check(spec) {
        let asked = spec["healthCheckNodePort"].as_u64().unwrap_or(0);
        let taken = match asked {
            0 => operation
                .take_next()
                .map_err(|why| format!("failed to allocate a HealthCheck NodePort 0: {why}")),
            port => operation
                .take(port)
                .map_err(|why| format!("failed to allocate requested HealthCheck NodePort {port}: {why}")),
        };
        spec["healthCheckNodePort"] = taken.map_err(Failed::Internal)?.into();
    }
    Ok(())
}

/// Ports of the same number, for several protocols, share a node port.
fn complete_new(spec: &mut Value, operation: &mut Operation<'_>) -> Result<(), Failed> {
    let allocates = allocates(spec);
    let mut requested: HashMap<u64, u64> = HashMap::new();
    for port in ports(spec) {
        // The first that asks for one asks for all of its number.
        if let (Some(number), Some(asked)) = (port["port"].as_u64(), node_port(port)) {
            requested.entry(number).or_insert(asked);
        }
    }
    let mut given: HashMap<u64, u64> = HashMap::new();
    for (index, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
        let own = node_port(port);
        if own.is_none() && !allocates {
            continue;
        }
        let number = port["port"].as_u64().unwrap_or(0);
        match (given.get(&number), own) {
            (None, _) => {
                let taken = match requested.get(&number) {
                    Some(asked) => operation.take(*asked).map_err(|why| invalid(index, *asked, why))?,
                    None => operation.take_next().map_err(full)?,
                };
                port["nodePort"] = taken.into();
                given.insert(number, taken.into());
            }
            (Some(shared), None) => port["nodePort"] = (*shared).into(),
            (Some(shared), Some(own)) if own != *shared => {
                operation.take(own).map_err(|why| invalid(index, own, why))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn complete_changed(spec: &mut Value, old: &Value, operation: &mut Operation<'_>) -> Result<(), Failed> {
    let (allocates, before) = (allocates(spec), held(old));
    let mut seen = BTreeSet::new();
    for (index, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
        let number = match node_port(port) {
            None if !allocates => continue,
            None => {
                let taken = u64::from(operation.take_next().map_err(full)?);
                port["nodePort"] = taken.into();
                taken
            }
            Some(own) => {
                let known =
                    u16::try_from(own).is_ok_and(|own| before.contains(&own) || operation.own.contains(&own));
                if !known {
                    operation.take(own).map_err(|why| invalid(index, own, why))?;
                }
                own
            }
        };
        let protocol = text(port, "protocol").to_owned();
        if !seen.insert((protocol.clone(), number)) {
            return Err(Failed::Internal(format!("duplicate nodePort: {{{protocol} {number}}}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use apimachinery::json;

    #[test]
    fn the_bits_are_upstreams() {
        let range = PortRange::default();
        let mut allocation = Allocation::new(range);
        assert_eq!(Allocation::decode(&allocation.encode(), range).unwrap(), allocation);
        for port in [30000, 30007, 30008, 32767] {
            assert!(allocation.take(port) && !allocation.take(port));
        }
        assert!(!allocation.take(29999));
        let bytes = allocation.encode();
        let stored = Stored::decode(protobuf::read_envelope(&bytes).unwrap().raw).unwrap();
        // 2,768 bits are 346 bytes; the number's highest comes first.
        assert_eq!((stored.range.as_str(), stored.data.len()), ("30000-32767", 346));
        assert_eq!((stored.data[0], stored.data[344], stored.data[345]), (0x80, 1, 0x81));
        assert_eq!(Allocation::decode(&bytes, range).unwrap(), allocation);
        let wider = Allocation::decode(&bytes, PortRange { first: 20000, last: 30007 }).unwrap();
        assert_eq!(wider.all().collect::<Vec<_>>(), [30000, 30007], "of another range");
        allocation.release(32767);
        let stored = Stored::decode(protobuf::read_envelope(&allocation.encode()).unwrap().raw).unwrap();
        assert_eq!(&*stored.data, [1, 0x81]);
    }

    #[test]
    fn ports_are_taken_once() {
        let mut allocation = Allocation::new(PortRange::default());
        allocation.take(30080);
        let check = |mut spec: Value, old: Option<Value>| {
            let mut operation = Operation::new(&allocation, false);
            let outcome = complete(&mut spec, old.as_ref(), &mut operation);
            match outcome {
                Ok(()) => spec,
                Err(Failed::Invalid(error)) => error.to_string().into(),
                Err(Failed::Internal(why)) => why.into(),
            }
        };
        let both = check(
            json!({"type": "NodePort", "ports": [
                {"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}, {"port": 80, "protocol": "TCP", "nodePort": 30081},
            ]}),
            None,
        );
        assert_eq!(both["ports"][0]["nodePort"], both["ports"][1]["nodePort"]);
        assert!(both["ports"][0]["nodePort"].as_u64().unwrap() >= 30086, "the lower ports come last");
        assert_eq!(held(&both).len(), 2);
        let taken =
            json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
        assert_eq!(
            check(taken.clone(), None),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        );
        assert_eq!(check(taken.clone(), Some(taken.clone())), taken, "its own is not taken");
        assert_eq!(
            check(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}), None),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
        let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": 80, "protocol": "TCP"}]});
        let given = check(local.clone(), None);
        assert!(given["ports"][0]["nodePort"].is_null());
        let health = u16::try_from(given["healthCheckNodePort"].as_u64().unwrap()).unwrap();
        assert!(PortRange::default().contains(health));
        let mut asked = local;
        asked["healthCheckNodePort"] = 30080.into();
        assert_eq!(
            check(asked, None),
            "failed to allocate requested HealthCheck NodePort 30080: provided port is already allocated"
        );
    }
}
