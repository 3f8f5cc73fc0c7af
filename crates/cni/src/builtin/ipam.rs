//! Which addresses of the node's pod ranges are taken. Pure: what is on disk goes in at the start.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::Cidr;

/// One range of the node.
#[derive(Debug)]
struct Range {
    cidr: Cidr,
    taken: BTreeSet<u128>,
    /// Where the search goes on: an address just released is the last to be given out again.
    next: u128,
}

/// The node's ranges, one per family.
#[derive(Debug, Default)]
pub struct Ipam {
    ranges: Vec<Range>,
}

impl Ipam {
    pub fn cidrs(&self) -> Vec<Cidr> {
        self.ranges.iter().map(|r| r.cidr).collect()
    }

    /// Takes the node's ranges; those already known keep their place.
    pub fn set_ranges(&mut self, cidrs: &[Cidr], taken: impl IntoIterator<Item = IpAddr>) {
        let next = |cidr: &Cidr| self.ranges.iter().find(|r| r.cidr == *cidr).map_or(0, |r| r.next);
        let ranges =
            cidrs.iter().map(|c| Range { cidr: *c, taken: BTreeSet::new(), next: next(c) }).collect();
        self.ranges = ranges;
        for ip in taken {
            self.take(ip);
        }
    }

    /// Marks an address as taken; foreign ones are ignored.
    pub fn take(&mut self, ip: IpAddr) {
        for range in self.ranges.iter_mut().filter(|r| r.cidr.contains(ip)) {
            let offset = Cidr::bits(ip) - Cidr::bits(range.cidr.ip);
            range.taken.insert(offset);
            range.next = range.next.max(offset + 1);
        }
    }

    pub fn release(&mut self, ip: IpAddr) {
        for range in self.ranges.iter_mut().filter(|r| r.cidr.contains(ip)) {
            range.taken.remove(&(Cidr::bits(ip) - Cidr::bits(range.cidr.ip)));
        }
    }

    /// One address of every range, or which range is full.
    pub fn allocate(&mut self) -> Result<Vec<IpAddr>, Cidr> {
        let mut found = Vec::with_capacity(self.ranges.len());
        for range in &self.ranges {
            found.push(range.free().ok_or(range.cidr)?);
        }
        let ips = self.ranges.iter().zip(&found).map(|(r, o)| r.cidr.at(Cidr::bits(r.cidr.ip) + o)).collect();
        for (range, offset) in self.ranges.iter_mut().zip(found) {
            range.taken.insert(offset);
            range.next = offset + 1;
        }
        Ok(ips)
    }
}

impl Range {
    /// The network's own address and, for IPv4, its broadcast address are never given out; nor is the first one,
    /// which administrators expect to be the node's.
    fn bounds(&self) -> (u128, u128) {
        let last = self.cidr.host_mask();
        match last {
            0 => (0, 0),
            1 => (0, 1),
            _ => (2.min(last - 1), if self.cidr.ip.is_ipv4() { last - 1 } else { last }),
        }
    }

    fn free(&self) -> Option<u128> {
        let (low, high) = self.bounds();
        let start = if self.next > high || self.next < low { low } else { self.next };
        self.first_free(start, high).or_else(|| self.first_free(low, start.saturating_sub(1)))
    }

    fn first_free(&self, low: u128, high: u128) -> Option<u128> {
        let mut candidate = low;
        for taken in self.taken.range(low..=high.max(low)) {
            if *taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate <= high && low <= high).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_never_twice() {
        let mut ipam = Ipam::default();
        ipam.set_ranges(
            &["10.1.0.8/29".parse().unwrap(), "fd00::/120".parse().unwrap()],
            ["10.1.0.11".parse().unwrap()],
        );
        let mut given: Vec<_> = (0..3).map(|_| ipam.allocate().unwrap()[0].to_string()).collect();
        assert_eq!(given, ["10.1.0.12", "10.1.0.13", "10.1.0.14"]);
        ipam.release("10.1.0.13".parse().unwrap());
        given = (0..2).map(|_| ipam.allocate().unwrap()[0].to_string()).collect();
        assert_eq!(given, ["10.1.0.10", "10.1.0.13"]);
        assert_eq!(ipam.allocate().unwrap_err().to_string(), "10.1.0.8/29");
        ipam.release("10.1.0.11".parse().unwrap());
        assert_eq!(
            ipam.allocate().unwrap(),
            ["10.1.0.11".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]
        );
    }
}
