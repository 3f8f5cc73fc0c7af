//! Client certificates: the common name is the user, the organizations are its groups.

use super::recent::{Recent, digest};
use super::{Authenticator, Connection};
use crate::user::User;
use apimachinery::clock::Clock;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use pki::Certificate;
use pki::tls::ClientRoots;
use std::sync::Arc;

/// For how long a verified chain is not verified again, in seconds.
const TRUSTED: i64 = 10;

/// Verifies the chains of connections against one pool of authorities.
pub(super) struct Chains {
    roots: ClientRoots,
    clock: Arc<dyn Clock>,
    recent: Recent<Arc<Certificate>>,
}

impl Chains {
    pub(super) fn new(roots: ClientRoots, clock: Arc<dyn Clock>) -> Self {
        Chains { roots, clock, recent: Recent::default() }
    }

    /// The client's certificate, when it showed one and that leads to the roots.
    pub(super) fn verify(&self, connection: &Connection) -> Result<Option<Arc<Certificate>>, pki::Error> {
        if connection.certificates.is_empty() {
            return Ok(None);
        }
        let now = self.clock.now();
        let key = digest(connection.certificates.iter().map(|c| c.as_ref()));
        if let Some(certificate) = self.recent.get(&key, now.as_second()) {
            return Ok(Some(certificate));
        }
        let certificate = pki::tls::verify_client_chain(&connection.certificates, &self.roots, now)?;
        let certificate = Arc::new(certificate);
        let until = certificate.not_after.as_second().min(now.as_second() + TRUSTED);
        self.recent.put(key, certificate.clone(), until);
        Ok(Some(certificate))
    }
}

/// Trusts the certificates that the cluster's authority signed.
pub struct X509(Chains);

impl X509 {
    pub fn new(roots: ClientRoots, clock: Arc<dyn Clock>) -> Self {
        X509(Chains::new(roots, clock))
    }
}

fn user(certificate: &Certificate) -> Option<User> {
    let subject = &certificate.subject;
    // A certificate without a common name is no identity.
    (!subject.common_name.is_empty()).then(|| User {
        name: subject.common_name.clone(),
        uid: certificate.uid.clone().unwrap_or_default(),
        groups: subject.organizations.clone(),
        extra: [(super::CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", certificate.sha256())])]
            .into(),
    })
}

impl Authenticator for X509 {
    fn authenticate<'a>(
        &'a self,
        _request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        let result = match self.0.verify(connection) {
            Ok(certificate) => Ok(certificate.and_then(|c| user(&c))),
            Err(error) => {
                tracing::debug!(%error, "unable to authenticate the request by its certificate");
                Err(Status::unauthorized("Unauthorized"))
            }
        };
        Box::pin(std::future::ready(result))
    }
}
