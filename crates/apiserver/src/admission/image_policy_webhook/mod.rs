//! ImagePolicyWebhook: a server elsewhere says whether the images of a pod may be used; what it said holds for a while.

mod configuration;

use super::{Attributes, Operation, Plugin, When};
use crate::authn::recent::{Recent, digest};
use crate::egress::Way;
use crate::review_hook::{Backoff, ReviewHook};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::{Map, Value};
pub(super) use configuration::{Configuration, read};
use futures::future::BoxFuture;
use std::path::Path;
use std::time::Duration;

pub(super) struct ImagePolicyWebhook {
    hook: ReviewHook,
    said: Recent<Value>,
    configuration: Configuration,
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(30);

fn key(name: &str) -> String {
    format!("imagepolicywebhook.image-policy.k8s.io/{name}")
}

/// The lists of containers that a request brings.
fn lists(a: &Attributes<'_>) -> Option<&'static [&'static str]> {
    match a.subresource {
        _ if !a.is("", "pods") => None,
        "" => Some(&["containers", "initContainers"]),
        "ephemeralcontainers" => Some(&["ephemeralContainers"]),
        _ => None,
    }
}

/// What is asked: images, annotations that are meant for whoever is asked, and the namespace.
fn spec(a: &Attributes<'_>, pod: &Value, lists: &[&str]) -> Value {
    let containers = lists.iter().filter_map(|list| pod["spec"][*list].as_array()).flatten();
    let images: Vec<Value> = containers.map(|container| json!({"image": container["image"]})).collect();
    let annotations: Map = pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.contains(".image-policy.k8s.io/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut spec = json!({});
    if !images.is_empty() {
        spec["containers"] = images.into();
    }
    if !annotations.is_empty() {
        spec["annotations"] = annotations.into();
    }
    if !a.namespace.is_empty() {
        spec["namespace"] = a.namespace.into();
    }
    spec
}

impl ImagePolicyWebhook {
    /// The plugin, if there is a server to be asked.
    pub(super) fn new(configuration: Configuration) -> Result<Self, String> {
        let backoff = Backoff { first: configuration.retry_backoff, ..Backoff::default() };
        let kubeconfig = Path::new(&configuration.kubeconfig);
        let hook = ReviewHook::new(kubeconfig, TIMEOUT, backoff, Way::default())?;
        Ok(ImagePolicyWebhook { hook, said: Recent::default(), configuration })
    }

    /// The status of a review, remembered or asked for; the error is that nobody answers.
    async fn review(&self, spec: Value, now: i64) -> Result<Value, String> {
        let text = spec.to_string();
        let digest = digest([text.as_bytes()]);
        if let Some(status) = self.said.get(&digest, now) {
            return Ok(status);
        }
        let review = json!({
            "kind": "ImageReview", "apiVersion": "imagepolicy.k8s.io/v1alpha1",
            "metadata": {}, "spec": spec, "status": {"allowed": false},
        });
        let mut answer = self.hook.ask(&review, |_, _| ()).await.map_err(|failure| failure.message)?;
        let status = answer["status"].take();
        let allowed = status["allowed"] == true;
        let ttl = if allowed { self.configuration.allow_ttl } else { self.configuration.deny_ttl };
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        self.said.put(digest, status.clone(), now.saturating_add(ttl));
        Ok(status)
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (Some(lists), Some(pod)) = (lists(a), a.object.as_deref()) else { return Ok(()) };
        let now = jiff::Timestamp::now().as_second();
        let status = match self.review(spec(a, pod, lists), now).await {
            Ok(status) => status,
            Err(why) if self.configuration.default_allow => {
                tracing::info!(why, "resource allowed in spite of webhook backend failure");
                crate::context::annotate(key("failed-open"), "true".into());
                return Ok(());
            }
            Err(why) => return Err(a.forbidden(why)),
        };
        for (name, value) in status["auditAnnotations"].as_object().into_iter().flatten() {
            crate::context::annotate(key(name), value.as_str().unwrap_or_default().to_owned());
        }
        match status["reason"].as_str().unwrap_or_default() {
            _ if status["allowed"] == true => Ok(()),
            "" => Err(a.forbidden("one or more images rejected by webhook backend")),
            reason => {
                Err(a.forbidden(format!("image policy webhook backend denied one or more images: {reason}")))
            }
        }
    }
}

impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(a))
    }
}
