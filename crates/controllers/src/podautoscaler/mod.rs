//! Sizes workloads by what they use (HPA v2). Upstream: `horizontal-pod-autoscaler`.
//!
//! Metrics are samples: an autoscaler looks when it changes, and every fifteen seconds as long as it exists.

mod behavior;
mod judge;
mod metrics;
mod monitor;
mod replicas;
mod scale;

use crate::Context;
use crate::pods::{BY_NAMESPACE, PodFacts};
use crate::support::{WallClock, queue};
use api::autoscaling::v1::Scale;
use api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition as Condition,
    HorizontalPodAutoscalerStatus as Status, MetricStatus,
};
use api::core::v1::Pod;
use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use apimachinery::time::Time;
use behavior::{Bounds, Memory};
use client::controller::{Outcome, Writes, run as work};
use client::{Cached, Change, Client, Informer, ObjectKey, Projection, Recorder, Result};
use judge::{Failure, Target};
use metrics::Metrics;
use monitor::{Action, Fault, Monitor, Verdict};
use parking_lot::Mutex;
use replicas::{Query, Tolerances};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORKERS: usize = 5;
const PERIOD: Duration = Duration::from_secs(15);
const TOLERANCE: f64 = 0.1;

/// What is kept of an autoscaler: its spec, as text, to tell changes of it from those of the status.
struct Facts(String);

impl Projection for Facts {
    type Kind = HorizontalPodAutoscaler;

    fn project(autoscaler: &HorizontalPodAutoscaler) -> Self {
        Facts(serde_json::to_string(&autoscaler.spec).unwrap_or_default())
    }
}

/// What is remembered between looks.
#[derive(Default)]
struct State {
    memory: Memory,
    selector: Option<Selector>,
}

struct Loop {
    autoscalers: Informer<Facts>,
    pods: Informer<PodFacts>,
    client: Client,
    metrics: Metrics,
    monitor: Arc<Monitor>,
    recorder: Recorder,
    writes: Writes<ObjectKey>,
    clock: WallClock,
    states: Mutex<BTreeMap<ObjectKey, State>>,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let autoscalers: Informer<Facts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let queue = queue();
    let changed = queue.clone();
    let monitor = Arc::new(Monitor::new(&context.metrics));
    let counted = monitor.clone();
    autoscalers.subscribe(move |change: &Change<Facts>| {
        match change {
            Change::Added(_) => counted.counted(1.0),
            Change::Deleted(_) => counted.counted(-1.0),
            Change::Updated { .. } => {}
        }
        if change.old().is_none_or(|old| old.0 != change.object().0) {
            changed.add(change.object().key().clone());
        }
    });
    autoscalers.synced().await;
    pods.synced().await;
    let writes = Writes::default();
    let this = Arc::new(Loop {
        autoscalers,
        pods,
        metrics: Metrics(context.client.clone()),
        monitor,
        recorder: Recorder::new(context.client.clone(), "horizontal-pod-autoscaler", ""),
        client: context.client,
        writes: writes.clone(),
        clock: context.clock,
        states: Mutex::default(),
    });
    work("horizontalpodautoscaler", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// Sets a condition; its time is when its status changed.
fn set(status: &mut Status, kind: &str, value: bool, reason: &str, message: impl Into<String>, now: Time) {
    let value = if value { "True" } else { "False" };
    let at = status.conditions.iter().position(|condition| condition.type_ == kind).unwrap_or_else(|| {
        status.conditions.push(Condition { type_: kind.into(), ..Default::default() });
        status.conditions.len() - 1
    });
    let condition = &mut status.conditions[at];
    if condition.status != value {
        condition.last_transition_time = Some(now);
    }
    condition.status = value.into();
    condition.reason = reason.into();
    condition.message = message.into();
}

const ACTIVE: &str = "ScalingActive";
const ABLE: &str = "AbleToScale";
const LIMITED: &str = "ScalingLimited";

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.autoscalers.get(key) else {
            self.states.lock().remove(key);
            self.monitor.forget(key);
            return Ok(Outcome::Done);
        };
        let autoscaler = cached.decode()?;
        let (began, mut verdict) = (Instant::now(), Verdict::default());
        let status = self.look(key, &autoscaler, &mut verdict).await;
        self.monitor.looked(verdict, began.elapsed());
        if status != autoscaler.status {
            let mut changed = autoscaler.clone();
            changed.status = status;
            let api = self.client.namespaced::<HorizontalPodAutoscaler>(&key.namespace);
            match api.update_status(&changed).await {
                Ok(written) => self.writes.note(key, &self.autoscalers, &written.metadata.resource_version),
                Err(error) => {
                    self.recorder.warning(&autoscaler, "FailedUpdateStatus", error.to_string());
                }
            }
        }
        Ok(Outcome::After(PERIOD))
    }

