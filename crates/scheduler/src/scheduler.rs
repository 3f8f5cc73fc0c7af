//! The loop: takes pods from the queue, decides, assumes, binds. Binding and telling run beside it; only they write.

use crate::cache::Cache;
use crate::decide::{FitError, decide};
use crate::facts::{NodeFacts, PodFacts, PodInfo};
use crate::queue::Queue;
use api::Kind as _;
use api::core::v1::{Binding, Node, ObjectReference, Pod};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Time;
use client::recorder::{EventType, reference};
use client::{Cached, Change, Client, Informer, Informers, ObjectKey, Patch, PatchParams, Recorder};
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name under which pods ask for this scheduler.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// Bindings in flight.
const BINDERS: usize = 256;

#[derive(Debug, Default)]
struct State {
    cache: Cache,
    queue: Queue,
}

/// The scheduler of the pods that name it.
#[derive(Debug)]
pub struct Scheduler {
    client: Client,
    recorder: Recorder,
    pods: Informer<PodFacts>,
    nodes: Informer<NodeFacts>,
    state: Mutex<State>,
    wake: Notify,
    binders: Arc<Semaphore>,
}

/// Schedules until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let informers = Informers::new(&client, shutdown.clone());
    let scheduler = Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), DEFAULT_SCHEDULER, ""),
        pods: informers.get(),
        nodes: informers.get(),
        client,
        state: Mutex::default(),
        wake: Notify::new(),
        binders: Arc::new(Semaphore::new(BINDERS)),
    });
    scheduler.nodes.synced().await;
    scheduler.listen();
    scheduler.pods.synced().await;
    scheduler.work(shutdown).await;
}

fn waits_for_us(pod: &Cached<PodFacts>) -> bool {
    pod.node_name.is_empty()
        && pod.scheduler_name == DEFAULT_SCHEDULER
        && !pod.terminal
        && !pod.deleting
        && !pod.gated
}

impl Scheduler {
    fn listen(self: &Arc<Self>) {
        let this = self.clone();
        self.nodes.subscribe(move |change| {
            let mut state = this.state.lock();
            match change {
                Change::Added(node) => state.cache.set_node(node.name(), &node.projection),
                Change::Updated { old, new } if old.projection == new.projection => return,
                Change::Updated { new, .. } => state.cache.set_node(new.name(), &new.projection),
                Change::Deleted(node) => return state.cache.remove_node(node.name()),
            }
            state.queue.wake_all(Instant::now());
            drop(state);
            this.wake.notify_one();
        });
        let this = self.clone();
        self.pods.subscribe(move |change| {
            let mut state = this.state.lock();
            let pod = change.object();
            let was_counted = change.old().is_some_and(|o| !o.node_name.is_empty() && !o.terminal);
            if matches!(change, Change::Deleted(_)) {
                state.cache.remove_pod(&pod.uid);
                state.queue.remove(pod.key());
                if !pod.node_name.is_empty() {
                    state.queue.wake_all(Instant::now());
                }
            } else {
                state.cache.set_pod(pod);
                if waits_for_us(pod) {
                    if !state.cache.is_assumed(&pod.uid) && worth_another_try(change) {
                        state.queue.add(pod.key().clone(), pod.priority);
                    }
                } else {
                    state.queue.remove(pod.key());
                    if was_counted && pod.terminal {
                        state.queue.wake_all(Instant::now());
                    }
                }
            }
            drop(state);
            this.wake.notify_one();
        });
    }

    async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        let mut turn = 0_usize;
        loop {
            let (next, release) = {
                let mut state = self.state.lock();
                state.queue.release(Instant::now());
                (state.queue.pop(), state.queue.next_release())
            };
            let Some((key, moves)) = next else {
                let due = async {
                    match release {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.wake.notified() => {}
                    () = due => {}
                }
                continue;
            };
            turn = turn.wrapping_add(1);
            self.schedule_one(&key, moves, turn).await;
        }
    }

    async fn schedule_one(self: &Arc<Self>, key: &ObjectKey, moves: u64, turn: usize) {
        let Some(facts) = self.pods.get(key).filter(|p| waits_for_us(p)) else { return };
        let pod = match facts.decode() {
            Ok(pod) => PodInfo { pod, facts },
            Err(error) => {
                tracing::error!(pod = %key, %error, "cannot read a pod");
                return;
            }
        };
        let decision = {
            let mut state = self.state.lock();
            let nodes = state.cache.snapshot();
            let decision = decide(&pod, &nodes, turn);
            match &decision {
                Ok(node) => state.cache.assume(&pod.facts, node),
                Err(_) => state.queue.put_back(key.clone(), pod.facts.priority, moves, Instant::now()),
            }
            decision
        };
        let Ok(permit) = self.binders.clone().acquire_owned().await else { return };
        let this = self.clone();
        tokio::spawn(async move {
            match decision {
                Ok(node) => this.bind(pod, &node).await,
                Err(error) => this.tell_failure(pod, &error).await,
            }
            drop(permit);
        });
    }

    async fn bind(&self, pod: PodInfo, node: &str) {
        let meta = &pod.pod.metadata;
        let mut binding = Binding::new();
        binding.metadata.name = meta.name.clone();
        binding.metadata.namespace = meta.namespace.clone();
        binding.metadata.uid = meta.uid.clone();
        binding.target = ObjectReference { kind: Node::KIND.into(), name: node.into(), ..Default::default() };
        let api = self.client.namespaced::<Pod>(&meta.namespace);
        match api.post::<_, serde_json::Value>(&meta.name, "binding", &binding).await {
            Ok(_) => {
                let message = format!("Successfully assigned {}/{} to {node}", meta.namespace, meta.name);
                self.recorder.event(&reference(&pod.pod), EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(pod = %pod.facts.key(), %error, "binding failed");
                let mut state = self.state.lock();
                state.cache.forget(&pod.facts.uid);
                if !error.is_not_found() {
                    let (key, priority, moves) = (pod.facts.key().clone(), pod.facts.priority, u64::MAX);
                    state.queue.put_back(key, priority, moves, Instant::now());
                }
                drop(state);
                self.wake.notify_one();
            }
        }
    }

    async fn tell_failure(&self, pod: PodInfo, error: &FitError) {
        let message = error.to_string();
        self.recorder.event(&reference(&pod.pod), EventType::Warning, "FailedScheduling", message.clone());
        let status = &pod.pod.status;
        let known = rules::pod_conditions::find(&status.conditions, rules::pod_conditions::POD_SCHEDULED);
        if known.is_some_and(|c| c.status == "False" && c.reason == "Unschedulable" && c.message == message) {
            return;
        }
        let mut condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "observedGeneration": pod.pod.metadata.generation,
        });
        if known.is_none_or(|c| c.status != "False") {
            condition["lastTransitionTime"] = Time::from(SystemClock::default().now()).to_string().into();
        }
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let api = self.client.namespaced::<Pod>(&pod.pod.metadata.namespace);
        if let Err(error) = api.patch_status(&pod.pod.metadata.name, &patch, &PatchParams::default()).await
            && !error.is_not_found()
        {
            tracing::debug!(pod = %pod.facts.key(), %error, "could not tell that a pod is unschedulable");
        }
    }
}

/// Our own status patch is no reason to try a pod again; a changed spec or a lifted gate is.
fn worth_another_try(change: &Change<PodFacts>) -> bool {
    match change.old() {
        None => true,
        Some(old) => {
            let new = change.object();
            old.gated != new.gated
                || old.requests != new.requests
                || old.priority != new.priority
                || old.node_name != new.node_name
                || old.uid != new.uid
        }
    }
}
