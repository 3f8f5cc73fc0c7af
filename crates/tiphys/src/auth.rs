//! Wires authentication and authorization: who is asked in which order, and which files are followed.

use crate::follow::{Follow, Outcome, User};
use crate::settings::{Authentication, Authorization, Settings};
use anyhow::{Context as _, Result};
use apimachinery::clock::Clock;
use apiserver::authn::Authenticator;
use apiserver::authn::bootstrap_token::BootstrapTokens;
use apiserver::authn::cached::{CacheMetrics, Cached};
use apiserver::authn::chain::{AuthenticationChain, AuthenticationMetrics};
use apiserver::authn::oidc::{Issuers, OidcMetrics, ReloadError, Shared};
use apiserver::authn::request_header::RequestHeader;
use apiserver::authn::service_account::{ServiceAccountTokens, Trust};
use apiserver::authn::token_file::TokenFile;
use apiserver::authn::token_keys::Keys;
use apiserver::authn::tokens::{Agnostic, TokenAuthenticator, Tokens};
use apiserver::authn::webhook::TokenWebhook;
use apiserver::authn::x509::X509;
use apiserver::authz::chain::{AuthorizerChain, Parts};
use apiserver::authz::{node::NodeAuthorizer, rbac::Rbac};
use apiserver::config_metrics::ConfigMetrics;
use apiserver::egress::{Egress, Purpose};
use apiserver::registry::Registry;
use apiserver::review_hook::Backoff;
use component::metrics::Registry as Metrics;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For how long a token that a provider or webhook knows is not asked for again.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Who is asked who somebody is.
pub(crate) struct Who {
    pub chain: Arc<dyn Authenticator>,
    pub tokens: Arc<Tokens>,
    pub issuers: Arc<Issuers>,
}

pub(crate) fn authentication(
    settings: &Settings,
    keys: Keys,
    registry: &Arc<Registry>,
    metrics: &Metrics,
    id: &str,
    egress: &Arc<Egress>,
) -> Result<Who> {
    let (authentication, accounts) = (&settings.authentication, &settings.service_accounts);
    let clock = registry.clock.clone();
    let audiences: Arc<[String]> = accounts.audiences.clone().into();
    let caches = CacheMetrics::new(metrics);
    let cached = |inner: Arc<dyn TokenAuthenticator>,
                  ttl: Duration,
                  unknown: Duration|
     -> Arc<dyn TokenAuthenticator> {
        Arc::new(Cached::new(inner, clock.clone(), ttl, unknown, caches.clone()))
    };
    // The order is upstream's: those who know their tokens here before those who must ask.
    let mut authenticators: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(path) = &authentication.token_file {
        let inner = TokenFile::read(path).map_err(anyhow::Error::msg).context("--token-auth-file")?;
        authenticators.push(Arc::new(Agnostic { inner, audiences: audiences.clone() }));
    }
    let trust = Trust {
        keys,
        issuers: accounts.issuers.clone(),
        audiences: audiences.clone(),
        lookup: accounts.lookup,
    };
    authenticators.push(Arc::new(ServiceAccountTokens::new(registry.clone(), trust, metrics)));
    if authentication.bootstrap_tokens {
        let inner = BootstrapTokens(registry.clone());
        authenticators.push(Arc::new(Agnostic { inner, audiences: audiences.clone() }));
    }
    let shared = Shared {
        algorithms: authentication.algorithms.clone().into(),
        disallowed_issuers: accounts.issuers.clone(),
        clock: clock.clone(),
        metrics: OidcMetrics::new(metrics, id),
        egress: egress.clone(),
    };
    let issuers = Issuers::new(&authentication.configuration, shared).map_err(anyhow::Error::msg)?;
    let issuers = Arc::new(issuers);
    let agnostic = Agnostic { inner: issuers.clone(), audiences: audiences.clone() };
    authenticators.push(cached(Arc::new(agnostic), REMEMBERED, Duration::ZERO));
    if let Some(path) = &authentication.webhook {
        let version = &authentication.webhook_version;
        let way = egress.way(Purpose::ControlPlane);
        let webhook = TokenWebhook::new(path, version, audiences.clone(), Backoff::default(), way);
        let webhook =
            webhook.map_err(anyhow::Error::msg).context("--authentication-token-webhook-config-file")?;
        let ttl = authentication.webhook_ttl;
        let inner = cached(Arc::new(webhook), ttl, ttl);
        authenticators.push(cached(inner, REMEMBERED, Duration::ZERO));
    }
    let tokens = Arc::new(Tokens { authenticators, audiences });
    let chain = AuthenticationChain {
        request_header: settings.front_roots.clone().map(|roots| {
            let (names, headers) = (settings.front_names.clone(), settings.front_headers.clone());
            RequestHeader::new(roots, clock.clone(), names, headers)
        }),
        x509: settings.client_roots.clone().map(|roots| X509::new(roots, clock.clone(), metrics)),
        tokens: tokens.clone(),
        anonymous: authentication.anonymous.clone(),
        metrics: AuthenticationMetrics::new(metrics),
    };
    Ok(Who { chain: Arc::new(chain), tokens, issuers })
}

