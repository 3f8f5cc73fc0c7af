//! Webhook authorizers: another server decides, by SubjectAccessReview; its answers are remembered for a while.

use super::conditions::{Conditions, Verdict};
use super::configuration::WebhookConfiguration;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::egress::Way;
use crate::review_hook::{Backoff, Failure, ReviewHook, Trip};
use crate::user::User;
use api::authorization::v1::SubjectAccessReviewStatus;
use apimachinery::clock::Clock;
use apimachinery::decode::Decode;
use apimachinery::field::Path;
use apimachinery::fields;
use apimachinery::json;
use apimachinery::labels;
use apimachinery::value::Value;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many answers are remembered.
const REMEMBERED: usize = 8192;
/// From how long on, together, the parts of a question that the requester chooses are not remembered.
const MAX_CONTROLLED: usize = 10_000;

/// Upstream's metrics of webhook authorizers.
#[derive(Clone)]
pub struct WebhookMetrics {
    evaluations: CounterVec,
    duration: HistogramVec,
    fail_open: CounterVec,
    condition_errors: CounterVec,
    exclusions: CounterVec,
    condition_seconds: HistogramVec,
}

impl std::fmt::Debug for WebhookMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookMetrics").finish_non_exhaustive()
    }
}

impl WebhookMetrics {
    pub fn new(registry: &Registry) -> Self {
        let name = |what: &str| format!("apiserver_authorization_{what}");
        let counter = |what: &str, help: &str, labels: &[&str]| {
            registry.counter_vec(Opts { name: &name(what), help, stability: Stability::Alpha }, labels)
        };
        let histogram = |what: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let opts = Opts { name: &name(what), help, stability: Stability::Alpha };
            registry.histogram_vec(opts, labels, buckets)
        };
        let (by_result, by_type) = (&["name", "result"], &["type", "name"]);
        WebhookMetrics {
            evaluations: counter(
                "webhook_evaluations_total",
                "Round-trips to authorization webhooks.",
                by_result,
            ),
            duration: histogram(
                "webhook_duration_seconds",
                "Request latency in seconds.",
                by_result,
                &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            fail_open: counter(
                "webhook_evaluations_fail_open_total",
                "NoOpinion results due to webhook timeout or error.",
                by_result,
            ),
            condition_errors: counter(
                "match_condition_evaluation_errors_total",
                "Total number of errors when an authorization webhook encounters a match condition error split by authorizer type and name.",
                by_type,
            ),
            exclusions: counter(
                "match_condition_exclusions_total",
                "Total number of exclusions when an authorization webhook is skipped because match conditions exclude it.",
                by_type,
            ),
            condition_seconds: histogram(
                "match_condition_evaluation_seconds",
                "Authorization match condition evaluation time in seconds, split by authorizer type and name.",
                by_type,
                &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25],
            ),
        }
    }
}

/// One webhook.
pub struct WebhookAuthorizer {
    name: String,
    hook: ReviewHook,
    api_version: String,
    conditions: Conditions,
    /// Whether what cannot be asked is denied.
    denies_on_error: bool,
    authorized_ttl: Duration,
    unauthorized_ttl: Duration,
    answers: Mutex<Answers>,
    clock: Arc<dyn Clock>,
    metrics: WebhookMetrics,
}

/// Answers by question, with the time until which they hold; two generations, the older goes when the younger is full.
#[derive(Default)]
struct Answers {
    young: HashMap<String, (SubjectAccessReviewStatus, Duration)>,
    old: HashMap<String, (SubjectAccessReviewStatus, Duration)>,
}

impl Answers {
    fn get(&self, question: &str, now: Duration) -> Option<SubjectAccessReviewStatus> {
        let found = self.young.get(question).or_else(|| self.old.get(question));
        found.filter(|(_, until)| now < *until).map(|(status, _)| status.clone())
    }

    fn put(&mut self, question: String, status: SubjectAccessReviewStatus, until: Duration) {
        if self.young.len() >= REMEMBERED / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(question, (status, until));
    }
}

