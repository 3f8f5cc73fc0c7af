//! Eviction: when the node runs out of memory, disk, inodes or processes, pods have to go; and pods that outgrow the limits
//! of their own storage do in any case. Every ten seconds, as upstream; each time costs a few small reads while nothing is
//! short and no pod limits its storage. Upstream: `pkg/kubelet/eviction`.

mod judge;
mod observe;
mod rank;
pub(crate) mod thresholds;

use crate::context::Context;
use crate::images::gc;
use crate::pod_worker::{Forced, Mailbox};
use crate::pods::Pods;
use crate::usage;
use api::core::v1::{Pod, PodCondition};
use client::recorder::EventType;
use judge::{Judge, Observations};
use rank::Candidate;
use rules::pod_conditions::{DISRUPTION_TARGET, is_terminal};
use rules::qos::{QosClass, pod_qos};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thresholds::{Pressure, Threshold};
use tokio_util::sync::CancellationToken;

/// Upstream: `monitoringInterval`.
const INTERVAL: Duration = Duration::from_secs(10);
const REASON: &str = "Evicted";
/// Seconds that a pod gets when there is no time.
const AT_ONCE: i64 = 1;
const CRITICAL: i32 = 2_000_000_000;

/// Static pods and those of the system's priorities are not evicted, and come in under any pressure.
fn is_critical(pod: &Pod) -> bool {
    crate::labels::is_static_pod(pod) || pod.spec.priority.is_some_and(|priority| priority >= CRITICAL)
}

/// Whether a new pod may come in. Upstream: `managerImpl.Admit`.
pub(crate) fn admit(pod: &Pod, pressures: &[Pressure]) -> Result<(), Forced> {
    if pressures.is_empty() || is_critical(pod) {
        return Ok(());
    }
    if pressures == [Pressure::Memory] {
        let taint = api::core::v1::Taint {
            key: "node.kubernetes.io/memory-pressure".into(),
            effect: rules::taints::NO_SCHEDULE.into(),
            ..Default::default()
        };
        let taints = [taint];
        let untolerated = rules::taints::first_untolerated(&taints, &pod.spec.tolerations, |_| true);
        if pod_qos(pod) != QosClass::BestEffort || untolerated.is_none() {
            return Ok(());
        }
    }
    let names: Vec<&str> = pressures.iter().map(|pressure| pressure.condition()).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Err(Forced { reason: REASON.into(), message, ..Default::default() })
}

/// Watches until shutdown.
pub(crate) async fn run(context: Arc<Context>, pods: Arc<Pods>, shutdown: CancellationToken) {
    let mut watching = Watching { judge: Judge::default(), context, pods, image_fs: None };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => watching.look().await,
        }
    }
}

struct Watching {
    context: Arc<Context>,
    pods: Arc<Pods>,
    judge: Judge,
    /// Where images are, when that is not the node's file system; not known before the first look.
    image_fs: Option<Option<PathBuf>>,
}

impl Watching {
    async fn look(&mut self) {
        if self.image_fs.is_none() {
            let mut place = gc::image_dir(&self.context).await;
            let device = |path: &std::path::Path| rustix::fs::stat(path).map(|stat| stat.st_dev).ok();
            place = place.filter(|place| device(place) != device(&self.context.config.root_dir));
            self.image_fs = Some(place);
        }
        let looked = Instant::now();
        let observations = self.observe();
        let config = &self.context.config;
        let verdict = self.judge.judge(
            &config.eviction_thresholds,
            &observations,
            config.eviction_transition,
            Instant::now(),
        );
        self.context.pressures.send_if_modified(|known| {
            let changed = *known != verdict.pressures;
            known.clone_from(&verdict.pressures);
            changed
        });
        if self.enforce_limits().await || verdict.due.is_empty() {
            return;
        }
        self.reclaim(&verdict.due, &observations, looked).await;
    }

    fn observe(&self) -> Observations {
        let image_fs = self.image_fs.clone().flatten();
        observe::observe(self.context.machine.memory, &self.context.config.root_dir, image_fs.as_deref())
    }

