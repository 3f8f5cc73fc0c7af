//! `--authentication-token-webhook-config-file`: another server says whose a token is, by TokenReview.

use super::tokens::{Answer, Known, TokenAuthenticator, intersect};
use crate::egress::Way;
use crate::review_hook::{Backoff, ReviewHook};
use crate::user::User;
use api::authentication::v1::TokenReviewStatus;
use apimachinery::decode::Decode as _;
use apimachinery::json;
use futures::future::BoxFuture;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The absolute timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct TokenWebhook {
    hook: ReviewHook,
    api_version: String,
    /// The audiences of the API server, which count when the webhook names none.
    audiences: Arc<[String]>,
}

impl TokenWebhook {
    pub fn new(
        kubeconfig: &Path,
        version: &str,
        audiences: Arc<[String]>,
        backoff: Backoff,
        way: Way,
    ) -> Result<Self, String> {
        if !["v1", "v1beta1"].contains(&version) {
            return Err(format!(
                "unsupported authentication webhook version {version:?}, supported versions are \"v1\", \"v1beta1\""
            ));
        }
        let hook = ReviewHook::new(kubeconfig, TIMEOUT, backoff, way)?;
        Ok(TokenWebhook { hook, api_version: format!("authentication.k8s.io/{version}"), audiences })
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Answer {
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": self.api_version,
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        let answer = self.hook.ask(&review, |_, _| {}).await.map_err(|failure| {
            tracing::error!(error = failure.message, "Failed to make webhook authenticator request");
            vec![failure.message]
        })?;
        let status = TokenReviewStatus::from_value(&answer["status"]).map_err(|e| vec![e.to_string()])?;
        let got = if status.audiences.is_empty() { &self.audiences } else { status.audiences.as_slice() };
        let common = intersect(audiences, got);
        if common.is_empty() && !audiences.is_empty() {
            return Ok(None);
        }
        if !status.authenticated {
            return if status.error.is_empty() { Ok(None) } else { Err(vec![status.error]) };
        }
        let user = status.user;
        Ok(Some(Known {
            user: User {
                name: user.username,
                uid: user.uid,
                groups: user.groups,
                extra: user.extra,
                pin: None,
            },
            audiences: common,
        }))
    }
}

impl TokenAuthenticator for TokenWebhook {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        Box::pin(self.ask(token, audiences))
    }
}
