//! Performing a plan, in order: the only place where a pod's sandbox and containers are made or killed while it lives.
//! What fails is remembered as a reason (shown in status) and as a hold (not tried again before).

use super::back_off::BackOff;
use super::container_statuses::Reasons;
use super::plan::{Action, KillReason, Place, back_off_key, container_at};
use super::start_container::{self, Ground};
use super::stop::{self, Kill};
use crate::container_config::container::facts;
use crate::container_config::sandbox::sandbox_config;
use crate::context::Context;
use crate::resize::{self, Resources};
use crate::runtime_pod::{ExitedCache, RuntimePod, State, observe};
use crate::volumes::Mounted;
use api::core::v1::{Container, Pod, Secret};
use api::node::v1::RuntimeClass;
use cri::v1;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SECOND: i64 = 1_000_000_000;
/// How long a container that could not be started waits. Upstream: `backOffPeriod`.
const HOLD: i64 = 10 * SECOND;
/// Holds that belong to no container.
pub(super) const RESIZE: &str = "/resize";
const SANDBOX: &str = "";
const VOLUMES: &str = "/volumes";
const MAX_VOLUME_HOLD: i64 = 122 * SECOND;

/// What the worker and its acting share.
#[derive(Default)]
pub(super) struct Shared {
    pub back_off: Mutex<BackOff>,
    pub reasons: Mutex<Reasons>,
    /// By container name: not before, and how often it failed in a row.
    holds: Mutex<HashMap<String, (i64, u32)>>,
    mounted: Mutex<Option<Arc<Mounted>>>,
    /// What containers were last started with or updated to.
    pub actuated: Mutex<Resources>,
    /// Why the last resize failed.
    pub resize_error: Mutex<Option<String>>,
    /// When images were first wanted, and last there.
    pulls: Mutex<Option<(Instant, Instant)>>,
}

impl Shared {
    /// An image was waited for since then.
    pub(super) fn pulled(&self, since: Instant) {
        let mut pulls = self.pulls.lock();
        let first = pulls.map_or(since, |(first, _)| first);
        *pulls = Some((first, Instant::now()));
    }

    /// How long images were waited for.
    pub(super) fn pulling_took(&self) -> Duration {
        self.pulls.lock().map_or(Duration::ZERO, |(first, last)| last.duration_since(first))
    }

    /// Until when a name is held, if it still is.
    pub(super) fn held(&self, name: &str, now: i64) -> Option<i64> {
        let holds = self.holds.lock();
        let until = |name: &str| holds.get(name).map(|(until, _)| *until).filter(|until| *until > now);
        until(name).into_iter().chain(until(VOLUMES)).max()
    }

    fn hold(&self, name: &str, pause: impl FnOnce(u32) -> i64) {
        let mut holds = self.holds.lock();
        let failures = holds.get(name).map_or(0, |(_, failures)| *failures);
        holds.insert(name.to_owned(), (crate::clock::now() + pause(failures), failures + 1));
    }

    /// Something changed that may let what failed succeed.
    pub(super) fn release_all(&self) {
        self.holds.lock().clear();
    }

    fn release(&self, name: &str) {
        self.holds.lock().remove(name);
    }

    /// When a volume's content must be looked at again.
    pub(super) fn refresh_at(&self) -> Option<i64> {
        let mounted = self.mounted.lock().clone()?;
        mounted.values().filter_map(|ready| ready.refresh_at).min()
    }

    pub(super) fn refresh_due(&self, now: i64) -> bool {
        self.refresh_at().is_some_and(|at| at <= now)
    }
}

/// Does what can be done.
pub(super) async fn act(
    context: Arc<Context>,
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    runtime: RuntimePod,
    actions: Vec<Action>,
) {
    let mut acting = Acting { context: &context, shared: &shared, pod: &pod, runtime, sandbox: None };
    if let Err(stopped) = acting.run(actions).await {
        tracing::debug!(pod = %crate::labels::format_pod(&pod), %stopped, "not everything could be done");
    }
}

struct Acting<'a> {
    context: &'a Context,
    shared: &'a Shared,
    pod: &'a Pod,
    runtime: RuntimePod,
    sandbox: Option<(String, v1::PodSandboxConfig)>,
}

