//! What a new request must be. Upstream: `ValidatePodCertificateRequestCreate`.

use super::key::{self, Wrong};
use super::{SHORTEST, longest, user_annotations};
use crate::check::{Check, subdomain};
use crate::signer_name::validate_signer_name;
use crate::tree::typed;
use api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;

const LONGEST_UID: usize = 128;
/// Of a key, a proof or a PKCS#10 request.
const LARGEST: usize = 10 * 1024;

pub(super) fn validate(request: &Value) -> ErrorList {
    let mut check = Check::default();
    let PodCertificateRequest { spec, .. } = typed(request);
    let path = Path::new("spec");
    validate_signer_name(&mut check, &path.child("signerName"), &spec.signer_name);
    let annotations = &spec.unverified_user_annotations;
    user_annotations(&mut check, annotations, &path.child("unverifiedUserAnnotations"));
    for (member, name, uid_member, uid) in [
        ("podName", &spec.pod_name, "podUID", &spec.pod_uid),
        ("serviceAccountName", &spec.service_account_name, "serviceAccountUID", &spec.service_account_uid),
        ("nodeName", &spec.node_name, "nodeUID", &spec.node_uid),
    ] {
        check.keeps(&path.child(member), name, subdomain);
        let path = path.child(uid_member);
        if uid.is_empty() {
            check.invalid(&path, "", "must not be empty");
        }
        check.when(uid.len() > LONGEST_UID, || Error::too_long(&path, LONGEST_UID));
    }
    let (lifetime, longest) = (path.child("maxExpirationSeconds"), longest(&spec.signer_name));
    let Some(seconds) = spec.max_expiration_seconds else {
        check.required(&lifetime, "must be set");
        return check.0;
    };
    if !(SHORTEST..=longest).contains(&seconds) {
        check.invalid(&lifetime, seconds, format!("must be in the range [{SHORTEST}, {longest}]"));
    }
    let there = [&spec.stub_pkcs10_request, &spec.pkix_public_key, &spec.proof_of_possession]
        .map(|bytes| !bytes.is_empty());
    let proven = match there {
        [true, false, false] => of_stub(&spec, &path.child("stubPKCS10Request")),
        [false, true, true] => of_key(&spec, &path),
        _ => {
            let why = "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set";
            Err(Error::invalid(&path, BadValue::omitted(), why))
        }
    };
    check.extend(proven.err());
    check.0
}

/// A PKCS#10 request that its own key signed; what else it says is the signer's affair.
fn of_stub(spec: &PodCertificateRequestSpec, path: &Path) -> Result<(), Error> {
    let der = spec.stub_pkcs10_request.as_ref();
    if der.len() > LARGEST {
        return Err(Error::too_long(path, LARGEST));
    }
    let invalid = |value: BadValue, why: &str| Error::invalid(path, value, why);
    key::of_request(der).map_err(|wrong| match wrong {
        Wrong::Unreadable => invalid(BadValue::omitted(), "must be a valid PKCS#10 CSR"),
        Wrong::Curve(curve) => {
            invalid(curve.into(), "elliptic public keys must use curve P256, P384, or P521")
        }
        Wrong::Size(bits) => invalid(format!("{bits}-bit modulus").into(), key::WRONG_SIZE),
        Wrong::Unknown => invalid(BadValue::omitted(), key::UNKNOWN),
    })?;
    pki::Csr::from_der(der).map(drop).map_err(|_| invalid(BadValue::omitted(), "invalid signature"))
}

/// A key and, signed by it, the UID of the pod: what kubelets before v1.36 send.
fn of_key(spec: &PodCertificateRequestSpec, path: &Path) -> Result<(), Error> {
    let (key_path, proof_path) = (path.child("pkixPublicKey"), path.child("proofOfPossession"));
    let (der, proof) = (&spec.pkix_public_key, &spec.proof_of_possession);
    for (path, bytes) in [(&key_path, der), (&proof_path, proof)] {
        if bytes.as_ref().len() > LARGEST {
            return Err(Error::too_long(path, LARGEST));
        }
    }
    let invalid = |value: BadValue, why: &str| Error::invalid(&key_path, value, why);
    let key = key::of_spki(der.as_ref()).map_err(|wrong| match wrong {
        Wrong::Unreadable => invalid(BadValue::json(der), "must be a valid PKIX-serialized public key"),
        Wrong::Curve(curve) => invalid(curve.into(), "elliptic public keys must use curve P256 or P384"),
        Wrong::Size(bits) => invalid(format!("{bits}-bit modulus").into(), key::WRONG_SIZE),
        Wrong::Unknown => invalid(BadValue::json(der), key::UNKNOWN),
    })?;
    if key.proves(spec.pod_uid.as_bytes(), proof.as_ref()) {
        return Ok(());
    }
    let why = "could not verify proof-of-possession signature";
    Err(Error::invalid(&proof_path, BadValue::omitted(), why))
}
