//! The keys that certificates of pods may be of: RSA of 3072 or 4096 bits, ECDSA on three curves, Ed25519.

use pki::PublicKey;
use pki::public_key::Kind;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a key cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    Unreadable,
    /// A curve that Go knows beside those that are taken.
    Curve(&'static str),
    /// Of RSA, in bits.
    Size(usize),
    Unknown,
}

pub(super) const WRONG_SIZE: &str = "RSA keys must have modulus size 3072 or 4096";
pub(super) const UNKNOWN: &str = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";

/// The key, from the DER of a SubjectPublicKeyInfo.
pub(super) fn of_spki(der: &[u8]) -> Result<PublicKey, Wrong> {
    const ELLIPTIC: &str = "1.2.840.10045.2.1";
    const P224: &str = "1.3.132.0.33";
    let Ok(([], parsed)) = SubjectPublicKeyInfo::from_der(der) else { return Err(Wrong::Unreadable) };
    let key = PublicKey::from_spki(der).map_err(|_| {
        let curve = parsed.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        match parsed.algorithm.algorithm.to_id_string() == ELLIPTIC {
            true if curve.is_some_and(|curve| curve.to_id_string() == P224) => Wrong::Curve("curve P-224"),
            true => Wrong::Unreadable,
            false => Wrong::Unknown,
        }
    })?;
    match (key.kind(), key.modulus_bits()) {
        (Kind::Rsa, Some(3072 | 4096)) => Ok(key),
        (Kind::Rsa, Some(bits)) => Err(Wrong::Size(bits)),
        (Kind::Rsa, None) => Err(Wrong::Unreadable),
        _ => Ok(key),
    }
}

/// The key that a PKCS#10 request in DER is about.
pub(super) fn of_request(der: &[u8]) -> Result<PublicKey, Wrong> {
    match X509CertificationRequest::from_der(der) {
        Ok(([], request)) => of_spki(request.certification_request_info.subject_pki.raw),
        _ => Err(Wrong::Unreadable),
    }
}
