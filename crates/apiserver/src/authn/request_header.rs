//! The front proxy: a peer with a certificate of its own authority says in headers whose request it brings.

use super::x509::Chains;
use super::{Authenticator, Connection, unescape};
use crate::user::User;
use apimachinery::clock::Clock;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use http::HeaderMap;
use pki::tls::ClientRoots;
use std::sync::Arc;

const NAME: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Trusts the headers `X-Remote-User`, `-Uid`, `-Group` and `-Extra-*` of proxies (`--requestheader-*`).
pub struct RequestHeader {
    chains: Chains,
    /// Common names that proxies may have; any when empty.
    allowed_names: Vec<String>,
}

impl RequestHeader {
    pub fn new(roots: ClientRoots, clock: Arc<dyn Clock>, allowed_names: &[&str]) -> Self {
        let allowed_names = allowed_names.iter().map(|n| (*n).to_owned()).collect();
        RequestHeader { chains: Chains::new(roots, clock), allowed_names }
    }

    fn check(&self, headers: &HeaderMap, connection: &Connection) -> Result<Option<User>, Status> {
        // Without a name there is nothing to say, and no chain to verify.
        let Some(user) = remote_user(headers) else { return Ok(None) };
        let Ok(certificate) = self.chains.verify(connection) else {
            return Err(Status::unauthorized("Unauthorized"));
        };
        let Some(certificate) = certificate else { return Ok(None) };
        let name = &certificate.subject.common_name;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(name) {
            tracing::debug!(%name, "the proxy's common name is not in the allowed list");
            return Err(Status::unauthorized("Unauthorized"));
        }
        Ok(Some(user))
    }
}

fn remote_user(headers: &HeaderMap) -> Option<User> {
    let values = |name: &str| -> Vec<String> {
        let all = headers.get_all(name).into_iter().filter_map(|v| v.to_str().ok());
        all.filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let mut user = User {
        name: values(NAME).into_iter().next()?,
        uid: values(UID).into_iter().next().unwrap_or_default(),
        groups: values(GROUP),
        ..Default::default()
    };
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            user.extra.entry(unescape(key)).or_default().push(value.to_owned());
        }
    }
    Some(user)
}

impl Authenticator for RequestHeader {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        Box::pin(std::future::ready(self.check(&request.headers, connection)))
    }
}
