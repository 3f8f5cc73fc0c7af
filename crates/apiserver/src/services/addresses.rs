//! Ranges of service addresses, and the order in which a free one is looked for. Pure.

use apimachinery::validation::{Cidr, parse_cidr_sloppy};
use apimachinery::value::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    network: IpAddr,
    prefix: u8,
    /// The first and the last address that is given out.
    first: u128,
    last: u128,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Range {
    /// Nothing for a block without an address to give.
    pub(super) fn new(cidr: &Cidr) -> Option<Self> {
        let network = cidr.network();
        let width: u32 = if network.is_ipv4() { 32 } else { 128 };
        let host_bits = width - u32::from(cidr.prefix);
        let span = 1_u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1);
        // The network's own address is nobody's, nor is IPv4's broadcast address.
        let first = bits(network).checked_add(1)?;
        let end = bits(network).checked_add(span)?;
        let last = if network.is_ipv4() { end.checked_sub(1)? } else { end };
        (first <= last).then_some(Range { network, prefix: cidr.prefix, first, last })
    }

    pub(super) fn network(&self) -> IpAddr {
        self.network
    }

    pub(super) fn first_address(&self) -> IpAddr {
        self.address(self.first)
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.network {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    /// Whether an address is one of those that are given out.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let same = address.is_ipv4() == self.network.is_ipv4();
        same && (self.first..=self.last).contains(&bits(address))
    }

    /// How many addresses at the beginning are for people who choose their own, and are given out last (KEP-3070).
    fn reserved(&self) -> u64 {
        let (least, most, step) = (16, 256, 16);
        // Of the whole block, with the addresses that are nobody's.
        let block = self.size().saturating_add(if self.network.is_ipv4() { 2 } else { 1 });
        if block <= least { 0 } else { (block / step).clamp(least, most) }
    }

    /// How many addresses there are to give.
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or(u64::MAX)
    }

    /// Every address: the upper part from a random place on, then the lower part from a random place on. `random` gives
    /// a number below its argument.
    pub(super) fn candidates(&self, random: &dyn Fn(u64) -> u64) -> impl Iterator<Item = IpAddr> + use<> {
        let (range, reserved, size) = (*self, self.reserved(), self.size());
        let upper = size - reserved;
        let (start, low) = (random(upper), random(reserved));
        let above = (0..upper).map(move |n| reserved + (start + n) % upper);
        let below = (0..reserved).map(move |n| (low + n) % reserved);
        above.chain(below).map(move |offset| range.address(range.first + u128::from(offset)))
    }
}

/// Whether addresses may be taken from a ServiceCIDR: it is ready, or nobody has said anything of it, and it is not
/// being deleted.
pub(super) fn is_usable(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    ready.is_none_or(|condition| condition["status"] == "True") && !crate::object::is_being_deleted(object)
}

/// The blocks of a family in some ServiceCIDRs, each once.
pub(super) fn ranges(objects: impl Iterator<Item = Value>, family: &str) -> Vec<Range> {
    let mut found = BTreeMap::new();
    for object in objects {
        for cidr in object["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let range = parse_cidr_sloppy(cidr).and_then(|cidr| Range::new(&cidr));
            if let Some(range) = range.filter(|range| super::family(range.network) == family) {
                found.insert((range.network, range.prefix), range);
            }
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use apimachinery::json;
    use expect_test::expect;

    fn range(cidr: &str) -> Option<Range> {
        Range::new(&parse_cidr_sloppy(cidr).unwrap())
    }

    fn show(cidr: &str) -> String {
        let Some(range) = range(cidr) else { return "none".into() };
        let all: Vec<IpAddr> = range.candidates(&|limit| limit / 2).take(100_000).collect();
        let distinct: std::collections::HashSet<&IpAddr> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all.iter().all(|address| range.holds(*address)));
        format!(
            "{} of {}, {} kept, first {}, last {}",
            all.len(),
            range.size(),
            range.reserved(),
            all[0],
            all[all.len() - 1]
        )
    }

    #[test]
    fn every_address_is_tried_once() {
        let cidrs = [
            "10.96.0.0/16",
            "10.0.0.0/24",
            "10.0.0.0/28",
            "10.0.0.0/30",
            "10.0.0.0/31",
            "10.0.0.0/32",
            "fd00::/112",
            "fd00::/64",
        ];
        let shown: Vec<String> = cidrs.iter().map(|cidr| format!("{cidr}: {}\n", show(cidr))).collect();
        expect![[r#"
            10.96.0.0/16: 65534 of 65534, 256 kept, first 10.96.128.128, last 10.96.0.128
            10.0.0.0/24: 254 of 254, 16 kept, first 10.0.0.136, last 10.0.0.8
            10.0.0.0/28: 14 of 14, 0 kept, first 10.0.0.8, last 10.0.0.7
            10.0.0.0/30: 2 of 2, 0 kept, first 10.0.0.2, last 10.0.0.1
            10.0.0.0/31: none
            10.0.0.0/32: none
            fd00::/112: 65535 of 65535, 256 kept, first fd00::8080, last fd00::80
            fd00::/64: 100000 of 18446744073709551615, 256 kept, first fd00::8000:0:0:80, last fd00::8000:0:1:871f
        "#]].assert_eq(&shown.concat());
    }

    #[test]
    fn ranges_are_those_of_ready_objects() {
        let object = |cidrs: &[&str], condition: &str, deleting: bool| {
            let mut object = json!({"metadata": {"name": "x"}, "spec": {"cidrs": cidrs}});
            if !condition.is_empty() {
                object["status"] = json!({"conditions": [{"type": "Ready", "status": condition}]});
            }
            if deleting {
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            object
        };
        let objects = [
            object(&["10.0.0.0/24", "fd00::/112"], "True", false),
            object(&["10.1.0.0/24"], "", false),
            object(&["10.2.0.0/24"], "False", false),
            object(&["10.3.0.0/24"], "True", true),
            object(&["10.0.0.0/24"], "False", true),
        ];
        let of = |family: &str| -> Vec<String> {
            let found = ranges(objects.iter().filter(|object| is_usable(object)).cloned(), family);
            found.iter().map(|range| format!("{}/{}", range.network, range.prefix)).collect()
        };
        assert_eq!(of("IPv4"), ["10.0.0.0/24", "10.1.0.0/24"]);
        assert_eq!(of("IPv6"), ["fd00::/112"]);
    }
}
