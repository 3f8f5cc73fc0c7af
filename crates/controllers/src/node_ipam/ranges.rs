//! A network divided into equal ranges, of which each is free or taken.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The ranges of one of the cluster's networks.
#[derive(Debug)]
pub(super) struct Ranges {
    first: IpAddr,
    /// Length of a range's prefix.
    mask: u8,
    count: u64,
    taken: BTreeSet<u64>,
    /// Where to look next: a freed range rests until all others were used.
    next: u64,
}

impl Ranges {
    /// `network` with a prefix of `prefix` bits, divided into ranges of `mask` bits.
    pub(super) fn new(network: IpAddr, prefix: u8, mask: u8) -> Self {
        let mask = mask.max(prefix);
        // As upstream, no more than 2^16 ranges of a network are used.
        let count = 1_u64 << u32::from(mask - prefix).min(16);
        Ranges { first: network, mask, count, taken: BTreeSet::new(), next: 0 }
    }

    fn bits(&self) -> u32 {
        if self.first.is_ipv4() { 32 } else { 128 }
    }

    /// Which range a CIDR is; none if it is none of these.
    fn index(&self, cidr: &str) -> Option<u64> {
        let (address, mask) = cidr.split_once('/')?;
        let shift = self.bits() - u32::from(self.mask);
        let offset = match (self.first, address.parse().ok()?) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                u128::from(address.to_bits().checked_sub(first.to_bits())?)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => address.to_bits().checked_sub(first.to_bits())?,
            _ => return None,
        };
        let index = u64::try_from(offset.checked_shr(shift).unwrap_or(0)).ok()?;
        (mask.parse::<u8>().ok()? == self.mask && index < self.count).then_some(index)
    }

    fn cidr(&self, index: u64) -> String {
        let shift = self.bits() - u32::from(self.mask);
        let offset = u128::from(index).checked_shl(shift).unwrap_or(0);
        let address: IpAddr = match self.first {
            IpAddr::V4(first) => {
                let offset = u32::try_from(offset).unwrap_or(0);
                std::net::Ipv4Addr::from_bits(first.to_bits() + offset).into()
            }
            IpAddr::V6(first) => std::net::Ipv6Addr::from_bits(first.to_bits() + offset).into(),
        };
        format!("{address}/{}", self.mask)
    }

    /// Marks a range as taken; others' ranges are ignored.
    pub(super) fn take(&mut self, cidr: &str) {
        if let Some(index) = self.index(cidr) {
            self.taken.insert(index);
        }
    }

    pub(super) fn release(&mut self, cidr: &str) {
        if let Some(index) = self.index(cidr) {
            self.taken.remove(&index);
        }
    }

    /// Takes a free range; none when there is none.
    pub(super) fn allocate(&mut self) -> Option<String> {
        let candidates = (self.next..self.count).chain(0..self.next);
        let index = candidates.into_iter().find(|index| !self.taken.contains(index))?;
        self.taken.insert(index);
        self.next = (index + 1) % self.count;
        Some(self.cidr(index))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_are_given_once_and_come_back_last() {
        let mut ranges = Ranges::new("10.0.0.0".parse().unwrap(), 22, 24);
        ranges.take("10.0.1.0/24");
        ranges.take("10.9.0.0/24");
        let given: Vec<_> = (0..4).map(|_| ranges.allocate()).collect();
        let expected = [Some("10.0.0.0/24"), Some("10.0.2.0/24"), Some("10.0.3.0/24"), None];
        assert_eq!(given, expected.map(|cidr| cidr.map(str::to_owned)));
        ranges.release("10.0.2.0/24");
        assert_eq!(ranges.allocate().unwrap(), "10.0.2.0/24");
        let mut six = Ranges::new("fd00::".parse().unwrap(), 48, 64);
        six.take("fd00::/64");
        assert_eq!(six.allocate().unwrap(), "fd00:0:0:1::/64");
    }
}
