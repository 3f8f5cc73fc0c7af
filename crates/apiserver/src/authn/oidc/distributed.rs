//! Distributed claims: a token says where a claim is to be had, in another signed token (OpenID Connect Core, 5.6.2).

use super::claims::Claims;
use super::provider::{Provider, Settings};
use crate::remote::Remote;
use apimachinery::clock::Clock;
use apimachinery::quote::quote;
use apimachinery::value::Value;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a claim is to be had.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    #[serde(rename = "endpoint")]
    url: String,
    access_token: String,
}

/// Fetches one claim where a token does not bring it itself.
pub(super) struct Resolver {
    pub(super) claim: String,
    pub(super) remote: Arc<Remote>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Arc<[String]>,
    pub(super) clock: Arc<dyn Clock>,
    /// Those who issue the other tokens; few.
    pub(super) providers: Mutex<HashMap<String, Arc<Provider>>>,
}

impl Resolver {
    /// Puts the claim among the others, if it is distributed.
    pub(super) async fn expand(&self, claims: &mut Claims) -> Result<(), String> {
        if claims.contains_key(&self.claim) {
            return Ok(());
        }
        let Some(names) = claims.get("_claim_names") else { return Ok(()) };
        let names: BTreeMap<String, String> = apimachinery::value::from_value(names.clone())
            .map_err(|e| format!("oidc: error parsing distributed claim names: {e}"))?;
        let sources = claims.get("_claim_sources").ok_or("oidc: no claim sources")?;
        let sources: BTreeMap<String, Endpoint> = apimachinery::value::from_value(sources.clone())
            .map_err(|e| format!("oidc: could not parse claim sources: {e}"))?;
        let Some(source) = names.get(&self.claim) else { return Ok(()) };
        let endpoint = sources.get(source).ok_or_else(|| {
            format!("id token _claim_names contained a source {source} missing in _claims_sources")
        })?;
        if endpoint.url.is_empty() {
            return Ok(());
        }
        let value = self.resolve(endpoint).await?;
        claims.insert(self.claim.clone(), value);
        Ok(())
    }

    async fn resolve(&self, endpoint: &Endpoint) -> Result<Value, String> {
        let (url, claim) = (&endpoint.url, &self.claim);
        let token = self.fetch(endpoint).await;
        let token = token.map_err(|e| format!("while getting distributed claim {}: {e}", quote(claim)))?;
        let issuer = super::untrusted_issuer(&token).map_err(|e| {
            format!("getting untrusted issuer from endpoint {url} failed for claim {}: {e}", quote(claim))
        })?;
        let provider = self.provider(&issuer);
        if provider.health().is_err() {
            return Err(format!(
                "verifying untrusted issuer {issuer} failed: verifier not initialized for issuer: {}",
                quote(&issuer)
            ));
        }
        let mut claims = provider.verify(&token).await.map_err(|e| {
            let why = e.strip_prefix("oidc: verify token: ").unwrap_or(&e);
            format!("verify distributed claim token: {why}")
        })?;
        claims.remove(claim).ok_or_else(|| {
            format!(
                "jwt returned by distributed claim endpoint {} did not contain claim: {claim}",
                quote(url)
            )
        })
    }

    /// Of an issuer that is new here it is not known yet whether it can be found: its claims come with a later token.
    fn provider(&self, issuer: &str) -> Arc<Provider> {
        let mut providers = self.providers.lock();
        let provider = providers.entry(issuer.to_owned()).or_insert_with(|| {
            Arc::new(Provider::start(Settings {
                issuer: issuer.to_owned(),
                discovery_url: None,
                audiences: self.audiences.clone(),
                algorithms: self.algorithms.clone(),
                remote: self.remote.clone(),
                clock: self.clock.clone(),
                metrics: None,
            }))
        });
        provider.clone()
    }

    async fn fetch(&self, endpoint: &Endpoint) -> Result<String, String> {
        let mut headers = HeaderMap::new();
        if !endpoint.access_token.is_empty() {
            let value = format!("Bearer {}", endpoint.access_token);
            headers.insert(header::AUTHORIZATION, value.parse().map_err(|e| format!("{e}"))?);
        }
        let response = self.remote.get(&endpoint.url, headers, TIMEOUT).await.map_err(|e| e.to_string())?;
        if !(200..=226).contains(&response.status.as_u16()) {
            return Err(format!("error while getting distributed claim JWT: {}", response.status_text()));
        }
        String::from_utf8(response.body.to_vec())
            .map_err(|_| "could not decode distributed claim response".into())
    }
}
