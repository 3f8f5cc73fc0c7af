//! Runs pods to completion. Upstream: `job-controller`.
//!
//! A pod counts once: it has a finalizer until its end stands in the job's status. A look first writes which pods ended
//! (`uncountedTerminatedPods`), then takes their finalizers; the next look finds them without and counts them.

mod act;
mod facts;
mod indexes;
mod metrics;
mod plan;
mod policy;
mod status;

use crate::Context;
use crate::pod_control::{PodControl, Result};
use crate::pods::Controller;
use crate::support::{WallClock, feed};
use act::Act;
use api::batch::v1::Job;
use apimachinery::labels::Selector;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::queue::Backoff;
use client::{Cached, Change, Informer, ObjectKey, Projection, Queue, Recorder};
use facts::{BY_JOB, ORPHANS, PodFacts};
use metrics::{Action, Metrics};
use std::sync::Arc;
use std::time::{Duration, Instant};

const WORKERS: usize = 5;
/// Jobs that name another manager are not ours.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What is kept of a job.
pub(crate) struct JobFacts {
    selector: Selector,
    /// Who manages it in our stead.
    manager: Option<String>,
}

impl Projection for JobFacts {
    type Kind = Job;

    fn project(job: &Job) -> Self {
        let selector = Selector::from_label_selector(job.spec.selector.as_ref());
        JobFacts {
            selector: selector.unwrap_or_else(|_| Selector::nothing()),
            manager: job.spec.managed_by.clone().filter(|manager| manager != MANAGER),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[("namespace", |job| vec![job.namespace().to_owned()])]
    }
}

struct Loop {
    jobs: Informer<JobFacts>,
    pods: Informer<PodFacts>,
    clock: WallClock,
    act: Act,
    metrics: Metrics,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let jobs: Informer<JobFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    jobs.synced().await;
    let metrics = Metrics::new(&context.metrics);
    let counted = metrics.clone();
    jobs.subscribe(move |change| {
        if let Change::Added(job) = change
            && let Some(manager) = &job.manager
        {
            counted.external(manager);
        }
    });
    let counted = metrics.clone();
    pods.subscribe(move |change| counted.pod(change));
    let backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(60) };
    let (queue, orphans) = (Queue::new(backoff), Queue::new(backoff));
    feed(&jobs, &queue, |job| [job.key().clone()]);
    let near = jobs.clone();
    feed(&pods, &queue, move |pod| keys_of_pod(&near, pod));
    // Pods that lost their job (the garbage collector took the reference) have nobody to be counted by.
    feed(&pods, &orphans, |pod| (pod.tracked && pod.controller.is_none()).then(|| pod.key().clone()));
    pods.synced().await;
    let writes = Writes::default();
    let control = PodControl {
        recorder: Recorder::new(context.client.clone(), "job-controller", ""),
        client: context.client,
        writes: writes.clone(),
        pods: pods.clone(),
    };
    let act = Act { control, jobs: jobs.clone(), clock: context.clock.clone(), metrics: metrics.clone() };
    let this = Arc::new(Loop { jobs, pods, clock: context.clock, act, metrics });
    let jobs = this.clone();
    let jobs = work("job", queue, writes.clone(), WORKERS, context.shutdown.clone(), move |key| {
        let this = jobs.clone();
        async move { this.reconcile(&key).await }
    });
    let orphans = work("job_orphan_pod", orphans, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.orphan(&key).await }
    });
    tokio::join!(jobs, orphans);
}

fn keys_of_pod(jobs: &Informer<JobFacts>, pod: &Cached<PodFacts>) -> Vec<ObjectKey> {
    match &pod.controller {
        Some(Controller { kind, name, .. }) if kind == "Job" => vec![ObjectKey::new(pod.namespace(), name)],
        Some(_) => Vec::new(),
        None => {
            let near = jobs.by_index("namespace", pod.namespace());
            near.iter().filter(|job| job.selector.matches(&pod.labels)).map(|job| job.key().clone()).collect()
        }
    }
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let owned = self.pods.by_index(BY_JOB, &format!("{}/{}", key.namespace, key.name));
        let cached = self.jobs.get(key);
        let job = cached.as_ref().map(|cached| cached.decode()).transpose()?;
        let uid = cached.as_ref().map_or("", |cached| &cached.uid);
        // Pods whose job is gone have nobody to be counted by.
        let (ours, orphaned): (Vec<_>, Vec<_>) =
            owned.into_iter().partition(|pod| pod.controller.as_ref().is_some_and(|c| c.uid == uid));
        self.act.let_go(key, orphaned.iter().filter(|pod| pod.tracked)).await?;
        let (Some(cached), Some(job)) = (cached, job) else { return Ok(Outcome::Done) };
        if cached.manager.is_some() {
            return Ok(Outcome::Done);
        }
        if !matches!(job.spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed")) {
            let text = "Skipped Job sync because completion mode is unknown";
            self.act.control.recorder.warning(&job, "UnknownCompletionMode", text);
            return Ok(Outcome::Done);
        }
        if status::is_finished(&job.status) {
            self.act.let_go(key, ours.iter().filter(|pod| pod.tracked)).await?;
            return Ok(Outcome::Done);
        }
        let began = Instant::now();
        let (action, outcome) = self.look(key, &cached, &job, ours).await;
        self.metrics.looked(&job, action, outcome.is_ok(), began.elapsed());
        outcome
    }

    /// Looks at a job that goes on, and sees to it.
    async fn look(
        &self,
        key: &ObjectKey,
        cached: &Cached<JobFacts>,
        job: &Job,
        ours: Vec<Arc<Cached<PodFacts>>>,
    ) -> (Action, Result<Outcome>) {
        let strays = self.pods.by_index(ORPHANS, &key.namespace);
        let pods = match self.act.claim(key, job, &cached.selector, ours, strays).await {
            Ok(pods) => pods,
            Err(error) => return (Action::default(), Err(error)),
        };
        let plan = plan::plan(job, &pods, self.clock.now());
        (plan.action, self.act.take(key, job, plan).await)
    }

    /// Lets a pod go that no job counts.
    async fn orphan(&self, key: &ObjectKey) -> Result<Outcome> {
        let pod = self.pods.get(key).filter(|pod| pod.tracked && pod.controller.is_none());
        self.act.let_go(key, pod.iter()).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        for story in ["job", "job_end", "job_indexed"] {
            play(story, &[|c| Box::pin(super::run(c))]);
        }
    }
}
