//! Client certificates: the common name is the user, the organizations are its groups.

use super::Connection;
use super::recent::{Recent, digest};
use crate::user::User;
use apimachinery::clock::Clock;
use component::metrics::{Histogram, Opts, Registry, Stability};
use pki::Certificate;
use pki::tls::ClientRoots;
use std::sync::Arc;

/// For how long a verified chain is not verified again, in seconds.
const TRUSTED: i64 = 10;

/// From none to a year, in seconds.
const LIFETIMES: [f64; 14] = [
    0.0, 1800.0, 3600.0, 7200.0, 21600.0, 43200.0, 86400.0, 172800.0, 345600.0, 604800.0, 2592000.0,
    7776000.0, 15552000.0, 31104000.0,
];

/// Verifies the chains of connections against one pool of authorities.
pub(super) struct Chains {
    roots: ClientRoots,
    clock: Arc<dyn Clock>,
    recent: Recent<Arc<Verified>>,
}

/// A certificate that leads to the roots, and whose it is.
pub(super) struct Verified {
    pub(super) certificate: Certificate,
    user: Result<Option<User>, String>,
}

impl Chains {
    pub(super) fn new(roots: ClientRoots, clock: Arc<dyn Clock>) -> Self {
        Chains { roots, clock, recent: Recent::default() }
    }

    /// The client's certificate, when it showed one and that leads to the roots.
    pub(super) fn verify(&self, connection: &Connection) -> Result<Option<Arc<Verified>>, pki::Error> {
        if connection.certificates.is_empty() {
            return Ok(None);
        }
        let now = self.clock.now();
        let key =
            connection.digest.get_or_init(|| digest(connection.certificates.iter().map(|c| c.as_ref())));
        if let Some(verified) = self.recent.get(key, now.as_second()) {
            return Ok(Some(verified));
        }
        let certificate = pki::tls::verify_client_chain(&connection.certificates, &self.roots, now)?;
        let until = certificate.not_after.as_second().min(now.as_second() + TRUSTED);
        let verified = Arc::new(Verified { user: user(&certificate), certificate });
        self.recent.put(*key, verified.clone(), until);
        Ok(Some(verified))
    }
}

/// Trusts the certificates that the cluster's authority signed.
pub struct X509(Chains, Histogram);

impl X509 {
    pub fn new(roots: ClientRoots, clock: Arc<dyn Clock>, metrics: &Registry) -> Self {
        let lifetime = metrics.histogram(
            Opts {
                name: "apiserver_client_certificate_expiration_seconds",
                help: "Distribution of the remaining lifetime on the certificate used to authenticate a request.",
                stability: Stability::Alpha,
            },
            &LIFETIMES,
        );
        X509(Chains::new(roots, clock), lifetime)
    }
}

/// Whose a certificate is; of a certificate without a common name, nobody's.
fn user(certificate: &Certificate) -> Result<Option<User>, String> {
    let subject = &certificate.subject;
    if subject.common_name.is_empty() {
        return Ok(None);
    }
    let uid = match certificate.uids.as_slice() {
        [] => String::new(),
        [one] if one.is_empty() => return Err("UID cannot be an empty string".into()),
        [one] => one.clone(),
        many => return Err(format!("expected 1 UID, but found multiple: [{}]", many.join(" "))),
    };
    Ok(Some(User {
        name: subject.common_name.clone(),
        uid,
        groups: subject.organizations.clone(),
        extra: [(super::CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", certificate.sha256())])]
            .into(),
        pin: None,
    }))
}

impl X509 {
    pub(super) fn check(&self, connection: &Connection) -> Result<Option<User>, String> {
        match self.0.verify(connection) {
            Ok(Some(verified)) => {
                let left = verified.certificate.not_after.as_second() - self.0.clock.now().as_second();
                self.1.observe(left as f64);
                verified.user.clone()
            }
            Ok(None) => Ok(None),
            Err(error) => Err(format!("verifying certificate failed: {error}")),
        }
    }
}
