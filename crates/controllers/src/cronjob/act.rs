//! The writes: jobs made and removed, the status.

use super::CronJobFacts;
use super::facts::JobFacts;
use super::plan::Plan;
use api::batch::v1::{CronJob, Job};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Time;
use client::controller::Writes;
use client::recorder::reference;
use client::{Client, Informer, ObjectKey, Recorder, Result};
use component::metrics::Histogram;

pub(super) struct Act {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub cron_jobs: Informer<CronJobFacts>,
    pub jobs: Informer<JobFacts>,
    /// How late jobs are made.
    pub skew: Histogram,
}

impl Act {
    /// Makes a plan true.
    pub(super) async fn take(&self, key: &ObjectKey, cron_job: &CronJob, plan: Plan) -> Result<()> {
        let about = reference(cron_job);
        for (kind, reason, text) in plan.tell {
            self.recorder.event(&about, kind, reason, text);
        }
        let mut status = plan.status;
        let mut started = Ok(());
        // What must make way for the new job goes first.
        for name in &plan.replace {
            match self.delete(key, cron_job, name).await {
                Ok(()) => status.active.retain(|active| active.name != *name),
                Err(error) => started = Err(error),
            }
        }
        if let Some((job, due)) = plan.create.filter(|_| started.is_ok()) {
            match self.create(key, cron_job, &job, due).await {
                Ok(Some(made)) => {
                    status.active.push(client::recorder::reference(&made));
                    status.last_schedule_time = Some(due);
                }
                Ok(None) => {}
                Err(error) => started = Err(error),
            }
        }
        for name in &plan.outdated {
            // One that cannot be removed now is found again later.
            if self.delete(key, cron_job, name).await.is_ok() {
                status.active.retain(|active| active.name != *name);
            }
        }
        if status != cron_job.status {
            let mut changed = cron_job.clone();
            changed.status = status;
            match self.client.namespaced::<CronJob>(&key.namespace).update_status(&changed).await {
                Ok(written) => self.writes.note(key, &self.cron_jobs, &written.metadata.resource_version),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        started
    }

    /// Makes a job; one of the name that is ours already counts as made, unless it is known.
    async fn create(&self, key: &ObjectKey, cron_job: &CronJob, job: &Job, due: Time) -> Result<Option<Job>> {
        let api = self.client.namespaced::<Job>(&key.namespace);
        match api.create(job).await {
            Ok(made) => {
                self.writes.note(key, &self.jobs, &made.metadata.resource_version);
                self.skew.observe((made.metadata.creation_timestamp.unix() - due.unix()) as f64);
                let text = format!("Created job {}", made.metadata.name);
                self.recorder.normal(cron_job, "SuccessfulCreate", text);
                Ok(Some(made))
            }
            Err(error) if error.is_already_exists() => {
                let there = api.get(&job.metadata.name).await?;
                let owners = &there.metadata.owner_references;
                let ours =
                    owners.iter().any(|o| o.controller == Some(true) && o.uid == cron_job.metadata.uid);
                let known = cron_job.status.active.iter().any(|active| active.uid == there.metadata.uid);
                Ok(Some(there).filter(|_| ours && !known))
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    self.recorder.warning(cron_job, "FailedCreate", format!("Error creating job: {error}"));
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, cron_job: &CronJob, name: &str) -> Result<()> {
        let options =
            DeleteOptions { propagation_policy: Some("Background".into()), ..DeleteOptions::default() };
        match self.client.namespaced::<Job>(&key.namespace).delete(name, &options).await {
            Ok(answer) => {
                let revision = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                self.writes.note(key, &self.jobs, revision);
                self.recorder.normal(cron_job, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) => {
                self.recorder.warning(cron_job, "FailedDelete", format!("Deleted job: {error}"));
                Err(error)
            }
        }
    }
}
