//! OpenID Connect: tokens of issuers outside of the cluster, whose claims are mapped to users.
//!
//! A token's way: its issuer chooses the authenticator, the issuer's [`provider`] verifies it, [`distributed`] claims are
//! fetched, [`mapping`]s make a user of the claims, rules on claims and user may refuse. Upstream:
//! `plugin/pkg/authenticator/token/oidc`.

mod claims;
mod distributed;
mod issuers;
pub mod mapping;
mod metrics;
mod provider;

pub use issuers::{Issuers, ReloadError, Shared};
pub use metrics::OidcMetrics;

use super::CREDENTIAL_ID;
use super::configuration::JwtAuthenticator;
use super::tokens::{Answer, Known, TokenAuthenticator};
use super::validation::validate_jwt;
use crate::egress::{Egress, Purpose, Way};
use crate::remote::Remote;
use crate::user::User;
use apimachinery::field::Path;
use apimachinery::quote::quote;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::Claims;
use distributed::Resolver;
use futures::future::BoxFuture;
use mapping::{ClaimsView, Mapper};
use pki::tls::Trust;
use provider::{Provider, Settings};
use std::sync::Arc;

const GOOGLE: &str = "https://accounts.google.com";
const GOOGLE_WITHOUT_SCHEME: &str = "accounts.google.com";

/// The algorithms that tokens may be signed with.
pub const ALGORITHMS: [&str; 9] =
    ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// The way to an issuer. Who chooses one must have it configured.
fn way(egress: &Arc<Egress>, selected: &str) -> Result<Way, String> {
    let purpose = match selected {
        "" => return Ok(Way::default()),
        "controlplane" => Purpose::ControlPlane,
        "cluster" => Purpose::Cluster,
        other => return Err(format!("oidc: unknown egress selector type {}", quote(other))),
    };
    if !egress.is_configured() {
        return Err(format!("oidc: egress lookup required with egress selector type {}", quote(selected)));
    }
    if !egress.names(purpose) {
        return Err(format!("oidc: egress lookup for {} is not configured", quote(selected)));
    }
    Ok(egress.way(purpose))
}

/// Authenticates the tokens of one issuer.
struct Jwt {
    config: JwtAuthenticator,
    mapper: Mapper,
    provider: Provider,
    resolver: Option<Resolver>,
    metrics: OidcMetrics,
}

impl Jwt {
    fn new(config: &JwtAuthenticator, shared: &Shared) -> Result<Self, String> {
        let (mapper, errors) = validate_jwt(config, &Path::default(), &shared.disallowed_issuers);
        if let Some(wrong) = errors.aggregate() {
            return Err(wrong);
        }
        if let Some(wrong) = shared.algorithms.iter().find(|a| !ALGORITHMS.contains(&a.as_str())) {
            return Err(format!("oidc: unsupported signing alg: {}", quote(wrong)));
        }
        let issuer = &config.issuer;
        let way = way(&shared.egress, &issuer.egress_selector_type)?;
        let authority = &issuer.certificate_authority;
        let trust = if authority.is_empty() { Trust::system() } else { Trust::pem(authority.as_bytes()) };
        let trust = trust.map_err(|e| format!("Failed to read the CA contents: {e}"))?;
        let remote = Arc::new(Remote::new(&trust)?.through(way));
        let groups = &config.claim_mappings.groups.claim;
        let resolver = (!groups.is_empty()).then(|| Resolver {
            claim: groups.clone(),
            remote: remote.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: shared.algorithms.clone(),
            clock: shared.clock.clone(),
            providers: Default::default(),
        });
        let provider = Provider::start(Settings {
            issuer: issuer.url.clone(),
            discovery_url: Some(issuer.discovery_url.clone()).filter(|url| !url.is_empty()),
            audiences: issuer.audiences.clone(),
            algorithms: shared.algorithms.clone(),
            remote,
            clock: shared.clock.clone(),
            metrics: Some(shared.metrics.of_issuer(&issuer.url)),
        });
        Ok(Jwt { config: config.clone(), mapper, provider, resolver, metrics: shared.metrics.clone() })
    }

