//! The issuers that are configured at this moment. A new configuration takes the place of the old one once all of its
//! providers were found, so that no token is refused in between.

use super::{Jwt, OidcMetrics};
use crate::authn::configuration::{AuthenticationConfiguration, JwtAuthenticator};
use crate::authn::tokens::{Answer, TokenAuthenticator};
use crate::authn::validation::validate;
use crate::egress::Egress;
use apimachinery::clock::Clock;
use apimachinery::field::{Error, Path, aggregate};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

/// How long a new configuration may take until it is of use.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after it was replaced an issuer's metrics are kept.
const GRACE: Duration = Duration::from_secs(90);

/// What all authenticators share.
#[derive(Clone)]
pub struct Shared {
    pub algorithms: Arc<[String]>,
    /// Issuers of the cluster's own.
    pub disallowed_issuers: Vec<String>,
    pub clock: Arc<dyn Clock>,
    pub metrics: OidcMetrics,
    /// The ways that configurations choose from.
    pub egress: Arc<Egress>,
}

/// See the module.
pub struct Issuers {
    shared: Shared,
    current: RwLock<Arc<Vec<Jwt>>>,
    /// Whether somebody may come without a name cannot change while the server runs.
    anonymous: Option<crate::authn::configuration::Anonymous>,
}

fn build(jwt: &[JwtAuthenticator], shared: &Shared) -> Result<Arc<Vec<Jwt>>, String> {
    jwt.iter().map(|config| Jwt::new(config, shared)).collect::<Result<Vec<_>, _>>().map(Arc::new)
}

/// Why a text is not in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// It never will be.
    #[error("{0}")]
    Wrong(String),
    /// Some provider cannot be reached.
    #[error("{0}")]
    NotReady(String),
}

impl Issuers {
    /// Those of a configuration that was validated. Must be called within a tokio runtime.
    pub fn new(configuration: &AuthenticationConfiguration, shared: Shared) -> Result<Self, String> {
        let current = RwLock::new(build(&configuration.jwt, &shared)?);
        Ok(Issuers { shared, current, anonymous: configuration.anonymous.clone() })
    }

    /// Waits until all providers were found.
    pub async fn ready(&self) {
        let current = self.current.read().clone();
        for jwt in current.iter() {
            jwt.provider.ready().await;
        }
    }

    /// Takes a new configuration into use.
    pub async fn reload(&self, text: &str) -> Result<(), ReloadError> {
        let configuration = AuthenticationConfiguration::parse(text).map_err(ReloadError::Wrong)?;
        let mut errors = validate(&configuration, &self.shared.disallowed_issuers);
        if configuration.anonymous != self.anonymous {
            errors.push(Error::forbidden(&Path::new("anonymous"), "changed from initial configuration file"));
        }
        if let Some(wrong) = errors.aggregate() {
            return Err(ReloadError::Wrong(wrong));
        }
        let new = build(&configuration.jwt, &self.shared).map_err(ReloadError::NotReady)?;
        let ready = async {
            for jwt in new.iter() {
                jwt.provider.ready().await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, ready).await;
        let unhealthy = new.iter().filter_map(|jwt| jwt.provider.health().err());
        if let Some(why) = aggregate(unhealthy) {
            return Err(ReloadError::NotReady(why));
        }
        let old = std::mem::replace(&mut *self.current.write(), new);
        self.retire(old, &configuration);
        Ok(())
    }

    /// Forgets the metrics of issuers that are gone, when requests that began with them are over.
    fn retire(&self, old: Arc<Vec<Jwt>>, new: &AuthenticationConfiguration) {
        let issuers = old.iter().map(|jwt| jwt.config.issuer.url.clone());
        let gone: Vec<String> =
            issuers.filter(|url| new.jwt.iter().all(|jwt| jwt.issuer.url != *url)).collect();
        if gone.is_empty() {
            return;
        }
        let (clock, metrics) = (self.shared.clock.clone(), self.shared.metrics.clone());
        tokio::spawn(async move {
            clock.sleep(GRACE).await;
            drop(old);
            gone.iter().for_each(|issuer| metrics.forget(issuer));
        });
    }
}

impl TokenAuthenticator for Issuers {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        let current = self.current.read().clone();
        Box::pin(async move {
            for jwt in current.iter() {
                if let Some(known) = jwt.authenticate(token, audiences).await? {
                    return Ok(Some(known));
                }
            }
            Ok(None)
        })
    }
}
