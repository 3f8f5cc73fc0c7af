//! What the server's flags give to Services: ranges of addresses, one of each family at most, and of node ports.

use super::addresses::Range;
use apimachinery::validation::parse_cidr_sloppy;
use std::net::IpAddr;
use std::str::FromStr;

/// The ports that Services may have on every node: those of `--service-node-port-range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl PortRange {
    pub(super) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub(super) fn size(self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    /// How many ports at the beginning are for people who choose their own, and are given out last (KEP-3668).
    pub(super) fn reserved(self) -> u64 {
        let (least, most, step) = (16, 128, 32);
        if self.size() <= least { 0 } else { (self.size() / step).clamp(least, most) }
    }
}

impl Default for PortRange {
    /// Upstream's.
    fn default() -> Self {
        PortRange { first: 30000, last: 32767 }
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// `30000-32767`, `30000+2767` or `30000`, both ends included.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let number =
            |part: &str| part.parse::<u32>().map_err(|_| format!("unable to parse port range: {text}"));
        let (first, last) = match (text.split_once('-'), text.split_once('+')) {
            (None, None) => (number(text)?, number(text)?),
            (Some((first, last)), None) => (number(first)?, number(last)?),
            (None, Some((first, more))) => (number(first)?, number(first)?.saturating_add(number(more)?)),
            (Some(_), Some(_)) => return Err(format!("unable to parse port range: {text}")),
        };
        if last < first {
            return Err(format!("end port cannot be less than start port: {text}"));
        }
        match (u16::try_from(first), u16::try_from(last)) {
            (Ok(0), _) => Err(format!("the port range cannot begin with port 0: {text}")),
            (Ok(first), Ok(last)) => Ok(PortRange { first, last }),
            _ => Err(format!("the port range cannot be greater than 65535: {text}")),
        }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// One or two.
    blocks: Vec<Range>,
    pub node_ports: PortRange,
    /// The node port of the Service `kubernetes`, if it has one.
    pub kubernetes_port: Option<u16>,
}

impl Ranges {
    /// `cidrs` is the flag: one range, or two of different families; the first one's is the family of Services that ask
    /// for none.
    pub fn new(cidrs: &str, node_ports: PortRange, kubernetes_port: Option<u16>) -> Result<Self, String> {
        let parse = |text: &str| {
            let cidr = parse_cidr_sloppy(text.trim());
            let cidr =
                cidr.ok_or_else(|| format!("the range of service addresses {text:?} is not a CIDR"))?;
            Range::new(&cidr)
                .ok_or_else(|| format!("the range of service addresses {text:?} has no address to give"))
        };
        let parsed = cidrs.split(',').map(parse).collect::<Result<Vec<_>, _>>()?;
        match &*parsed {
            [_] => {}
            [one, other] if one.network().is_ipv4() != other.network().is_ipv4() => {}
            [_, _] => return Err(format!("the ranges of service addresses {cidrs:?} are of one IP family")),
            _ => return Err(format!("there are more than two ranges of service addresses: {cidrs:?}")),
        }
        if let Some(port) = kubernetes_port.filter(|port| !node_ports.contains(*port)) {
            return Err(format!("kubernetes service port range {node_ports} doesn't contain {port}"));
        }
        Ok(Ranges { blocks: parsed, node_ports, kubernetes_port })
    }

    /// As the ServiceCIDR `kubernetes` has them.
    pub(crate) fn cidrs(&self) -> Vec<String> {
        self.blocks.iter().map(Range::to_string).collect()
    }

    /// The families of the ranges, the default one first.
    pub fn families(&self) -> Vec<&'static str> {
        self.blocks.iter().map(|block| super::family(block.network())).collect()
    }

    /// The address of the Service `kubernetes`: the first of the first range.
    pub fn first_address(&self) -> IpAddr {
        self.blocks[0].first_address()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn port_ranges_are_read_as_upstreams() {
        let read = |text: &str| PortRange::from_str(text).map(|range| range.to_string());
        assert_eq!(read(" 30000-32767 ").unwrap(), "30000-32767");
        assert_eq!(read("30000+99").unwrap(), "30000-30099");
        assert_eq!(read("80").unwrap(), "80-80");
        assert_eq!(read("1-65535").unwrap(), "1-65535");
        for bad in ["", "a-b", "1-2+3", "0-10", "9-8", "1-65536", "65535+1", "4294967295+4294967295", "-5"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let reserved = |text: &str| PortRange::from_str(text).unwrap().reserved();
        assert_eq!((reserved("30000-32767"), reserved("1-16"), reserved("1-17")), (86, 0, 16));
        assert_eq!((reserved("1-65535"), reserved("80")), (128, 0));
    }

    #[test]
    fn ranges_are_one_of_a_family() {
        let new = |cidrs: &str, port| Ranges::new(cidrs, PortRange::default(), port);
        let dual = new("fd00:1::/108,10.0.0.0/24", None).unwrap();
        assert_eq!(dual.families(), ["IPv6", "IPv4"]);
        assert_eq!(dual.first_address().to_string(), "fd00:1::1");
        assert_eq!(dual.cidrs(), ["fd00:1::/108", "10.0.0.0/24"]);
        let refused = |cidrs: &str, port| new(cidrs, port).unwrap_err();
        assert!(refused("10.0.0.0/24,10.1.0.0/24", None).contains("one IP family"));
        assert!(refused("10.0.0.0/24,fd00::/108,fd01::/108", None).contains("more than two"));
        assert!(refused("", None).contains("not a CIDR"));
        assert_eq!(
            refused("10.0.0.0/24", Some(80)),
            "kubernetes service port range 30000-32767 doesn't contain 80"
        );
    }
}