    async fn user(&self, token: &str) -> Result<User, String> {
        let mut claims = self.provider.verify(token).await?;
        if let Some(resolver) = &self.resolver {
            let expanded = resolver.expand(&mut claims).await;
            expanded.map_err(|e| format!("oidc: could not expand distributed claims: {e}"))?;
        }
        let view = match self.mapper.looks_at_claims() {
            true => ClaimsView::new(&claims),
            false => ClaimsView::new(&Claims::new()),
        };
        let mut user = User { name: self.username(&claims, &view)?, ..Default::default() };
        user.groups = self.groups(&claims, &view)?;
        user.uid = self.uid(&claims, &view)?;
        // What is no string names no credential.
        let id = claims::string(&claims, "jti").unwrap_or_default();
        if !id.is_empty() {
            user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={id}")]);
        }
        user.extra.extend(self.mapper.extra(&view)?);
        self.require(&claims)?;
        self.mapper.check_claims(&view)?;
        self.mapper.check_user(&user)?;
        Ok(user)
    }

    fn username(&self, claims: &Claims, view: &ClaimsView) -> Result<String, String> {
        if let Some(name) = self.mapper.username(view) {
            return name;
        }
        let mapping = &self.config.claim_mappings.username;
        let claim = &mapping.claim;
        let name = claims::string(claims, claim)
            .map_err(|e| format!("oidc: parse username claims {}: {e}", quote(claim)))?;
        // An address that the provider says it did not verify could be anybody's.
        if claim == "email" && claims.contains_key("email_verified") {
            let verified = claims::boolean(claims, "email_verified")
                .map_err(|e| format!("oidc: parse 'email_verified' claim: {e}"))?;
            if !verified {
                return Err("oidc: email not verified".into());
            }
        }
        Ok(format!("{}{name}", mapping.prefix.as_deref().unwrap_or_default()))
    }

    fn groups(&self, claims: &Claims, view: &ClaimsView) -> Result<Vec<String>, String> {
        let mapping = &self.config.claim_mappings.groups;
        if let Some(value) = claims.get(&mapping.claim).filter(|_| !mapping.claim.is_empty()) {
            let groups = claims::strings(value)
                .map_err(|e| format!("oidc: parse groups claim {}: {e}", quote(&mapping.claim)))?;
            let prefix = mapping.prefix.as_deref().unwrap_or_default();
            return Ok(groups.into_iter().map(|group| format!("{prefix}{group}")).collect());
        }
        self.mapper.groups(view).unwrap_or_else(|| Ok(Vec::new()))
    }

    fn uid(&self, claims: &Claims, view: &ClaimsView) -> Result<String, String> {
        let claim = &self.config.claim_mappings.uid.claim;
        if !claim.is_empty() {
            return claims::string(claims, claim)
                .map_err(|e| format!("oidc: parse uid claim {}: {e}", quote(claim)));
        }
        self.mapper.uid(view).unwrap_or_else(|| Ok(String::new()))
    }

    /// Refuses claims of which a required one is missing or different.
    fn require(&self, claims: &Claims) -> Result<(), String> {
        let required = self.config.claim_validation_rules.iter().filter(|rule| !rule.claim.is_empty());
        for rule in required {
            let (claim, want) = (&rule.claim, &rule.required_value);
            if !claims.contains_key(claim) {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let got = claims::string(claims, claim).map_err(|e| format!("oidc: parse claim {claim}: {e}"))?;
            if got != *want {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {got}, want = {want}"
                ));
            }
        }
        Ok(())
    }
}

impl TokenAuthenticator for Jwt {
    fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let issuer = &self.config.issuer.url;
            if untrusted_issuer(token).ok().as_deref() != Some(issuer) {
                return Ok(None);
            }
            let start = std::time::Instant::now();
            let user = self.user(token).await;
            self.metrics.authenticated(issuer, user.is_ok(), start.elapsed());
            user.map(|user| Some(Known { user, audiences: Vec::new() })).map_err(|error| vec![error])
        })
    }
}

/// Who claims to have issued a token that is not verified.
fn untrusted_issuer(token: &str) -> Result<String, String> {
    if token.trim_start().starts_with('{') {
        return Err("token is not compact JWT".into());
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else { return Err("malformed token".into()) };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|e| format!("error decoding token: {e}"))?;
    let claims: Claims =
        serde_json::from_slice(&payload).map_err(|e| format!("while unmarshaling token: {e}"))?;
    let issuer = match claims.contains_key("iss") {
        true => claims::string(&claims, "iss").map_err(|e| format!("while unmarshaling token: {e}"))?,
        false => String::new(),
    };
    Ok(if issuer == GOOGLE_WITHOUT_SCHEME { GOOGLE.into() } else { issuer })
}
