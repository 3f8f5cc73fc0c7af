//! Registry credentials in Secrets of type `kubernetes.io/dockerconfigjson` and `dockercfg`. Pure. Upstream:
//! `pkg/credentialprovider/secrets`.

use super::keyring::{Credential, Keyring, Source};
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

/// What these Secrets hold.
pub(super) fn keyring(secrets: &[Arc<Secret>]) -> Keyring {
    let mut keyring = Keyring::default();
    for secret in secrets {
        for (registry, login) in logins(secret) {
            let auth = to_auth(&registry, login);
            let source = Source::Secret(PullSecret {
                namespace: secret.metadata.namespace.clone(),
                name: secret.metadata.name.clone(),
                uid: secret.metadata.uid.clone(),
                credential_hash: hash(&auth),
            });
            keyring.add(&registry, Credential { auth, source });
        }
    }
    keyring
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
