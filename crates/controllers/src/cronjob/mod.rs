//! Makes jobs when they are due. Upstream: `cronjob-controller`.

mod act;
mod facts;
mod plan;

use crate::Context;
use crate::support::{WallClock, feed, queue};
use act::Act;
use api::batch::v1::{CronJob, Job};
use client::controller::{Outcome, Writes, run as work};
use client::{Informer, ObjectKey, Projection, Recorder, Result};
use component::metrics::{Opts, Stability, exponential_buckets};
use facts::JobFacts;
use plan::Observed;
use std::sync::Arc;

const WORKERS: usize = 5;
const KIND: &str = "CronJob";

const SKEW: Opts<'_> = Opts {
    name: "cronjob_controller_job_creation_skew_duration_seconds",
    help: "Time between when a cronjob is scheduled to be run, and when the corresponding job is created",
    stability: Stability::Stable,
};

/// Nothing of a CronJob is asked but by itself.
struct CronJobFacts;

impl Projection for CronJobFacts {
    type Kind = CronJob;

    fn project(_: &CronJob) -> Self {
        CronJobFacts
    }
}

struct Loop {
    cron_jobs: Informer<CronJobFacts>,
    jobs: Informer<JobFacts>,
    clock: WallClock,
    act: Act,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let cron_jobs: Informer<CronJobFacts> = context.informers.get();
    let jobs: Informer<JobFacts> = context.informers.get();
    let queue = queue();
    feed(&cron_jobs, &queue, |cron_job| [cron_job.key().clone()]);
    feed(&jobs, &queue, |job| {
        let owner = job.controller.as_ref().filter(|controller| controller.kind == KIND);
        owner.map(|owner| ObjectKey::new(job.namespace(), &owner.name))
    });
    cron_jobs.synced().await;
    jobs.synced().await;
    let writes = Writes::default();
    let act = Act {
        recorder: Recorder::new(context.client.clone(), "cronjob-controller", ""),
        client: context.client,
        writes: writes.clone(),
        cron_jobs: cron_jobs.clone(),
        jobs: jobs.clone(),
        skew: context.metrics.histogram(SKEW, &exponential_buckets(1.0, 2.0, 10)),
    };
    let this = Arc::new(Loop { cron_jobs, jobs, clock: context.clock, act });
    work("cronjob", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.cron_jobs.get(key) else { return Ok(Outcome::Done) };
        let cron_job = cached.decode()?;
        let jobs = self.jobs.by_index(crate::pods::BY_CONTROLLER, &cached.uid);
        let mut missing = Vec::new();
        for active in &cron_job.status.active {
            let here = jobs.iter().any(|job| *job.uid == *active.uid);
            // Ask the server: a job may have been let go, or be too new for the cache.
            if !here
                && self.act.client.namespaced::<Job>(&key.namespace).get_opt(&active.name).await?.is_none()
            {
                missing.push(active.name.clone());
            }
        }
        let seen =
            Observed { cron_job: &cron_job, jobs: &jobs, missing: &missing, now: self.clock.instant() };
        let plan = plan::plan(&seen);
        let again = plan.again;
        self.act.take(key, &cron_job, plan).await?;
        Ok(again.map_or(Outcome::Done, |then| Outcome::After(self.clock.until_instant(then))))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        play("cronjob", &[|c| Box::pin(super::run(c))]);
    }
}
