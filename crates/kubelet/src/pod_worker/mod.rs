//! One task per pod: observe the runtime, plan (pure), act, report; then stop, report the end and clean up.
//! A worker sleeps until its mailbox, a probe, the runtime or one of its own timers wakes it, and never holds up others.
//! Upstream: `pod_workers.go`, `SyncPod`, `SyncTerminatingPod`, `SyncTerminatedPod`.

mod act;
pub(crate) mod admission;
mod admit;
mod app_armor;
pub(crate) mod back_off;
mod conditions;
mod container_statuses;
mod due;
mod end;
mod init_containers;
mod mailbox;
mod phase;
pub(crate) mod plan;
mod preemption;
mod reporting;
mod restart_all;
mod start_container;
mod status;
mod status_writer;
mod stop;
pub(crate) mod sysctls;
#[cfg(test)]
mod tests;

pub(crate) use mailbox::{Letter, Mailbox};
pub(crate) use status::Forced;

use crate::context::Context;
use crate::pods::Pods;
use crate::probes::{self, Probes};
use crate::runtime_pod::{ExitedCache, RuntimePod, observe};
use act::Shared;
use api::core::v1::{Pod, PodStatus};
use due::Due;
use phase::Finality;
use plan::Action;
use rules::pod_conditions::is_terminal;
use status_writer::StatusWriter;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const SECOND: i64 = 1_000_000_000;

/// The task of one pod.
pub(crate) struct Worker {
    context: Arc<Context>,
    mailbox: Arc<Mailbox>,
    /// The other pods of the node, for admission.
    pods: Weak<Pods>,
    probes: Probes,
    shared: Arc<Shared>,
    exited: ExitedCache,
    writer: StatusWriter,
    status: PodStatus,
    admitted: bool,
    /// It has not been seen to run yet, by this kubelet or another.
    starting: bool,
    /// When this kubelet heard of the pod.
    seen: Instant,
    shutdown: CancellationToken,
}

impl Worker {
    pub(crate) fn new(
        context: Arc<Context>,
        mailbox: Arc<Mailbox>,
        pods: Weak<Pods>,
        shutdown: CancellationToken,
    ) -> Self {
        let letter = mailbox.letter();
        let shared = Shared::default();
        *shared.actuated.lock() = mailbox.resizing().actuated;
        let (initial, most) = (context.config.restart_initial, context.config.restart_most);
        *shared.back_off.lock() = back_off::BackOff::within(initial, most);
        let probing = probes::Context {
            runtime: context.runtime.clone(),
            events: context.events.clone(),
            started_at: context.started_at,
            counted: context.metrics.probes.clone(),
            timed: context.metrics.probe_durations.clone(),
        };
        Worker {
            probes: Probes::new(probing, letter.pod.clone(), mailbox.notify.clone()),
            writer: StatusWriter::new(context.client.clone(), &letter, context.metrics.status_sync.clone()),
            starting: letter.pod.status.phase == "Pending" || letter.pod.status.phase.is_empty(),
            status: letter.pod.status.clone(),
            shared: Arc::new(shared),
            exited: ExitedCache::new(),
            admitted: false,
            seen: Instant::now(),
            context,
            mailbox,
            pods,
            shutdown,
        }
    }

