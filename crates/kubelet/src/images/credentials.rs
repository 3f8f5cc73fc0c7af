//! Registry credentials in Secrets of type `kubernetes.io/dockerconfigjson` and `dockercfg`: which of them fit an image.
//! Pure. Upstream: `pkg/credentialprovider`.

use super::records::{PullSecret, sha256};
use api::core::v1::Secret;
use base64::Engine as _;
use cri::v1::AuthConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Login>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Login {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// Credentials for an image, the most specific first, and where they come from.
pub(crate) fn lookup(secrets: &[Arc<Secret>], image: &str) -> Vec<(AuthConfig, PullSecret)> {
    let repository = repository(image);
    let mut found: Vec<(usize, (AuthConfig, PullSecret))> = Vec::new();
    for secret in secrets {
        for (registry, login) in logins(secret) {
            let key = normal(&registry);
            if matches(&key, &repository) {
                let auth = to_auth(&registry, login);
                let from = PullSecret {
                    namespace: secret.metadata.namespace.clone(),
                    name: secret.metadata.name.clone(),
                    uid: secret.metadata.uid.clone(),
                    credential_hash: hash(&auth),
                };
                found.push((key.len(), (auth, from)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// Upstream: `hashAuthConfig`.
fn hash(auth: &AuthConfig) -> String {
    let fields = [
        ("username", &auth.username),
        ("password", &auth.password),
        ("auth", &auth.auth),
        ("serveraddress", &auth.server_address),
        ("identitytoken", &auth.identity_token),
        ("registrytoken", &auth.registry_token),
    ];
    let said = fields.into_iter().filter(|(_, value)| !value.is_empty());
    // In this order: a map would sort them.
    let said: Vec<String> = said
        .filter_map(|(key, value)| Some(format!("{key:?}:{}", serde_json::to_string(value).ok()?)))
        .collect();
    sha256(format!("{{{}}}", said.join(",")).as_bytes())
}

fn logins(secret: &Secret) -> BTreeMap<String, Login> {
    let bytes = |key: &str| secret.data.get(key).map(AsRef::as_ref).unwrap_or_default();
    match secret.type_.as_str() {
        "kubernetes.io/dockerconfigjson" => {
            serde_json::from_slice::<File>(bytes(".dockerconfigjson")).unwrap_or_default().auths
        }
        "kubernetes.io/dockercfg" => serde_json::from_slice(bytes(".dockercfg")).unwrap_or_default(),
        _ => BTreeMap::new(),
    }
}

fn to_auth(registry: &str, login: Login) -> AuthConfig {
    let (mut username, mut password) = (login.username, login.password);
    if username.is_empty()
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(login.auth.as_bytes())
        && let Some((user, secret)) = String::from_utf8_lossy(&bytes).split_once(':')
    {
        username = user.to_owned();
        password = secret.trim_end_matches('\0').to_owned();
    }
    AuthConfig {
        username,
        password,
        auth: login.auth,
        server_address: registry.to_owned(),
        identity_token: login.identitytoken,
        registry_token: login.registrytoken,
    }
}

/// Host and path of an image, without tag and digest.
fn repository(image: &str) -> String {
    let image = image.split('@').next().unwrap_or_default();
    let first = image.split('/').next().unwrap_or_default();
    let full = if image.contains('/') && (first.contains(['.', ':']) || first == "localhost") {
        image.to_owned()
    } else if image.contains('/') {
        format!("index.docker.io/{image}")
    } else {
        format!("index.docker.io/library/{image}")
    };
    let slash = full.rfind('/').unwrap_or(0);
    match full[slash..].find(':') {
        Some(colon) => full[..slash + colon].to_owned(),
        None => full,
    }
}

fn normal(registry: &str) -> String {
    let bare = registry.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "docker.io" | "registry-1.docker.io" => "index.docker.io".into(),
        other => other.to_owned(),
    }
}

/// The host must fit (each label may be a `*`), the path must be a prefix.
fn matches(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let (wanted, have): (Vec<&str>, Vec<&str>) = (key_host.split('.').collect(), host.split('.').collect());
    wanted.len() == have.len()
        && wanted.iter().zip(&have).all(|(w, h)| *w == "*" || w == h)
        && path.starts_with(key_path)
}
