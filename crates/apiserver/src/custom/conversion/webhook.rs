//! The webhook that converts the objects of a definition.

use super::review;
use crate::outbound::Outbound;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take (upstream's default for clients of webhooks).
const TIMEOUT: Duration = Duration::from_secs(30);

/// Whom to ask, and how.
#[derive(Debug)]
pub struct Webhook {
    outbound: Arc<Outbound>,
    config: Value,
    versions: Vec<String>,
}

impl Webhook {
    /// From `spec.conversion` of a definition; none where nobody is to be asked.
    pub fn of(conversion: &Value, outbound: &Arc<Outbound>) -> Option<Self> {
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        Some(Webhook {
            outbound: outbound.clone(),
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
        let uid = uuid::Uuid::new_v4().to_string();
        let asked: Vec<&Value> = objects.iter().collect();
        let request = review::request(version, &uid, &asked, to);
        let failed = |why: String| format!("{name} failed: {why}");
        let mut answer = self.ask(&request).await.map_err(failed)?;
        let converted = review::answered(version, &uid, &mut answer).map_err(failed)?;
        if converted.len() != objects.len() {
            return Err(format!("{name} returned {} objects, expected {}", converted.len(), objects.len()));
        }
        let pairs = objects.iter().zip(converted);
        let accept = |(original, converted): (&Value, Value)| {
            review::accept(original, converted, to).map_err(|why| format!("{} {why}", of(original)))
        };
        pairs.map(accept).collect()
    }

    async fn ask(&self, request: &Value) -> Result<Value, String> {
        let target = self.outbound.target(&self.config)?;
        let body = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        self.outbound.post(&target, body, TIMEOUT).await
    }
}
