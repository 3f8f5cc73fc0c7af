//! The few DER encodings that certificates and requests are made of: bytes in, bytes out.

use jiff::{Timestamp, tz::TimeZone};

pub(crate) const RSA_ENCRYPTION: &[u64] = &[1, 2, 840, 113549, 1, 1, 1];
pub(crate) const SHA256_WITH_RSA: &[u64] = &[1, 2, 840, 113549, 1, 1, 11];
pub(crate) const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
pub(crate) const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
pub(crate) const P384: &[u64] = &[1, 3, 132, 0, 34];
pub(crate) const P521: &[u64] = &[1, 3, 132, 0, 35];
pub(crate) const ECDSA_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
pub(crate) const ECDSA_SHA384: &[u64] = &[1, 2, 840, 10045, 4, 3, 3];
pub(crate) const ECDSA_SHA512: &[u64] = &[1, 2, 840, 10045, 4, 3, 4];
pub(crate) const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
pub(crate) const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
pub(crate) const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(crate) const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
pub(crate) const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub(crate) const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
pub(crate) const EXT_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
pub(crate) const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113549, 1, 9, 14];

/// A tag, a length and the content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let n = content.len();
    if n < 0x80 {
        out.push(n as u8);
    } else {
        let bytes = n.to_be_bytes();
        let skip = bytes.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (bytes.len() - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn seq<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// SET OF: its members are in the order of their encodings.
pub(crate) fn set_of(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort();
    tlv(0x31, &parts.concat())
}

/// Explicit context tag.
pub(crate) fn context(n: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | n, content)
}

pub(crate) fn oid(arcs: &[u64]) -> Vec<u8> {
    let mut body = Vec::new();
    let first = arcs.first().copied().unwrap_or(0) * 40 + arcs.get(1).copied().unwrap_or(0);
    for arc in std::iter::once(first).chain(arcs.iter().skip(2).copied()) {
        let groups = (64 - arc.leading_zeros()).div_ceil(7).max(1);
        for g in (0..groups).rev() {
            let low = ((arc >> (7 * g)) & 0x7f) as u8;
            body.push(if g == 0 { low } else { low | 0x80 });
        }
    }
    tlv(0x06, &body)
}

/// A non-negative integer from its big-endian bytes.
pub(crate) fn uint(bytes: &[u8]) -> Vec<u8> {
    let skip = bytes.iter().take_while(|b| **b == 0).count();
    let mut body = Vec::with_capacity(bytes.len() + 1);
    if bytes.get(skip).is_none_or(|b| b & 0x80 != 0) {
        body.push(0);
    }
    body.extend_from_slice(&bytes[skip..]);
    tlv(0x02, &body)
}

pub(crate) fn bit_string(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[unused], bytes].concat())
}

pub(crate) fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

pub(crate) fn null() -> Vec<u8> {
    tlv(0x05, &[])
}

pub(crate) fn boolean(v: bool) -> Vec<u8> {
    tlv(0x01, &[if v { 0xff } else { 0 }])
}

/// PrintableString where the text allows it, else UTF8String, as Go writes names.
pub(crate) fn text(s: &str) -> Vec<u8> {
    let printable = s.bytes().all(|b| b.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&b));
    tlv(if printable { 0x13 } else { 0x0c }, s.as_bytes())
}

/// UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5).
pub(crate) fn time(t: Timestamp) -> Vec<u8> {
    let t = t.to_zoned(TimeZone::UTC);
    if (1950..2050).contains(&t.year()) {
        tlv(0x17, t.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        tlv(0x18, t.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}

pub(crate) fn extension(id: &[u64], critical: bool, value: &[u8]) -> Vec<u8> {
    if critical { seq([&oid(id), &boolean(true), &octets(value)]) } else { seq([&oid(id), &octets(value)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let check = |got: Vec<u8>, want: &[u8]| assert_eq!(got, want);
        check(oid(P256), &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
        check(uint(&[0, 0, 0x80]), &[2, 2, 0, 0x80]);
        check(uint(&[]), &[2, 1, 0]);
        check(text("a_b"), &[0x0c, 3, b'a', b'_', b'b']);
        check(time(Timestamp::UNIX_EPOCH), b"\x17\x0d700101000000Z");
        assert_eq!(tlv(4, &[0; 300])[..4], [4, 0x82, 1, 44]);
    }
}
