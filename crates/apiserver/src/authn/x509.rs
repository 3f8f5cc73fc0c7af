//! Client certificates: the common name is the user, the organizations are its groups.

use super::{Authenticator, Connection};
use crate::user::User;
use apimachinery::clock::Clock;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use pki::tls::ClientRoots;
use std::sync::Arc;

/// Trusts the certificates that the cluster's authority signed.
pub struct X509 {
    pub roots: ClientRoots,
    pub clock: Arc<dyn Clock>,
}

impl Authenticator for X509 {
    fn authenticate<'a>(
        &'a self,
        _request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        let result = if connection.certificates.is_empty() {
            Ok(None)
        } else {
            match pki::tls::verify_client_chain(&connection.certificates, &self.roots, self.clock.now()) {
                Ok(certificate) => Ok(Some(User {
                    name: certificate.subject.common_name.clone(),
                    groups: certificate.subject.organizations.clone(),
                    ..Default::default()
                })),
                Err(error) => {
                    tracing::debug!(%error, "unable to authenticate the request by its certificate");
                    Err(Status::unauthorized("Unauthorized"))
                }
            }
        };
        Box::pin(std::future::ready(result))
    }
}