pub(crate) fn authorization(
    authorization: &Authorization,
    rbac: &Rbac,
    node: &Arc<NodeAuthorizer>,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
    egress: &Arc<Egress>,
) -> Result<Arc<AuthorizerChain>> {
    let parts = Parts {
        rbac: Arc::new(rbac.clone()),
        node: Some(node.clone()),
        abac: None,
        clock: clock.clone(),
        backoff: Backoff::default(),
        way: egress.way(Purpose::ControlPlane),
    };
    let configuration = authorization.configuration.clone();
    let policies = authorization.policy_file.as_deref();
    let chain = AuthorizerChain::new(configuration, policies, parts, metrics);
    Ok(Arc::new(chain.map_err(anyhow::Error::msg).context("authorization")?))
}

/// Uses the file of `--authentication-config`.
struct AuthenticationFile {
    issuers: Arc<Issuers>,
    metrics: ConfigMetrics,
}

impl User for AuthenticationFile {
    fn apply<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Outcome> {
        async move {
            match self.issuers.reload(text).await {
                Ok(()) => {
                    tracing::info!("reloaded authentication config");
                    self.metrics.succeeded(text);
                    Outcome::Settled
                }
                Err(error) => {
                    tracing::error!(%error, "failed to update authentication config");
                    self.metrics.failed();
                    match error {
                        ReloadError::Wrong(_) => Outcome::Settled,
                        ReloadError::NotReady(_) => Outcome::Again,
                    }
                }
            }
        }
        .boxed()
    }

    fn unreadable(&mut self, error: &std::io::Error) {
        tracing::error!(%error, "failed to read authentication config file");
        self.metrics.failed();
    }
}

/// Uses the file of `--authorization-config`.
struct AuthorizationFile {
    chain: Arc<AuthorizerChain>,
    metrics: ConfigMetrics,
}

impl User for AuthorizationFile {
    fn apply<'a>(&'a mut self, text: &'a str) -> BoxFuture<'a, Outcome> {
        match self.chain.reload(text) {
            Ok(true) => {
                tracing::info!("reloaded authz config");
                self.metrics.succeeded(text);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "reloading authorization config");
                self.metrics.failed();
            }
        }
        std::future::ready(Outcome::Settled).boxed()
    }

    fn unreadable(&mut self, error: &std::io::Error) {
        tracing::error!(%error, "reloading authorization config");
        self.metrics.failed();
    }
}

/// Follows the files that say who and what.
pub(crate) fn follow(
    (authentication, issuers): (&Authentication, Arc<Issuers>),
    (authorization, chain): (&Authorization, Arc<AuthorizerChain>),
    metrics: &Metrics,
    id: &str,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    if let Some((path, text)) = &authentication.file {
        let metrics = ConfigMetrics::new(metrics, "authentication", id, text);
        let follow = Follow::new(path, text, AuthenticationFile { issuers, metrics });
        let follow = follow.with_context(|| format!("watching {}", path.display()))?;
        tasks.spawn(follow.run(shutdown.clone()));
    }
    if let Some((path, text)) = &authorization.file {
        let metrics = ConfigMetrics::new(metrics, "authorization", id, text);
        let follow = Follow::new(path, text, AuthorizationFile { chain, metrics });
        let follow = follow.with_context(|| format!("watching {}", path.display()))?;
        tasks.spawn(follow.run(shutdown.clone()));
    }
    Ok(())
}
