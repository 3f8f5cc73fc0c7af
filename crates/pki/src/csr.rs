//! Certificate signing requests: read with their signature checked and unknown extensions tolerated, and made
//! (by a kubelet that asks for its certificates).

use rustls_pki_types::pem::SectionKind;
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{ExtendedKeyUsage, ParsedExtension},
    prelude::FromDer,
};

use crate::{Error, PrivateKey, PublicKey, Result, San, Subject, Usage, der, pem};

/// A request whose signature holds.
#[derive(Clone, Debug)]
pub struct Csr {
    pub subject: Subject,
    pub sans: Vec<San>,
    /// What the request itself asks for; the API object's `spec.usages` is what counts for signing.
    pub usages: Vec<Usage>,
    pub public_key: PublicKey,
    pub(crate) subject_der: Vec<u8>,
}

pub(crate) fn extended_ids(usage: &ExtendedKeyUsage<'_>) -> Vec<Vec<u64>> {
    let flags: [(bool, Usage); 7] = [
        (usage.any, Usage::Any),
        (usage.server_auth, Usage::ServerAuth),
        (usage.client_auth, Usage::ClientAuth),
        (usage.code_signing, Usage::CodeSigning),
        (usage.email_protection, Usage::EmailProtection),
        (usage.time_stamping, Usage::Timestamping),
        (usage.ocsp_signing, Usage::OcspSigning),
    ];
    let named: Vec<Usage> = flags.iter().filter(|(set, _)| *set).map(|(_, u)| *u).collect();
    let mut ids: Vec<Vec<u64>> = Usage::split(&named).1.iter().map(|id| id.to_vec()).collect();
    ids.extend(usage.other.iter().filter_map(|o| o.iter().map(|i| i.collect())));
    ids
}

impl Csr {
    /// From PEM, as `spec.request` of a CertificateSigningRequest holds it.
    pub fn from_pem(data: &[u8]) -> Result<Csr> {
        // Upstream's message.
        let none = || Error::Csr("PEM block type must be CERTIFICATE REQUEST".into());
        let sections = pem::sections(data);
        let (kind, der) = sections.first().ok_or_else(none)?;
        if *kind != SectionKind::Csr { Err(none()) } else { Self::from_der(der) }
    }

    pub fn from_der(data: &[u8]) -> Result<Csr> {
        let (rest, request) =
            X509CertificationRequest::from_der(data).map_err(|e| Error::Csr(e.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::Csr("trailing data".into()));
        }
        let info = &request.certification_request_info;
        let public_key = PublicKey::from_spki(info.subject_pki.raw)?;
        let signed = public_key.verifies_x509(
            &request.signature_algorithm.algorithm,
            info.raw,
            &request.signature_value.data,
        );
        if !signed {
            return Err(Error::Csr("the signature does not verify".into()));
        }
        let (mut sans, mut bits, mut extended) = (vec![], 0, vec![]);
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    sans = names.general_names.iter().filter_map(San::from_x509).collect();
                }
                ParsedExtension::KeyUsage(usage) => bits = usage.flags.reverse_bits(),
                ParsedExtension::ExtendedKeyUsage(usage) => extended = extended_ids(usage),
                _ => {}
            }
        }
        Ok(Csr {
            subject: Subject::from_x509(&info.subject),
            sans,
            usages: Usage::join(bits, &extended),
            public_key,
            subject_der: info.subject.as_raw().to_vec(),
        })
    }

    /// The PEM of a request for `subject`, signed by the key it is about.
    pub fn create(key: &PrivateKey, subject: &Subject, sans: &[San]) -> Result<String> {
        Ok(pem::encode("CERTIFICATE REQUEST", &Self::create_der(key, subject, sans)?))
    }

    /// The DER of such a request.
    pub fn create_der(key: &PrivateKey, subject: &Subject, sans: &[San]) -> Result<Vec<u8>> {
        let attributes = if sans.is_empty() {
            Vec::new()
        } else {
            let names: Vec<u8> = sans.iter().flat_map(San::to_der).collect();
            let extension = der::extension(der::SUBJECT_ALT_NAME, false, &der::tlv(0x30, &names));
            der::seq([&der::oid(der::EXTENSION_REQUEST), &der::set_of(vec![der::seq([&extension])])])
        };
        let info = der::seq([
            &der::uint(&[0]),
            &subject.to_der(),
            key.public().spki(),
            &der::context(0, &attributes),
        ]);
        let signature = key.sign_x509(&info)?;
        Ok(der::seq([&info, &key.x509_algorithm(), &der::bit_string(0, &signature)]))
    }
}
