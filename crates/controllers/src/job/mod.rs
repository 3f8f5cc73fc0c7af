//! Runs pods to completion. Upstream: `job-controller`.
//!
//! A pod counts once: it has a finalizer until its end stands in the job's status. A look first writes which pods ended
//! (`uncountedTerminatedPods`), then takes their finalizers; the next look finds them without and counts them.

mod act;
mod facts;
mod indexes;
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
use client::{Cached, Informer, ObjectKey, Projection, Queue, Recorder};
use facts::{BY_JOB, ORPHANS, PodFacts};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;
/// Jobs that name another manager are not ours.
const MANAGER: &str = "kubernetes.io/job-controller";

/// What is kept of a job.
pub(crate) struct JobFacts {
    selector: Selector,
}

impl Projection for JobFacts {
    type Kind = Job;

    fn project(job: &Job) -> Self {
        let selector = Selector::from_label_selector(job.spec.selector.as_ref());
        JobFacts { selector: selector.unwrap_or_else(|_| Selector::nothing()) }
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
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let jobs: Informer<JobFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    jobs.synced().await;
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
    let act = Act { control, jobs: jobs.clone(), clock: context.clock.clone() };
    let this = Arc::new(Loop { jobs, pods, clock: context.clock, act });
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
        if job.spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
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
        let strays = self.pods.by_index(ORPHANS, &key.namespace);
        let pods = self.act.claim(key, &job, &cached.selector, ours, strays).await?;
        let plan = plan::plan(&job, &pods, self.clock.now());
        self.act.take(key, &job, plan).await
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