impl std::fmt::Debug for WebhookAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookAuthorizer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl WebhookAuthorizer {
    /// The webhook of a configuration that was validated.
    pub fn new(
        name: &str,
        configuration: &WebhookConfiguration,
        clock: Arc<dyn Clock>,
        metrics: WebhookMetrics,
        backoff: Backoff,
        way: Way,
    ) -> Result<Self, String> {
        let version = configuration.subject_access_review_version.as_str();
        if !["v1", "v1beta1"].contains(&version) {
            return Err(format!(
                "unsupported webhook authorizer version {version:?}, supported versions are \"v1\", \"v1beta1\""
            ));
        }
        let file = configuration.connection_info.kubeconfig.as_deref();
        let file = file.ok_or("connections of type InClusterConfig are not supported by kube-apiserver")?;
        let timeout = configuration.timeout.to_std().unwrap_or_default();
        let (conditions, wrong) = Conditions::compile(&configuration.match_conditions, &Path::default());
        if let Some(wrong) = wrong.aggregate() {
            return Err(wrong);
        }
        let ttl = |ttl: apimachinery::time::Duration, cached: Option<bool>| match cached {
            Some(false) => Duration::ZERO,
            _ => ttl.to_std().unwrap_or_default(),
        };
        Ok(WebhookAuthorizer {
            name: name.to_owned(),
            hook: ReviewHook::new(std::path::Path::new(file), timeout, backoff, way)?,
            api_version: format!("authorization.k8s.io/{version}"),
            conditions,
            denies_on_error: configuration.failure_policy == "Deny",
            authorized_ttl: ttl(configuration.authorized_ttl, configuration.cache_authorized_requests),
            unauthorized_ttl: ttl(configuration.unauthorized_ttl, configuration.cache_unauthorized_requests),
            answers: Mutex::default(),
            clock,
            metrics,
        })
    }

    fn failed(&self, error: String) -> Decision {
        Decision::Error { denies: self.denies_on_error, reason: String::new(), error }
    }

    /// Whether the webhook is to be asked.
    fn matches(&self, spec: &Value) -> Verdict {
        if self.conditions.is_empty() {
            return Verdict::Matches;
        }
        let labels = ["Webhook", self.name.as_str()];
        let start = Instant::now();
        let verdict = self.conditions.evaluate(spec);
        self.metrics.condition_seconds.with(&labels).observe_since(start);
        match &verdict {
            Verdict::Matches => {}
            Verdict::Excluded => self.metrics.exclusions.with(&labels).inc(),
            Verdict::Failed(_) => self.metrics.condition_errors.with(&labels).inc(),
        }
        verdict
    }

    async fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let spec = spec(attributes);
        match self.matches(&spec) {
            Verdict::Matches => {}
            Verdict::Excluded => return Decision::NoOpinion { reason: String::new() },
            Verdict::Failed(error) => return self.failed(error),
        }
        let question = spec.to_string();
        let remembered = self.answers.lock().get(&question, self.clock.monotonic());
        let status = match remembered {
            Some(status) => status,
            None => match self.ask(spec).await {
                Err(failure) => {
                    tracing::error!(
                        webhook = self.name,
                        error = failure.message,
                        "Failed to make webhook authorizer request"
                    );
                    if !self.denies_on_error {
                        self.metrics.fail_open.with(&[&self.name, failure.trip.name()]).inc();
                    }
                    return self.failed(failure.message);
                }
                Ok(status) => {
                    let ttl = if status.allowed { self.authorized_ttl } else { self.unauthorized_ttl };
                    if !ttl.is_zero() && controlled(attributes) < MAX_CONTROLLED {
                        let until = self.clock.monotonic() + ttl;
                        self.answers.lock().put(question, status.clone(), until);
                    }
                    status
                }
            },
        };
        let reason = status.reason;
        match (status.denied, status.allowed) {
            (true, true) => Decision::Error {
                denies: true,
                reason,
                error: "webhook subject access review returned both allow and deny response".into(),
            },
            (true, false) => Decision::Deny { reason },
            (false, true) => Decision::Allow { reason },
            (false, false) => Decision::NoOpinion { reason },
        }
    }

    async fn ask(&self, spec: Value) -> Result<SubjectAccessReviewStatus, Failure> {
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": self.api_version,
            "metadata": {},
            "spec": self.versioned(spec),
            "status": {"allowed": false},
        });
        let heard = |trip: Trip, took: Duration| {
            let labels = [self.name.as_str(), trip.name()];
            self.metrics.evaluations.with(&labels).inc();
            self.metrics.duration.with(&labels).observe(took.as_secs_f64());
        };
        let answer = self.hook.ask(&review, heard).await?;
        Ok(Decode::from_value(&answer["status"]).unwrap_or_default())
    }

    /// The old version calls the groups `group`.
    fn versioned(&self, mut spec: Value) -> Value {
        if self.api_version.ends_with("/v1beta1")
            && let Some(members) = spec.as_object_mut()
            && let Some(groups) = members.remove("groups")
        {
            members.insert("group", groups);
        }
        spec
    }
}

