//! What the controller counts: its looks, jobs and pods that ended, and pods it makes. Upstream: `job_controller_*`.

use super::facts::PodFacts;
use super::indexes::Indexes;
use super::plan::Plan;
use super::status::{COMPLETE, FAILED, holds};
use api::batch::v1::{Job, JobStatus};
use client::Change;
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use std::time::Duration;

/// What a look at a job came to, as upstream labels it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Action {
    /// The job ends, or goes.
    #[default]
    Reconciling,
    Tracking,
    PodsCreated,
    PodsDeleted,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Reconciling => "reconciling",
            Action::Tracking => "tracking",
            Action::PodsCreated => "pods_created",
            Action::PodsDeleted => "pods_deleted",
        }
    }

    /// What managing the pods came to.
    pub(super) fn of(plan: &Plan, suspended: bool) -> Self {
        if suspended || !plan.discard.is_empty() {
            Action::PodsDeleted
        } else if !plan.create.is_empty() {
            Action::PodsCreated
        } else {
            Action::Tracking
        }
    }
}

#[derive(Clone)]
pub(super) struct Metrics {
    looked: HistogramVec,
    looks: CounterVec,
    finished: CounterVec,
    pods_finished: CounterVec,
    indexes_finished: CounterVec,
    pods_made: CounterVec,
    external: CounterVec,
    tracked: CounterVec,
    handled: CounterVec,
}

fn mode(job: &Job) -> &str {
    job.spec.completion_mode.as_deref().unwrap_or("NonIndexed")
}

