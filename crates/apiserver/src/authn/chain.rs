//! The whole of authentication, as the server asks it: who is it, or may they come without a name?

use super::configuration::Anonymous;
use super::request_header::RequestHeader;
use super::tokens::{Tokens, forget};
use super::x509::X509;
use super::{Authenticator, Connection};
use crate::user::{ANONYMOUS, User};
use apimachinery::field::aggregate;
use apimachinery::status::Status;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;

/// See the module.
pub struct AuthenticationChain {
    pub request_header: Option<RequestHeader>,
    pub x509: Option<X509>,
    pub tokens: Arc<Tokens>,
    pub anonymous: Anonymous,
    pub metrics: AuthenticationMetrics,
}

/// Upstream's metrics of authentication.
pub struct AuthenticationMetrics {
    users: CounterVec,
    attempts: CounterVec,
    latency: HistogramVec,
}

impl AuthenticationMetrics {
    pub fn new(registry: &Registry) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        AuthenticationMetrics {
            users: registry.counter_vec(
                opts(
                    "authenticated_user_requests",
                    "Counter of authenticated requests broken out by username.",
                ),
                &["username"],
            ),
            attempts: registry.counter_vec(
                opts("authentication_attempts", "Counter of authenticated attempts."),
                &["result"],
            ),
            latency: registry.histogram_vec(
                opts(
                    "authentication_duration_seconds",
                    "Authentication duration in seconds broken out by result.",
                ),
                &["result"],
                &exponential_buckets(0.001, 2.0, 15),
            ),
        }
    }

    fn note(&self, result: &str, start: Instant) {
        self.attempts.with(&[result]).inc();
        self.latency.with(&[result]).observe_since(start);
    }
}

/// The few kinds of names that metrics tell apart.
fn compressed(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" | "system:serviceaccount:kube-system:default" => name,
        _ if name.contains('@') => "email_id",
        _ => "other",
    }
}

impl AuthenticationChain {
    /// Everybody is asked until one knows the request; what was wrong with its credentials is told only if nobody does.
    async fn known(
        &self,
        request: &http::request::Parts,
        connection: &Connection,
    ) -> Result<Option<User>, String> {
        let mut wrong = Vec::new();
        match self.request_header.as_ref().map(|r| r.check(&request.headers, connection)) {
            Some(Ok(Some(user))) => return Ok(Some(user)),
            Some(Err(error)) => wrong.push(error),
            _ => {}
        }
        match self.x509.as_ref().map(|x| x.check(connection)) {
            Some(Ok(Some(user))) => return Ok(Some(user)),
            Some(Err(error)) => wrong.push(error),
            _ => {}
        }
        match self.tokens.of_request(request, connection).await {
            Ok(Some(known)) => return Ok(Some(known.user)),
            Ok(None) => {}
            Err(errors) => wrong.extend(errors),
        }
        aggregate(wrong).map_or(Ok(None), Err)
    }

    async fn identify(
        &self,
        request: &http::request::Parts,
        connection: &Connection,
    ) -> Result<User, Status> {
        let start = Instant::now();
        let found = match self.known(request, connection).await {
            Ok(None) => {
                let conditions = &self.anonymous.conditions;
                let here = conditions.is_empty() || conditions.iter().any(|c| c.path == request.uri.path());
                Ok((self.anonymous.enabled && here).then(User::anonymous))
            }
            other => other,
        };
        match found {
            Ok(Some(user)) => {
                self.metrics.users.with(&[compressed(&user.name)]).inc();
                self.metrics.note("success", start);
                Ok(user)
            }
            Ok(None) => {
                self.metrics.note("failure", start);
                Err(Status::unauthorized("Unauthorized"))
            }
            Err(error) => {
                tracing::warn!(%error, "Unable to authenticate the request");
                self.metrics.note("error", start);
                Err(Status::unauthorized("Unauthorized"))
            }
        }
    }

    /// Takes the credentials out of a request whose user is known: nobody behind shall use them.
    fn strip(&self, request: &mut http::request::Parts) {
        forget(request);
        RequestHeader::forget(self.request_header.as_ref(), &mut request.headers);
    }
}

impl Authenticator for AuthenticationChain {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
        connection: &'a Connection,
    ) -> BoxFuture<'a, Result<Option<User>, Status>> {
        Box::pin(async move { self.identify(request, connection).await.map(Some) })
    }

    fn strip(&self, request: &mut http::request::Parts) {
        AuthenticationChain::strip(self, request);
    }
}

/// Whether a user came without a name.
pub fn is_anonymous(user: &User) -> bool {
    user.name == ANONYMOUS || user.in_group(crate::user::ALL_UNAUTHENTICATED)
}
