//! Making sure that a container's image is there: pull policies, credentials, back-off, a limit on parallel pulls, and
//! upstream's events and reasons. Upstream: `pkg/kubelet/images`.

pub(crate) mod credentials;
pub(crate) mod gc;
pub(crate) mod keyring;
mod name;
pub(crate) mod providers;
pub(crate) mod records;
pub(crate) mod verification;

use crate::events::Events;
use crate::metrics::Metrics;
use crate::pod_worker::back_off::BackOff;
use api::core::v1::{Container, Pod, Secret};
use cri::ImageService;
use cri::v1;
use keyring::{Credential, Source};
use parking_lot::Mutex;
use providers::Providers;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use verification::{Verdict, Verification};

/// Why a container could not be started: a waiting reason, a message, and when it makes sense to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartError {
    pub reason: &'static str,
    pub message: String,
    /// Nanoseconds since the epoch; `None` for the usual pause.
    pub retry_at: Option<i64>,
}

impl StartError {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        StartError { reason, message: message.into(), retry_at: None }
    }
}

/// The image service, with manners.
pub(crate) struct Images {
    pub(crate) service: Arc<dyn ImageService>,
    events: Events,
    verification: Verification,
    providers: Providers,
    metrics: Metrics,
    pulls: Semaphore,
    back_off: Mutex<BackOff>,
    /// The last failure of what is in back-off.
    failures: Mutex<HashMap<String, String>>,
}

impl Images {
    pub(crate) fn new(
        service: Arc<dyn ImageService>,
        events: Events,
        parallel: usize,
        verification: Verification,
        providers: Providers,
        metrics: Metrics,
    ) -> Self {
        let pulls = Semaphore::new(parallel.max(1));
        Images {
            service,
            events,
            verification,
            providers,
            metrics,
            pulls,
            back_off: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    /// Takes over what an earlier kubelet was pulling.
    pub(crate) async fn adopt_pulls(&self) {
        match self.service.list_images(v1::ListImagesRequest::default()).await {
            Ok(listed) => self.verification.adopt(&listed.images),
            Err(error) => tracing::warn!(%error, "failed to list images"),
        }
    }

    /// How many pulls go on, and how many have been, as written down.
    pub(crate) fn records(&self) -> (usize, usize) {
        self.verification.counts()
    }

    /// Forgets what is known of images that were not there at a time.
    pub(crate) fn prune_records(&self, present: &[v1::Image], at: std::time::SystemTime) {
        self.verification.prune(present, at);
    }

    /// What the runtime knows of an image; `None` when it has none of that name.
    pub(crate) async fn status(&self, image: &str) -> cri::Result<Option<v1::Image>> {
        let image = Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() });
        Ok(self.service.image_status(v1::ImageStatusRequest { image, verbose: false }).await?.image)
    }

