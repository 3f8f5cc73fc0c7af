//! Stopping containers and pods: `preStop`, grace, order, sandboxes. Upstream: `killContainer`, `killPodWithSyncResult`.

use super::plan::{KillReason, termination_order};
use crate::context::Context;
use crate::hooks;
use crate::runtime_pod::{RuntimeContainer, RuntimePod};
use api::core::v1::{Container, Lifecycle, Pod};
use cri::v1;
use futures::future::join_all;
use std::time::{Duration, Instant};

/// Containers always get this long.
const MINIMUM_GRACE: i64 = 2;

/// Why and how gently.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    /// Empty for the usual message.
    pub message: String,
    pub reason: KillReason,
    /// Seconds that override what the pod says.
    pub grace: Option<i64>,
}

/// The container in the spec, or what its annotations remember of it.
fn spec_of(pod: Option<&Pod>, container: &RuntimeContainer) -> Container {
    let spec = pod.map(|p| &p.spec);
    let found =
        spec.and_then(|s| s.containers.iter().chain(&s.init_containers).find(|c| c.name == container.name));
    found.cloned().unwrap_or_else(|| Container {
        name: container.name.clone(),
        ports: container.annotated.ports.clone(),
        lifecycle: container
            .annotated
            .pre_stop
            .clone()
            .map(|hook| Lifecycle { pre_stop: Some(hook), ..Default::default() }),
        ..Default::default()
    })
}

/// Seconds a container gets. Upstream: `setTerminationGracePeriod`.
pub(super) fn grace_period(
    pod: Option<&Pod>,
    container: &RuntimeContainer,
    spec: &Container,
    kill: &Kill,
) -> i64 {
    if let Some(seconds) = kill.grace {
        return seconds;
    }
    let Some(pod) = pod else {
        let remembered =
            container.annotated.deletion_grace_period.or(container.annotated.termination_grace_period);
        return remembered.unwrap_or(MINIMUM_GRACE);
    };
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        return seconds;
    }
    let probe = match kill.reason {
        KillReason::StartupProbe => spec.startup_probe.as_ref(),
        KillReason::LivenessProbe => spec.liveness_probe.as_ref(),
        _ => None,
    };
    let of_probe = probe.and_then(|p| p.termination_grace_period_seconds);
    of_probe.or(pod.spec.termination_grace_period_seconds).unwrap_or(MINIMUM_GRACE)
}

/// Stops one container: tells, runs `preStop`, then lets the runtime stop it.
pub(super) async fn kill_container(
    context: &Context,
    pod: Option<&Pod>,
    container: &RuntimeContainer,
    pod_ip: &str,
    kill: &Kill,
) {
    let spec = spec_of(pod, container);
    let grace = begin(context, pod, container, &spec, pod_ip, kill).await;
    finish(context, container, grace).await;
}

/// The event and the hook; returns the seconds that are left.
async fn begin(
    context: &Context,
    pod: Option<&Pod>,
    container: &RuntimeContainer,
    spec: &Container,
    pod_ip: &str,
    kill: &Kill,
) -> i64 {
    let grace = grace_period(pod, container, spec, kill);
    if let Some(pod) = pod {
        let usual = format!("Stopping container {}", container.name);
        let message = if kill.message.is_empty() { usual } else { kill.message.clone() };
        context.events.container_normal(pod, &container.name, "Killing", message);
    }
    let hook = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).filter(|_| grace > 0);
    let Some(hook) = hook else { return grace };
    let nobody = Pod::default();
    let owner = pod.unwrap_or(&nobody);
    let began = Instant::now();
    let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
    let run = hooks::run(context, owner, spec, &container.id, pod_ip, hook);
    if let Ok(Err(error)) = tokio::time::timeout(limit, run).await {
        tracing::debug!(container = %container.name, %error, "preStop failed");
        if pod.is_some() {
            context.events.container_warning(
                owner,
                &container.name,
                "FailedPreStopHook",
                "PreStopHook failed",
            );
        }
    }
    grace - i64::try_from(began.elapsed().as_secs()).unwrap_or(0)
}

async fn finish(context: &Context, container: &RuntimeContainer, grace: i64) {
    let request =
        v1::StopContainerRequest { container_id: container.id.clone(), timeout: grace.max(MINIMUM_GRACE) };
    match context.runtime.stop_container(request).await {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(container = %container.name, id = %container.id, %error, "stopping a container failed");
        }
        _ => {}
    }
}

/// Stops all containers, sidecars after the others and last started first, then the sandboxes.
pub(super) async fn kill_pod(
    context: &Context,
    pod: Option<&Pod>,
    runtime: &RuntimePod,
    grace: Option<i64>,
) -> cri::Result<()> {
    let running: Vec<&RuntimeContainer> = runtime.running().collect();
    let pod_ip = runtime.ips().first().map(String::as_str).unwrap_or_default();
    let stages = match pod {
        Some(pod) => termination_order(pod, &running),
        None => vec![(0..running.len()).collect()],
    };
    let kill = Kill { message: String::new(), reason: KillReason::Other, grace };
    let began = Instant::now();
    // Hooks run at once for everybody; signals wait for their turn.
    let mut begun: Vec<_> = running
        .iter()
        .map(|container| {
            let kill = &kill;
            Some(Box::pin(async move {
                let spec = spec_of(pod, container);
                begin(context, pod, container, &spec, pod_ip, kill).await
            }))
        })
        .collect();
    let later: Vec<usize> = stages.iter().skip(1).flatten().copied().collect();
    let later_hooks = join_all(later.iter().filter_map(|i| begun[*i].take()));
    let later_hooks = async { (later_hooks.await, began.elapsed()) };
    let first_stage = stages.first().map(Vec::as_slice).unwrap_or_default();
    let first = first_stage.iter().filter_map(|i| begun[*i].take().map(|hook| (running[*i], hook)));
    let first =
        join_all(first.map(|(container, hook)| async move { finish(context, container, hook.await).await }));
    let (_, (left, hooks_took)) = tokio::join!(first, later_hooks);
    for (i, left) in later.into_iter().zip(left) {
        let waited = began.elapsed().saturating_sub(hooks_took).as_secs();
        finish(context, running[i], left - i64::try_from(waited).unwrap_or(0)).await;
    }
    // One that died by itself too: its network is given back by this call only.
    let mut stopped = Ok(());
    for sandbox in &runtime.sandboxes {
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        match context.runtime.stop_pod_sandbox(request).await {
            Err(error) if !error.is_not_found() => stopped = stopped.and(Err(error)),
            _ => {}
        }
    }
    stopped
}
