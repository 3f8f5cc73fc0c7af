//! Reading certificates: whose, for what, until when. Verification of a chain is in `tls`.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer, x509::X509Name,
};

use crate::{Error, PublicKey, Result, San, Subject, Usage, pem};

/// A certificate, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    pub subject: Subject,
    pub issuer: Subject,
    /// The user's uids that the subject carries (OID 1.3.6.1.4.1.57683.2, as kube-apiserver reads it): one at most.
    pub uids: Vec<String>,
    /// Hexadecimal.
    pub serial: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub sans: Vec<San>,
    pub usages: Vec<Usage>,
    pub is_ca: bool,
    pub(crate) subject_der: Vec<u8>,
    pub(crate) issuer_der: Vec<u8>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    spki: Vec<u8>,
}

/// Hexadecimal.
fn sha256(data: &[u8]) -> String {
    digest(&SHA256, data).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn uids(name: &X509Name<'_>) -> Vec<String> {
    const USER_UID: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];
    let found = name
        .iter_attributes()
        .filter(|a| a.attr_type().iter().is_some_and(|mut i| i.by_ref().eq(USER_UID.iter().copied())));
    found.map(|a| a.as_str().map(str::to_owned).unwrap_or_default()).collect()
}

impl Certificate {
    pub fn from_der(der: &[u8]) -> Result<Certificate> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|e| Error::Certificate(e.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::Certificate("trailing data".into()));
        }
        let time = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|e| Error::Certificate(e.to_string()))
        };
        let (mut sans, mut bits, mut extended, mut is_ca, mut subject_key_id) =
            (vec![], 0, vec![], false, None);
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    sans = names.general_names.iter().filter_map(San::from_x509).collect();
                }
                // The parser numbers the bits from the low end.
                ParsedExtension::KeyUsage(usage) => bits = usage.flags.reverse_bits(),
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    extended = crate::csr::extended_ids(usage);
                }
                ParsedExtension::BasicConstraints(constraints) => is_ca = constraints.ca,
                ParsedExtension::SubjectKeyIdentifier(id) => subject_key_id = Some(id.0.to_vec()),
                _ => {}
            }
        }
        Ok(Certificate {
            subject: Subject::from_x509(cert.subject()),
            issuer: Subject::from_x509(cert.issuer()),
            uids: uids(cert.subject()),
            serial: cert.raw_serial().iter().map(|b| format!("{b:02x}")).collect(),
            not_before: time(cert.validity().not_before)?,
            not_after: time(cert.validity().not_after)?,
            sans,
            usages: Usage::join(bits, &extended),
            is_ca,
            subject_der: cert.subject().as_raw().to_vec(),
            issuer_der: cert.issuer().as_raw().to_vec(),
            subject_key_id,
            spki: cert.public_key().raw.to_vec(),
            der: CertificateDer::from(der.to_vec()),
        })
    }

    /// The first certificate of the PEM data.
    pub fn from_pem(data: &[u8]) -> Result<Certificate> {
        Self::from_der(&pem::certificates(data)?[0])
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    pub fn public_key(&self) -> Result<PublicKey> {
        PublicKey::from_spki(&self.spki)
    }

    /// `sha256:` and the hexadecimal SHA-256 of the public key: how kubeadm pins an authority (RFC 7469's content).
    pub fn public_key_hash(&self) -> String {
        format!("sha256:{}", sha256(&self.spki))
    }

    /// Hexadecimal SHA-256 of the certificate; kube-apiserver's credential id is `X509SHA256=` and this.
    pub fn sha256(&self) -> String {
        sha256(&self.der)
    }

    /// Whether `authority` signed this certificate (names and signature; not dates or usages).
    pub fn is_signed_by(&self, authority: &Certificate) -> bool {
        let Ok((_, cert)) = X509Certificate::from_der(&self.der) else { return false };
        self.issuer_der == authority.subject_der
            && authority.public_key().is_ok_and(|key| {
                key.verifies_x509(
                    &cert.signature_algorithm.algorithm,
                    cert.tbs_certificate.as_ref(),
                    &cert.signature_value.data,
                )
            })
    }

    /// Less than a third of its life is left (or it is not valid yet, which means a clock went backwards).
    pub fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second() - self.not_before.as_second();
        let left = self.not_after.as_second() - now.as_second();
        left * 3 < life || now < self.not_before
    }
}