    /// The reference of the container's image, which is there when this returns it.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        secrets: &[Arc<Secret>],
        sandbox: &v1::PodSandboxConfig,
    ) -> Result<String, StartError> {
        let mut found = Found::default();
        let outcome = self.try_ensure(pod, container, (secrets, sandbox), &mut found).await;
        let shown = |known: Option<bool>| known.map_or("unknown", |yes| if yes { "true" } else { "false" });
        let labels =
            [policy_name(&container.image_pull_policy), shown(found.present), shown(found.pull_required)];
        self.metrics.ensured_images.with(&labels).inc();
        outcome
    }

    async fn try_ensure(
        &self,
        pod: &Pod,
        container: &Container,
        (secrets, sandbox): (&[Arc<Secret>], &v1::PodSandboxConfig),
        found: &mut Found,
    ) -> Result<String, StartError> {
        let requested = &container.image;
        let normal = |reason: &str, message: String| {
            self.events.container_normal(pod, &container.name, reason, message)
        };
        let warning = |reason: &str, message: String| {
            self.events.container_warning(pod, &container.name, reason, message)
        };
        let image = name::with_default_tag(requested).map_err(|error| {
            let message = format!("Failed to apply default image tag {requested:?}: {error}");
            warning("InspectFailed", message.clone());
            StartError::new("InvalidImageName", message)
        })?;
        let policy = container.image_pull_policy.as_str();
        let never = || {
            let message = format!("Container image {requested:?} is not present with pull policy of Never");
            warning("ErrImageNeverPull", message.clone());
            StartError::new("ErrImageNeverPull", message)
        };
        // Providers are asked when somebody needs to know, and once.
        let mut credentials: Option<Vec<Credential>> = None;
        if policy != "Always" {
            let present = self.status(&image).await.map_err(|error| {
                let message = format!("Failed to inspect image \"\": {error}");
                warning("InspectFailed", message.clone());
                StartError::new("ImageInspectError", message)
            })?;
            found.present = Some(present.as_ref().is_some_and(|present| !present.id.is_empty()));
            // Whether it is there is nothing to know for those that may not use it.
            if let Some(present) = present.filter(|present| !present.id.is_empty()) {
                let (may, result) = match self.verification.judge(requested, &present.id) {
                    Verdict::Free(why) => (true, why),
                    Verdict::MustPull => (false, "mustAuthenticate"),
                    Verdict::Of(known) => {
                        let with = credentials.insert(self.credentials(pod, secrets, &image).await);
                        match self.verification.opens(requested, &present.id, &known, with) {
                            true => (true, "credentialRecordFound"),
                            false => (false, "mustAuthenticate"),
                        }
                    }
                };
                self.metrics.must_pull_checks.with(&[result]).inc();
                if may {
                    found.pull_required = Some(false);
                    normal(
                        "Pulled",
                        format!(
                            "Container image {requested:?} already present on machine and can be accessed by the pod"
                        ),
                    );
                    return Ok(present.id);
                }
            }
            if policy == "Never" {
                if found.present == Some(true) {
                    found.pull_required = Some(true);
                }
                return Err(never());
            }
        }
        found.pull_required = Some(true);
        let key = format!("{}_{requested}", pod.metadata.uid);
        let until = self.back_off.lock().until_since_update(&key, crate::clock::now());
        if let Some(until) = until {
            let mut message = format!("Back-off pulling image {requested:?}");
            normal("BackOff", message.clone());
            if let Some(before) = self.failures.lock().get(&key) {
                message = format!("{message}: {before}");
            }
            return Err(StartError { reason: "ImagePullBackOff", message, retry_at: Some(until) });
        }
        self.failures.lock().remove(&key);
        normal("Pulling", format!("Pulling image {requested:?}"));
        let waiting = Instant::now();
        let permit = self.pulls.acquire().await;
        let pulling = Instant::now();
        if let Err(error) = self.verification.begins(requested) {
            let message =
                format!("Failed to record image pull intent for container image {requested:?}: {error}");
            return Err(StartError::new("ErrImagePull", message));
        }
        let credentials = match credentials {
            Some(known) => known,
            None => self.credentials(pod, secrets, &image).await,
        };
        let pulled = self.pull(&image, credentials, sandbox).await;
        drop(permit);
        match pulled {
            Ok((reference, source)) => {
                let status = self.status(&image).await.ok().flatten();
                let size = status.as_ref().map_or(0, |i| i.size);
                let id = status.map(|i| i.id).filter(|id| !id.is_empty());
                let id = id.as_deref().unwrap_or(&reference);
                self.verification.ended(requested, Some((id, &source)));
                self.metrics.image_pulled(size, waiting.elapsed());
                let (alone, all) = (millis(pulling.elapsed()), millis(waiting.elapsed()));
                normal(
                    "Pulled",
                    format!(
                        "Successfully pulled image {requested:?} in {alone} ({all} including waiting). Image size: {size} bytes."
                    ),
                );
                self.back_off.lock().forget_expired(crate::clock::now());
                Ok(reference)
            }
            Err(error) => {
                self.verification.ended(requested, None);
                warning("Failed", format!("Failed to pull image {requested:?}: {error}"));
                self.back_off.lock().next(&key, crate::clock::now());
                let (reason, message) = classify(requested, &error);
                self.failures.lock().insert(key, format!("{reason}: {message}"));
                Err(StartError::new(reason, message))
            }
        }
    }

    async fn pull(
        &self,
        image: &str,
        credentials: Vec<Credential>,
        sandbox: &v1::PodSandboxConfig,
    ) -> cri::Result<(String, Source)> {
        let mut attempts: Vec<Option<Credential>> = credentials.into_iter().map(Some).collect();
        if attempts.is_empty() {
            attempts.push(None);
        }
        let mut last = cri::Error::unknown("no credentials to try");
        for attempt in attempts {
            let (auth, source) = attempt.map(|known| (known.auth, known.source)).unzip();
            let request = v1::PullImageRequest {
                image: Some(v1::ImageSpec { image: image.to_owned(), ..Default::default() }),
                auth,
                sandbox_config: Some(sandbox.clone()),
            };
            match self.service.pull_image(request).await {
                Ok(answer) => return Ok((answer.image_ref, source.unwrap_or_default())),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What may open an image: the pod's Secrets, then what providers of the node say.
    async fn credentials(&self, pod: &Pod, secrets: &[Arc<Secret>], image: &str) -> Vec<Credential> {
        let repository = keyring::repository(image);
        let mut found = credentials::keyring(secrets).lookup(&repository);
        found.extend(self.providers.lookup(pod, &repository).await);
        found
    }

    /// Forgets the failures of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.providers.forget(uid);
        self.failures.lock().retain(|key, _| !key.starts_with(uid));
    }
}

/// What was found out about an image, as metrics show it.
#[derive(Default)]
struct Found {
    present: Option<bool>,
    pull_required: Option<bool>,
}

/// As metrics show it. Upstream: `recordEnsureImageRequest`.
fn policy_name(policy: &str) -> &'static str {
    match policy {
        "Always" => "always",
        "IfNotPresent" => "ifnotpresent",
        "Never" => "never",
        _ => "unknown",
    }
}

fn millis(duration: Duration) -> apimachinery::time::Duration {
    apimachinery::time::Duration::from_milliseconds(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn classify(image: &str, error: &cri::Error) -> (&'static str, String) {
    for (reason, told) in [
        ("RegistryUnavailable", "because the registry is unavailable"),
        ("SignatureValidationFailed", "because the signature validation failed"),
    ] {
        if let Some(rest) = error.message.strip_prefix(reason) {
            return (reason, format!("image pull failed for {image} {told}{rest}"));
        }
    }
    ("ErrImagePull", error.to_string())
}
