//! The loop: takes pods from the queue, decides, assumes. What follows from a decision runs beside it (`act`).

use crate::cache::Cache;
use crate::decide::{Failure, Placement, place};
use crate::devices::rows::Claim;
use crate::devices::{Devices, Features};
use crate::facts::{NodeFacts, PodFacts, PodInfo};
use crate::framework::{Cycle, Event};
use crate::metrics::{self, Flying, Metrics};
use crate::preempt::Preemption;
use crate::queue::{Attempt, Cause, POD_ADDED, POD_UPDATED, Place, Queue, Waiter};
use crate::stopwatch::Stopwatch;
use crate::storage::rows;
use crate::surroundings;
use api::resource::v1beta2::DeviceTaintRule;
use client::{Cached, Change, Client, Informer, Informers, ObjectKey, Recorder, discovery};
use component::gates::FeatureGates;
use component::metrics::Registry;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name under which pods ask for this scheduler.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// Bindings in flight.
const BINDERS: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) cache: Cache,
    pub(crate) queue: Queue,
    /// Pods that are not to be tried yet.
    pub(crate) gated: HashSet<ObjectKey>,
    /// Those of them whose claims to devices are not there yet. Upstream: `PreEnqueue` of `DynamicResources`.
    pub(crate) unclaimed: HashMap<ObjectKey, Arc<Cached<PodFacts>>>,
}

/// The scheduler of the pods that name it.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) pods: Informer<PodFacts>,
    nodes: Informer<NodeFacts>,
    pub(crate) volumes: Informer<rows::VolumeRow>,
    pub(crate) claims: Informer<rows::ClaimRow>,
    pub(crate) state: Mutex<State>,
    pub(crate) features: Features,
    pub(crate) wake: Notify,
    /// Claims, volumes, nodes or pods changed: whoever waits for volumes or devices looks again.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) binders: Arc<Semaphore>,
    pub(crate) metrics: Metrics,
}

/// Schedules until `shutdown`, with what the gates say is in use, and tells under `/metrics` of it.
pub async fn run(client: Client, gates: &FeatureGates, registry: &Registry, shutdown: CancellationToken) {
    let informers = Informers::new(&client, shutdown.clone());
    let features = Features::of(gates);
    let mut state = State::default();
    state.cache.surroundings.devices = Devices::new(features);
    let scheduler = Arc::new(Scheduler {
        recorder: Recorder::new(client.clone(), DEFAULT_SCHEDULER, ""),
        pods: informers.get(),
        nodes: informers.get(),
        volumes: informers.get(),
        claims: informers.get(),
        client,
        state: Mutex::new(state),
        features,
        wake: Notify::new(),
        changed: watch::Sender::default(),
        binders: Arc::new(Semaphore::new(BINDERS)),
        metrics: Metrics::new(registry),
    });
    let known = Arc::downgrade(&scheduler);
    registry.collector(move |encoder| {
        if let Some(scheduler) = known.upgrade() {
            metrics::collect(&scheduler.state.lock(), encoder);
        }
    });
    let working = async {
        let this = scheduler.clone();
        // Their version has to be turned on beside their gate.
        let served = features.taint_rules && discovery::served::<DeviceTaintRule>(&scheduler.client).await;
        let followed = Features { taint_rules: served, ..features };
        surroundings::follow(&informers, followed, move |change, helps| {
            let mut state = this.state.lock();
            change(&mut state.cache.surroundings);
            if let Some(event) = helps {
                state.queue.happened(&event);
                if let Event::DeviceClaim { new, .. } = &event {
                    state.let_in(new, event.label());
                }
                this.wake.notify_one();
            }
            drop(state);
            this.changed.send_replace(());
        })
        .await;
        scheduler.nodes.synced().await;
        scheduler.listen();
        scheduler.pods.synced().await;
        scheduler.clone().work().await
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = working => {}
    }
}

