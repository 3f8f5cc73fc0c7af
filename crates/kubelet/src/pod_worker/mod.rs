//! One task per pod: observe the runtime, plan (pure), act, report; then stop, report the end and clean up.
//! A worker sleeps until its mailbox, a probe, the runtime or one of its own timers wakes it, and never holds up others.
//! Upstream: `pod_workers.go`, `SyncPod`, `SyncTerminatingPod`, `SyncTerminatedPod`.

mod act;
pub(crate) mod admission;
mod app_armor;
pub(crate) mod back_off;
mod conditions;
mod container_statuses;
mod end;
mod init_containers;
mod mailbox;
mod phase;
pub(crate) mod plan;
mod preemption;
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
use crate::resize::{self, Resources};
use crate::runtime_pod::{ExitedCache, RuntimePod, observe};
use crate::topology::Provider;
use crate::{eviction, node_shutdown};
use act::Shared;
use api::core::v1::{Pod, PodStatus};
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
        };
        Worker {
            probes: Probes::new(probing, letter.pod.clone(), mailbox.notify.clone()),
            writer: StatusWriter::new(context.client.clone(), &letter),
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
        loop {
            let letter = self.mailbox.letter();
            let pod = &letter.pod;
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
        }
    }

    /// Performs the actions; meanwhile the status follows what happens, and the pod's end cuts them short.
    async fn act(&mut self, letter: Letter, runtime: RuntimePod, actions: Vec<Action>) {
        let acting =
            act::act(self.context.clone(), self.shared.clone(), letter.pod.clone(), runtime, actions);
        tokio::pin!(acting);
        loop {
            let notify = self.mailbox.notify.clone();
            tokio::select! {
                () = &mut acting => return,
                () = notify.notified() => {
                    let letter = self.mailbox.letter();
                    if letter.ends() {
                        return;
                    }
                    if let Some(runtime) = self.look().await {
                        self.probes.sync(&letter.pod, &runtime, &self.context.config.node_ips);
                        let status = self.make_status(&letter, &runtime, Finality::Going, None);
                        if !is_terminal(&status.phase) {
                            self.publish(status);
                        }
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Option<RuntimePod> {
        let uid = self.mailbox.letter().pod.metadata.uid.clone();
        match observe(&*self.context.runtime, &uid, &mut self.exited).await {
            Ok(runtime) => Some(runtime),
            Err(error) => {
                tracing::warn!(%uid, %error, "the runtime did not tell about a pod");
                None
            }
        }
    }

    /// Asked once, before anything of the pod was made: what already runs was admitted before.
    async fn admit(&mut self, pod: &Arc<Pod>, runtime: &RuntimePod) -> Result<(), Forced> {
        if self.admitted {
            return Ok(());
        }
        if runtime.sandboxes.is_empty() {
            let others = self.pods.upgrade().map_or_else(Vec::new, |pods| pods.admitted_before(pod));
            let mut node = api::core::v1::Node::clone(&self.context.node.borrow());
            // The object may lag behind what plugins have just told.
            for device in self.context.devices.counts() {
                if let Ok(count) = device.allocatable.to_string().parse() {
                    node.status.allocatable.insert(device.resource, count);
                }
            }
            let pressures = self.context.pressures.borrow().clone();
            let going = *self.context.shutting_down.borrow();
            let admitted = eviction::admit(pod, &pressures)
                .and_then(|()| sysctls::admit(pod, &self.context.config.allowed_unsafe_sysctls))
                .and_then(|()| node_shutdown::admit(going))
                .and_then(|()| app_armor::admit(pod, self.context.machine.app_armor))
                .and_then(|()| admission::admit(pod, &node, &others));
            let admitted = match admitted {
                Err(refused) if refused.reason.starts_with("OutOf") && preemption::is_critical(pod) => {
                    self.make_room(pod, &node, refused).await
                }
                other => other,
            };
            let admitted = match admitted {
                Ok(()) => self.allocate(pod).await,
                refused => refused,
            };
            if let Err(refused) = admitted {
                self.context.metrics.rejections.with(&[&refused.reason]).inc();
                self.context.events.warning(pod, &refused.reason, refused.message.clone());
                let message = format!("Pod was rejected: {}", refused.message);
                return Err(Forced { message, ..refused });
            }
        }
        self.admitted = true;
        if self.mailbox.resizing().allocated.is_none() {
            self.mailbox.change_resizing(|resizing| resizing.allocated = Some(Resources::of(pod)));
            resize::pending::save(&self.context.config, &self.mailbox);
        }
        self.mailbox.set_admitted();
        Ok(())
    }

    /// Makes others go for a critical pod that would fit otherwise, and waits until they have.
    async fn make_room(&self, pod: &Pod, node: &api::core::v1::Node, refused: Forced) -> Result<(), Forced> {
        let Some(pods) = self.pods.upgrade() else { return Err(refused) };
        let others = pods.admitted_before(pod);
        // Nobody goes for a pod that would be refused all the same.
        admission::suits(pod, node, &others)?;
        let lacks = admission::lacks(pod, node, &others);
        let chosen = preemption::choose(pod, &lacks, &others).map_err(|error| Forced {
            reason: "UnexpectedAdmissionError".into(),
            message: format!("Unexpected error while attempting to recover from admission failure: {error}"),
            ..Default::default()
        })?;
        let resource = lacks.first().map(|lack| lack.resource.clone()).unwrap_or_default();
        let mut victims = Vec::new();
        for other in &chosen {
            let Some(victim) = pods.get(&other.metadata.uid) else { continue };
            let forced = preemption::forced(other);
            self.context.events.warning(other, &forced.reason, forced.message.clone());
            self.context.metrics.preemptions.with(&[&resource]).inc();
            victim.write(|letter| letter.forced = Some(forced));
            victims.push(victim);
        }
        for victim in &victims {
            victim.ended().await;
        }
        admission::admit(pod, node, &pods.admitted_before(pod))
    }

    /// Devices, processors and memory, which a pod has before it begins.
    async fn allocate(&self, pod: &Pod) -> Result<(), Forced> {
        let context = &self.context;
        let mut providers: Vec<&dyn Provider> = vec![&*context.devices];
        providers.extend(context.cpus.as_ref().map(|cpus| cpus as &dyn Provider));
        providers.extend(context.memory.as_ref().map(|memory| memory as &dyn Provider));
        // Where things are may not change between the question and the taking.
        let _turn = context.topology.turn().await;
        let began = Instant::now();
        let admitted = context.topology.admit(pod, &providers).await;
        let metrics = &context.metrics;
        metrics.topology_requests.inc();
        metrics.topology_durations.observe(began.elapsed().as_secs_f64() * 1000.0);
        if admitted.is_err() {
            metrics.topology_errors.inc();
        }
        admitted
    }

    fn make_status(
        &self,
        letter: &Letter,
        runtime: &RuntimePod,
        finality: Finality,
        forced: Option<&Forced>,
    ) -> PodStatus {
        let results = self.probes.results();
        let reasons = self.shared.reasons.lock().clone();
        let mut resizing = self.mailbox.resizing();
        resizing.actuated = self.shared.actuated.lock().clone();
        status::status(&status::Inputs {
            pod: &letter.pod,
            old: &self.status,
            runtime,
            runtime_name: &self.context.runtime_info.name,
            results: &results,
            reasons: &reasons,
            resizing: &resizing,
            host_ips: &self.context.config.node_ips,
            finality,
            forced,
            recursive_read_only: self.context.runtime_info.recursive_read_only,
            now: crate::clock::time(),
        })
    }

    /// Notes what was actuated, and tells when a resize begins, fails and is done. Upstream: the head of `SyncPod`.
    fn follow_resize(&mut self, pod: &Pod, runtime: &RuntimePod) {
        let before = self.mailbox.resizing();
        let actuated = self.shared.actuated.lock().clone();
        if before.actuated != actuated {
            self.mailbox.change_resizing(|resizing| resizing.actuated = actuated.clone());
            resize::pending::save(&self.context.config, &self.mailbox);
        }
        let generation = pod.metadata.generation;
        if resize::plan::in_progress(pod, runtime, &actuated) {
            let error = self.shared.resize_error.lock().take();
            let reason = if error.is_some() { "Error" } else { "" };
            let message = error.unwrap_or_default();
            let (mut of, mut changed) = (generation, false);
            self.mailbox.change_resizing(|resizing| {
                (of, changed) = resizing.set_in_progress(reason, &message, generation);
            });
            if changed && !message.is_empty() {
                let told = resize::event_message("Pod resize error", pod, of, &message);
                self.context.events.warning(pod, "ResizeError", told);
            }
        } else if let Some(condition) = before.in_progress {
            self.mailbox.change_resizing(|resizing| resizing.in_progress = None);
            let told = resize::event_message("Pod resize completed", pod, condition.observed_generation, "");
            self.context.events.normal(pod, "ResizeCompleted", told);
            if let Some(pods) = self.pods.upgrade() {
                // What was given back may be what others wait for.
                pods.retry_resizes();
            }
        }
    }

    fn publish(&mut self, status: PodStatus) {
        if status.phase == "Running" && self.status.phase == "Pending" {
            self.context.metrics.pod_start.observe_since(self.seen);
        }
        self.writer.set(&self.mailbox.letter(), status.clone());
        self.mailbox.set_status(&status);
        self.status = status;
    }

    /// When `activeDeadlineSeconds` have passed.
    fn deadline(&self) -> Option<i64> {
        let seconds = self.mailbox.letter().pod.spec.active_deadline_seconds?;
        let start = self.status.start_time?.unix();
        Some(start.saturating_add(seconds).saturating_mul(SECOND))
    }

    /// What of a plan can be done now, and when to look again for the rest.
    fn due(&self, pod: &Pod, planned: Vec<Action>, now: i64) -> Due {
        let mut due = Due::default();
        for action in planned {
            let name = match &action {
                Action::BackOff { place, delay, until } => {
                    self.back_off(pod, *place, *delay);
                    due.wake(*until);
                    continue;
                }
                Action::StartContainer(place) => plan::container_at(pod, *place).map(|c| c.name.clone()),
                Action::CreateSandbox { .. } => Some(String::new()),
                Action::Resize => Some(act::RESIZE.to_owned()),
                _ => None,
            };
            match name.and_then(|name| self.shared.held(&name, now)) {
                Some(until) => {
                    due.wake(until);
                    // Without a sandbox nothing that follows can be done.
                    if matches!(action, Action::CreateSandbox { .. }) {
                        due.actions.clear();
                        return due;
                    }
                }
                None => due.actions.push(action),
            }
        }
        due
    }

    fn back_off(&self, pod: &Pod, place: plan::Place, delay: Duration) {
        let Some(container) = plan::container_at(pod, place) else { return };
        let whole = apimachinery::time::Duration::from(delay);
        let message = format!(
            "back-off {whole} restarting failed container={} pod={}",
            container.name,
            crate::labels::format_pod(pod)
        );
        let reason = ("CrashLoopBackOff".to_owned(), message);
        let mut reasons = self.shared.reasons.lock();
        if reasons.get(&container.name) == Some(&reason) {
            return;
        }
        reasons.insert(container.name.clone(), reason);
        drop(reasons);
        self.context.events.container_warning(
            pod,
            &container.name,
            "BackOff",
            format!(
                "Back-off restarting failed container {} in pod {}",
                container.name,
                crate::labels::format_pod(pod)
            ),
        );
        // The status must say so.
        self.mailbox.notify.notify_one();
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

/// What can be done now.
#[derive(Debug, Default)]
struct Due {
    actions: Vec<Action>,
    wake_at: Option<i64>,
}

impl Due {
    fn wake(&mut self, at: i64) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}
