//! Authentication: who makes this request?

pub mod impersonation;
pub mod service_account;
pub mod x509;

use crate::user::User;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;

/// What is known of a connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    pub peer: Option<SocketAddr>,
    /// The certificates the client presented; it proved to hold the first one's key, no more.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Says who makes a request. `Ok(None)`: no credentials of a kind it knows; an error: bad credentials.
pub trait Authenticator: Send + Sync {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>>;
}
