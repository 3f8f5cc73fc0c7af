//! Service-account tokens: signed by the cluster, bound to objects that must still exist.
//!
//! Two kinds are trusted: those of the TokenRequest API, and the old ones that live in a secret. What was verified is
//! remembered with the revisions of the objects it rests on; it holds until one of them changes or the time is over.

use super::CREDENTIAL_ID;
use super::external_jwt::KeyCache;
use super::recent::{Recent, digest};
use super::token_keys::Keys;
use super::token_uses::{Made, Use, Uses};
use super::tokens::{Answer, Known, TokenAuthenticator, intersect};
use crate::object;
use crate::registry::{Registry, WriteContext};
use crate::user::User;
use api::core::v1::Secret;
use apimachinery::decode::Decode as _;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Key;

/// The issuer of tokens that live in secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// By how much clocks may differ, in seconds.
const LEEWAY: i64 = 60;
/// For how long a token is not looked at again while nothing changes, in seconds.
const TRUSTED: i64 = 10;

/// A name and uid inside a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bound {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
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
    #[serde(deserialize_with = "one_or_many")]
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

/// The claims of a token that lives in a secret.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LegacyClaims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// Who says to have issued a token.
#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

/// The groups of every service account of a namespace.
pub(super) fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

/// The user that a service account is.
pub fn user(namespace: &str, name: &str, uid: &str) -> User {
    User {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: groups(namespace),
        extra: BTreeMap::new(),
        pin: None,
    }
}

/// The claims of a token with a good signature.
enum Signed {
    Bound(Claims),
    Legacy(LegacyClaims),
}

/// A token that was found good.
struct Verified {
    user: User,
    audiences: Vec<String>,
    /// The objects it rests on, by the revision they had.
    rests_on: Vec<(Key, u64)>,
    /// When it must be looked at again, in seconds.
    until: i64,
    /// What is told of its being used.
    used: Use,
}

/// Which tokens are trusted.
#[derive(Debug, Clone)]
pub struct Trust {
    /// What tokens are checked against.
    pub keys: Keys,
    /// Those who may have issued them; the first issues new ones.
    pub issuers: Vec<String>,
    /// Audiences of the API server.
    pub audiences: Arc<[String]>,
    /// Whether tokens that live in a secret must still be there (`--service-account-lookup`).
    pub lookup: bool,
}

/// Trusts tokens of the cluster's own issuers.
pub struct ServiceAccountTokens {
    registry: Arc<Registry>,
    trust: Trust,
    recent: Recent<Arc<Verified>>,
    uses: Uses,
}

impl ServiceAccountTokens {
    pub fn new(registry: Arc<Registry>, trust: Trust, metrics: &component::metrics::Registry) -> Self {
        ServiceAccountTokens { registry, trust, recent: Recent::default(), uses: Uses::new(metrics) }
    }

    /// Has the signer asked for the key of a token that may be of its making, if it is not known yet.
    async fn learn(&self, keys: &Arc<KeyCache>, token: &str) {
        let ours = |iss: &String| self.trust.issuers.contains(iss) || iss == LEGACY_ISSUER;
        let Ok(Issuer { iss }) = pki::jwt::unverified_claims(token) else { return };
        if let Ok(key_id) = pki::jwt::unverified_key_id(token)
            && ours(&iss)
            && pki::jwt::is_well_formed(token)
        {
            keys.learn(&key_id).await;
        }
    }

    /// The user of a token that is valid for one of `audiences`, and which of them; `None` for tokens of other issuers.
    /// An error says why the token is refused, in upstream's words.
    fn check(&self, token: &str, audiences: &[String]) -> Result<Option<Known>, String> {
        let key = digest([token.as_bytes()]);
        let now = self.registry.clock.now().as_second();
        let remembered = self.recent.get(&key, now).filter(|verified| self.stands(verified));
        if let Some(verified) = remembered {
            let common = common(&verified.audiences, audiences)?;
            self.uses.note(&verified.used, now);
            return Ok(Some(Known { user: verified.user.clone(), audiences: common }));
        }
        let Some(claims) = self.verify(token)? else { return Ok(None) };
        let own: &[String] = match &claims {
            Signed::Bound(claims) if !claims.aud.is_empty() => &claims.aud,
            _ => &self.trust.audiences,
        };
        let common = common(own, audiences)?;
        let mut verified = match claims {
            Signed::Bound(claims) => self.bound(claims, now)?,
            Signed::Legacy(claims) => self.legacy(token, &claims)?,
        };
        verified.until = verified.until.min(now + TRUSTED);
        let verified = Arc::new(verified);
        self.recent.put(key, verified.clone(), verified.until);
        self.uses.note(&verified.used, now);
        Ok(Some(Known { user: verified.user.clone(), audiences: common }))
    }

