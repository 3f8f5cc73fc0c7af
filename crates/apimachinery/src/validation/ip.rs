//! Rules for IP addresses and CIDRs. The lax forms read what Go read before it became strict: leading
//! zeros in IPv4, IPv4 inside IPv6; stored objects hold such values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{Error, ErrorList, Path};
use crate::quote::quote;

/// How much of the past a field must still read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// As Go read addresses before 1.17.
    Sloppy,
    /// Without leading zeros and mapped addresses.
    Strict,
}

/// A parsed CIDR: the address as given, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The address as it was written.
    pub address: IpAddr,
    /// Bits of the prefix.
    pub prefix: u8,
}

impl Cidr {
    /// The first address of the block.
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }

    /// Whether the block holds an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_family = self.address.is_ipv4() == address.is_ipv4();
        same_family && Self { address, prefix: self.prefix }.network() == self.network()
    }

    /// The block in canonical form.
    pub fn canonical(&self) -> String {
        format!("{}/{}", self.network(), self.prefix)
    }
}

/// An address as upstream's `ParseIPSloppy` reads it; a mapped IPv4 address comes out as IPv4.
pub fn parse_ip_sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let address = parse_ipv6_sloppy(text)?;
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    parse_ipv4_sloppy(text).map(IpAddr::V4)
}

/// Whether an address is good on one link only.
pub fn is_link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Whether an address may be that of a host anywhere, as Go's `IsGlobalUnicast` has it: private ones may.
pub fn is_global_unicast(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !broadcast && !special && !is_link_local_unicast(address)
}

/// Decimal parts, with any number of leading zeros.
fn parse_ipv4_sloppy(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

fn parse_ipv6_sloppy(text: &str) -> Option<Ipv6Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // Leading zeros in an embedded IPv4 address.
    let (head, tail) = text.rsplit_once(':')?;
    let address = parse_ipv4_sloppy(tail)?;
    format!("{head}:{address}").parse().ok()
}

/// A CIDR as upstream's `ParseCIDRSloppy` reads it. Of a mapped address, the block counts in IPv6
/// bits unless it lies within the mapped part.
pub fn parse_cidr_sloppy(text: &str) -> Option<Cidr> {
    let (address, prefix) = text.split_once('/')?;
    if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let prefix: u8 = prefix.parse().ok()?;
    if address.contains(':') {
        let address = parse_ipv6_sloppy(address)?;
        return match address.to_ipv4_mapped() {
            Some(mapped) if (96..=128).contains(&prefix) => {
                Some(Cidr { address: IpAddr::V4(mapped), prefix: prefix - 96 })
            }
            _ => (prefix <= 128).then_some(Cidr { address: IpAddr::V6(address), prefix }),
        };
    }
    let address = parse_ipv4_sloppy(address)?;
    (prefix <= 32).then_some(Cidr { address: IpAddr::V4(address), prefix })
}

fn is_mapped(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok_and(|address| address.to_ipv4_mapped().is_some())
}

