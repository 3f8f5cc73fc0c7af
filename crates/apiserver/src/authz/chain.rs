//! The authorizers that are configured at this moment, in order; `system:masters` before them all. A file that is
//! followed may change webhooks and order, but neither add nor remove others while the server runs.

use super::abac::Abac;
use super::always::{AlwaysAllow, AlwaysDeny};
use super::configuration::AuthorizationConfiguration;
use super::masters::Masters;
use super::validation::load;
use super::webhook::{WebhookAuthorizer, WebhookMetrics};
use super::{Attributes, Authorizer, Decision, Rules, decide};
use crate::egress::Way;
use crate::review_hook::Backoff;
use crate::user::User;
use apimachinery::clock::Clock;
use component::metrics::{CounterVec, Opts, Registry, Stability};
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What authorizers are made of.
#[derive(Clone)]
pub struct Parts {
    pub rbac: Arc<dyn Authorizer>,
    pub node: Option<Arc<dyn Authorizer>>,
    pub abac: Option<Arc<Abac>>,
    pub clock: Arc<dyn Clock>,
    pub backoff: Backoff,
    /// Which way webhooks are reached.
    pub way: Way,
}

/// See the module.
pub struct AuthorizerChain {
    parts: Parts,
    current: RwLock<Arc<[Arc<dyn Authorizer>]>>,
    /// The types that must stay.
    required: BTreeSet<String>,
    applied: Mutex<AuthorizationConfiguration>,
    decisions: CounterVec,
    webhooks: WebhookMetrics,
}

impl std::fmt::Debug for AuthorizerChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthorizerChain").finish_non_exhaustive()
    }
}

/// Counts what an authorizer decides.
struct Counted {
    kind: String,
    name: String,
    inner: Arc<dyn Authorizer>,
    decisions: CounterVec,
}

impl Authorizer for Counted {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(async move {
            let decision = self.inner.authorize(attributes).await;
            let counted = match &decision {
                Decision::Allow { .. } => Some("allowed"),
                Decision::Deny { .. } | Decision::Error { denies: true, .. } => Some("denied"),
                Decision::NoOpinion { .. } | Decision::Error { denies: false, .. } => None,
            };
            if let Some(counted) = counted {
                self.decisions.with(&[&self.kind, &self.name, counted]).inc();
            }
            decision
        })
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        self.inner.rules_for(user, namespace)
    }
}

impl AuthorizerChain {
    /// The chain of a configuration that was validated. Must be called within a tokio runtime.
    pub fn new(
        configuration: AuthorizationConfiguration,
        policy_file: Option<&Path>,
        mut parts: Parts,
        metrics: &Registry,
    ) -> Result<Self, String> {
        let configured = |kind: &str| configuration.authorizers.iter().any(|a| a.kind == kind);
        if configured("ABAC") {
            let file = policy_file.ok_or("authorization-mode ABAC's authorization policy file not passed")?;
            parts.abac = Some(Arc::new(Abac::read(file)?));
        }
        if !configured("Node") {
            parts.node = None;
        }
        let types = configuration.authorizers.iter().map(|a| a.kind.clone());
        let chain = AuthorizerChain {
            parts,
            current: RwLock::new(Arc::new([])),
            required: types.filter(|kind| kind != "Webhook").collect(),
            applied: Mutex::default(),
            decisions: metrics.counter_vec(
                Opts {
                    name: "apiserver_authorization_decisions_total",
                    help: "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
                    stability: Stability::Alpha,
                },
                &["type", "name", "decision"],
            ),
            webhooks: WebhookMetrics::new(metrics),
        };
        chain.apply(configuration)?;
        Ok(chain)
    }

    fn apply(&self, configuration: AuthorizationConfiguration) -> Result<(), String> {
        let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Masters)];
        for configured in &configuration.authorizers {
            let (kind, name) = (configured.kind.as_str(), configured.name.as_str());
            let late = || {
                format!(
                    "authorizer type {kind} is not allowed if it was not enabled at initial server startup"
                )
            };
            let inner: Arc<dyn Authorizer> = match kind {
                "Node" => self.parts.node.clone().ok_or_else(late)?,
                "RBAC" if self.required.contains(kind) => self.parts.rbac.clone(),
                "RBAC" => return Err(late()),
                "ABAC" => self.parts.abac.clone().ok_or_else(late)?,
                "AlwaysAllow" => Arc::new(AlwaysAllow),
                "AlwaysDeny" => Arc::new(AlwaysDeny),
                "Webhook" => {
                    let webhook =
                        configured.webhook.as_ref().ok_or("a webhook authorizer without a webhook")?;
                    let (clock, metrics) = (self.parts.clock.clone(), self.webhooks.clone());
                    let (backoff, way) = (self.parts.backoff, self.parts.way.clone());
                    Arc::new(WebhookAuthorizer::new(name, webhook, clock, metrics, backoff, way)?)
                }
                _ => return Err(format!("unknown authorization mode {kind} specified")),
            };
            authorizers.push(Arc::new(Counted {
                kind: kind.to_owned(),
                name: name.to_owned(),
                inner,
                decisions: self.decisions.clone(),
            }));
        }
        *self.current.write() = authorizers.into();
        *self.applied.lock() = configuration;
        Ok(())
    }

    /// Takes a new text of the file into use; whether it says anything new.
    pub fn reload(&self, text: &str) -> Result<bool, String> {
        let configuration = load(text, &self.required)?;
        if *self.applied.lock() == configuration {
            return Ok(false);
        }
        self.apply(configuration).map(|()| true)
    }
}

impl Authorizer for AuthorizerChain {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let current = self.current.read().clone();
        Box::pin(async move { decide(&current, attributes).await })
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let current = self.current.read().clone();
        let mut all = Rules::default();
        for authorizer in current.iter() {
            let Rules { rules, incomplete, errors } = authorizer.rules_for(user, namespace);
            all.rules.extend(rules);
            all.incomplete |= incomplete;
            all.errors.extend(errors);
        }
        all
    }
}
