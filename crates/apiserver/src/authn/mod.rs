//! Authentication: who makes this request? The front proxy is asked first, then certificates, then bearer tokens
//! ([`tokens`]), at last whether somebody may come without a name ([`chain`]).

pub mod bootstrap_token;
pub mod cached;
pub mod chain;
pub mod configuration;
pub mod external_jwt;
pub mod impersonation;
pub mod oidc;
pub(crate) mod recent;
pub mod request_header;
pub mod service_account;
pub mod token_file;
pub mod token_keys;
mod token_uses;
pub mod tokens;
pub mod validation;
pub mod webhook;
pub mod x509;

use crate::user::User;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::OnceLock;
use tokio_util::sync::CancellationToken;

/// The extra that names the credential a user came with.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What is known of a connection.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    pub peer: Option<SocketAddr>,
    /// The certificates the client presented; it proved to hold the first one's key, no more.
    pub certificates: Vec<CertificateDer<'static>>,
    /// What these certificates are known by, once somebody asked.
    pub digest: OnceLock<[u8; 32]>,
    /// Its client is to connect anew.
    pub leave: CancellationToken,
}

/// Says who makes a request. `Ok(None)`: no credentials of a kind it knows; an error: bad credentials.
pub trait Authenticator: Send + Sync {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>>;

    /// Takes the credentials out of a request whose user is known.
    fn strip(&self, _request: &mut http::request::Parts) {}
}

/// Decodes `%2F` in the key of an extra; what is malformed stays as it is.
fn unescape(key: &str) -> String {
    let mut out = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(decoded) => out.push(decoded),
            None => return key.to_owned(),
        }
        rest = &tail[2..];
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