    /// Runs the pod to its end. Returns early, leaving everything running, when the kubelet shuts down.
    pub(crate) async fn run(mut self) {
        let shutdown = self.shutdown.clone();
        let (metrics, letter) = (self.context.metrics.clone(), self.mailbox.letter());
        metrics.worker_start.observe_since(self.seen);
        metrics.containers_per_pod.observe(letter.pod.spec.containers.len() as f64);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = async {
                let forced = self.sync().await;
                self.end(forced).await;
            } => {}
        }
    }

    /// Keeps the pod as its spec says, until it has to end.
    async fn sync(&mut self) -> Option<Forced> {
        let mut last: Option<(Vec<Action>, RuntimePod)> = None;
        let mut before: Option<Arc<Pod>> = None;
        loop {
            let letter = self.mailbox.letter();
            let pod = &letter.pod;
            let began = Instant::now();
            // As metrics call it.
            let operation = match before.replace(pod.clone()) {
                None => "create",
                Some(before) if before.spec != pod.spec => "update",
                Some(_) => "sync",
            };
            if let Some(forced) = letter.forced.clone() {
                return Some(forced);
            }
            if letter.gone || pod.metadata.deletion_timestamp.is_some() {
                return None;
            }
            // What has ended under an earlier kubelet is not let in again: it would take devices from others.
            if is_terminal(&pod.status.phase) {
                return None;
            }
            let Some(runtime) = self.look().await else {
                self.sleep_until(crate::clock::now() + SECOND).await;
                continue;
            };
            if let Err(refused) = self.admit(pod, &runtime).await {
                return Some(refused);
            }
            self.follow_resize(pod, &runtime);
            self.probes.sync(pod, &runtime, &self.context.config.node_ips);
            let status = self.make_status(&letter, &runtime, Finality::Going, None);
            if is_terminal(&status.phase) {
                return None;
            }
            self.publish(status);
            let now = crate::clock::now();
            let changed = self.mailbox.take_volumes_changed();
            if changed {
                self.shared.release_all();
            }
            let deadline = self.deadline();
            if deadline.is_some_and(|at| at <= now) {
                let message = "Pod was active on the node longer than the specified deadline";
                self.context.events.normal(pod, "DeadlineExceeded", message);
                let (reason, message) = ("DeadlineExceeded".into(), message.into());
                return Some(Forced { reason, message, ..Default::default() });
            }
            let results = self.probes.results();
            let back_off = self.shared.back_off.lock().clone();
            let actuated = self.shared.actuated.lock().clone();
            let planned = plan::plan(&plan::Inputs {
                pod,
                runtime: &runtime,
                results: &results,
                back_off: &back_off,
                actuated: &actuated,
                restart_all: restart_all::is_set(&self.status),
                now,
            });
            let Due { actions, wake_at } = self.due(pod, planned, now);
            let refresh = changed || self.shared.refresh_due(now);
            if actions.is_empty() && !refresh {
                self.context.metrics.worker_durations.with(&[operation]).observe_since(began);
                let wake_at = [wake_at, deadline, self.shared.refresh_at()].into_iter().flatten().min();
                match wake_at {
                    Some(at) => self.sleep_until(at).await,
                    None => self.mailbox.notify.notified().await,
                }
                continue;
            }
            // What was just done and changed nothing is not done again at once.
            let again = !actions.is_empty() && last.as_ref() == Some(&(actions.clone(), runtime.clone()));
            last = Some((actions.clone(), runtime.clone()));
            if again {
                self.sleep_until(now + SECOND).await;
            }
            self.act(letter, runtime, actions).await;
            self.context.metrics.worker_durations.with(&[operation]).observe_since(began);
        }
    }

    /// Performs the actions; meanwhile the status follows what happens, and the pod's end cuts them short.
    ///
    /// While a container is replaced, the status lags a second behind: the moment between the old one's end and the
    /// new one's start takes a pod's readiness away only if it lasts. Upstream looks at its containers once a second.
    async fn act(&mut self, letter: Letter, runtime: RuntimePod, actions: Vec<Action>) {
        let lag = if plan::replaces(&letter.pod, &actions) { Duration::from_secs(1) } else { Duration::ZERO };
        let acting =
            act::act(self.context.clone(), self.shared.clone(), letter.pod.clone(), runtime, actions);
        tokio::pin!(acting);
        let mut due: Option<tokio::time::Instant> = None;
        loop {
            let notify = self.mailbox.notify.clone();
            let at = due.unwrap_or_else(tokio::time::Instant::now);
            tokio::select! {
                () = &mut acting => return,
                () = notify.notified() => {
                    if self.mailbox.letter().ends() {
                        return;
                    }
                    if lag.is_zero() {
                        self.follow().await;
                    } else {
                        due.get_or_insert_with(|| tokio::time::Instant::now() + lag);
                    }
                }
                () = tokio::time::sleep_until(at), if due.is_some() => {
                    due = None;
                    self.follow().await;
                }
            }
        }
    }

    /// Tells how the pod is while it is acted upon.
    async fn follow(&mut self) {
        let letter = self.mailbox.letter();
        let Some(runtime) = self.look().await else { return };
        self.probes.sync(&letter.pod, &runtime, &self.context.config.node_ips);
        let status = self.make_status(&letter, &runtime, Finality::Going, None);
        if !is_terminal(&status.phase) {
            self.publish(status);
        }
    }

    async fn look(&mut self) -> Option<RuntimePod> {
        let uid = self.mailbox.letter().pod.metadata.uid.clone();
        let began = Instant::now();
        match observe(&*self.context.runtime, &uid, &mut self.exited).await {
            Ok(runtime) => {
                self.context.metrics.looks.observe_since(began);
                Some(runtime)
            }
            Err(error) => {
                tracing::warn!(%uid, %error, "the runtime did not tell about a pod");
                None
            }
        }
    }

    /// Sleeps until a time (nanoseconds since the epoch) or until woken.
    async fn sleep_until(&self, at: i64) {
        let pause = u64::try_from(at.saturating_sub(crate::clock::now())).unwrap_or(0);
        tokio::select! {
            () = tokio::time::sleep(Duration::from_nanos(pause)) => {}
            () = self.mailbox.notify.notified() => {}
        }
    }
}
