//! Waking pods when something happened to them in the runtime: by its event stream, or, when it has none, by looking once
//! a second at what it lists. Upstream: evented and generic PLEG.

use crate::labels::POD_UID;
use crate::pods::Pods;
use cri::RuntimeService;
use cri::v1;
use futures::StreamExt as _;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const RELIST: Duration = Duration::from_secs(1);

/// Runs until shutdown.
pub(crate) async fn run(runtime: Arc<dyn RuntimeService>, pods: Arc<Pods>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = follow(&*runtime, &pods) => match outcome {
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
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RELIST) => {}
        }
        match relist(&*runtime).await {
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

async fn follow(runtime: &dyn RuntimeService, pods: &Pods) -> Outcome {
    let mut events = match runtime.get_container_events(v1::GetEventsRequest {}).await {
        Ok(events) => events,
        Err(error) if error.code == cri::Code::Unimplemented => return Outcome::NoEvents,
        Err(error) => return Outcome::Broken(error.to_string()),
    };
    // What happened before the stream was open is seen by looking.
    pods.wake_all();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
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
