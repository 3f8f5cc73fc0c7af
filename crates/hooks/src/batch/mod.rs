//! The group `batch`.

mod cron_job;
mod indexes;
mod job;
mod job_status_validation;
mod job_validation;

use super::Row;

pub(super) const STRATEGIES: &[Row] =
    &[("batch", "CronJob", &cron_job::CronJobs), ("batch", "Job", &job::Jobs)];