impl Acting<'_> {
    /// Stops at what the rest depends on.
    async fn run(&mut self, actions: Vec<Action>) -> Result<(), String> {
        let pod = self.pod;
        let makes =
            actions.iter().any(|a| matches!(a, Action::CreateSandbox { .. } | Action::StartContainer(_)));
        if makes {
            self.ground().await?;
        }
        if makes && let Err(error) = self.context.claims.prepare(pod).await {
            let message = format!("Failed to prepare dynamic resources: {error}");
            self.context.events.warning(pod, "FailedPrepareDynamicResources", message);
            self.shared.hold(VOLUMES, |failures| ((SECOND / 2) << failures.min(9)).min(MAX_VOLUME_HOLD));
            return Err(error);
        }
        let volumes = self.volumes().await;
        let volumes = match volumes {
            Ok(volumes) => volumes,
            // Containers that run go on; killing what must be killed needs no volumes.
            Err(error) if makes => {
                for action in actions
                    .into_iter()
                    .filter(|a| matches!(a, Action::KillContainer { .. } | Action::KillPod))
                {
                    self.kill(action, false).await?;
                }
                return Err(error);
            }
            Err(_) => Arc::default(),
        };
        let secrets = if makes { self.pull_secrets().await } else { Vec::new() };
        let creates = actions.iter().any(|a| matches!(a, Action::CreateSandbox { .. }));
        for action in actions {
            match action {
                Action::KillPod | Action::KillContainer { .. } => self.kill(action, creates).await?,
                Action::CreateSandbox { attempt } => self.create_sandbox(attempt).await?,
                Action::StartContainer(place) => {
                    let Some(container) = container_at(pod, place) else { continue };
                    self.start(place, &container, &volumes, &secrets).await?;
                }
                Action::RemoveContainer { id, .. } => self.remove(&id).await?,
                Action::Resize => self.resize().await,
                Action::BackOff { .. } => {}
            }
        }
        Ok(())
    }

    /// The pod's cgroup and directories.
    async fn ground(&self) -> Result<(), String> {
        let (context, pod) = (self.context, self.pod);
        let began = Instant::now();
        let made = context.cgroups.set_up_pod(pod);
        context.metrics.cgroup_operations.with(&["create"]).observe_since(began);
        if let Err(error) = made {
            let message = format!("unable to ensure pod container exists: {error}");
            context.events.warning(pod, "FailedCreatePodContainer", message.clone());
            self.shared.hold(SANDBOX, |_| HOLD);
            return Err(message);
        }
        let (config, meta) = (&context.config, &pod.metadata);
        let dir = config.pod_dir(&meta.uid);
        let made = std::fs::create_dir_all(dir.join("volumes"))
            .and_then(|()| std::fs::create_dir_all(dir.join("plugins")))
            .and_then(|()| {
                std::fs::create_dir_all(config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid))
            });
        made.map_err(|error| {
            let message = format!("error making pod data directories: {error}");
            context.events.warning(pod, "Failed", message.clone());
            self.shared.hold(SANDBOX, |_| HOLD);
            message
        })
    }

    async fn volumes(&self) -> Result<Arc<Mounted>, String> {
        let (context, pod) = (self.context, self.pod);
        let facts = facts(context, self.runtime.ips());
        match context.volumes.set_up(&context.config, pod, &facts).await {
            Ok(mounted) => {
                let mounted = Arc::new(mounted);
                *self.shared.mounted.lock() = Some(mounted.clone());
                self.shared.release(VOLUMES);
                Ok(mounted)
            }
            Err(error) => {
                context.events.warning(pod, "FailedMount", error.to_string());
                self.shared.hold(VOLUMES, |failures| ((SECOND / 2) << failures.min(9)).min(MAX_VOLUME_HOLD));
                Err(error.to_string())
            }
        }
    }

    async fn pull_secrets(&self) -> Vec<Arc<Secret>> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for reference in self.pod.spec.image_pull_secrets.iter().filter(|r| !r.name.is_empty()) {
            match self.context.objects.secret(&self.pod.metadata.namespace, &reference.name).await {
                Ok(Some(secret)) => found.push(secret),
                _ => missing.push(reference.name.as_str()),
            }
        }
        if !missing.is_empty() {
            self.context.events.warning(
                self.pod,
                "FailedToRetrieveImagePullSecret",
                format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    missing.join(", ")
                ),
            );
        }
        found
    }

    async fn kill(&mut self, action: Action, creates: bool) -> Result<(), String> {
        let (context, pod) = (self.context, self.pod);
        match action {
            Action::KillPod => {
                if creates {
                    let message = "Pod sandbox changed, it will be killed and re-created.";
                    context.events.normal(pod, "SandboxChanged", message);
                }
                stop::kill_pod(context, Some(pod), &self.runtime, None).await.map_err(|error| {
                    context.events.warning(pod, "FailedKillPod", format!("error killing pod: {error}"));
                    self.shared.hold(SANDBOX, |_| SECOND);
                    error.to_string()
                })
            }
            Action::KillContainer { id, message, reason, .. } => {
                if let Some(container) = self.runtime.containers.iter().find(|c| c.id == id) {
                    let pod_ip = self.runtime.ips().first().map(String::as_str).unwrap_or_default();
                    let kill = Kill { message, reason, grace: None };
                    stop::kill_container(context, Some(pod), container, pod_ip, &kill).await;
                }
                // The status and restart count of what is started next come from what just ended.
                self.look_again().await
            }
            _ => Ok(()),
        }
    }

    async fn remove(&mut self, id: &str) -> Result<(), String> {
        let found = self.runtime.containers.iter().find(|c| c.id == id).cloned();
        let Some(container) = found else { return Ok(()) };
        if container.state != State::Exited {
            let kill = Kill { message: "killing".into(), reason: KillReason::Other, grace: Some(0) };
            let pod_ip = self.runtime.ips().first().map(String::as_str).unwrap_or_default();
            stop::kill_container(self.context, Some(self.pod), &container, pod_ip, &kill).await;
        }
        let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
        self.context.runtime.remove_container(request).await.map_err(|error| error.to_string())?;
        self.shared.reasons.lock().remove(&container.name);
        Ok(())
    }

    async fn look_again(&mut self) -> Result<(), String> {
        let mut exited = ExitedCache::new();
        let looked = observe(&*self.context.runtime, &self.pod.metadata.uid, &mut exited).await;
        self.runtime = looked.map_err(|e| e.to_string())?;
        Ok(())
    }

    async fn resize(&self) {
        let began = Instant::now();
        let done = resize::act::resize(self.context, self.pod, &self.runtime, &self.shared.actuated).await;
        let success = if done.is_ok() { "true" } else { "false" };
        let took = began.elapsed().as_secs_f64() * 1000.0;
        self.context.metrics.resizes.durations.with(&[success]).observe(took);
        match done {
            Ok(()) => self.shared.release(RESIZE),
            Err(error) => {
                *self.shared.resize_error.lock() = Some(error);
                self.shared.hold(RESIZE, |_| HOLD);
            }
        }
    }

    /// What the pod's RuntimeClass calls the runtime's way of running it; nothing for the usual one.
    async fn runtime_handler(&self) -> Result<String, String> {
        let name = self.pod.spec.runtime_class_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Ok(String::new());
        }
        let classes = self.context.client.all::<RuntimeClass>();
        match classes.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: RuntimeClass {name:?} not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }

    async fn create_sandbox(&mut self, attempt: u32) -> Result<(), String> {
        let (context, pod) = (self.context, self.pod);
        context.metrics.started_pods.inc();
        let namespaced = pod.spec.host_users == Some(false);
        if namespaced {
            context.metrics.user_namespaced_pods.inc();
        }
        let made = match (self.runtime_handler().await, sandbox_config(context, pod, attempt)) {
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(runtime_handler), Ok((config, warnings))) => {
                for warning in warnings {
                    context.events.warning(pod, "DNSConfigForming", warning);
                }
                let handler = runtime_handler.clone();
                let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler };
                let began = Instant::now();
                let made = context.runtime.run_pod_sandbox(request).await;
                context.metrics.run_sandbox.with(&[&handler]).observe_since(began);
                if made.is_err() {
                    context.metrics.run_sandbox_errors.with(&[&handler]).inc();
                }
                made.map(|made| (made, config)).map_err(|e| e.to_string())
            }
        };
        match made {
            Ok((made, config)) => {
                self.shared.release(SANDBOX);
                self.look_again().await?;
                self.prune_sandboxes(&made.pod_sandbox_id).await;
                self.sandbox = Some((made.pod_sandbox_id, config));
                Ok(())
            }
            Err(error) => {
                context.metrics.started_pods_errors.inc();
                if namespaced {
                    context.metrics.user_namespaced_pods_errors.inc();
                }
                context.events.warning(
                    pod,
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {error}"),
                );
                self.shared.hold(SANDBOX, |failures| SECOND << failures.min(4));
                Err(error)
            }
        }
    }

    async fn start(
        &mut self,
        place: Place,
        container: &Container,
        volumes: &Mounted,
        secrets: &[Arc<Secret>],
    ) -> Result<(), String> {
        let (context, pod) = (self.context, self.pod);
        if self.sandbox.is_none() {
            let newest = self.runtime.sandboxes.first().ok_or("the pod has no sandbox")?;
            let (config, _) = sandbox_config(context, pod, newest.attempt)?;
            self.sandbox = Some((newest.id.clone(), config));
        }
        let Some((sandbox_id, sandbox_config)) = &self.sandbox else { return Ok(()) };
        self.prune(container).await;
        if let Some(exited) = self.runtime.container(&container.name).filter(|c| c.state == State::Exited) {
            self.shared.back_off.lock().next(&back_off_key(container), exited.finished_at);
        }
        let pod_ips: &[String] =
            if pod.spec.host_network { &context.config.node_ips } else { self.runtime.ips() };
        let ground = Ground {
            context,
            pod,
            runtime: &self.runtime,
            sandbox_id,
            sandbox_config,
            volumes,
            pod_ips,
            secrets,
        };
        let kind = place.role.as_str();
        context.metrics.started_containers.with(&[kind]).inc();
        match start_container::start(&ground, place, container, self.shared).await {
            Ok(()) => {
                self.shared.reasons.lock().remove(&container.name);
                let mut actuated = self.shared.actuated.lock();
                actuated.containers.insert(container.name.clone(), container.resources.clone());
                actuated.pod.clone_from(&pod.spec.resources);
                drop(actuated);
                self.shared.release(&container.name);
            }
            Err(error) => {
                context.metrics.started_containers_errors.with(&[kind, error.reason]).inc();
                let pause = error.retry_at.map(|at| (at - crate::clock::now()).max(SECOND));
                self.shared.hold(&container.name, |_| pause.unwrap_or(HOLD));
                self.shared
                    .reasons
                    .lock()
                    .insert(container.name.clone(), (error.reason.into(), error.message));
            }
        }
        Ok(())
    }

    /// Sandboxes of before are kept as long as there are containers of theirs to be read about.
    async fn prune_sandboxes(&self, newest: &str) {
        let RuntimePod { sandboxes, containers } = &self.runtime;
        for old in sandboxes.iter().filter(|s| !s.ready && s.id != newest) {
            if containers.iter().any(|c| c.sandbox_id == old.id) {
                continue;
            }
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: old.id.clone() };
            if let Err(error) = self.context.runtime.remove_pod_sandbox(request).await {
                tracing::debug!(id = %old.id, %error, "an old sandbox could not be removed");
            }
        }
    }

    /// Of earlier runs only the last is kept, for `--previous` and `lastState`.
    async fn prune(&self, container: &Container) {
        let of_name = self.runtime.containers.iter().filter(|c| c.name == container.name);
        for old in of_name.skip(1).filter(|c| c.state == State::Exited) {
            let request = v1::RemoveContainerRequest { container_id: old.id.clone() };
            if let Err(error) = self.context.runtime.remove_container(request).await {
                tracing::debug!(id = %old.id, %error, "an old container could not be removed");
            }
        }
    }
}
