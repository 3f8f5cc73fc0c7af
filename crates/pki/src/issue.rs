//! Authorities and what they sign: server and client certificates, signing requests.

use std::time::Duration;

use aws_lc_rs::rand;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;

use crate::{Certificate, Csr, Error, PrivateKey, PublicKey, Result, San, Subject, Usage, der};

/// Certificates begin this much before they are made, for machines whose clocks run behind (as upstream's signer).
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Profile {
    pub subject: Subject,
    pub sans: Vec<San>,
    pub usages: Vec<Usage>,
    pub ttl: Duration,
}

impl Profile {
    /// A certificate with which to serve.
    pub fn server(subject: Subject, sans: Vec<San>, ttl: Duration) -> Profile {
        let usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth];
        Profile { subject, sans, usages, ttl }
    }

    /// A certificate with which to call as `subject`.
    pub fn client(subject: Subject, ttl: Duration) -> Profile {
        let usages = vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth];
        Profile { subject, sans: Vec::new(), usages, ttl }
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    pub certificate: Certificate,
    pub key: PrivateKey,
}

impl Identity {
    /// From PEM; the key must be the certificate's.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Identity> {
        let (certificate, key) = (Certificate::from_pem(certificate)?, PrivateKey::from_pem(key)?);
        if certificate.public_key()?.spki() != key.public().spki() {
            return Err(Error::Certificate("the private key is not this certificate's".into()));
        }
        Ok(Identity { certificate, key })
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }
}

/// A certificate authority: an identity that signs.
#[derive(Debug)]
pub struct Authority {
    pub certificate: Certificate,
    pub key: PrivateKey,
}

impl Authority {
    /// A new self-signed authority.
    pub fn create(common_name: &str, ttl: Duration, now: Timestamp) -> Result<Authority> {
        Self::create_over(PrivateKey::generate()?, common_name, ttl, now)
    }