/// Go's `netip.ParseAddr` also reads a zone.
fn parse_strict(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn parse_ip(path: &Path, text: &str, strictness: Strictness) -> Result<IpAddr, ErrorList> {
    let Some(address) = parse_ip_sloppy(text) else {
        let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        return Err(Error::invalid(path, text, why).into());
    };
    if strictness == Strictness::Strict {
        if parse_strict(text).is_none() {
            return Err(Error::invalid(path, text, "must not have leading 0s").into());
        }
        if is_mapped(text) {
            return Err(Error::invalid(path, text, "must not be an IPv4-mapped IPv6 address").into());
        }
    }
    Ok(address)
}

/// An address in a field older than the strict rules; `old` are the values that were there before.
pub fn is_valid_ip_for_legacy_field(
    path: &Path,
    text: &str,
    strictness: Strictness,
    old: &[String],
) -> ErrorList {
    if old.iter().any(|old| old == text) {
        return ErrorList::new();
    }
    parse_ip(path, text, strictness).err().unwrap_or_default()
}

/// An address in canonical form.
pub fn is_valid_ip(path: &Path, text: &str) -> ErrorList {
    match parse_ip(path, text, Strictness::Strict) {
        Err(errors) => errors,
        Ok(address) => canonical(path, text, &address.to_string()),
    }
}

fn canonical(path: &Path, text: &str, canonical: &str) -> ErrorList {
    if text == canonical {
        return ErrorList::new();
    }
    Error::invalid(path, text, format!("must be in canonical form ({})", quote(canonical))).into()
}

fn parse_cidr(path: &Path, text: &str, strictness: Strictness) -> Result<Cidr, ErrorList> {
    let Some(cidr) = parse_cidr_sloppy(text) else {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        return Err(Error::invalid(path, text, why).into());
    };
    if strictness == Strictness::Sloppy {
        return Ok(cidr);
    }
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let leading_zero = prefix.len() > 1 && prefix.starts_with('0');
    if leading_zero || parse_strict(address).is_none() {
        return Err(Error::invalid(path, text, "must not have leading 0s in IP or prefix length").into());
    }
    if is_mapped(address) {
        return Err(Error::invalid(path, text, "must not have an IPv4-mapped IPv6 address").into());
    }
    if cidr.address != cidr.network() {
        return Err(Error::invalid(path, text, "must not have bits set beyond the prefix length").into());
    }
    Ok(cidr)
}

/// A CIDR in a field older than the strict rules; `old` are the values that were there before.
pub fn is_valid_cidr_for_legacy_field(
    path: &Path,
    text: &str,
    strictness: Strictness,
    old: &[String],
) -> ErrorList {
    if old.iter().any(|old| old == text) {
        return ErrorList::new();
    }
    parse_cidr(path, text, strictness).err().unwrap_or_default()
}

/// A CIDR in canonical form.
pub fn is_valid_cidr(path: &Path, text: &str) -> ErrorList {
    match parse_cidr(path, text, Strictness::Strict) {
        Err(errors) => errors,
        Ok(cidr) => canonical(path, text, &cidr.canonical()),
    }
}

/// The address of an interface with the length of its network's prefix, in canonical form.
pub fn is_valid_interface_address(path: &Path, text: &str) -> ErrorList {
    match parse_cidr_sloppy(text) {
        Some(cidr) => canonical(path, text, &format!("{}/{}", cidr.address, cidr.prefix)),
        None => {
            let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            Error::invalid(path, text, why).into()
        }
    }
}

/// What to warn of in an address that was taken for the sake of the past.
pub fn warnings_for_ip(path: &Path, text: &str) -> Vec<String> {
    let Some(address) = parse_ip_sloppy(text) else { return vec![] };
    let (canonical, quoted) = (address.to_string(), quote(text));
    if parse_strict(text).is_none() || is_mapped(text) {
        let canonical = quote(&canonical);
        return vec![format!("{path}: non-standard IP address {quoted} is invalid: use {canonical}")];
    }
    if address.is_ipv6() && canonical != text {
        let canonical = quote(&canonical);
        return vec![format!(
            "{path}: IPv6 address {quoted} should be in RFC 5952 canonical format ({canonical})"
        )];
    }
    vec![]
}

/// What to warn of in a CIDR that was taken for the sake of the past.
pub fn warnings_for_cidr(path: &Path, text: &str) -> Vec<String> {
    let Some(cidr) = parse_cidr_sloppy(text) else { return vec![] };
    let mut warnings = vec![];
    let (canonical, quoted) = (cidr.canonical(), quote(text));
    if cidr.address != cidr.network() {
        let bits = if cidr.address.is_ipv4() { 32 } else { 128 };
        let single = quote(&format!("{}/{bits}", cidr.address));
        let canonical = quote(&canonical);
        warnings.push(format!(
            "{path}: CIDR value {quoted} is ambiguous in this context (should be {canonical} or {single}?)"
        ));
    }
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let leading_zero = prefix.len() > 1 && prefix.starts_with('0');
    if leading_zero || parse_strict(address).is_none() || is_mapped(address) {
        let canonical = quote(&canonical);
        warnings.push(format!("{path}: non-standard CIDR value {quoted} is invalid: use {canonical}"));
    } else if warnings.is_empty() && cidr.address.is_ipv6() && canonical != text {
        let canonical = quote(&canonical);
        warnings.push(format!(
            "{path}: IPv6 CIDR value {quoted} should be in RFC 5952 canonical format ({canonical})"
        ));
    }
    warnings
}