    /// One look: what the status becomes. The target is resized on the way; `verdict` says what all came to.
    async fn look(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        verdict: &mut Verdict,
    ) -> Status {
        let spec = &autoscaler.spec;
        let now = self.clock.now();
        let mut status = autoscaler.status.clone();
        let (resource, scale) = match scale::get(&self.client, &key.namespace, &spec.scale_target_ref).await {
            Ok(found) => found,
            Err(error) => {
                let text =
                    format!("the HPA controller was unable to get the target's current scale: {error}");
                self.recorder.warning(autoscaler, "FailedGetScale", error);
                verdict.fault = Fault::Internal;
                set(&mut status, ABLE, false, "FailedGetScale", text, now);
                return status;
            }
        };
        let text = "the HPA controller was able to get the target's current scale";
        set(&mut status, ABLE, true, "SucceededGetScale", text, now);
        let current = scale.spec.replicas;
        let instant = self.clock.instant();
        self.states.lock().entry(key.clone()).or_default().memory.begin(current, instant);
        let bounds = Bounds { current, min: spec.min_replicas.unwrap_or(1), max: spec.max_replicas };
        status.current_replicas = current;
        status.current_metrics = Vec::new();

        let (wanted, reason) = if current == 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            set(&mut status, ACTIVE, false, "ScalingDisabled", text, now);
            (0, String::new())
        } else if current > bounds.max {
            (bounds.max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < bounds.min {
            (bounds.min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            match self.ask(key, autoscaler, &scale, (&mut status, verdict), now).await {
                Err(error) => {
                    self.recorder.warning(autoscaler, "FailedComputeMetricsReplicas", error);
                    return status;
                }
                Ok((proposed, metric)) => {
                    let reason = match proposed.cmp(&current) {
                        std::cmp::Ordering::Greater => format!("{metric} above target"),
                        std::cmp::Ordering::Less => "All metrics below target".to_owned(),
                        std::cmp::Ordering::Equal => String::new(),
                    };
                    let mut states = self.states.lock();
                    let memory = &mut states.entry(key.clone()).or_default().memory;
                    let normal = memory.normalize(spec.behavior.as_ref(), proposed, bounds, instant);
                    set(&mut status, ABLE, true, &normal.able.0, normal.able.1, now);
                    set(&mut status, LIMITED, normal.limited, &normal.limit.0, normal.limit.1, now);
                    (normal.size, reason)
                }
            }
        };
        status.desired_replicas = wanted;
        if wanted == current {
            self.monitor.desired(key, wanted);
            return status;
        }
        if let Err(error) = scale::set(&self.client, &key.namespace, &resource, scale, wanted).await {
            let text = format!("New size: {wanted}; reason: {reason}; error: {error}");
            self.recorder.warning(autoscaler, "FailedRescale", text);
            verdict.fault = Fault::Internal;
            let text = format!("the HPA controller was unable to update the target scale: {error}");
            set(&mut status, ABLE, false, "FailedUpdateScale", text, now);
            status.desired_replicas = autoscaler.status.desired_replicas;
            return status;
        }
        let text = format!("the HPA controller was able to update the target scale to {wanted}");
        set(&mut status, ABLE, true, "SucceededRescale", text, now);
        let text = format!("New size: {wanted}; reason: {reason}");
        self.recorder.normal(autoscaler, "SuccessfulRescale", text);
        let mut states = self.states.lock();
        let memory = &mut states.entry(key.clone()).or_default().memory;
        memory.scaled(spec.behavior.as_ref(), current, wanted, instant);
        status.last_scale_time = Some(now);
        verdict.action = Action::of(current, wanted);
        self.monitor.desired(key, wanted);
        status
    }

    /// Asks all metrics: the greatest size that one asks for, and which did. Fails when none can be relied on.
    async fn ask(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        scale: &Scale,
        (status, verdict): (&mut Status, &mut Verdict),
        now: Time,
    ) -> std::result::Result<(i32, String), String> {
        let pods = self.selected(key, autoscaler, &scale.status.selector, status, now);
        let pods = pods.inspect_err(|_| verdict.fault = Fault::Internal)?;
        let pods: Vec<Pod> = pods.iter().filter_map(|pod| pod.decode().ok()).collect();
        let target = Target {
            namespace: &key.namespace,
            selector: &scale.status.selector,
            status_replicas: scale.status.replicas,
            query: Query {
                current: scale.spec.replicas,
                tolerances: tolerances(autoscaler),
                pods: &pods,
                now,
            },
        };
        let specs = &autoscaler.spec.metrics;
        let (mut size, mut name) = (0, String::new());
        let mut failures: Vec<Failure> = Vec::new();
        for spec in specs {
            let began = Instant::now();
            let judged = self.metrics.judge(spec, &target).await;
            let current = autoscaler.status.current_replicas;
            let of = match &judged {
                Ok(proposal) => Verdict { action: Action::of(current, proposal.size), fault: Fault::None },
                Err(failure) => Verdict { action: Action::None, fault: Fault::of(failure) },
            };
            self.monitor.computed(&spec.type_, of, began.elapsed());
            match judged {
                Ok(proposal) => {
                    status.current_metrics.push(proposal.status);
                    if size == 0 || proposal.size > size {
                        (size, name) = (proposal.size, proposal.name);
                    }
                }
                Err(failure) => {
                    // The place of a metric that says nothing stays empty.
                    status.current_metrics.push(MetricStatus::default());
                    self.recorder.warning(autoscaler, failure.reason, failure.why.clone());
                    failures.push(failure);
                }
            }
        }
        verdict.fault = failures.first().map_or(Fault::None, Fault::of);
        if let Some(first) = failures.first()
            && (failures.len() >= specs.len() || size < scale.spec.replicas)
        {
            let text = format!("the HPA was unable to compute the replica count: {}", first.why);
            set(status, ACTIVE, false, first.reason, text, now);
            let (bad, all) = (failures.len(), specs.len());
            return Err(format!(
                "invalid metrics ({bad} invalid out of {all}), first error is: {}",
                first.error
            ));
        }
        let text = format!("the HPA was able to successfully calculate a replica count from {name}");
        set(status, ACTIVE, true, "ValidMetricFound", text, now);
        Ok((size, name))
    }

    /// The pods of the target, which must be nobody else's.
    fn selected(
        &self,
        key: &ObjectKey,
        autoscaler: &HorizontalPodAutoscaler,
        selector: &str,
        status: &mut Status,
        now: Time,
    ) -> std::result::Result<Vec<Arc<Cached<PodFacts>>>, String> {
        if selector.is_empty() {
            let text = "selector is required";
            self.recorder.warning(autoscaler, "SelectorRequired", text);
            let told = "the HPA target's scale is missing a selector";
            set(status, ACTIVE, false, "InvalidSelector", told, now);
            return Err(text.into());
        }
        let parsed = Selector::parse(selector).map_err(|error| {
            let text =
                format!("couldn't convert selector into a corresponding internal selector object: {error}");
            self.recorder.warning(autoscaler, "InvalidSelector", text.clone());
            set(status, ACTIVE, false, "InvalidSelector", text.clone(), now);
            text
        })?;
        let mut pods = self.pods.by_index(BY_NAMESPACE, &key.namespace);
        pods.retain(|pod| parsed.matches(&pod.labels));
        let mut states = self.states.lock();
        states.entry(key.clone()).or_default().selector = Some(parsed);
        let near = states.iter().filter(|(other, _)| other.namespace == key.namespace);
        let selecting: Vec<String> = near
            .filter(|(_, state)| {
                let selector = state.selector.as_ref();
                selector.is_some_and(|selector| pods.iter().any(|pod| selector.matches(&pod.labels)))
            })
            .map(|(other, _)| format!("{{{} {}}}", other.name, other.namespace))
            .collect();
        if selecting.len() > 1 {
            let text = format!(
                "pods by selector {selector} are controlled by multiple HPAs: [{}]",
                selecting.join(" ")
            );
            self.recorder.warning(autoscaler, "AmbiguousSelector", text.clone());
            set(status, ACTIVE, false, "AmbiguousSelector", text.clone(), now);
            return Err(text);
        }
        Ok(pods)
    }
}

fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.as_ref();
    let of = |tolerance: Option<&Quantity>| tolerance.map_or(TOLERANCE, Quantity::as_f64);
    Tolerances {
        up: of(behavior.and_then(|b| b.scale_up.as_ref()).and_then(|rules| rules.tolerance.as_ref())),
        down: of(behavior.and_then(|b| b.scale_down.as_ref()).and_then(|rules| rules.tolerance.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        play(
            "podautoscaler",
            &[
                |c| Box::pin(super::run(c)),
                |c| Box::pin(crate::deployment::run(c)),
                |c| Box::pin(crate::replicaset::run(c)),
            ],
        );
    }
}