    /// Whether nothing changed that the token rests on.
    fn stands(&self, known: &Verified) -> bool {
        let revision = |key: &Key| self.registry.store.get(key).map(|entry| entry.mod_revision.0);
        known.rests_on.iter().all(|(key, at)| revision(key) == Some(*at))
    }

    /// The claims of a token of one of the issuers, whose signature holds.
    fn verify(&self, token: &str) -> Result<Option<Signed>, String> {
        let Ok(Issuer { iss }) = pki::jwt::unverified_claims(token) else { return Ok(None) };
        // What is no token at all is nobody's, whoever it says has issued it.
        if !pki::jwt::is_well_formed(token) {
            return Ok(None);
        }
        let bad = |error: pki::Error| match error {
            pki::Error::Token(pki::jwt::NO_KEY) => pki::jwt::NO_KEY.to_owned(),
            error => error.to_string(),
        };
        let keys = &self.trust.keys;
        Ok(if self.trust.issuers.contains(&iss) {
            Some(Signed::Bound(keys.verify(token).map_err(bad)?))
        } else if iss == LEGACY_ISSUER {
            Some(Signed::Legacy(keys.verify(token).map_err(bad)?))
        } else {
            None
        })
    }

    /// A token of the TokenRequest API.
    fn bound(&self, claims: Claims, now: i64) -> Result<Verified, String> {
        for (late, why) in [
            (claims.nbf > now + LEEWAY, "service account token is not valid yet"),
            (claims.exp < now - LEEWAY, "service account token has expired"),
            (claims.iat > now + LEEWAY, "service account token is issued in the future"),
        ] {
            if late {
                return Err(why.into());
            }
        }
        let k = &claims.kubernetes;
        let (namespace, account) = (&k.namespace, &k.serviceaccount);
        let mut known = Verified {
            user: user(namespace, &account.name, &account.uid),
            audiences: if claims.aud.is_empty() { self.trust.audiences.to_vec() } else { claims.aud },
            rests_on: Vec::new(),
            until: claims.exp + LEEWAY,
            used: match k.warnafter {
                Some(warn_after) if warn_after != 0 => {
                    Use::Mounted { subject: claims.sub.clone(), warn_after }
                }
                _ => Use::Plain,
            },
        };
        let found = self.rest(&mut known, "serviceaccounts", namespace, &account.name)?;
        if object::uid(&found) != account.uid {
            let has = object::uid(&found);
            return Err(format!("service account UID ({has}) does not match claim ({})", account.uid));
        }
        if gone(&found, now, &mut known) {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        // A pod-bound token names the node too, for information: it rests on the pod alone.
        let node = k.node.as_ref().filter(|_| k.pod.is_none());
        for (resource, what, bound) in [
            ("secrets", "secret", k.secret.as_ref()),
            ("pods", "pod", k.pod.as_ref()),
            ("nodes", "node", node),
        ] {
            let Some(bound) = bound else { continue };
            let invalidated = || "service account token has been invalidated".to_owned();
            let scope = if resource == "nodes" { "" } else { namespace.as_str() };
            let found = self.rest(&mut known, resource, scope, &bound.name).map_err(|_| invalidated())?;
            if object::uid(&found) != bound.uid {
                let (has, claim) = (object::uid(&found), &bound.uid);
                return Err(format!(
                    "{what} UID ({has}) does not match service account {what} ref claim ({claim})"
                ));
            }
            if gone(&found, now, &mut known) {
                return Err(invalidated());
            }
        }
        let mut extra = |key: &str, value: &str| {
            if !value.is_empty() {
                known.user.extra.insert(key.to_owned(), vec![value.to_owned()]);
            }
        };
        for (bound, name, uid) in [
            (&k.pod, "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"),
            (&k.node, "authentication.kubernetes.io/node-name", "authentication.kubernetes.io/node-uid"),
        ] {
            let Some(bound) = bound else { continue };
            extra(name, &bound.name);
            extra(uid, &bound.uid);
        }
        if !claims.jti.is_empty() {
            extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        }
        Ok(known)
    }

    /// A token that lives in a secret.
    fn legacy(&self, token: &str, claims: &LegacyClaims) -> Result<Verified, String> {
        let LegacyClaims { sub, namespace, secret: name, account, uid } = claims;
        for (claim, text) in [
            ("sub", sub),
            ("namespace", namespace),
            ("secretName", name),
            ("serviceAccountName", account),
            ("serviceAccountUID", uid),
        ] {
            if text.is_empty() {
                return Err(format!("{claim} claim is missing"));
            }
        }
        if super::impersonation::service_account_of(sub) != Some((namespace, account)) {
            return Err("sub claim is invalid".into());
        }
        let mut known = Verified {
            user: user(namespace, account, uid),
            audiences: self.trust.audiences.to_vec(),
            rests_on: Vec::new(),
            until: i64::MAX,
            used: Use::Legacy { subject: sub.clone(), secret: None },
        };
        if !self.trust.lookup {
            return Ok(known);
        }
        let invalidated = || "Token has been invalidated".to_owned();
        let found = self.rest(&mut known, "secrets", namespace, name).map_err(|_| invalidated())?;
        let secret = Secret::from_value(&found).map_err(|_| invalidated())?;
        if secret.metadata.deletion_timestamp.is_some() {
            return Err(invalidated());
        }
        let same = secret.data.get("token").is_some_and(|have| {
            aws_lc_rs::constant_time::verify_slices_are_equal(have.as_ref(), token.as_bytes()).is_ok()
        });
        if !same {
            return Err("Token does not match server's copy".into());
        }
        let found = self.rest(&mut known, "serviceaccounts", namespace, account)?;
        if object::is_being_deleted(&found) {
            return Err(format!("ServiceAccount {namespace}/{account} has been deleted"));
        }
        if object::uid(&found) != uid {
            let has = object::uid(&found);
            return Err(format!("ServiceAccount UID ({has}) does not match claim ({uid})"));
        }
        self.note_use(&secret);
        if secret.metadata.labels.get(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            self.uses.note_invalid(namespace, name);
            return Err(format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            ));
        }
        let listed = found["secrets"].as_array().into_iter().flatten();
        let made = match listed.into_iter().any(|reference| reference["name"] == **name) {
            true => Made::ByController,
            false => Made::ByHand,
        };
        known.used = Use::Legacy { subject: sub.clone(), secret: Some((name.clone(), made)) };
        Ok(known)
    }

