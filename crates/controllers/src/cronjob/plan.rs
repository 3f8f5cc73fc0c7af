//! What to do about a CronJob. Pure: the CronJob, its jobs and the time in; jobs to make and to remove, and the status
//! out.

use super::facts::JobFacts;
use api::batch::v1::{CronJob, CronJobStatus, Job};
use apimachinery::cron::{Schedule, load_zone};
use apimachinery::time::{Time, Timestamp};
use client::Cached;
use client::recorder::EventType;
use jiff::SignedDuration;
use std::sync::Arc;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Beyond so many missed starts something is wrong, and is told.
const MANY: i64 = 100;

/// What to do, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Running jobs that make way for the next: names.
    pub replace: Vec<String>,
    /// A job to make, and the time that it is for.
    pub create: Option<(Box<Job>, Time)>,
    /// Finished jobs beyond the history's limits: names.
    pub outdated: Vec<String>,
    pub status: CronJobStatus,
    pub tell: Vec<(EventType, &'static str, String)>,
    pub again: Option<Timestamp>,
}

impl Plan {
    fn warn(&mut self, reason: &'static str, text: String) {
        self.tell.push((EventType::Warning, reason, text));
    }

    fn note(&mut self, reason: &'static str, text: String) {
        self.tell.push((EventType::Normal, reason, text));
    }
}

/// What a look sees.
pub(super) struct Observed<'a> {
    pub cron_job: &'a CronJob,
    /// The jobs that the CronJob controls.
    pub jobs: &'a [Arc<Cached<JobFacts>>],
    /// Names of active jobs that are not there.
    pub missing: &'a [String],
    pub now: Timestamp,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan { status: observed.cron_job.status.clone(), ..Plan::default() };
    follow(observed, &mut plan);
    start(observed, &mut plan);
    trim(observed, &mut plan);
    plan
}

/// Notes which jobs ended.
fn follow(observed: &Observed, plan: &mut Plan) {
    for job in observed.jobs {
        let known = plan.status.active.iter().any(|active| *active.uid == *job.uid);
        match job.finished {
            None if !known => {
                let text = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                plan.warn("UnexpectedJob", text);
            }
            None => {}
            Some(end) => {
                if known {
                    plan.status.active.retain(|active| *active.uid != *job.uid);
                    let text = format!("Saw completed job: {}, condition: {}", job.name(), end.as_str());
                    plan.note("SawCompletedJob", text);
                }
                let latest = plan.status.last_successful_time;
                if job.succeeded() && (latest.is_none() || job.completed > latest) {
                    plan.status.last_successful_time = job.completed.or(latest);
                }
            }
        }
    }
    for name in observed.missing {
        plan.note("MissingJob", format!("Active job went missing: {name}"));
        plan.status.active.retain(|active| active.name != *name);
    }
}

