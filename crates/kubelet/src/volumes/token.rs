//! Service account tokens for projected volumes: bound to the pod, renewed when four fifths of their life (or a day) have
//! passed. Upstream: `pkg/kubelet/token`.

use super::Request;
use api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use api::core::v1::{ServiceAccount, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use std::collections::HashMap;

const SECOND: i64 = 1_000_000_000;
const MAX_AGE: i64 = 24 * 3600 * SECOND;
const DEFAULT_SECONDS: i64 = 3600;

/// A token and when to replace it, in nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub text: String,
    pub refresh_at: i64,
    expires_at: i64,
}

/// Tokens by pod uid, audience and lifetime.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<(String, String, i64), Token>>);

impl Tokens {
    pub(super) async fn get(
        &self,
        request: &Request<'_>,
        source: &ServiceAccountTokenProjection,
    ) -> Result<Token, String> {
        let pod = request.pod;
        let seconds = source.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let key = (pod.metadata.uid.clone(), source.audience.clone(), seconds);
        let now = crate::clock::now();
        let known = self.0.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|t| now < t.refresh_at) {
            return Ok(token.clone());
        }
        match ask(request, source, seconds, now).await {
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

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().retain(|(pod, _, _), _| pod != uid);
    }
}

async fn ask(
    request: &Request<'_>,
    source: &ServiceAccountTokenProjection,
    seconds: i64,
    now: i64,
) -> Result<Token, client::Error> {
    let meta = &request.pod.metadata;
    let mut audiences = Vec::new();
    if !source.audience.is_empty() {
        audiences.push(source.audience.clone());
    }
    let wanted = TokenRequest {
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
    let accounts = request.client.namespaced::<ServiceAccount>(&meta.namespace);
    let account = match request.pod.spec.service_account_name.as_str() {
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
