//! Webhooks of authentication and authorization: a review is posted to the URL of a kubeconfig, and tried again with
//! growing pauses while the fault seems to pass (upstream's `webhook.WithExponentialBackoff`).

use crate::egress::Way;
use crate::remote::{CallError, Remote, Response};
use apimachinery::errors::ResponseBody;
use apimachinery::gvk::GroupResource;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::path::Path;
use std::time::Duration;

/// How often, and after which pauses, a review is posted.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub factor: f64,
    pub jitter: f64,
    pub steps: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { first: Duration::from_millis(500), factor: 1.5, jitter: 0.2, steps: 5 }
    }
}

/// How one round trip ended, as metrics tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    Success,
    Timeout,
    Error,
}

impl Trip {
    pub fn name(self) -> &'static str {
        match self {
            Trip::Success => "success",
            Trip::Timeout => "timeout",
            Trip::Error => "error",
        }
    }
}

/// A failed review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub trip: Trip,
    pub message: String,
    passes: bool,
}

/// Where reviews are posted.
#[derive(Debug)]
pub struct ReviewHook {
    remote: Remote,
    url: String,
    timeout: Duration,
    backoff: Backoff,
}

impl ReviewHook {
    pub fn new(kubeconfig: &Path, timeout: Duration, backoff: Backoff, way: Way) -> Result<Self, String> {
        let (remote, url) = Remote::of_kubeconfig(kubeconfig)?;
        Ok(ReviewHook { remote: remote.through(way), url, timeout, backoff })
    }

    /// Posts a review until it is answered or trying again is of no use. `heard` is told of every round trip.
    pub async fn ask(&self, review: &Value, mut heard: impl FnMut(Trip, Duration)) -> Result<Value, Failure> {
        let body = Bytes::from(review.to_string());
        let mut pause = self.backoff.first;
        let mut step = 1;
        loop {
            let start = std::time::Instant::now();
            let answer = self.once(body.clone()).await;
            heard(answer.as_ref().map_or_else(|f| f.trip, |_| Trip::Success), start.elapsed());
            match answer {
                Err(failure) if failure.passes && step < self.backoff.steps => {}
                answer => return answer,
            }
            let unit = f64::from(rand_byte()) / 255.0;
            tokio::time::sleep(pause.mul_f64(1.0 + unit * self.backoff.jitter)).await;
            pause = pause.mul_f64(self.backoff.factor);
            step += 1;
        }
    }

    async fn once(&self, body: Bytes) -> Result<Value, Failure> {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, json),
            (header::ACCEPT, HeaderValue::from_static("application/json, */*")),
        ]);
        // What reaches no server carries no status.
        let answer = self.remote.call(Method::POST, &self.url, headers, body, self.timeout).await;
        let response = answer.map_err(|error| Failure {
            trip: if matches!(error, CallError::Timeout(_)) { Trip::Timeout } else { Trip::Error },
            passes: matches!(error, CallError::Reset(_)),
            message: error.to_string(),
        })?;
        if response.status.is_success() {
            return serde_json::from_slice(&response.body).ok().filter(Value::is_object).ok_or_else(|| {
                Failure {
                    trip: Trip::Error,
                    message: format!(
                        "couldn't get version/kind; json parse error: {}",
                        quote(&String::from_utf8_lossy(&response.body))
                    ),
                    passes: false,
                }
            });
        }
        let passes = matches!(
            response.status,
            StatusCode::INTERNAL_SERVER_ERROR | StatusCode::GATEWAY_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
        ) || response.headers.contains_key(header::RETRY_AFTER);
        let timed_out = response.status == StatusCode::GATEWAY_TIMEOUT;
        Err(Failure {
            trip: if timed_out { Trip::Timeout } else { Trip::Error },
            message: refusal(&response),
            passes,
        })
    }
}

/// What client-go makes of an answer that is no success: the message of a `Status`, or words for its code.
fn refusal(response: &Response) -> String {
    if let Ok(answer) = serde_json::from_slice::<Value>(&response.body)
        && answer["kind"] == "Status"
        && let Some(message) = answer["message"].as_str()
    {
        return message.to_owned();
    }
    let media = response.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let text = String::from_utf8_lossy(&response.body);
    let said = if media.is_empty() || media.starts_with("text/") { text.trim() } else { "unknown" };
    let (code, none) = (response.status.as_u16(), GroupResource::default());
    Status::generic_server_response(code, "POST", &none, "", said, 0, ResponseBody::Unexpected).message
}

fn rand_byte() -> u8 {
    uuid::Uuid::new_v4().as_bytes()[0]
}
