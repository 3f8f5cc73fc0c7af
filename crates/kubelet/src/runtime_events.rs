//! Waking pods when something happened to them in the runtime: by its event stream, or, when it has none, by looking once
//! a second at what it lists. Upstream: evented and generic PLEG.

use crate::labels::POD_UID;
use crate::metrics::Metrics;
use crate::pods::Pods;
use cri::RuntimeService;
use cri::v1;
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const RELIST: Duration = Duration::from_secs(1);

/// Runs until shutdown.
pub(crate) async fn run(runtime: Arc<dyn RuntimeService>, pods: Arc<Pods>, shutdown: CancellationToken) {
    let metrics = &pods.context.metrics;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = follow(&*runtime, &pods, metrics) => match outcome {
                Outcome::NoEvents => break,
                Outcome::Broken(error) => tracing::warn!(error, "the runtime's event stream broke; opening it again"),
            },
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELIST) => {}
        }
        pods.wake_all();
    }
    tracing::info!("the runtime sends no events; relisting");
    let mut known = HashMap::new();
    let mut last: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELIST) => {}
        }
        let began = Instant::now();
        if let Some(before) = last.replace(began) {
            metrics.relist_intervals.observe(began.duration_since(before).as_secs_f64());
        }
        let listed = relist(&*runtime).await;
        metrics.relist_durations.observe_since(began);
        metrics.relist_last_seen.set(crate::clock::now() as f64 / 1e9);
        match listed {
            Ok(now) => {
                changed(&known, &now).into_iter().for_each(|uid| pods.wake(uid));
                known = now;
            }
            Err(error) => tracing::warn!(%error, "relisting failed"),
        }
    }
}

enum Outcome {
    NoEvents,
    Broken(String),
}

async fn follow(runtime: &dyn RuntimeService, pods: &Pods, metrics: &Metrics) -> Outcome {
    let mut events = match runtime.get_container_events(v1::GetEventsRequest {}).await {
        Ok(events) => events,
        Err(error) if error.code == cri::Code::Unimplemented => return Outcome::NoEvents,
        Err(error) => {
            metrics.event_connection_errors.inc();
            return Outcome::Broken(error.to_string());
        }
    };
    metrics.event_connections.inc();
    // What happened before the stream was open is seen by looking.
    pods.wake_all();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let age = crate::clock::now().saturating_sub(event.created_at);
                metrics.event_latency.observe(age.max(0) as f64 / 1e9);
                let sandbox = event
                    .pod_sandbox_status
                    .as_ref()
                    .and_then(|s| s.metadata.as_ref())
                    .map(|m| m.uid.as_str());
                let container =
                    event.containers_statuses.first().and_then(|c| c.labels.get(POD_UID)).map(String::as_str);
                match sandbox.or(container) {
                    Some(uid) => pods.wake(uid),
                    None => pods.wake_all(),
                }
            }
            Err(error) if error.code == cri::Code::Unimplemented => return Outcome::NoEvents,
            Err(error) => return Outcome::Broken(error.to_string()),
        }
    }
    Outcome::Broken("the stream ended".into())
}

/// The states of a pod's sandboxes and containers, by id.
type States = HashMap<String, HashMap<String, i32>>;

async fn relist(runtime: &dyn RuntimeService) -> cri::Result<States> {
    let mut out = States::new();
    for sandbox in runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.items {
        if let Some(uid) = sandbox.labels.get(POD_UID) {
            out.entry(uid.clone()).or_default().insert(sandbox.id, sandbox.state);
        }
    }
    for container in runtime.list_containers(v1::ListContainersRequest::default()).await?.containers {
        if let Some(uid) = container.labels.get(POD_UID) {
            out.entry(uid.clone()).or_default().insert(container.id, container.state);
        }
    }
    Ok(out)
}

fn changed<'a>(old: &'a States, new: &'a States) -> Vec<&'a String> {
    let differs = |uid: &&String| old.get(*uid) != new.get(*uid);
    new.keys().filter(differs).chain(old.keys().filter(|uid| !new.contains_key(*uid))).collect()
}
