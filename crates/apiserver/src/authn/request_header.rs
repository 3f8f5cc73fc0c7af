//! The front proxy: a peer with a certificate of its own authority says in headers whose request it brings
//! (`--requestheader-*`).

use super::x509::Chains;
use super::{Connection, unescape};
use crate::user::User;
use apimachinery::clock::Clock;
use http::{HeaderMap, HeaderName};
use pki::tls::ClientRoots;
use std::sync::Arc;

/// In which headers a proxy says what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    pub name: Vec<String>,
    pub uid: Vec<String>,
    pub group: Vec<String>,
    pub extra_prefix: Vec<String>,
}

impl Headers {
    /// `X-Remote-User`, `-Uid`, `-Group` and `-Extra-*`.
    pub fn standard() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Headers {
            name: one("X-Remote-User"),
            uid: one("X-Remote-Uid"),
            group: one("X-Remote-Group"),
            extra_prefix: one("X-Remote-Extra-"),
        }
    }

    fn values(headers: &HeaderMap, names: &[String]) -> Vec<String> {
        let all = names.iter().flat_map(|name| headers.get_all(name.to_ascii_lowercase()));
        all.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    }

    /// The first header that says something, and in it the first value.
    fn value(headers: &HeaderMap, names: &[String]) -> Option<String> {
        let mut all = names.iter().filter_map(|name| headers.get(name.to_ascii_lowercase()));
        all.find_map(|v| v.to_str().ok().filter(|v| !v.is_empty())).map(str::to_owned)
    }

    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let mut user = User {
            name: Self::value(headers, &self.name)?,
            uid: Self::value(headers, &self.uid).unwrap_or_default(),
            groups: Self::values(headers, &self.group),
            ..Default::default()
        };
        for prefix in &self.extra_prefix {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&prefix), value.to_str()) {
                    user.extra.entry(unescape(key)).or_default().push(value.to_owned());
                }
            }
        }
        Some(user)
    }

    fn remove(&self, headers: &mut HeaderMap) {
        for name in self.name.iter().chain(&self.uid).chain(&self.group) {
            headers.remove(name.to_ascii_lowercase());
        }
        let prefixes: Vec<String> = self.extra_prefix.iter().map(|p| p.to_ascii_lowercase()).collect();
        let extra = |name: &HeaderName| prefixes.iter().any(|p| name.as_str().starts_with(p.as_str()));
        let names: Vec<HeaderName> = headers.keys().filter(|name| extra(name)).cloned().collect();
        names.into_iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// Trusts the headers of proxies.
pub struct RequestHeader {
    chains: Chains,
    /// Common names that proxies may have; any when empty.
    allowed_names: Vec<String>,
    headers: Headers,
}

impl RequestHeader {
    pub fn new(
        roots: ClientRoots,
        clock: Arc<dyn Clock>,
        allowed_names: Vec<String>,
        headers: Headers,
    ) -> Self {
        RequestHeader { chains: Chains::new(roots, clock), allowed_names, headers }
    }

    pub(super) fn check(&self, headers: &HeaderMap, connection: &Connection) -> Result<Option<User>, String> {
        // Without a name there is nothing to say, and no chain to verify.
        let Some(user) = self.headers.user(headers) else { return Ok(None) };
        let Some(verified) = self.chains.verify(connection).map_err(|e| e.to_string())? else {
            return Ok(None);
        };
        let name = &verified.certificate.subject.common_name;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(name) {
            return Err(format!("x509: subject with cn={name} is not in the allowed list"));
        }
        Ok(Some(user))
    }

    /// Takes the headers of proxies out of a request, the standard ones and those of this proxy.
    pub(super) fn forget(this: Option<&Self>, headers: &mut HeaderMap) {
        Headers::standard().remove(headers);
        if let Some(this) = this {
            this.headers.remove(headers);
        }
    }
}
