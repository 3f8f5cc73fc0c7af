//! `podCertificate` sources of projected volumes: a key and a certificate that the node asks a signer for.

use super::pod_volumes::local_path;
use crate::check::Check;
use crate::pod_certificates::{SHORTEST, longest, user_annotations};
use crate::signer_name::validate_signer_name;
use api::core::v1::PodCertificateProjection;
use apimachinery::field::Path;

const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// `claim` is told of each file.
pub(super) fn validate(
    check: &mut Check,
    of: &PodCertificateProjection,
    at: &Path,
    mut claim: impl FnMut(&mut Check, &str),
) {
    validate_signer_name(check, &at.child("signerName"), &of.signer_name);
    user_annotations(check, &of.user_annotations, &at.child("userAnnotations"));
    check.one_of(&at.child("keyType"), &of.key_type, &KEY_TYPES);
    if let Some(seconds) = of.max_expiration_seconds {
        let (path, longest) = (at.child("maxExpirationSeconds"), longest(&of.signer_name));
        if seconds < SHORTEST {
            let why = format!("if provided, maxExpirationSeconds must be >= {SHORTEST}");
            check.invalid(&path, seconds, why);
        }
        if seconds > longest {
            check.invalid(&path, seconds, format!("if provided, maxExpirationSeconds must be <= {longest}"));
        }
    }
    let mut found = false;
    for (member, file) in [
        ("credentialBundlePath", &of.credential_bundle_path),
        ("keyPath", &of.key_path),
        ("certificateChainPath", &of.certificate_chain_path),
    ] {
        if !file.is_empty() {
            found = true;
            local_path(check, &at.child(member), file);
            claim(check, file);
        }
    }
    if !found {
        check.required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath");
    }
}
