//! Who calls, and may they: client certificates of the cluster's authority, tokens through TokenReview, rights through
//! SubjectAccessReview; answers are kept for as long as upstream keeps them. Upstream: `cmd/kubelet/app/auth.go`.

use super::answer::{Response, text};
use api::authentication::v1::{TokenReview, TokenReviewSpec};
use api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use client::Client;
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use pki::tls::ClientRoots;
use rustls::pki_types::CertificateDer;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const TOKEN_TTL: Duration = Duration::from_secs(120);
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Answers kept at most; then the old ones go.
const MAX_KEPT: usize = 1024;

/// A caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

type Question = (User, &'static str, &'static str);

/// Asks the API server, and remembers.
pub(super) struct Auth {
    client: Client,
    node: String,
    roots: Option<ClientRoots>,
    /// By a digest of the token, so that tokens do not lie around.
    tokens: Mutex<HashMap<[u8; 32], (User, Instant)>>,
    rights: Mutex<HashMap<Question, (bool, Instant)>>,
}

impl Auth {
    pub(super) fn new(client: Client, node: String, roots: Option<ClientRoots>) -> Self {
        Auth { client, node, roots, tokens: Mutex::default(), rights: Mutex::default() }
    }

    pub(super) async fn authenticate(
        &self,
        chain: &[CertificateDer<'static>],
        headers: &HeaderMap,
    ) -> Result<User, StatusCode> {
        if let (Some(roots), false) = (&self.roots, chain.is_empty()) {
            let now = apimachinery::time::Timestamp::now();
            if let Ok(certificate) = pki::tls::verify_client_chain(chain, roots, now) {
                let mut groups = certificate.subject.organizations.clone();
                groups.push("system:authenticated".into());
                return Ok(User {
                    name: certificate.subject.common_name.clone(),
                    uid: certificate.uids.first().cloned().unwrap_or_default(),
                    groups,
                    ..Default::default()
                });
            }
        }
        let bearer =
            headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok()).and_then(|h| h.split_once(' '));
        let token =
            bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let token = token.filter(|t| !t.is_empty()).ok_or(StatusCode::UNAUTHORIZED)?;
        let key = digest(token);
        if let Some((user, at)) = self.tokens.lock().get(&key)
            && at.elapsed() < TOKEN_TTL
        {
            return Ok(user.clone());
        }
        let mut review = TokenReview {
            spec: TokenReviewSpec { token: token.into(), ..Default::default() },
            ..Default::default()
        };
        review = self.client.all::<TokenReview>().create(&review).await.map_err(|error| {
            tracing::warn!(%error, "a token could not be reviewed");
            StatusCode::UNAUTHORIZED
        })?;
        if !review.status.authenticated {
            return Err(StatusCode::UNAUTHORIZED);
        }
        let told = review.status.user;
        let mut groups = told.groups;
        if !groups.iter().any(|g| g == "system:authenticated") {
            groups.push("system:authenticated".into());
        }
        let user = User { name: told.username, uid: told.uid, groups, extra: told.extra };
        let mut tokens = self.tokens.lock();
        if tokens.len() >= MAX_KEPT {
            tokens.retain(|_, (_, at)| at.elapsed() < TOKEN_TTL);
        }
        tokens.insert(key, (user.clone(), Instant::now()));
        Ok(user)
    }

    /// Allows when one of the subresources is allowed.
    pub(super) async fn authorize(
        &self,
        user: &User,
        verb: &'static str,
        subresources: &'static [&'static str],
    ) -> Result<(), Response> {
        for subresource in subresources {
            match self.allowed(user, verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(user = %user.name, %error, "a right could not be asked for");
                    let message = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        user.name
                    );
                    return Err(text(StatusCode::INTERNAL_SERVER_ERROR, message));
                }
            }
        }
        let named = subresources.first().copied().unwrap_or_default();
        let message =
            format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{named}])", user.name);
        Err(text(StatusCode::FORBIDDEN, message))
    }

    async fn allowed(
        &self,
        user: &User,
        verb: &'static str,
        subresource: &'static str,
    ) -> client::Result<bool> {
        let question = (user.clone(), verb, subresource);
        if let Some((allowed, at)) = self.rights.lock().get(&question)
            && at.elapsed() < if *allowed { ALLOWED_TTL } else { DENIED_TTL }
        {
            return Ok(*allowed);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: verb.into(),
                    version: "v1".into(),
                    resource: "nodes".into(),
                    subresource: subresource.into(),
                    name: self.node.clone(),
                    ..Default::default()
                }),
                user: user.name.clone(),
                groups: user.groups.clone(),
                extra: user.extra.clone(),
                uid: user.uid.clone(),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = self.client.all::<SubjectAccessReview>().create(&review).await?;
        let mut rights = self.rights.lock();
        if rights.len() >= MAX_KEPT {
            rights.clear();
        }
        rights.insert(question, (answer.status.allowed, Instant::now()));
        Ok(answer.status.allowed)
    }
}

fn digest(token: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(token.as_bytes()).into()
}