/// How much of a question the requester chooses.
fn controlled(a: &Attributes<'_>) -> usize {
    [a.namespace, a.verb, a.group, a.version, a.resource, a.subresource, a.name, a.path]
        .iter()
        .map(|p| p.len())
        .sum()
}

/// The spec of the review that asks a question, its members in upstream's order.
fn spec(a: &Attributes<'_>) -> Value {
    let mut spec = apimachinery::value::Map::new();
    if a.is_resource {
        let mut asked = apimachinery::value::Map::new();
        for (key, value) in [
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.group),
            ("version", a.version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ] {
            if !value.is_empty() {
                asked.insert(key, value.into());
            }
        }
        for (key, requirements) in [
            ("fieldSelector", field_requirements(a.field_selector)),
            ("labelSelector", label_requirements(a.label_selector)),
        ] {
            if !requirements.is_empty() {
                asked.insert(key, json!({"requirements": requirements}));
            }
        }
        spec.insert("resourceAttributes", asked.into());
    } else {
        let mut asked = apimachinery::value::Map::new();
        for (key, value) in [("path", a.path), ("verb", a.verb)] {
            if !value.is_empty() {
                asked.insert(key, value.into());
            }
        }
        spec.insert("nonResourceAttributes", asked.into());
    }
    let user = a.user;
    if !user.name.is_empty() {
        spec.insert("user", user.name.as_str().into());
    }
    if !user.groups.is_empty() {
        spec.insert("groups", json!(user.groups));
    }
    if !user.extra.is_empty() {
        spec.insert("extra", json!(user.extra));
    }
    if !user.uid.is_empty() {
        spec.insert("uid", user.uid.as_str().into());
    }
    spec.into()
}

fn field_requirements(selector: &str) -> Vec<Value> {
    let Ok(selector) = fields::Selector::parse(selector) else { return Vec::new() };
    let requirements = selector.requirements().iter().map(|r| {
        let operator = match r.operator {
            fields::Operator::Equals => "In",
            fields::Operator::NotEquals => "NotIn",
        };
        json!({"key": r.field, "operator": operator, "values": [r.value]})
    });
    requirements.collect()
}

/// An operator that a review does not know is left out: that asks for more.
fn label_requirements(selector: &str) -> Vec<Value> {
    use labels::Operator::{DoesNotExist, DoubleEquals, Equals, Exists, In, NotEquals, NotIn};
    let Ok(selector) = labels::Selector::parse(selector) else { return Vec::new() };
    let requirements = selector.requirements().unwrap_or_default().iter().filter_map(|r| {
        let operator = match r.operator() {
            Equals | DoubleEquals | In => "In",
            NotEquals | NotIn => "NotIn",
            Exists => "Exists",
            DoesNotExist => "DoesNotExist",
            _ => return None,
        };
        let mut requirement = json!({"key": r.key(), "operator": operator});
        if !r.values().is_empty() {
            requirement["values"] = json!(r.values());
        }
        Some(requirement)
    });
    requirements.collect()
}

impl Authorizer for WebhookAuthorizer {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(self.decide(attributes))
    }

    fn rules_for(&self, _: &User, _: &str) -> Rules {
        let errors = vec!["webhook authorizer does not support user rule resolution".into()];
        Rules { rules: Vec::new(), incomplete: true, errors }
    }
}