    /// An object that a token rests on, which must exist.
    fn rest(
        &self,
        known: &mut Verified,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Value, String> {
        let served = self.registry.resources.get("", "v1", resource).ok_or("unknown resource")?;
        let stored = self.registry.get(&served, namespace, name).map_err(|status| status.message)?;
        known.rests_on.push((served.key(namespace, name), stored.revision));
        Ok(stored.value)
    }

    /// Writes the day on which the token was used to its secret, once a day, behind the request's back.
    fn note_use(&self, secret: &Secret) {
        let today = self.registry.clock.now().to_string().get(..10).unwrap_or_default().to_owned();
        let served = self.registry.resources.get("", "v1", "secrets");
        let (Some(served), Ok(runtime)) = (served, tokio::runtime::Handle::try_current()) else { return };
        if secret.metadata.labels.get(LAST_USED) == Some(&today) {
            return;
        }
        let registry = self.registry.clone();
        let (namespace, name) = (secret.metadata.namespace.clone(), secret.metadata.name.clone());
        runtime.spawn(async move {
            let user = User::new("system:apiserver", &[]);
            let context = WriteContext::own(&user, &served, &namespace, "");
            let label = |secret: &mut Value| {
                let metadata = object::metadata_mut(secret);
                let labels = metadata.entry("labels").or_insert_with(|| apimachinery::json!({}));
                labels[LAST_USED] = today.as_str().into();
                Ok(())
            };
            if let Err(status) = registry.edit(&context, &name, &label).await {
                tracing::warn!(%namespace, %name, %status, "could not label a token's secret with its last use");
            }
        });
    }
}

/// Whether an object is deleted, or will be while the token is remembered.
fn gone(found: &Value, now: i64, known: &mut Verified) -> bool {
    let text = object::meta_str(found, "deletionTimestamp");
    let Ok(at) = text.parse::<apimachinery::time::Time>() else { return false };
    known.until = known.until.min(at.unix() + LEEWAY);
    at.unix() < now - LEEWAY
}

/// Which of the wanted audiences a token is for; it must be for one.
fn common(own: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    let common = intersect(own, wanted);
    if !common.is_empty() {
        return Ok(common);
    }
    let list =
        |all: &[String]| all.iter().map(|a| apimachinery::quote::quote(a)).collect::<Vec<_>>().join(" ");
    Err(format!("token audiences [{}] is invalid for the target audiences [{}]", list(own), list(wanted)))
}

impl TokenAuthenticator for ServiceAccountTokens {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        let check = || self.check(token, audiences).map_err(|error| vec![error]);
        match &self.trust.keys {
            Keys::Fixed(_) => Box::pin(std::future::ready(check())),
            Keys::External(keys) => Box::pin(async move {
                self.learn(keys, token).await;
                check()
            }),
        }
    }
}
