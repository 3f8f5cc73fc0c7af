//! PEM: labelled base64 blocks. Reading tolerates text around the blocks; writing uses 64 columns, as Go does.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{
    CertificateDer,
    pem::{PemObject, SectionKind},
};

use crate::{Error, Result};

/// One block.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Every block whose label is known, in order; a malformed block ends the reading.
pub fn sections(pem: &[u8]) -> Vec<(SectionKind, Vec<u8>)> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).map_while(|s| s.ok()).collect()
}

/// All certificates; an error when there is none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = sections(pem)
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| der.into())
        .collect();
    if found.is_empty() { Err(Error::Pem { wanted: "certificate" }) } else { Ok(found) }
}
