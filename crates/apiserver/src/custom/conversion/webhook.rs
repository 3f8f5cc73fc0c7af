//! The webhook that converts the objects of a definition.

use super::measures::{Failure, Measures};
use super::review;
use crate::outbound::Outbound;
use crate::spans::{Span, number, text};
use apimachinery::value::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an answer may take (upstream's default for clients of webhooks).
const TIMEOUT: Duration = Duration::from_secs(30);

/// How webhooks are reached, and where that is counted.
#[derive(Debug, Clone)]
pub struct Means {
    pub outbound: Arc<Outbound>,
    pub measures: Arc<Measures>,
}

/// Whom to ask, and how.
#[derive(Debug)]
pub struct Webhook {
    means: Means,
    /// Of the definition.
    name: String,
    config: Value,
    versions: Vec<String>,
}

impl Webhook {
    /// From `spec.conversion` of a definition; none where nobody is to be asked.
    pub fn of(name: &str, conversion: &Value, means: &Means) -> Option<Self> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        Some(Webhook {
            means: means.clone(),
            name: name.to_owned(),
            config: webhook["clientConfig"].clone(),
            versions: versions.filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }

    /// The objects in the version `to`, in their order; none of them is in it yet.
    pub(super) async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, String> {
        let version = review::version_of(&self.versions)?;
        let of = |object: &Value| {
            let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            format!("conversion webhook for {}, Kind={}", text("apiVersion"), text("kind"))
        };
        let name = objects.first().map(of).unwrap_or_default();
        let start = Instant::now();
        let version_of = |api_version: &str| api_version.rsplit('/').next().unwrap_or_default().to_owned();
        let from = objects.first().and_then(|o| o["apiVersion"].as_str()).map(version_of).unwrap_or_default();
        let took = |failure: Option<Failure>| {
            let way = (self.name.as_str(), from.as_str(), &*version_of(to));
            self.means.measures.took(way, failure, start.elapsed());
        };
        let uid = uuid::Uuid::new_v4().to_string();
        let asked: Vec<&Value> = objects.iter().collect();
        let request = review::request(version, &uid, &asked, to);
        let failed = |why: String| format!("{name} failed: {why}");
        let mut span = Span::part("Call conversion webhook", || {
            vec![
                text("custom-resource-definition", &*self.name),
                text("desired-api-version", to),
                number("object-count", objects.len()),
                text("UID", &*uid),
            ]
        });
        let asked = span.around(self.ask(&request)).await;
        if asked.is_ok() {
            span.event("Request completed");
        }
        drop(span);
        let mut answer = asked.inspect_err(|_| took(Some(Failure::Call))).map_err(failed)?;
        let answered = review::answered(version, &uid, &mut answer);
        let converted = answered.inspect_err(|_| took(Some(Failure::Malformed))).map_err(failed)?;
        if converted.len() != objects.len() {
            took(Some(Failure::Partial));
            return Err(format!("{name} returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.iter().zip(converted);
        let accept = |(original, converted): (&Value, Value)| {
            review::accept(original, converted, to).map_err(|why| format!("{} {why}", of(original)))
        };
        let accepted: Result<Vec<Value>, String> = pairs.map(accept).collect();
        took(accepted.is_err().then_some(Failure::Invalid));
        accepted
    }

    async fn ask(&self, request: &Value) -> Result<Value, String> {
        let target = self.means.outbound.target(&self.config)?;
        let body = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        self.means.outbound.post(&target, body, TIMEOUT).await
    }
}