fn result(succeeded: bool) -> &'static str {
    if succeeded { "succeeded" } else { "failed" }
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        use Stability::{Alpha, Beta, Stable};
        let counter = |name, stability, help, labels: &[&str]| {
            registry.counter_vec(Opts { name, help, stability }, labels)
        };
        Metrics {
            looked: registry.histogram_vec(
                Opts {
                    name: "job_controller_job_sync_duration_seconds",
                    help: "The time it took to sync a job",
                    stability: Stable,
                },
                &["completion_mode", "result", "action"],
                &exponential_buckets(0.004, 2.0, 15),
            ),
            looks: counter(
                "job_controller_job_syncs_total",
                Stable,
                "The number of job syncs",
                &["completion_mode", "result", "action"],
            ),
            finished: counter(
                "job_controller_jobs_finished_total",
                Stable,
                "The number of finished jobs",
                &["completion_mode", "result", "reason"],
            ),
            pods_finished: counter(
                "job_controller_job_pods_finished_total",
                Stable,
                "The number of finished Pods that are fully tracked",
                &["completion_mode", "result"],
            ),
            indexes_finished: counter(
                "job_controller_job_finished_indexes_total",
                Alpha,
                "The number of finished indexes. Possible values for the\n\t\t\tstatus label are: \"succeeded\", \"failed\". Possible values for the\n\t\t\tbackoffLimit label are: \"perIndex\" and \"global\"",
                &["status", "backoffLimit"],
            ),
            pods_made: counter(
                "job_controller_job_pods_creation_total",
                Alpha,
                "The number of Pods created by the Job controller labelled with a reason for the Pod creation.\nThis metric also distinguishes between Pods created using different PodReplacementPolicy settings.\nPossible values of the \"reason\" label are:\n\"new\", \"recreate_terminating_or_failed\", \"recreate_failed\".\nPossible values of the \"status\" label are:\n\"succeeded\", \"failed\".",
                &["reason", "status"],
            ),
            external: counter(
                "job_controller_jobs_by_external_controller_total",
                Alpha,
                "The number of Jobs managed by an external controller",
                &["controller_name"],
            ),
            tracked: counter(
                "job_controller_terminated_pods_tracking_finalizer_total",
                Beta,
                "The number of terminated pods (phase=Failed|Succeeded)\nthat have the finalizer batch.kubernetes.io/job-tracking\nThe event label can be \"add\" or \"delete\".",
                &["event"],
            ),
            handled: counter(
                "job_controller_pod_failures_handled_by_failure_policy_total",
                Beta,
                "The number of failed Pods handled by failure policy with\n\t\t\trespect to the failure policy action applied based on the matched\n\t\t\trule. Possible values of the action label correspond to the\n\t\t\tpossible values for the failure policy rule action, which are:\n\t\t\t\"FailJob\", \"Ignore\" and \"Count\".",
                &["action"],
            ),
        }
    }

    /// A look at a job is over.
    pub(super) fn looked(&self, job: &Job, action: Action, succeeded: bool, took: Duration) {
        let labels = [mode(job), if succeeded { "success" } else { "error" }, action.name()];
        self.looked.with(&labels).observe(took.as_secs_f64());
        self.looks.with(&labels).inc();
    }

    /// The actions that rules of a failure policy have for pods.
    pub(super) fn handled(&self, actions: &[String]) {
        actions.iter().for_each(|action| self.handled.with(&[action]).inc());
    }

    /// A job that another manager takes care of.
    pub(super) fn external(&self, manager: &str) {
        self.external.with(&[manager]).inc();
    }

    /// Pods were made; `failed` could not be.
    pub(super) fn made(&self, job: &Job, status: &JobStatus, made: usize, failed: usize) {
        let replaces_failed_only = job.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let reason = if status.failed > 0 && replaces_failed_only {
            "recreate_failed"
        } else if status.failed > 0 || status.terminating.unwrap_or(0) > 0 {
            "recreate_terminating_or_failed"
        } else {
            "new"
        };
        for (count, succeeded) in [(made, true), (failed, false)] {
            if count > 0 {
                self.pods_made.with(&[reason, result(succeeded)]).add(count as u64);
            }
        }
    }

    /// The status of a job was written: what ended by that.
    pub(super) fn written(&self, job: &Job, status: &JobStatus) {
        let old = &job.status;
        let grown = |new: i32, old: i32| u64::try_from(new - old).unwrap_or(0);
        let mut succeeded = grown(status.succeeded, old.succeeded);
        if mode(job) == "Indexed" {
            let completions = job.spec.completions.unwrap_or(0);
            let count = |text: &str| Indexes::parse(text, completions).len();
            succeeded = grown(count(&status.completed_indexes), count(&old.completed_indexes));
            let per_index = job.spec.backoff_limit_per_index.is_some();
            let limit = if per_index { "perIndex" } else { "global" };
            self.indexes_finished.with(&[result(true), limit]).add(succeeded);
            if per_index {
                let lost = |status: &JobStatus| count(status.failed_indexes.as_deref().unwrap_or_default());
                self.indexes_finished.with(&[result(false), limit]).add(grown(lost(status), lost(old)));
            }
        }
        self.pods_finished.with(&[mode(job), result(true)]).add(succeeded);
        self.pods_finished.with(&[mode(job), result(false)]).add(grown(status.failed, old.failed));
        for (kind, succeeded) in [(COMPLETE, true), (FAILED, false)] {
            if let Some(end) = holds(status, kind).filter(|_| holds(old, kind).is_none()) {
                self.finished.with(&[mode(job), result(succeeded), &end.reason]).inc();
            }
        }
    }

    /// A pod ended while its end is not counted, or it is counted.
    pub(super) fn pod(&self, change: &Change<PodFacts>) {
        let held = |pod: &PodFacts| pod.terminal() && pod.tracked;
        let was = match change {
            Change::Deleted(pod) => held(pod),
            change => change.old().is_some_and(|old| held(old)),
        };
        let is = !matches!(change, Change::Deleted(_)) && held(change.object());
        match (was, is) {
            (false, true) => self.tracked.with(&["add"]).inc(),
            (true, false) => self.tracked.with(&["delete"]).inc(),
            _ => {}
        }
    }
}
