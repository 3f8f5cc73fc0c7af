//! IP addresses and networks, read as strictly as Go's `netip` reads them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::quote::quote;
use apimachinery::validation;

use crate::decls::Row;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with};

pub(crate) const ROWS: &[Row] = &[
    Row("ip", "string_to_ip", "(string): net.IP", ip),
    Row("family", "ip_family", "net.IP.(): int", family),
    Row("ip.isCanonical", "ip_is_canonical", "(string): bool", is_canonical),
    Row("isUnspecified", "ip_is_unspecified", "net.IP.(): bool", is_unspecified),
    Row("isLoopback", "ip_is_loopback", "net.IP.(): bool", is_loopback),
    Row("isLinkLocalMulticast", "ip_is_link_local_multicast", "net.IP.(): bool", is_link_local_multicast),
    Row("isLinkLocalUnicast", "ip_is_link_local_unicast", "net.IP.(): bool", is_link_local_unicast),
    Row("isGlobalUnicast", "ip_is_global_unicast", "net.IP.(): bool", is_global_unicast),
    Row("isIP", "is_ip", "(string): bool", is_ip),
    Row("string", "ip_to_string", "(net.IP): string", to_text),
    Row("cidr", "string_to_cidr", "(string): net.CIDR", cidr),
    Row("containsIP", "cidr_contains_ip_string", "net.CIDR.(string): bool", contains_ip),
    Row("containsIP", "cidr_contains_ip_ip", "net.CIDR.(net.IP): bool", contains_ip),
    Row("containsCIDR", "cidr_contains_cidr_string", "net.CIDR.(string): bool", contains_cidr),
    Row("containsCIDR", "cidr_contains_cidr", "net.CIDR.(net.CIDR): bool", contains_cidr),
    Row("ip", "cidr_ip", "net.CIDR.(): net.IP", address_of),
    Row("prefixLength", "cidr_prefix_length", "net.CIDR.(): int", prefix_length),
    Row("masked", "cidr_masked", "net.CIDR.(): net.CIDR", masked),
    Row("isCIDR", "is_cidr", "(string): bool", is_cidr),
    Row("string", "cidr_to_string", "(net.CIDR): string", to_text),
];

/// An address and how many of its bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, host bits included.
    pub address: IpAddr,
    /// The bits of the network.
    pub bits: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Prefix {
    /// The network that an address lies in.
    fn network(&self, of: IpAddr, bits: u8) -> IpAddr {
        match of {
            IpAddr::V4(of) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(of) & mask))
            }
            IpAddr::V6(of) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(of) & mask))
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && self.network(self.address, self.bits) == self.network(address, self.bits)
    }

    fn contains_prefix(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.address)
    }
}

/// Why text is no address, in Go's words.
fn parse_address(text: &str) -> Result<IpAddr, String> {
    let wrong = |why: &str| format!("ParseAddr({}): {why}", quote(text));
    match text.find(['.', ':', '%']).map(|at| text.as_bytes()[at]) {
        Some(b'.') => parse_v4(text).map(IpAddr::V4).map_err(wrong),
        Some(b':') => text.parse().map(IpAddr::V6).map_err(|_| wrong("unable to parse IP")),
        Some(b'%') => Err(wrong("missing IPv6 address")),
        _ => Err(wrong("unable to parse IP")),
    }
}

fn parse_v4(text: &str) -> Result<Ipv4Addr, &'static str> {
    let fields: Vec<_> = text.split('.').collect();
    let mut octets = [0; 4];
    for (at, field) in fields.iter().enumerate() {
        if field.bytes().any(|byte| !byte.is_ascii_digit()) {
            return Err("unexpected character");
        }
        if field.is_empty() {
            return Err("IPv4 field must have at least one digit");
        }
        if field.len() > 1 && field.starts_with('0') {
            return Err("IPv4 field has octet with leading zero");
        }
        let value = field.parse().map_err(|_| "IPv4 field has value >255")?;
        *octets.get_mut(at).ok_or("IPv4 address too long")? = value;
    }
    if fields.len() < 4 {
        return Err("IPv4 address too short");
    }
    Ok(Ipv4Addr::from(octets))
}

