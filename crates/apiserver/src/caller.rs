//! As whom calls to other servers are made: what a kubeconfig says of a user.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pki::kubeconfig::User;
use pki::tls::Slot;
use std::path::PathBuf;
use std::sync::Arc;

/// What is said in the `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Authorization {
    None,
    Fixed(String),
    /// A bearer token that others rotate.
    File(PathBuf),
}

impl Authorization {
    /// A user's. Credentials that would have to be fetched are an error.
    pub(crate) fn of(user: &User) -> Result<Self, String> {
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("exec plugins and auth providers are not supported in kubeconfigs of webhooks".into());
        }
        Ok(if !user.token_file.is_empty() {
            Authorization::File(PathBuf::from(&user.token_file))
        } else if !user.token.is_empty() {
            Authorization::Fixed(format!("Bearer {}", user.token))
        } else if !user.username.is_empty() {
            use base64::Engine as _;
            let pair = format!("{}:{}", user.username, user.password);
            Authorization::Fixed(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
        } else {
            Authorization::None
        })
    }

    /// Adds the header, unless there is one.
    pub(crate) fn add(&self, headers: &mut HeaderMap) -> Result<(), String> {
        let value = match self {
            Authorization::None => return Ok(()),
            Authorization::Fixed(value) => value.parse(),
            Authorization::File(path) => {
                let token = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
                format!("Bearer {}", token.trim()).parse()
            }
        };
        let value = value.map_err(|error: header::InvalidHeaderValue| error.to_string())?;
        headers.entry(header::AUTHORIZATION).or_insert(value);
        Ok(())
    }
}

/// A user as other servers see it: a certificate and headers.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Tells this caller from others.
    pub name: String,
    pub identity: Option<Arc<Slot>>,
    authorization: Authorization,
    /// Whom the caller asks to be taken for.
    impersonated: HeaderMap,
}

fn impersonated(user: &User) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if user.impersonate.is_empty() {
        return Ok(headers);
    }
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        headers.append(name, HeaderValue::try_from(value).map_err(|error| error.to_string())?);
        Ok(())
    };
    add("Impersonate-User", &user.impersonate)?;
    if !user.impersonate_uid.is_empty() {
        add("Impersonate-Uid", &user.impersonate_uid)?;
    }
    for group in &user.impersonate_groups {
        add("Impersonate-Group", group)?;
    }
    for (key, values) in &user.impersonate_extra {
        for value in values {
            add(&format!("Impersonate-Extra-{key}"), value)?;
        }
    }
    Ok(headers)
}

/// Inline data, or what is in the file; none if neither is named.
fn bytes(data: &[u8], file: &str) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        ([], "") => Ok(None),
        ([], file) => std::fs::read(file).map(Some).map_err(|error| format!("{file}: {error}")),
        (data, _) => Ok(Some(data.to_vec())),
    }
}

impl Caller {
    /// A kubeconfig's user of that name.
    pub(crate) fn new(name: &str, user: &User) -> Result<Self, String> {
        let chain = bytes(&user.client_certificate_data.0, &user.client_certificate)?;
        let key = bytes(&user.client_key_data.0, &user.client_key)?;
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => Some(Slot::of_pem(&chain, &key).map_err(|error| error.to_string())?),
            _ => None,
        };
        Ok(Caller {
            name: name.to_owned(),
            identity,
            authorization: Authorization::of(user)?,
            impersonated: impersonated(user)?,
        })
    }

    /// Adds what tells the other server who calls.
    pub(crate) fn add(&self, headers: &mut HeaderMap) -> Result<(), String> {
        self.authorization.add(headers)?;
        headers.extend(self.impersonated.clone());
        Ok(())
    }
}
