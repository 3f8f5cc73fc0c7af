//! Who a certificate names and what it may be used for, in the words of certificates.k8s.io.
//! By upstream's convention the common name is the user and the organizations are its groups.

use std::net::IpAddr;

use x509_parser::{extensions::GeneralName, x509::X509Name};

use crate::der;

/// A user (common name) and its groups (organizations).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

impl Subject {
    pub fn new<S: Into<String>>(common_name: S, organizations: &[&str]) -> Self {
        Subject {
            common_name: common_name.into(),
            organizations: organizations.iter().map(|o| o.to_string()).collect(),
        }
    }

    /// As Go writes a name: organizations in one set, before the common name.
    pub(crate) fn to_der(&self) -> Vec<u8> {
        let attribute = |id: &[u64], v: &str| der::seq([&der::oid(id), &der::text(v)]);
        let mut rdns = Vec::new();
        if !self.organizations.is_empty() {
            let all = self.organizations.iter().map(|o| attribute(der::ORGANIZATION, o)).collect();
            rdns.extend(der::set_of(all));
        }
        if !self.common_name.is_empty() {
            rdns.extend(der::set_of(vec![attribute(der::COMMON_NAME, &self.common_name)]));
        }
        der::tlv(0x30, &rdns)
    }

    pub(crate) fn from_x509(name: &X509Name<'_>) -> Self {
        Subject {
            // Of several common names Go keeps the last.
            common_name: strings(name.iter_common_name()).pop().unwrap_or_default(),
            organizations: strings(name.iter_organization()),
        }
    }
}

fn strings<'a, 'b: 'a>(
    values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'b>>,
) -> Vec<String> {
    values.filter_map(|a| a.as_str().ok().map(str::to_owned)).collect()
}

/// A subject alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    Dns(String),
    Ip(IpAddr),
    Email(String),
    Uri(String),
}

impl San {
    /// An address when it reads as one, else a DNS name.
    pub fn host(s: &str) -> San {
        s.parse().map(San::Ip).unwrap_or_else(|_| San::Dns(s.to_owned()))
    }

    pub(crate) fn to_der(&self) -> Vec<u8> {
        match self {
            San::Email(s) => der::tlv(0x81, s.as_bytes()),
            San::Dns(s) => der::tlv(0x82, s.as_bytes()),
            San::Uri(s) => der::tlv(0x86, s.as_bytes()),
            San::Ip(IpAddr::V4(ip)) => der::tlv(0x87, &ip.octets()),
            San::Ip(IpAddr::V6(ip)) => der::tlv(0x87, &ip.octets()),
        }
    }

    pub(crate) fn from_x509(name: &GeneralName<'_>) -> Option<San> {
        Some(match name {
            GeneralName::DNSName(s) => San::Dns(s.to_string()),
            GeneralName::RFC822Name(s) => San::Email(s.to_string()),
            GeneralName::URI(s) => San::Uri(s.to_string()),
            GeneralName::IPAddress(b) => San::Ip(match b.len() {
                4 => IpAddr::from(<[u8; 4]>::try_from(*b).ok()?),
                16 => IpAddr::from(<[u8; 16]>::try_from(*b).ok()?),
                _ => return None,
            }),
            _ => return None,
        })
    }
}

/// A usage as certificates.k8s.io/v1 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Usage {
    Signing,
    DigitalSignature,
    ContentCommitment,
    KeyEncipherment,
    KeyAgreement,
    DataEncipherment,
    CertSign,
    CrlSign,
    EncipherOnly,
    DecipherOnly,
    Any,
    ServerAuth,
    ClientAuth,
    CodeSigning,
    EmailProtection,
    SMime,
    IpsecEndSystem,
    IpsecTunnel,
    IpsecUser,
    Timestamping,
    OcspSigning,
    MicrosoftSgc,
    NetscapeSgc,
}

/// Where a usage goes in a certificate: a bit of KeyUsage (RFC 5280 §4.2.1.3) or an extended usage's id.
enum Place {
    Bit(u8),
    Extended(&'static [u64]),
}

use Place::{Bit, Extended};
use Usage::*;

const USAGES: &[(Usage, &str, Place)] = &[
    (Signing, "signing", Bit(0)),
    (DigitalSignature, "digital signature", Bit(0)),
    (ContentCommitment, "content commitment", Bit(1)),
    (KeyEncipherment, "key encipherment", Bit(2)),
    (KeyAgreement, "key agreement", Bit(4)),
    (DataEncipherment, "data encipherment", Bit(3)),
    (CertSign, "cert sign", Bit(5)),
    (CrlSign, "crl sign", Bit(6)),
    (EncipherOnly, "encipher only", Bit(7)),
    (DecipherOnly, "decipher only", Bit(8)),
    (Any, "any", Extended(&[2, 5, 29, 37, 0])),
    (ServerAuth, "server auth", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 1])),
    (ClientAuth, "client auth", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 2])),
    (CodeSigning, "code signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 3])),
    (EmailProtection, "email protection", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    (SMime, "s/mime", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 4])),
    (IpsecEndSystem, "ipsec end system", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 5])),
    (IpsecTunnel, "ipsec tunnel", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 6])),
    (IpsecUser, "ipsec user", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 7])),
    (Timestamping, "timestamping", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 8])),
    (OcspSigning, "ocsp signing", Extended(&[1, 3, 6, 1, 5, 5, 7, 3, 9])),
    (MicrosoftSgc, "microsoft sgc", Extended(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
    (NetscapeSgc, "netscape sgc", Extended(&[2, 16, 840, 1, 113730, 4, 1])),
];

impl Usage {
    /// The usage of that name, exactly as the API writes it.
    pub fn parse(name: &str) -> Option<Usage> {
        USAGES.iter().find(|(_, n, _)| *n == name).map(|(u, _, _)| *u)
    }

    pub fn name(self) -> &'static str {
        USAGES[self as usize].1
    }

    /// Several at once, as the bits of KeyUsage and the ids of ExtendedKeyUsage.
    pub(crate) fn split(usages: &[Usage]) -> (u16, Vec<&'static [u64]>) {
        let (mut bits, mut extended) = (0, Vec::new());
        for usage in usages {
            match USAGES[*usage as usize].2 {
                Bit(n) => bits |= 0x8000 >> n,
                Extended(id) if !extended.contains(&id) => extended.push(id),
                Extended(_) => {}
            }
        }
        (bits, extended)
    }

    /// What a certificate's bits and ids allow; the first name of each.
    pub(crate) fn join(bits: u16, extended: &[Vec<u64>]) -> Vec<Usage> {
        let mut found = Vec::new();
        for (usage, _, place) in USAGES {
            let present = match place {
                Bit(0) => *usage == DigitalSignature && bits & 0x8000 != 0,
                Bit(n) => bits & (0x8000 >> n) != 0,
                Extended(id) => *usage != SMime && extended.iter().any(|e| e == id),
            };
            if present {
                found.push(*usage);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_table_is_in_the_order_of_the_enum() {
        for (i, (usage, name, _)) in USAGES.iter().enumerate() {
            assert_eq!(*usage as usize, i);
            assert_eq!(Usage::parse(name), Some(*usage));
        }
        let usages = [DigitalSignature, KeyEncipherment, ServerAuth];
        let (bits, ext) = Usage::split(&usages);
        assert_eq!(bits, 0xa000);
        assert_eq!(Usage::join(bits, &ext.iter().map(|e| e.to_vec()).collect::<Vec<_>>()), usages);
    }
}