/// The address in a text; no zone, and no IPv4 in IPv6's clothes.
fn read_ip(text: &str) -> Result<IpAddr, String> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let found = parse_address(if zone.is_some_and(|zone| !zone.is_empty()) { address } else { text })
        .map_err(|wrong| {
            format!("IP Address {} parse error during conversion from string: {wrong}", quote(text))
        })?;
    if zone.is_some() {
        return Err(format!("IP address {} with zone value is not allowed", quote(text)));
    }
    refuse_mapped(found, text)?;
    Ok(found)
}

fn refuse_mapped(address: IpAddr, text: &str) -> Result<(), String> {
    match address {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {} is not allowed", quote(text)))
        }
        _ => Ok(()),
    }
}

fn read_cidr(text: &str) -> Result<Prefix, String> {
    let wrong = |why: String| {
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix({}): {why}",
            quote(text)
        )
    };
    let (address, bits) = text.rsplit_once('/').ok_or_else(|| wrong("no '/'".into()))?;
    let address = parse_address(address).map_err(&wrong)?;
    let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
    if bits.is_empty() || !digits || (bits.len() > 1 && bits.starts_with('0')) {
        return Err(wrong(format!("bad bits after slash: {}", quote(bits))));
    }
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|bits| *bits <= most)
        .ok_or_else(|| wrong("prefix length out of range".into()))?;
    refuse_mapped(address, text)?;
    Ok(Prefix { address, bits })
}

fn text<'v>(args: &'v [Val<'_>], at: usize) -> Result<&'v str, Error> {
    args[at].as_str().ok_or(NO_OVERLOAD)
}

fn address(args: &[Val<'_>]) -> Result<IpAddr, Error> {
    match &args[0] {
        Val::Ip(address) => Ok(*address),
        _ => Err(NO_OVERLOAD),
    }
}

fn prefix(args: &[Val<'_>]) -> Result<Prefix, Error> {
    match &args[0] {
        Val::Cidr(prefix) => Ok(*prefix),
        _ => Err(NO_OVERLOAD),
    }
}

fn ip<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    read_ip(text(args, 0)?).map(Val::Ip).map_err(failed_with)
}

fn is_ip<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(read_ip(text(args, 0)?).is_ok()))
}

fn is_canonical<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let text = text(args, 0)?;
    read_ip(text).map(|address| Val::Bool(address.to_string() == text)).map_err(failed_with)
}

fn to_text<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    crate::value::ops::to_text(&args[0]).map(Val::from)
}

fn family<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    address(args).map(|address| Val::Int(if address.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    address(args).map(|address| Val::Bool(address.is_unspecified()))
}

fn is_loopback<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    address(args).map(|address| Val::Bool(address.is_loopback()))
}

fn is_link_local_multicast<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(match address(args)? {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.octets()[0] == 0xff && address.octets()[1] & 0x0f == 2,
    }))
}

fn is_link_local_unicast<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    address(args).map(|address| Val::Bool(validation::is_link_local_unicast(address)))
}

fn is_global_unicast<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    address(args).map(|address| Val::Bool(validation::is_global_unicast(address)))
}

fn parsed_cidr(text: &str) -> Result<Prefix, Error> {
    // Upstream says so twice.
    read_cidr(text).map_err(|wrong| {
        failed_with(format!("network address parse error during conversion from string: {wrong}"))
    })
}

fn cidr<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    parsed_cidr(text(args, 0)?).map(Val::Cidr)
}

fn is_cidr<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    Ok(Val::Bool(read_cidr(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let prefix = prefix(args)?;
    let other = match &args[1] {
        Val::Ip(address) => *address,
        // Upstream forgets why the text is no address.
        other => read_ip(other.as_str().ok_or(NO_OVERLOAD)?).map_err(|_| NO_OVERLOAD)?,
    };
    Ok(Val::Bool(prefix.contains(other)))
}

fn contains_cidr<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let prefix = prefix(args)?;
    let other = match &args[1] {
        Val::Cidr(other) => *other,
        other => parsed_cidr(other.as_str().ok_or(NO_OVERLOAD)?)?,
    };
    Ok(Val::Bool(prefix.contains_prefix(&other)))
}

fn address_of<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    prefix(args).map(|prefix| Val::Ip(prefix.address))
}

fn prefix_length<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    prefix(args).map(|prefix| Val::Int(prefix.bits.into()))
}

fn masked<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let prefix = prefix(args)?;
    Ok(Val::Cidr(Prefix { address: prefix.network(prefix.address, prefix.bits), ..prefix }))
}
