//! What may become of a request's status: it is issued, denied or failed, once. Upstream:
//! `ValidatePodCertificateRequestStatusUpdate`. Who may do so is asked by the plugin CertificateSigning.

use super::key;
use crate::check::Check;
use crate::pem_blocks::{Block, blocks};
use crate::tree::typed;
use api::certificates::v1beta1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::validation::validate_conditions;
use apimachinery::time::Time;
use apimachinery::value::Value;
use pki::PublicKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The conditions after which nothing changes any more.
pub(super) const FINAL: [&str; 3] = ["Issued", "Denied", "Failed"];
const LARGEST_CHAIN: usize = 100 * 1024;
const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const SECOND_IN_NANOSECONDS: i64 = 1_000_000_000;

pub(super) fn validate(request: &Value, old: &Value, now: Time) -> ErrorList {
    let (new, old): (PodCertificateRequest, PodCertificateRequest) = (typed(request), typed(old));
    let path = Path::new("status");
    let mut check = Check::default();
    validate_states(&mut check, &new.status, &path.child("conditions"));
    if !check.0.is_empty() {
        return check.0;
    }
    let changed = new.status != old.status;
    let mut refuse = |why: &str| check.invalid(&path, BadValue::omitted(), why);
    match (state(&old.status), state(&new.status)) {
        (Some(_), _) if changed => {
            refuse("immutable after PodCertificateRequest is issued, denied, or failed");
        }
        (Some(_), _) => {}
        (None, Some("Issued")) => {
            let done = issued(&mut check, &new.status, &new.spec, now);
            check.extend(done.err());
        }
        (None, Some(_)) => {
            let alone = PodCertificateRequestStatus {
                conditions: new.status.conditions.clone(),
                ..Default::default()
            };
            if new.status != alone {
                refuse(
                    "non-condition status fields must be empty when denying or failing the PodCertificateRequest",
                );
            }
        }
        (None, None) if changed => {
            refuse("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"");
        }
        (None, None) => {}
    }
    check.0
}

/// What has become of the request, if anything has.
fn state(status: &PodCertificateRequestStatus) -> Option<&str> {
    let mut met = status.conditions.iter().filter(|condition| condition.status == "True");
    met.find(|condition| FINAL.contains(&&*condition.type_)).map(|condition| &*condition.type_)
}

fn validate_states(check: &mut Check, status: &PodCertificateRequestStatus, path: &Path) {
    for (i, condition) in status.conditions.iter().enumerate() {
        // Upstream's paths, dot before the bracket and all.
        let at = path.child(format!("[{i}]"));
        if !FINAL.contains(&&*condition.type_) {
            check.0.push(Error::not_supported(&at.child("type"), &condition.type_, &FINAL));
            continue;
        }
        if status.conditions[..i].iter().any(|before| FINAL.contains(&&*before.type_)) {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            check.invalid(&at.child("type"), &condition.type_, why);
        }
        check.one_of(&at.child("status"), &condition.status, &["True"]);
    }
    check.extend(validate_conditions(&status.conditions, path));
}

/// Puts what does not end the looking into `check`.
fn issued(
    check: &mut Check,
    status: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    now: Time,
) -> Result<(), Error> {
    let path = Path::new("status");
    let (chain_path, chain) = (path.child("certificateChain"), status.certificate_chain.as_str());
    if chain.len() > LARGEST_CHAIN {
        return Err(Error::too_long(&chain_path, LARGEST_CHAIN));
    }
    let wrong = |why: &str| Error::invalid(&chain_path, chain, why);
    let found = blocks(chain);
    let Some((leaf, others)) = found.split_first() else {
        return Err(wrong("issued certificate chain must contain at least one certificate"));
    };
    if leaf.label != "CERTIFICATE" {
        return Err(wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks"));
    }
    let leaf = parsed(leaf).ok_or_else(|| wrong("leaf certificate does not parse as valid X.509"))?;
    validate_names(check, &leaf, &chain_path);
    if PublicKey::from_spki(leaf.public_key().raw).ok().as_ref() != Some(&wanted(spec)?) {
        return Err(wrong("leaf certificate was not issued to the requested public key"));
    }
    validate_times(check, status, spec, &leaf, now)?;
    if !check.0.is_empty() {
        return Ok(());
    }
    for block in others {
        if block.label != "CERTIFICATE" {
            // So spelled upstream.
            return Err(wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks"));
        }
        parsed(block).ok_or_else(|| wrong("intermediate certificate does not parse as valid X.509"))?;
    }
    Ok(())
}

fn parsed(block: &Block) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(&block.der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

/// The key that was asked for.
fn wanted(spec: &PodCertificateRequestSpec) -> Result<PublicKey, Error> {
    let path = Path::new("spec");
    let (found, path, why) = if spec.stub_pkcs10_request.is_empty() {
        let found = key::of_spki(spec.pkix_public_key.as_ref());
        (found, path.child("pkixPublicKey"), "must be a valid PKIX-serialized public key")
    } else {
        let found = key::of_request(spec.stub_pkcs10_request.as_ref());
        (found, path.child("stubPKCS10Request"), "must be a valid PKCS#10 CSR")
    };
    found.map_err(|_| Error::invalid(&path, BadValue::omitted(), why))
}

/// Names that some verifiers choke on.
fn validate_names(check: &mut Check, leaf: &X509Certificate<'_>, path: &Path) {
    let names = leaf.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    for name in names.clone() {
        let GeneralName::DNSName(name) = name else { continue };
        if name.is_empty() {
            check.invalid(path, *name, "leaf certificate should not contain empty DNSName");
        }
        if name.contains("..") {
            check.invalid(path, *name, "leaf certificate's DNSName should not contain '..'");
        }
        if name.starts_with('.') || name.ends_with('.') {
            check.invalid(path, *name, "leaf certificate's DNSName should not start or end with '.'");
        }
    }
    for name in names {
        if let GeneralName::RFC822Name(address) = name
            && !is_address(address)
        {
            check.invalid(path, *address, "leaf certificate should not contain invalid EmailAddress");
        }
    }
}

/// Whether this is an address of mail, bare or behind a name.
fn is_address(text: &str) -> bool {
    let bare = match text.trim().strip_suffix('>').and_then(|named| named.rsplit_once('<')) {
        Some((_, bare)) => bare,
        None => text.trim(),
    };
    let atom = |part: &str| !part.is_empty() && part.bytes().all(is_atom);
    let Some((local, domain)) = bare.rsplit_once('@') else { return false };
    let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

/// RFC 5322's atext, and all beyond ASCII (RFC 6532).
fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn validate_times(
    check: &mut Check,
    status: &PodCertificateRequestStatus,
    spec: &PodCertificateRequestSpec,
    leaf: &X509Certificate<'_>,
    now: Time,
) -> Result<(), Error> {
    let path = Path::new("status");
    let [before_path, after_path, refresh_path] =
        ["notBefore", "notAfter", "beginRefreshAt"].map(|member| path.child(member));
    let (Some(not_before), Some(not_after), Some(refresh)) =
        (status.not_before, status.not_after, status.begin_refresh_at)
    else {
        const CONSISTENT: &str = "must be present and consistent with the issued certificate";
        const BETWEEN: &str = "must be present and in the range [notbefore+10min, notafter-10min]";
        for (path, time, why) in [
            (&before_path, status.not_before, CONSISTENT),
            (&after_path, status.not_after, CONSISTENT),
            (&refresh_path, status.begin_refresh_at, BETWEEN),
        ] {
            check.when(time.is_none(), || Error::required(path, why));
        }
        return Ok(());
    };
    if !check.0.is_empty() {
        return Ok(());
    }
    let wrong = |path: &Path, time: Time, why: &str| Err(Error::invalid(path, BadValue::json(&time), why));
    let from = leaf.validity().not_before.timestamp();
    let until = leaf.validity().not_after.timestamp();
    if not_before.unix() != from {
        let why = "must be set to the NotBefore time encoded in the leaf certificate";
        return wrong(&before_path, not_before, why);
    }
    if (from - now.unix()).abs() >= 5 * MINUTE {
        let why = "must be set to within 5 minutes of kube-apiserver's current time";
        return wrong(&before_path, not_before, why);
    }
    if not_after.unix() != until {
        let why = "must be set to the NotAfter time encoded in the leaf certificate";
        return wrong(&after_path, not_after, why);
    }
    let lifetime = until - from;
    let wrong_lifetime = |why: String| {
        let shown = lifetime.saturating_mul(SECOND_IN_NANOSECONDS);
        Err(Error::invalid(&path.child("certificateChain"), shown, why))
    };
    if lifetime < HOUR {
        return wrong_lifetime("leaf certificate lifetime must be >= 1 hour".into());
    }
    let longest = spec.max_expiration_seconds.unwrap_or_default();
    if lifetime > i64::from(longest) {
        let why = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})");
        return wrong_lifetime(why);
    }
    if refresh.unix() < from + 10 * MINUTE {
        return wrong(&refresh_path, refresh, "must be at least 10 minutes after status.notBefore");
    }
    if refresh.unix() > until - 10 * MINUTE {
        return wrong(&refresh_path, refresh, "must be at least 10 minutes before status.notAfter");
    }
    Ok(())
}