/// The schedule; none if it cannot be followed, which is told.
fn schedule(cron_job: &CronJob, plan: &mut Plan) -> Option<Schedule> {
    let text = &cron_job.spec.schedule;
    let zone = cron_job.spec.time_zone.as_deref();
    let zone = match zone.map(load_zone).transpose() {
        Ok(zone) => zone,
        Err(error) => {
            let text = format!("invalid timeZone: {:?}: {error}", zone.unwrap_or_default());
            plan.warn("UnknownTimeZone", text);
            return None;
        }
    };
    if text.contains("TZ") {
        plan.warn("UnsupportedSchedule", format!(
            "CRON_TZ or TZ used in schedule {text:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        ));
    }
    match Schedule::parse(text) {
        Ok(schedule) => Some(zone.into_iter().fold(schedule, Schedule::in_zone)),
        Err(error) => {
            plan.warn("UnparseableSchedule", format!("unparseable schedule: {text:?} : {error}"));
            None
        }
    }
}

/// Starts the job that is due, or says when to look again.
fn start(observed: &Observed, plan: &mut Plan) {
    let Observed { cron_job, now, .. } = *observed;
    if cron_job.metadata.deletion_timestamp.is_some() {
        return;
    }
    if cron_job.spec.suspend == Some(true) {
        // A zone that does not exist is told all the same.
        let zone = cron_job.spec.time_zone.as_deref().filter(|zone| load_zone(zone).is_err());
        if zone.is_some() {
            let _ = schedule(cron_job, plan);
        }
        return;
    }
    let Some(schedule) = schedule(cron_job, plan) else { return };
    let (due, missed) = match due(cron_job, now, &schedule, cron_job.spec.starting_deadline_seconds) {
        Ok(Due { latest, missed, .. }) => (latest, missed),
        Err(error) => {
            plan.warn("InvalidSchedule", format!("invalid schedule: {} : {error}", cron_job.spec.schedule));
            return;
        }
    };
    // The next start counts from the last one, however late it was.
    plan.again = match self::due(cron_job, now, &schedule, None) {
        Ok(Due { latest: Some(latest), .. }) => schedule.next(latest),
        Ok(Due { earliest, missed: 0, .. }) => schedule.next(earliest),
        _ => schedule.next(now),
    };
    let Some(due) = due else { return };
    if missed > MANY {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.warn("TooManyMissedTimes", text.into());
    }
    let late = cron_job.spec.starting_deadline_seconds;
    if late.is_some_and(|late| due.checked_add(SignedDuration::from_secs(late)).is_ok_and(|then| then < now))
    {
        let when = due.strftime("%a, %d %b %Y %H:%M:%S +0000");
        plan.warn("MissSchedule", format!("Missed scheduled time to start a job: {when}"));
        return;
    }
    let name = format!("{}-{}", cron_job.metadata.name, due.as_second().div_euclid(60));
    let last = cron_job.status.last_schedule_time;
    if plan.status.active.iter().any(|active| active.name == name) || last == Some(due.into()) {
        return;
    }
    match cron_job.spec.concurrency_policy.as_str() {
        "Forbid" if !plan.status.active.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.note("JobAlreadyActive", text.into());
            return;
        }
        "Replace" => plan.replace = plan.status.active.iter().map(|active| active.name.clone()).collect(),
        _ => {}
    }
    plan.create = Some((Box::new(job(cron_job, name, due)), due.into()));
}

/// What is due.
struct Due {
    /// From when starts are looked for.
    earliest: Timestamp,
    /// The latest start that was not made.
    latest: Option<Timestamp>,
    /// About how many starts were not made.
    missed: i64,
}

fn due(
    cron_job: &CronJob,
    now: Timestamp,
    schedule: &Schedule,
    deadline: Option<i64>,
) -> Result<Due, &'static str> {
    let earliest = cron_job.status.last_schedule_time.unwrap_or(cron_job.metadata.creation_timestamp);
    let mut earliest = earliest.timestamp().unwrap_or(now);
    if let Some(deadline) = deadline
        && let Ok(window) = now.checked_sub(SignedDuration::from_secs(deadline))
    {
        earliest = earliest.max(window);
    }
    let first = schedule.next(earliest).filter(|first| *first <= now);
    let Some(first) = first else { return Ok(Due { earliest, latest: None, missed: 0 }) };
    let second = schedule.next(first).filter(|second| *second <= now);
    let Some(second) = second else { return Ok(Due { earliest, latest: Some(first), missed: 0 }) };
    // Uneven schedules make this an estimate; the walk below goes from shortly before.
    let step = second.duration_since(first).as_secs();
    if step < 1 {
        return Err("time difference between two schedules is less than 1 second");
    }
    let missed = now.duration_since(first).as_secs() / step + 1;
    let mut latest = None;
    let mut at = first.checked_add(SignedDuration::from_secs((missed - 2) * step)).unwrap_or(first);
    while let Some(next) = schedule.next(at).filter(|next| *next <= now) {
        latest = Some(next);
        at = next;
    }
    Ok(Due { earliest, latest, missed })
}

/// The job for a time.
fn job(cron_job: &CronJob, name: String, due: Timestamp) -> Job {
    let template = &cron_job.spec.job_template;
    let mut job = <Job as api::Kind>::new();
    job.metadata.name = name;
    job.metadata.namespace.clone_from(&cron_job.metadata.namespace);
    job.metadata.labels.clone_from(&template.metadata.labels);
    job.metadata.annotations.clone_from(&template.metadata.annotations);
    job.metadata.owner_references = vec![crate::pods::controller_reference(cron_job)];
    // The zone was read before.
    let zone = load_zone(cron_job.spec.time_zone.as_deref().unwrap_or_default()).ok();
    let utc = zone.as_ref().is_none_or(|zone| *zone == jiff::tz::TimeZone::UTC);
    let zoned = due.to_zoned(zone.unwrap_or(jiff::tz::TimeZone::UTC));
    let when =
        if utc { zoned.strftime("%Y-%m-%dT%H:%M:%SZ") } else { zoned.strftime("%Y-%m-%dT%H:%M:%S%:z") };
    job.metadata.annotations.insert(SCHEDULED.into(), when.to_string());
    job.spec = template.spec.clone();
    job
}

/// Finished jobs beyond the limits go, those that started first before others.
fn trim(observed: &Observed, plan: &mut Plan) {
    let spec = &observed.cron_job.spec;
    for (succeeded, limit) in
        [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)]
    {
        let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
        let ended = observed.jobs.iter().filter(|job| job.finished.is_some() && job.succeeded() == succeeded);
        let mut ended: Vec<_> = ended.filter(|job| !job.deleting).collect();
        ended.sort_by_key(|job| (job.started.is_none(), job.started, job.name().to_owned()));
        let surplus = ended.len().saturating_sub(limit);
        plan.outdated.extend(ended.into_iter().take(surplus).map(|job| job.name().to_owned()));
    }
}
