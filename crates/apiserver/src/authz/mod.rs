//! Authorization: may this user do this? `system:masters` may do everything; then the authorizers that are configured
//! are asked in order ([`chain`]): Node and RBAC, unless flags or a file say otherwise.

pub mod abac;
pub mod always;
pub mod chain;
pub mod conditions;
pub mod configuration;
pub(crate) mod cover;
pub mod escalation;
mod graph;
pub mod masters;
pub mod node;
pub mod rbac;
pub mod rules;
pub mod validation;
pub mod webhook;

use crate::request::RequestInfo;
use crate::user::User;
use api::rbac::v1::PolicyRule;
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Instant;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    pub user: &'a User,
    pub verb: &'a str,
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// As the request has them, for authorizers that let a narrow list pass.
    pub label_selector: &'a str,
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(user: &'a User, info: &'a RequestInfo) -> Self {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: &info.path,
            label_selector: info.selector("labelSelector"),
            field_selector: info.selector("fieldSelector"),
        }
    }

    /// A question about all there is of a resource, by group, version and name; what is narrower is said beside it.
    pub fn about(
        user: &'a User,
        verb: &'a str,
        (group, version, resource): (&'a str, &'a str, &'a str),
    ) -> Self {
        Attributes {
            user,
            verb,
            is_resource: true,
            group,
            version,
            resource,
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            label_selector: "",
            field_selector: "",
        }
    }

    /// Refuses with upstream's words what is not allowed.
    pub fn judge(&self, decision: Decision) -> Result<(), Status> {
        if matches!(decision, Decision::Allow { .. }) {
            return Ok(());
        }
        let mut text = crate::body::sanitize(&self.refusal());
        if let Decision::Error { error, .. } = &decision {
            text = format!("{text}: {error}");
        }
        if !decision.reason().is_empty() {
            text = format!("{text}: {}", decision.reason());
        }
        let resource = GroupResource::new(self.group.to_owned(), self.resource.to_owned());
        Err(Status::forbidden(&resource, self.name, text))
    }

    /// The words of a refusal (upstream's forbiddenMessage), without the resource that `Status::forbidden` puts first.
    pub fn refusal(&self) -> String {
        let user = &self.user.name;
        if !self.is_resource {
            return format!("User \"{user}\" cannot {} path \"{}\"", self.verb, self.path);
        }
        let resource = if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        };
        let mut text = format!(
            "User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\"",
            self.verb, self.group
        );
        if self.namespace.is_empty() {
            text.push_str(" at the cluster scope");
        } else {
            text.push_str(&format!(" in the namespace \"{}\"", self.namespace));
        }
        text
    }
}

/// An authorizer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow {
        reason: String,
    },
    Deny {
        reason: String,
    },
    /// Ask the next one; refused when nobody has an opinion.
    NoOpinion {
        reason: String,
    },
    /// It cannot say. Where that does not deny, the next one is asked; when nobody else allows it, the request fails as
    /// an error of the server.
    Error {
        denies: bool,
        reason: String,
        error: String,
    },
}

/// What a user may do, as far as it can be listed.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub rules: Vec<PolicyRule>,
    /// Whether there may be more.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

impl Decision {
    /// Why, for people.
    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason }
            | Decision::Deny { reason }
            | Decision::NoOpinion { reason }
            | Decision::Error { reason, .. } => reason,
        }
    }
}

/// Says whether a user may do something.
pub trait Authorizer: Send + Sync {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision>;

    /// What a user may do in a namespace; nothing from those who have no list.
    fn rules_for(&self, _user: &User, _namespace: &str) -> Rules {
        Rules::default()
    }
}

/// Upstream's metrics of the authorization of requests.
pub struct AuthorizationMetrics {
    attempts: CounterVec,
    latency: HistogramVec,
}

impl AuthorizationMetrics {
    pub fn new(registry: &Registry) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        AuthorizationMetrics {
            attempts: registry.counter_vec(
                opts(
                    "authorization_attempts_total",
                    "Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
                ),
                &["result"],
            ),
            latency: registry.histogram_vec(
                opts("authorization_duration_seconds", "Authorization duration in seconds broken out by result."),
                &["result"],
                &exponential_buckets(0.001, 2.0, 15),
            ),
        }
    }

    /// Notes what became of a request.
    pub(crate) fn note(&self, decision: &Decision, start: Instant) {
        let result = match decision {
            Decision::Allow { .. } => "allowed",
            Decision::Error { .. } => "error",
            Decision::Deny { .. } => "denied",
            Decision::NoOpinion { .. } => "no-opinion",
        };
        self.attempts.with(&[result]).inc();
        self.latency.with(&[result]).observe_since(start);
    }
}

/// Asks authorizers in order; what those without an opinion say comes with a refusal.
pub async fn decide(authorizers: &[Arc<dyn Authorizer>], attributes: &Attributes<'_>) -> Decision {
    let (mut reasons, mut errors) = (Vec::new(), Vec::new());
    for authorizer in authorizers {
        match authorizer.authorize(attributes).await {
            Decision::NoOpinion { reason } => reasons.push(reason),
            Decision::Error { denies: false, reason, error } => {
                reasons.push(reason);
                errors.push(error);
            }
            decided => return decided,
        }
    }
    reasons.retain(|reason| !reason.is_empty());
    let reason = reasons.join("\n");
    match apimachinery::field::aggregate(errors) {
        None => Decision::NoOpinion { reason },
        Some(error) => Decision::Error { denies: false, reason, error },
    }
}
