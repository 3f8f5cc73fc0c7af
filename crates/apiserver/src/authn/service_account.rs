//! Service-account tokens: signed by the cluster, bound to objects that must still exist.

use super::{Authenticator, Connection};
use crate::object;
use crate::registry::Registry;
use crate::user::User;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use pki::jwt::Verifier;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A name and uid inside a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    pub name: String,
    pub uid: String,
}

/// The private claims of a service-account token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubernetes {
    pub namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    pub serviceaccount: Bound,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// The claims of a service-account token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    pub aud: Vec<String>,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    pub nbf: i64,
    pub sub: String,
}

/// The user that a service account is.
pub fn user(namespace: &str, name: &str, uid: &str) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
        extra: BTreeMap::new(),
    }
}

/// Trusts tokens of the cluster's own issuer.
pub struct ServiceAccountTokens {
    pub registry: Arc<Registry>,
    pub verifier: Verifier,
    pub issuer: String,
    /// Audiences of the API server.
    pub audiences: Vec<String>,
}

impl ServiceAccountTokens {
    /// The user of a token that is valid for one of `audiences`; `None` for tokens of other issuers.
    pub fn check(&self, token: &str, audiences: &[String]) -> Result<Option<(User, Vec<String>)>, Status> {
        let unauthorized = || Status::unauthorized("Unauthorized");
        match pki::jwt::unverified_claims::<Claims>(token) {
            Ok(claims) if claims.iss == self.issuer => {}
            _ => return Ok(None),
        }
        let claims: Claims = self.verifier.verify(token).map_err(|_| unauthorized())?;
        let now = self.registry.clock.now().as_second();
        if claims.exp <= now || claims.nbf > now + 10 {
            return Err(unauthorized());
        }
        let matching: Vec<String> = claims.aud.iter().filter(|a| audiences.contains(a)).cloned().collect();
        if matching.is_empty() {
            return Err(unauthorized());
        }
        let k = &claims.kubernetes;
        let account =
            self.lives("serviceaccounts", &k.namespace, &k.serviceaccount).ok_or_else(unauthorized)?;
        let mut user = user(&k.namespace, &k.serviceaccount.name, &account);
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        if !claims.jti.is_empty() {
            extra("credential-id", &format!("JTI={}", claims.jti));
        }
        for (resource, bound) in [("pods", &k.pod), ("secrets", &k.secret), ("nodes", &k.node)] {
            let Some(bound) = bound else { continue };
            let namespace = if resource == "nodes" { "" } else { k.namespace.as_str() };
            // A pod's node may be gone before its token is; upstream binds to the node only for node-bound tokens.
            if !(resource == "nodes" && k.pod.is_some()) {
                self.lives(resource, namespace, bound).ok_or_else(unauthorized)?;
            }
            let singular = resource.trim_end_matches('s');
            if singular != "secret" {
                extra(&format!("{singular}-name"), &bound.name);
                extra(&format!("{singular}-uid"), &bound.uid);
            }
        }
        Ok(Some((user, matching)))
    }

    /// The uid of an object that exists with the uid the token was bound to.
    fn lives(&self, resource: &str, namespace: &str, bound: &Bound) -> Option<String> {
        let served = self.registry.resources.get("", "v1", resource)?;
        let stored = self.registry.get(served, namespace, &bound.name).ok()?;
        (object::uid(&stored.value) == bound.uid).then(|| bound.uid.clone())
    }
}

/// The bearer token of a request.
pub fn bearer(request: &http::request::Parts) -> Option<&str> {
    let value = request.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}

impl Authenticator for ServiceAccountTokens {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        _connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        let result = match bearer(request) {
            None => Ok(None),
            // A bearer token that nobody knows is a bad credential, not no credential.
            Some(token) => match self.check(token, &self.audiences) {
                Ok(Some((user, _))) => Ok(Some(user)),
                Ok(None) => Err(Status::unauthorized("Unauthorized")),
                Err(status) => Err(status),
            },
        };
        Box::pin(std::future::ready(result))
    }
}
