//! Ends pods from outside: marks them as failed or as disrupted, then deletes them.

use api::core::v1::{Pod, PodCondition};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::Time;
use client::{Client, Patch, PatchParams, Result};
use component::metrics::{Counter, Histogram, Opts, Registry, Stability};
use rules::pod_conditions::{self, DISRUPTION_TARGET};

/// Why a pod is disrupted.
pub(crate) type Disruption = (&'static str, &'static str);

fn disruption(pod: &Pod, (reason, message): Disruption) -> PodCondition {
    PodCondition {
        type_: DISRUPTION_TARGET.into(),
        observed_generation: pod.metadata.generation,
        status: "True".into(),
        reason: reason.into(),
        message: message.into(),
        ..Default::default()
    }
}

/// Whether the pod may be killed, or must be given its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Nobody runs it any more: it has failed, and is gone at once.
    AtOnce,
    /// Its node ends it.
    Gracefully,
}

const LATENCY_BUCKETS: [f64; 12] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];

/// How many pods were evicted for taints, and how long that took from when it was due.
pub(crate) struct Evictions {
    deletions: Counter,
    latency: Histogram,
}

impl Evictions {
    /// Both metrics by name and help; the latency is in seconds.
    pub(crate) fn new(registry: &Registry, deletions: (&str, &str), latency: (&str, &str)) -> Self {
        let opts = |(name, help)| Opts { name, help, stability: Stability::Alpha };
        Evictions {
            deletions: registry.counter(opts(deletions)),
            latency: registry.histogram(opts(latency), &LATENCY_BUCKETS),
        }
    }

    /// A pod that had to go at `due` was evicted.
    pub(crate) fn evicted(&self, due: Time, now: Time) {
        self.deletions.inc();
        self.latency.observe(now.since(due).seconds_f64());
    }
}

/// Writes into the status why the pod goes, and deletes it. An absent pod is no error.
pub(crate) async fn end(
    client: &Client,
    pod: &Pod,
    how: How,
    why: Option<Disruption>,
    now: Time,
) -> Result<()> {
    let meta = &pod.metadata;
    let api = client.namespaced::<Pod>(&meta.namespace);
    let mut status = pod.status.clone();
    let terminal = pod_conditions::is_terminal(&status.phase);
    if how == How::AtOnce && !terminal {
        status.phase = "Failed".into();
        status.observed_generation = pod.metadata.generation;
    }
    if let Some(why) = why
        && (how == How::Gracefully || !terminal)
    {
        pod_conditions::set(&mut status.conditions, disruption(pod, why), now);
    }
    if status != pod.status {
        let changed = status.conditions.iter().filter(|condition| !pod.status.conditions.contains(condition));
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {
                "phase": status.phase,
                "observedGeneration": status.observed_generation,
                "conditions": changed.collect::<Vec<_>>(),
            },
        });
        match api.patch_status(&meta.name, &Patch::Strategic(patch), &PatchParams::default()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            done => drop(done?),
        }
    }
    // A pod that was made anew under the name is another matter.
    let options = DeleteOptions {
        grace_period_seconds: (how == How::AtOnce).then_some(0),
        preconditions: Some(Preconditions { uid: Some(meta.uid.clone()), ..Default::default() }),
        ..Default::default()
    };
    match api.delete(&meta.name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