/// Whether a pod is to get its node here.
fn is_ours(pod: &PodFacts) -> bool {
    pod.node_name.is_empty() && pod.scheduler_name == DEFAULT_SCHEDULER && !pod.terminal && !pod.deleting
}

fn waits_for_us(pod: &PodFacts) -> bool {
    is_ours(pod) && !pod.gated
}

impl Scheduler {
    fn listen(self: &Arc<Self>) {
        let this = self.clone();
        self.nodes.subscribe(move |change| {
            let mut state = this.state.lock();
            let new = &change.object().projection;
            let old = change.old().map(|o| &o.projection);
            match change {
                Change::Deleted(node) => return state.cache.remove_node(node.name()),
                _ if old == Some(new) => return,
                _ => state.cache.set_node(change.object().name(), new),
            }
            state.queue.happened(&Event::Node { old, new });
            drop(state);
            this.wake.notify_one();
            this.changed.send_replace(());
        });
        let this = self.clone();
        self.pods.subscribe(move |change| {
            this.state.lock().take_in(change);
            this.wake.notify_one();
            if matches!(change, Change::Deleted(_)) {
                this.changed.send_replace(());
            }
        });
    }

    async fn work(self: Arc<Self>) {
        let mut turn = 0_usize;
        loop {
            let (next, release) = {
                let mut state = self.state.lock();
                let now = Instant::now();
                state.queue.release(now);
                (state.queue.pop(now), state.queue.next_release())
            };
            let Some((key, attempt)) = next else {
                let due = async {
                    match release {
                        Some(at) => tokio::time::sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = due => {}
                }
                continue;
            };
            turn = turn.wrapping_add(1);
            self.schedule_one(&key, attempt, turn).await;
        }
    }

    async fn schedule_one(self: &Arc<Self>, key: &ObjectKey, attempt: Attempt, turn: usize) {
        let Some(facts) = self.pods.get(key).filter(|p| waits_for_us(p)) else { return };
        let pod = match facts.decode() {
            Ok(pod) => PodInfo { pod, facts },
            Err(error) => {
                tracing::error!(pod = %key, %error, "cannot read a pod");
                return;
            }
        };
        let Ok(permit) = self.binders.clone().acquire_owned().await else { return };
        let decision = self.decide(&pod, turn);
        let this = self.clone();
        tokio::spawn(async move {
            match decision {
                Ok(Placement { node, reservation: None }) => {
                    let flying = Flying::begin(&this.metrics.binding);
                    this.bind(&pod, attempt, &node).await;
                    drop(flying);
                }
                Ok(Placement { node, reservation: Some(reservation) }) => {
                    // Making a volume may take minutes, in which others are not to wait.
                    drop(permit);
                    let flying = Flying::begin(&this.metrics.binding);
                    this.bind_reserved(pod, attempt, &node, reservation).await;
                    return drop(flying);
                }
                Err(failure) => this.fail(pod, attempt, *failure).await,
            }
            drop(permit);
        });
    }

    fn decide(&self, pod: &PodInfo, turn: usize) -> Result<Placement, Box<Failure>> {
        let mut stopwatch = Stopwatch::default();
        let decision = self.state.lock().decide(pod, turn, &mut stopwatch);
        let preemption = decision.as_ref().err().map(|failure| &failure.preemption);
        self.metrics.decided(&stopwatch, preemption);
        decision
    }
}

impl State {
    /// Decides, and remembers the decision before anybody else is told.
    fn decide(
        &mut self,
        pod: &PodInfo,
        turn: usize,
        stopwatch: &mut Stopwatch,
    ) -> Result<Placement, Box<Failure>> {
        let decision = place(Cycle { pod, cache: &self.cache }, turn, stopwatch);
        match &decision {
            Ok(Placement { node, reservation }) => {
                if let Some(reservation) = reservation {
                    reservation.assume(&mut self.cache.surroundings, node);
                }
                self.cache.assume(&pod.facts, node);
            }
            Err(failure) => {
                let held = match &failure.preemption {
                    Preemption::Room { node, .. } => {
                        self.cache.nominate(&pod.facts, node);
                        true
                    }
                    Preemption::Hopeless(_) => {
                        self.cache.denominate(&pod.facts.uid);
                        false
                    }
                    Preemption::NotEligible(_) | Preemption::Nothing => false,
                };
                let cause = match failure.is_broken() {
                    true => Cause::Error,
                    false => Cause::Refused(failure.refused_by),
                };
                self.queue.put_back(Waiter::of(&pod.facts), cause, held, Instant::now());
            }
        }
        decision
    }

