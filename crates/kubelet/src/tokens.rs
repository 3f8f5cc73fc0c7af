//! Service account tokens for projected volumes and for credential providers: bound to the pod, renewed when four fifths
//! of their life (or a day) have passed. Upstream: `pkg/kubelet/token`.

use api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use api::core::v1::{Pod, ServiceAccount};
use apimachinery::meta::ObjectMeta;
use client::Client;
use parking_lot::Mutex;
use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;
const MAX_AGE: i64 = 24 * 3600 * SECOND;
const DEFAULT_SECONDS: i64 = 3600;

/// A token and when to replace it, in nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub text: String,
    pub refresh_at: i64,
    expires_at: i64,
}

/// What a token is to be good for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// Nobody's but the API server's, when empty.
    pub audience: &'a str,
    /// None as the server has it.
    pub seconds: Option<i64>,
    /// Of this service account and no later one of its name, unless empty.
    pub account_uid: &'a str,
}

/// Tokens by pod uid, audience and lifetime.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<(String, String, i64), Token>>);

impl Tokens {
    pub(crate) async fn get(&self, client: &Client, pod: &Pod, wanted: Wanted<'_>) -> Result<Token, String> {
        let seconds = wanted.seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (pod.metadata.uid.clone(), wanted.audience.to_owned(), seconds);
        let now = crate::clock::now();
        let known = self.0.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|t| now < t.refresh_at) {
            return Ok(token.clone());
        }
        match ask(client, pod, wanted, now).await {
            Ok(token) => {
                self.0.lock().insert(key, token.clone());
                Ok(token)
            }
            // An old token that is still good is better than none.
            Err(error) => match known.filter(|t| now < t.expires_at) {
                Some(token) => Ok(Token { refresh_at: now + 30 * SECOND, ..token }),
                None => Err(format!("failed to fetch token: {error}")),
            },
        }
    }

    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().retain(|(pod, _, _), _| pod != uid);
    }
}

async fn ask(client: &Client, pod: &Pod, wanted: Wanted<'_>, now: i64) -> Result<Token, client::Error> {
    let meta = &pod.metadata;
    let mut audiences = Vec::new();
    if !wanted.audience.is_empty() {
        audiences.push(wanted.audience.to_owned());
    }
    let seconds = wanted.seconds.unwrap_or(DEFAULT_SECONDS);
    let account_uid = ObjectMeta { uid: wanted.account_uid.to_owned(), ..Default::default() };
    let wanted = TokenRequest {
        metadata: account_uid,
        kind: "TokenRequest".into(),
        api_version: "authentication.k8s.io/v1".into(),
        spec: TokenRequestSpec {
            audiences,
            expiration_seconds: Some(seconds),
            bound_object_ref: Some(BoundObjectReference {
                kind: "Pod".into(),
                api_version: "v1".into(),
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            }),
        },
        ..Default::default()
    };
    let accounts = client.namespaced::<ServiceAccount>(&meta.namespace);
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let answer: TokenRequest = accounts.post(account, "token", &wanted).await?;
    let expires_at = answer.status.expiration_timestamp.map_or(now + seconds * SECOND, |t| t.unix() * SECOND);
    // The server may give a longer life than was asked; renewal goes by what was asked.
    let life = (expires_at - now).min(seconds * SECOND);
    let refresh_at = now + (life / 5 * 4).min(MAX_AGE);
    Ok(Token { text: answer.status.token, refresh_at, expires_at })
}
