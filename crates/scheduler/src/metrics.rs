//! `scheduler_*`: what is tried and how it ends, how long that takes, and what waits, under upstream's names. What of a
//! decision takes how long is noted by [`Stopwatch`]; what waits is read from the queue when somebody asks.

use crate::devices::rows::Claim;
use crate::plugins::PLUGINS;
use crate::preempt::Preemption;
use crate::queue::{Attempt, Queue, Waiting};
use crate::scheduler::{DEFAULT_SCHEDULER, State};
use crate::stopwatch::{Lap, Point, Stopwatch};
use component::metrics::{
    Counter, CounterVec, Encoder, Gauge, Histogram, HistogramVec, Opts, Registry, Stability,
    exponential_buckets,
};
use std::time::Duration;

use Stability::{Alpha, Beta, Stable};

const fn opts<'a>(name: &'a str, stability: Stability, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability }
}

const PENDING: Opts<'_> = opts(
    "scheduler_pending_pods",
    Stable,
    "Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to schedule because they are gated.",
);
const INCOMING: Opts<'_> = opts(
    "scheduler_queue_incoming_pods_total",
    Stable,
    "Number of pods added to scheduling queues by event and queue type.",
);
const UNSCHEDULABLE: Opts<'_> = opts(
    "scheduler_unschedulable_pods",
    Beta,
    "The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
);
const CACHED: Opts<'_> = opts(
    "scheduler_cache_size",
    Alpha,
    "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
);

/// The plugin that keeps gated pods from being tried. Upstream's name; here no plugin is asked about them.
const GATES: &str = "SchedulingGates";

/// More attempts than this are not told apart.
const MAX_ATTEMPTS: u32 = 15;

/// How an attempt to schedule a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Scheduled,
    Unschedulable,
    Error,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Scheduled => "scheduled",
            Outcome::Unschedulable => "unschedulable",
            Outcome::Error => "error",
        }
    }
}

