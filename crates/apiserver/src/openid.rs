//! What those read who verify tokens of service accounts by themselves: the issuer's OpenID document, and its keys.

use crate::authn::token_keys::{KeySet, Keys};
use crate::body::{self, Answer};
use crate::handlers;
use apimachinery::status::Status;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use parking_lot::Mutex;
use pki::public_key::{Jwks, Kind, jwks};
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// How long keys that stay may be kept by who reads them, in seconds.
const KEPT: u64 = 3600;
const JWK_SET: &str = "application/jwk-set+json";

/// See the module.
pub struct OpenId {
    issuer: String,
    jwks_uri: String,
    keys: Keys,
    documents: Mutex<Documents>,
}

/// The documents of some keys.
struct Documents {
    of: Arc<KeySet>,
    configuration: Bytes,
    key_set: Bytes,
}

#[derive(Serialize)]
struct Configuration<'a> {
    issuer: &'a str,
    jwks_uri: &'a str,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: BTreeSet<&'a str>,
}

impl std::fmt::Debug for OpenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenId").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl OpenId {
    /// Of an issuer whose keys are at `jwks_uri`, or at this server's own address. An error says why an issuer cannot be
    /// told of; its tokens are good all the same.
    pub fn new(issuer: &str, jwks_uri: Option<&str>, address: &str, keys: Keys) -> Result<Self, String> {
        if issuer.is_empty() {
            return Err("empty issuer URL".into());
        }
        if !issuer.starts_with("https:") {
            return Err(format!("issuer URL must use https scheme, got: {issuer}"));
        }
        if issuer.split('#').next().is_some_and(|before| before.contains('?')) {
            return Err(format!("issuer URL may not include a query, got: {issuer}"));
        }
        if issuer.contains('#') {
            return Err(format!("issuer URL may not include a fragment, got: {issuer}"));
        }
        issuer.parse::<Uri>().map_err(|error| format!("parse {issuer:?}: {error}"))?;
        let jwks_uri = jwks_uri.map_or_else(|| format!("https://{address}/openid/v1/jwks"), str::to_owned);
        let documents = Mutex::new(render(issuer, &jwks_uri, keys.current())?);
        Ok(OpenId { issuer: issuer.to_owned(), jwks_uri, keys, documents })
    }

    /// `/.well-known/openid-configuration`.
    pub(crate) fn configuration(&self, headers: &HeaderMap) -> Result<Answer, Status> {
        self.answer(headers, body::JSON, |documents| &documents.configuration)
    }

    /// `/openid/v1/jwks`.
    pub(crate) fn key_set(&self, headers: &HeaderMap) -> Result<Answer, Status> {
        self.answer(headers, JWK_SET, |documents| &documents.key_set)
    }

    fn answer(
        &self,
        headers: &HeaderMap,
        media: &'static str,
        which: impl Fn(&Documents) -> &Bytes,
    ) -> Result<Answer, Status> {
        handlers::accepts(headers, &[media])?;
        let keys = self.keys.current();
        let mut documents = self.documents.lock();
        if !Arc::ptr_eq(&documents.of, &keys) {
            match render(&self.issuer, &self.jwks_uri, keys.clone()) {
                Ok(new) => *documents = new,
                Err(error) => {
                    tracing::error!(error, "failed to update openid config metadata");
                    // Said once of these keys.
                    documents.of = keys.clone();
                }
            }
        }
        let mut answer = body::json(StatusCode::OK, which(&documents).clone());
        let until = keys.fresh_until;
        let kept = until.map_or(KEPT, |until| until.saturating_duration_since(Instant::now()).as_secs());
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={kept}")) {
            headers.insert(header::CACHE_CONTROL, value);
        }
        Ok(answer)
    }
}

fn render(issuer: &str, jwks_uri: &str, of: Arc<KeySet>) -> Result<Documents, String> {
    if of.published.is_empty() {
        return Err("no keys provided for validating keyset".into());
    }
    let odd = of.published.iter().position(|key| key.kind() == Kind::Ed25519);
    if let Some(odd) = odd {
        return Err(format!(
            "error constructing JWK for key #{odd}: unknown public key type, must be *rsa.PublicKey, *ecdsa.PublicKey, or jose.OpaqueSigner"
        ));
    }
    let set: Jwks = jwks(&of.published).map_err(|error| error.to_string())?;
    let configuration = Configuration {
        issuer,
        jwks_uri,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: set.keys.iter().map(|key| key.alg.as_str()).collect(),
    };
    let json = |result: serde_json::Result<Vec<u8>>| result.map(Bytes::from).map_err(|e| e.to_string());
    Ok(Documents {
        configuration: json(apimachinery::value::to_json_vec(&configuration))?,
        key_set: json(apimachinery::value::to_json_vec(&set))?,
        of,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(issuer: &str, wanted: Expect) {
        let keys = Keys::fixed(vec![pki::PrivateKey::generate().unwrap().public().clone()]);
        let made = OpenId::new(issuer, None, "10.0.0.1:6443", keys);
        let said = made.map_or_else(
            |error| error,
            |openid| {
                let document = openid.documents.lock().configuration.clone();
                String::from_utf8(document.to_vec()).unwrap()
            },
        );
        wanted.assert_eq(&said);
    }

    #[test]
    fn issuers_are_urls_that_others_can_ask() {
        check(
            "https://a.b",
            expect![[
                r#"{"issuer":"https://a.b","jwks_uri":"https://10.0.0.1:6443/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}"#
            ]],
        );
        check("", expect!["empty issuer URL"]);
        check("api", expect!["issuer URL must use https scheme, got: api"]);
        check("https://a?b", expect!["issuer URL may not include a query, got: https://a?b"]);
        check("https://a#b?c", expect!["issuer URL may not include a fragment, got: https://a#b?c"]);
    }

    #[test]
    fn keys_are_of_their_own_media_type() {
        let keys = Keys::fixed(vec![pki::PrivateKey::generate().unwrap().public().clone()]);
        let openid = OpenId::new("https://a", None, "a", keys).unwrap();
        let headers = |accept: &str| HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        for accept in ["*/*", "application/json, */*", JWK_SET] {
            assert!(openid.key_set(&headers(accept)).is_ok(), "{accept}");
        }
        assert!(openid.key_set(&HeaderMap::new()).is_ok());
        let refused = openid.key_set(&headers("application/json")).err().unwrap();
        expect!["406: Not Acceptable\n\nAvailable representations: application/jwk-set+json"]
            .assert_eq(&refused.message);
        assert!(openid.configuration(&headers("application/json")).is_ok());
    }

    #[test]
    fn without_keys_there_is_nothing_to_tell() {
        let made = OpenId::new("https://a", None, "a", Keys::fixed(Vec::new()));
        expect!["no keys provided for validating keyset"].assert_eq(&made.unwrap_err());
    }
}
