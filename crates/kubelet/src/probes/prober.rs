//! The loop of one probe of one running container: when to ask, and when the answers add up to an outcome.

use super::action::{self, Answer};
use super::{Context, Kind, Outcome, Shared};
use api::core::v1::{Container, Probe};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Which container is probed, and for what.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub kind: Kind,
    pub container_id: String,
    /// Nanoseconds since the epoch.
    pub started_at: i64,
    pub container: Container,
}

/// Extra looks at a container that has just started, so that it need not wait a whole period for its first success.
/// Their failures do not count.
const EARLY: [u64; 5] = [25, 75, 200, 400, 800];

/// Probes until the task is aborted or the outcome is final for this container.
pub(super) async fn run(context: Context, shared: Arc<Shared>, target: Target) {
    let Some(spec) = target.kind.spec(&target.container).cloned() else { return };
    let age = Duration::from_nanos(u64::try_from(crate::clock::now() - target.started_at).unwrap_or(0));
    let initial = Duration::from_secs(u64::try_from(spec.initial_delay_seconds).unwrap_or(0));
    tokio::time::sleep(initial.saturating_sub(age)).await;
    if target.kind != Kind::Startup && target.container.startup_probe.is_some() {
        started(&shared, &target.container_id).await;
    }
    let current = shared.results.borrow().get(target.kind, &target.container_id);
    if target.kind == Kind::Startup && current == Some(Outcome::Success) {
        return;
    }
    if current != Some(Outcome::Success)
        && target.kind != Kind::Liveness
        && early(&context, &shared, &target, &spec).await
    {
        if target.kind == Kind::Startup {
            return;
        }
        tokio::time::sleep(period(&spec)).await;
    }
    let (mut last, mut count) = (Outcome::Unknown, 0);
    let mut next = Instant::now();
    loop {
        if let Some(outcome) = probe(&context, &shared, &target, &spec, Told::Events).await {
            count = if last == outcome { count + 1 } else { 1 };
            last = outcome;
            let threshold = match outcome {
                Outcome::Success => spec.success_threshold,
                _ => spec.failure_threshold,
            };
            if count >= threshold.max(1) {
                shared.set(target.kind, &target.container_id, outcome);
                let dead = target.kind == Kind::Liveness && outcome == Outcome::Failure;
                if dead || target.kind == Kind::Startup {
                    return;
                }
            }
        }
        // Like a ticker: a slow probe does not move the ones after it, missed ticks are dropped.
        next += period(&spec);
        let now = Instant::now();
        if next < now {
            next = now;
        }
        tokio::time::sleep_until(next).await;
    }
}

fn period(spec: &Probe) -> Duration {
    Duration::from_secs(u64::try_from(spec.period_seconds.max(1)).unwrap_or(10))
}

async fn started(shared: &Shared, container_id: &str) {
    let mut results = shared.results.subscribe();
    // The sender lives in `shared`.
    let _ = results.wait_for(|r| r.get(Kind::Startup, container_id) == Some(Outcome::Success)).await;
}

/// Whether the container succeeded within its first second. Only probes over the network look early: they cost little.
async fn early(context: &Context, shared: &Shared, target: &Target, spec: &Probe) -> bool {
    if spec.exec.is_some() || spec.success_threshold > 1 {
        return false;
    }
    for pause in EARLY {
        if probe(context, shared, target, spec, Told::Nobody).await == Some(Outcome::Success) {
            shared.set(target.kind, &target.container_id, Outcome::Success);
            return true;
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    false
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Events,
    Nobody,
}

/// Asks once (three times when asking itself goes wrong); `None` when there is no answer to count.
async fn probe(
    context: &Context,
    shared: &Shared,
    target: &Target,
    spec: &Probe,
    told: Told,
) -> Option<Outcome> {
    let pod_ip = shared.pod_ip.lock().clone();
    let began = Instant::now();
    let mut answer = Answer::Error(String::new());
    for _ in 0..3 {
        answer = action::ask(context, spec, target, &pod_ip).await;
        if !matches!(answer, Answer::Error(_)) {
            break;
        }
    }
    let kind = target.kind.as_str();
    let (outcome, event) = match answer {
        Answer::Success => (Some(Outcome::Success), None),
        Answer::Warning(text) => {
            (Some(Outcome::Success), Some(("ProbeWarning", format!("{kind} probe warning: {text}"))))
        }
        Answer::Failure(text) => {
            (Some(Outcome::Failure), Some(("Unhealthy", format!("{kind} probe failed: {text}"))))
        }
        Answer::Error(error) => (
            None,
            Some(("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {error}"))),
        ),
    };
    let pod = shared.pod.lock().clone();
    let result = match outcome {
        Some(Outcome::Success) => "successful",
        Some(_) => "failed",
        None => "unknown",
    };
    context.count(&pod, &target.container.name, target.kind, (result, began.elapsed()));
    if let Some((reason, message)) = event.filter(|_| told == Told::Events) {
        context.events.container_warning(&pod, &target.container.name, reason, message);
    }
    outcome
}