    /// A new self-signed authority over a key that exists.
    pub fn create_over(
        key: PrivateKey,
        common_name: &str,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Authority> {
        Self::self_sign(key, &Subject::new(common_name, &[]).to_der(), common_name, ttl, now)
    }

    /// The same authority with a new certificate: same key, same name, so that all it signed stays valid.
    pub fn renew(self, ttl: Duration, now: Timestamp) -> Result<Authority> {
        let Certificate { subject, subject_der, .. } = self.certificate;
        Self::self_sign(self.key, &subject_der, &subject.common_name, ttl, now)
    }

    fn self_sign(
        key: PrivateKey,
        subject: &[u8],
        host: &str,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Authority> {
        let not_after = later(now, ttl)?;
        let extensions = [
            key_usage(&[Usage::DigitalSignature, Usage::KeyEncipherment, Usage::CertSign]),
            der::extension(der::BASIC_CONSTRAINTS, true, &der::seq([&der::boolean(true)])),
            der::extension(der::SUBJECT_KEY_ID, false, &der::octets(&key.public().subject_key_id())),
            // kubeadm and client-go name the authority as a host too; some verifiers want a name there.
            alternative_names(&[San::Dns(host.to_owned())], false),
        ];
        let certificate =
            sign(&key, subject, subject, key.public(), earlier(now)?, not_after, &extensions.concat())?;
        Ok(Authority { certificate, key })
    }

    /// From PEM; the key must be the certificate's, and the certificate an authority's.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Authority> {
        let Identity { certificate, key } = Identity::from_pem(certificate, key)?;
        if !certificate.is_ca {
            return Err(Error::Certificate("not a certificate authority".into()));
        }
        Ok(Authority { certificate, key })
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, profile: &Profile, now: Timestamp) -> Result<Identity> {
        let key = PrivateKey::generate()?;
        let certificate = self.certify(key.public(), profile, now)?;
        Ok(Identity { certificate, key })
    }

    /// A certificate for somebody's key.
    pub fn certify(&self, key: &PublicKey, profile: &Profile, now: Timestamp) -> Result<Certificate> {
        let not_after = later(now, profile.ttl)?;
        self.sign(key, &profile.subject.to_der(), &profile.sans, &profile.usages, not_after, now)
    }

    /// A certificate for what a request asks: its subject, names and key, but the usages given here.
    /// As upstream's signer: `ttl` counts from the backdated beginning unless it is short, and never outlives the authority.
    pub fn sign_csr(
        &self,
        csr: &Csr,
        usages: &[Usage],
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Certificate> {
        const SHORT: Duration = Duration::from_secs(8 * 3600);
        let not_after = if ttl > SHORT { later(now, ttl - BACKDATE)? } else { later(now, ttl)? };
        self.sign(&csr.public_key, &csr.subject_der, &csr.sans, usages, not_after, now)
    }

    fn sign(
        &self,
        key: &PublicKey,
        subject: &[u8],
        sans: &[San],
        usages: &[Usage],
        not_after: Timestamp,
        now: Timestamp,
    ) -> Result<Certificate> {
        if now >= self.certificate.not_after {
            return Err(Error::Certificate("refusing to sign a certificate that expired in the past".into()));
        }
        let mut extensions = key_usage(usages);
        let extended = Usage::split(usages).1;
        if !extended.is_empty() {
            let ids: Vec<u8> = extended.iter().flat_map(|id| der::oid(id)).collect();
            extensions.extend(der::extension(der::EXT_KEY_USAGE, false, &der::tlv(0x30, &ids)));
        }
        extensions.extend(der::extension(der::BASIC_CONSTRAINTS, true, &der::seq([])));
        if let Some(id) = &self.certificate.subject_key_id {
            let id = der::seq([&der::tlv(0x80, id)]);
            extensions.extend(der::extension(der::AUTHORITY_KEY_ID, false, &id));
        }
        if !sans.is_empty() {
            // Critical when there is no subject (RFC 5280 §4.2.1.6); an empty one is two bytes.
            extensions.extend(alternative_names(sans, subject.len() <= 2));
        }
        let not_before = earlier(now)?.max(self.certificate.not_before);
        let not_after = not_after.min(self.certificate.not_after);
        sign(&self.key, &self.certificate.subject_der, subject, key, not_before, not_after, &extensions)
    }
}

fn later(now: Timestamp, ttl: Duration) -> Result<Timestamp> {
    let ttl = SignedDuration::try_from(ttl).map_err(|e| Error::Certificate(e.to_string()))?;
    now.checked_add(ttl).map_err(|e| Error::Certificate(e.to_string()))
}

fn earlier(now: Timestamp) -> Result<Timestamp> {
    now.checked_sub(SignedDuration::from_secs(BACKDATE.as_secs() as i64))
        .map_err(|e| Error::Certificate(e.to_string()))
}

fn key_usage(usages: &[Usage]) -> Vec<u8> {
    let bits = Usage::split(usages).0;
    if bits == 0 {
        return Vec::new();
    }
    let bytes = bits.to_be_bytes();
    let bytes = if bytes[1] == 0 { &bytes[..1] } else { &bytes[..] };
    let unused = (bits.trailing_zeros() % 8) as u8;
    der::extension(der::KEY_USAGE, true, &der::bit_string(unused, bytes))
}

fn alternative_names(sans: &[San], critical: bool) -> Vec<u8> {
    let names: Vec<u8> = sans.iter().flat_map(San::to_der).collect();
    der::extension(der::SUBJECT_ALT_NAME, critical, &der::tlv(0x30, &names))
}

fn sign(
    signer: &PrivateKey,
    issuer: &[u8],
    subject: &[u8],
    key: &PublicKey,
    not_before: Timestamp,
    not_after: Timestamp,
    extensions: &[u8],
) -> Result<Certificate> {
    let mut serial = [0; 16];
    rand::fill(&mut serial).map_err(|_| Error::Certificate("no random serial number".into()))?;
    // Positive and never zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let algorithm = signer.x509_algorithm();
    let body = der::seq([
        &der::context(0, &der::uint(&[2])),
        &der::uint(&serial),
        &algorithm,
        issuer,
        &der::seq([&der::time(not_before), &der::time(not_after)]),
        subject,
        key.spki(),
        &der::context(3, &der::tlv(0x30, extensions)),
    ]);
    let signature = signer.sign_x509(&body)?;
    Certificate::from_der(&der::seq([&body, &algorithm, &der::bit_string(0, &signature)]))
}