/// What the scheduler counts as it goes.
pub(crate) struct Metrics {
    attempts: CounterVec,
    attempted: HistogramVec,
    algorithm: Histogram,
    sli: HistogramVec,
    attempts_of_pod: Histogram,
    after_flush: Counter,
    points: HistogramVec,
    evaluations: CounterVec,
    preemptions: Counter,
    victims: Histogram,
    made_room: CounterVec,
    making_room: HistogramVec,
    claims_made: CounterVec,
    device_bindings: CounterVec,
    binding_devices: HistogramVec,
    /// Bindings in flight.
    pub(crate) binding: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let doubled = |start, count| exponential_buckets(start, 2.0, count);
        let counters = |name, stability, help, labels: &[&str]| {
            registry.counter_vec(opts(name, stability, help), labels)
        };
        let histograms = |name, stability, help, labels: &[&str], buckets: &[f64]| {
            registry.histogram_vec(opts(name, stability, help), labels, buckets)
        };
        let running = registry.gauge_vec(
            opts(
                "scheduler_goroutines",
                Beta,
                "Number of running goroutines split by the work they do such as binding.",
            ),
            &["operation"],
        );
        Metrics {
            attempts: counters(
                "scheduler_schedule_attempts_total",
                Stable,
                "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
                &["result", "profile"],
            ),
            attempted: histograms(
                "scheduler_scheduling_attempt_duration_seconds",
                Stable,
                "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                &["result", "profile"],
                &doubled(0.001, 15),
            ),
            algorithm: registry.histogram(
                opts(
                    "scheduler_scheduling_algorithm_duration_seconds",
                    Alpha,
                    "Scheduling algorithm latency in seconds",
                ),
                &doubled(0.001, 15),
            ),
            sli: histograms(
                "scheduler_pod_scheduling_sli_duration_seconds",
                Beta,
                "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
                &["attempts"],
                &doubled(0.01, 20),
            ),
            attempts_of_pod: registry.histogram(
                opts(
                    "scheduler_pod_scheduling_attempts",
                    Stable,
                    "Number of attempts to successfully schedule a pod.",
                ),
                &doubled(1.0, 5),
            ),
            after_flush: registry.counter(opts(
                "scheduler_pod_scheduled_after_flush_total",
                Alpha,
                "Number of pods that were successfully scheduled after being flushed from unschedulablePods due to timeout. This metric helps detect potential queueing hint misconfigurations or event handling issues.",
            )),
            points: histograms(
                "scheduler_framework_extension_point_duration_seconds",
                Stable,
                "Latency for running all plugins of a specific extension point.",
                &["extension_point", "status", "profile"],
                &doubled(0.0001, 12),
            ),
            evaluations: counters(
                "scheduler_plugin_evaluation_total",
                Beta,
                "Number of attempts to schedule pods by each plugin and the extension point (available only in PreFilter, Filter, PreScore, and Score).",
                &["plugin", "extension_point", "profile"],
            ),
            preemptions: registry.counter(opts(
                "scheduler_preemption_attempts_total",
                Stable,
                "Total preemption attempts in the cluster till now",
            )),
            victims: registry.histogram(
                opts("scheduler_preemption_victims", Stable, "Number of selected preemption victims"),
                &doubled(1.0, 7),
            ),
            made_room: counters(
                "scheduler_preemption_goroutines_execution_total",
                Alpha,
                "Number of preemption goroutines executed.",
                &["result"],
            ),
            making_room: histograms(
                "scheduler_preemption_goroutines_duration_seconds",
                Alpha,
                "Duration in seconds for running goroutines for the preemption.",
                &["result"],
                &doubled(0.01, 20),
            ),
            claims_made: counters(
                "scheduler_resourceclaim_creates_total",
                Alpha,
                "Number of ResourceClaims creation requests within scheduler",
                &["status"],
            ),
            device_bindings: counters(
                "scheduler_dra_bindingconditions_allocations_total",
                Alpha,
                "Number of allocations using devices with BindingConditions, counted per driver per scheduling attempt",
                &["profile", "driver", "status"],
            ),
            binding_devices: histograms(
                "scheduler_dra_bindingconditions_wait_duration_seconds",
                Alpha,
                "Time in seconds spent waiting for BindingConditions to be satisfied during PreBind.",
                &["profile", "driver", "status"],
                &doubled(0.1, 14),
            ),
            binding: running.with(&["binding"]),
        }
    }

    /// An attempt is over.
    pub(crate) fn ended(&self, attempt: &Attempt, outcome: Outcome) {
        let labels = [outcome.name(), DEFAULT_SCHEDULER];
        self.attempts.with(&labels).inc();
        self.attempted.with(&labels).observe(attempt.began.elapsed().as_secs_f64());
        if outcome != Outcome::Scheduled {
            return;
        }
        self.attempts_of_pod.observe(f64::from(attempt.count));
        let label = match attempt.count {
            count if count >= MAX_ATTEMPTS => format!("{MAX_ATTEMPTS}+"),
            count => count.to_string(),
        };
        self.sli.with(&[&label]).observe(attempt.first.elapsed().as_secs_f64());
        if attempt.flushed {
            self.after_flush.inc();
        }
    }

    /// A decision was made; `preemption` where no node was found.
    pub(crate) fn decided(&self, stopwatch: &Stopwatch, preemption: Option<&Preemption>) {
        self.algorithm.observe(stopwatch.whole().as_secs_f64());
        if preemption.is_some_and(|preemption| !matches!(preemption, Preemption::Nothing)) {
            self.preemptions.inc();
        }
        if let Some(Preemption::Room { victims, .. }) = preemption {
            self.victims.observe(victims.len() as f64);
        }
        stopwatch.laps().iter().for_each(|lap| self.lap(lap));
        for (point, plugin, times) in stopwatch.evaluations() {
            let labels = [PLUGINS[plugin].name(), point.name(), DEFAULT_SCHEDULER];
            self.evaluations.with(&labels).add(times);
        }
    }

    /// What is done at a point took as long as this.
    pub(crate) fn lap(&self, lap: &Lap) {
        let labels = [lap.point.name(), lap.status.name(), DEFAULT_SCHEDULER];
        self.points.with(&labels).observe(lap.took.as_secs_f64());
    }

    /// Room was made for a pod, or could not be.
    /// A claim for extended resources was asked for.
    pub(crate) fn claim_made(&self, succeeded: bool) {
        self.claims_made.with(&[if succeeded { "success" } else { "failure" }]).inc();
    }

    /// What a claim's devices wait for was waited for, with this outcome.
    pub(crate) fn devices_bound(&self, claim: &Claim, outcome: &str, took: Duration) {
        for given in claim.given() {
            let labels = [DEFAULT_SCHEDULER, &given.driver, outcome];
            self.binding_devices.with(&labels).observe(took.as_secs_f64());
            if !given.binding_conditions.is_empty() {
                self.device_bindings.with(&labels).inc();
            }
        }
    }

    pub(crate) fn room_made(&self, succeeded: bool, took: Duration) {
        let result = if succeeded { "success" } else { "error" };
        self.made_room.with(&[result]).inc();
        self.making_room.with(&[result]).observe(took.as_secs_f64());
    }
}