    /// Whether all claims to devices of a pod are there.
    fn has_claims(&self, pod: &Cached<PodFacts>) -> bool {
        let devices = &self.cache.surroundings.devices;
        pod.devices.is_empty() || devices.claims_of(pod.key(), &pod.uid, &pod.devices).is_ok()
    }

    /// Has those pods tried that waited for this claim, and have all of theirs now.
    fn let_in(&mut self, claim: &Claim, by: &'static str) {
        let named = |pod: &Cached<PodFacts>| {
            pod.namespace() == claim.namespace
                && pod.devices.iter().any(|wanted| wanted.claim() == Some(&claim.name))
        };
        let come = self.unclaimed.values().filter(|pod| named(pod) && self.has_claims(pod));
        let come: Vec<_> = come.cloned().collect();
        for pod in come {
            self.unclaimed.remove(pod.key());
            self.gated.remove(pod.key());
            self.queue.add(pod.key().clone(), pod.priority, by);
        }
    }

    /// Takes in what the informer says of a pod.
    fn take_in(&mut self, change: &Change<PodFacts>) {
        let pod = change.object();
        let old = change.old().map(|o| &o.projection);
        let placed = |p: &PodFacts| !p.node_name.is_empty() && !p.terminal;
        if matches!(change, Change::Deleted(_)) {
            self.cache.remove_pod(&pod.uid);
            self.queue.remove(pod.key());
            self.gated.remove(pod.key());
            self.unclaimed.remove(pod.key());
            if !pod.node_name.is_empty() || !pod.nominated_node.is_empty() {
                self.queue.happened(&Event::PodGone(pod));
            }
            return;
        }
        self.cache.set_pod(pod, old);
        let by = if old.is_none() { POD_ADDED } else { POD_UPDATED };
        let unclaimed = waits_for_us(pod) && !self.has_claims(pod);
        if unclaimed {
            self.unclaimed.insert(pod.key().clone(), pod.clone());
        } else {
            self.unclaimed.remove(pod.key());
        }
        if !unclaimed && (!is_ours(pod) || !pod.gated) {
            self.gated.remove(pod.key());
        } else if self.gated.insert(pod.key().clone()) {
            self.queue.came(Place::Unschedulable, by);
        }
        if unclaimed {
            return self.queue.remove(pod.key());
        }
        if waits_for_us(pod) {
            if !self.cache.is_assumed(&pod.uid) && worth_another_try(old, pod) {
                self.queue.add(pod.key().clone(), pod.priority, by);
            }
            return;
        }
        self.queue.remove(pod.key());
        match old {
            Some(old) if placed(old) && pod.terminal => self.queue.happened(&Event::PodGone(pod)),
            Some(old) if placed(old) && old.requests != pod.requests => {
                self.queue.happened(&Event::PodShrank)
            }
            // Spreading does not count a pod that is going.
            Some(old) if placed(old) && old.labels == pod.labels && old.deleting == pod.deleting => {}
            _ if placed(pod) => self.queue.happened(&Event::PodPlaced(pod)),
            _ => {}
        }
    }
}

/// Our own status patch is no reason to try a pod again; a changed spec or a lifted gate is.
fn worth_another_try(old: Option<&PodFacts>, new: &PodFacts) -> bool {
    old.is_none_or(|old| {
        old.gated != new.gated
            || old.requests != new.requests
            || old.priority != new.priority
            || old.node_name != new.node_name
            || old.labels != new.labels
            || old.devices != new.devices
    })
}