    /// The pods that run, with what they use.
    async fn candidates(&self, wanted: impl Fn(&Pod) -> bool) -> Vec<(Arc<Mailbox>, Candidate)> {
        let active = |mailbox: &Arc<Mailbox>| {
            let letter = mailbox.letter();
            mailbox.is_admitted()
                && !letter.ends()
                && !is_terminal(&mailbox.status().phase)
                && wanted(&letter.pod)
        };
        let mailboxes: Vec<Arc<Mailbox>> = self.pods.list().into_iter().filter(active).collect();
        if mailboxes.is_empty() {
            return Vec::new();
        }
        let stats = match usage::container_stats(&self.context).await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(%error, "what pods use is not known");
                return Vec::new();
            }
        };
        let context = self.context.clone();
        let walk = move || {
            let with_usage = mailboxes.into_iter().map(|mailbox| {
                let pod = mailbox.letter().pod;
                let stats = stats.get(&pod.metadata.uid).map(Vec::as_slice).unwrap_or_default();
                let usage = usage::of_pod(&context, &pod, stats);
                (mailbox, Candidate { pod, usage })
            });
            with_usage.collect()
        };
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }

    /// Evicts pods that outgrew limits of their own; whether there were any.
    async fn enforce_limits(&self) -> bool {
        let apart = self.image_fs.as_ref().is_some_and(Option::is_some);
        let mut any = false;
        for (mailbox, candidate) in self.candidates(rank::is_limited).await {
            let Some((signal, message)) = rank::over_limit(&candidate, apart) else { continue };
            if self.evict(&mailbox, &candidate.pod, AT_ONCE, message, None) {
                any = true;
                self.context.metrics.evictions.with(&[signal]).inc();
            }
        }
        any
    }

    /// Frees what nobody uses; if that is not enough, one pod has to go.
    async fn reclaim(&self, due: &[Threshold], observations: &Observations, looked: Instant) {
        let Some(first) = due.first() else { return };
        let resource = first.signal.resource();
        let message = format!("Attempting to reclaim {}", resource.name());
        let node = &self.context.config.node_name;
        self.context.events.node(node, EventType::Warning, "EvictionThresholdMet", message);
        let shared = self.image_fs.as_ref().is_none_or(Option::is_none);
        if first.signal.pressure() == Pressure::Disk && (shared || first.signal.is_of_images()) {
            if let Err(error) = gc::delete_unused(&self.context).await {
                tracing::warn!(%error, "unused images were not all deleted");
            }
            let now = self.observe();
            let enough = now.get(&first.signal).is_some_and(|r| first.least.of(r.capacity) <= r.available);
            if enough {
                return;
            }
        }
        let mut all = self.candidates(|_| true).await;
        let mut order: Vec<Candidate> = all.iter().map(|(_, candidate)| candidate.clone()).collect();
        rank::rank(&mut order, resource);
        for candidate in order {
            let message = rank::message(&candidate, due, observations);
            let grace = match first.grace {
                None => AT_ONCE,
                Some(_) => {
                    let most = self.context.config.eviction_max_grace;
                    candidate.pod.spec.termination_grace_period_seconds.map_or(most, |own| own.min(most))
                }
            };
            let uid = &candidate.pod.metadata.uid;
            let at = all.iter().position(|(_, known)| known.pod.metadata.uid == *uid);
            let Some((mailbox, _)) = at.map(|at| all.swap_remove(at)) else { continue };
            let condition = PodCondition {
                type_: DISRUPTION_TARGET.into(),
                observed_generation: candidate.pod.metadata.generation,
                status: "True".into(),
                reason: "TerminationByKubelet".into(),
                message: message.clone(),
                last_transition_time: Some(crate::clock::time()),
                ..Default::default()
            };
            if self.evict(&mailbox, &candidate.pod, grace, message, Some(condition)) {
                self.context.metrics.evictions.with(&[first.signal.name()]).inc();
                self.context.metrics.eviction_stats_age.with(&[first.signal.name()]).observe_since(looked);
                tracing::info!(pod = %crate::labels::format_pod(&candidate.pod), signal = first.signal.name(), "evicted");
                return;
            }
        }
        tracing::warn!(resource = resource.name(), "no pod can be evicted");
    }

    fn evict(
        &self,
        mailbox: &Mailbox,
        pod: &Pod,
        grace: i64,
        message: String,
        condition: Option<PodCondition>,
    ) -> bool {
        if is_critical(pod) {
            return false;
        }
        self.context.events.warning(pod, REASON, message.clone());
        let forced = Forced {
            reason: REASON.into(),
            message,
            grace: Some(grace),
            condition: condition.map(Box::new),
            ..Default::default()
        };
        mailbox.write(|letter| letter.forced = Some(forced));
        true
    }
}