/// Bindings in flight, one more as long as this lives.
pub(crate) struct Flying<'a>(&'a Gauge);

impl<'a> Flying<'a> {
    pub(crate) fn begin(gauge: &'a Gauge) -> Self {
        gauge.add(1.0);
        Flying(gauge)
    }
}

impl Drop for Flying<'_> {
    fn drop(&mut self) {
        self.0.add(-1.0);
    }
}

/// Tells of what waits, and of what is known.
pub(crate) fn collect(state: &State, encoder: &mut Encoder) {
    let named = |labels: &[&str]| -> Vec<String> { labels.iter().map(|label| (*label).to_owned()).collect() };
    pending(&state.queue.waiting(), state.gated.len(), encoder);
    {
        let mut out = encoder.family(INCOMING.name, &INCOMING.help(), "counter", &named(&["queue", "event"]));
        for ((queue, event), count) in state.queue.incoming() {
            out.value(&[queue.name(), event], *count as f64);
        }
    }
    {
        let labels = named(&["plugin", "profile"]);
        let mut out = encoder.family(UNSCHEDULABLE.name, &UNSCHEDULABLE.help(), "gauge", &labels);
        let gated = Some((GATES, state.gated.len())).filter(|(_, gated)| *gated > 0);
        for (plugin, count) in refusals(&state.queue).chain(gated) {
            out.value(&[plugin, DEFAULT_SCHEDULER], count as f64);
        }
    }
    let mut out = encoder.family(CACHED.name, &CACHED.help(), "gauge", &named(&["type"]));
    let size = state.cache.size();
    out.value(&["assumed_pods"], size.assumed as f64);
    out.value(&["nodes"], size.nodes as f64);
    out.value(&["pods"], size.pods as f64);
}

fn pending(waiting: &Waiting, gated: usize, encoder: &mut Encoder) {
    let mut out = encoder.family(PENDING.name, &PENDING.help(), "gauge", &["queue".to_owned()]);
    out.value(&["active"], waiting.active as f64);
    out.value(&["backoff"], waiting.backoff as f64);
    out.value(&["gated"], gated as f64);
    out.value(&["unschedulable"], waiting.unschedulable as f64);
}

/// How many pods each plugin keeps from their nodes.
fn refusals(queue: &Queue) -> impl Iterator<Item = (&'static str, usize)> {
    let mut counts = vec![0_usize; PLUGINS.len()];
    for plugins in queue.refused() {
        (0..PLUGINS.len()).filter(|at| plugins.has(*at)).for_each(|at| counts[at] += 1);
    }
    PLUGINS.iter().map(|plugin| plugin.name()).zip(counts).filter(|(_, count)| *count > 0)
}

/// How long this point took, from when it began.
pub(crate) fn took(point: Point, began: std::time::Instant, succeeded: bool) -> Lap {
    let status = if succeeded { crate::stopwatch::Status::Success } else { crate::stopwatch::Status::Error };
    Lap { point, status, took: began.elapsed() }
}
