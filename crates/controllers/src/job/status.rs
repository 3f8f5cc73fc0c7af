//! Conditions of a job. Pure.

use api::batch::v1::{JobCondition, JobStatus};
use apimachinery::time::Time;

pub(super) const COMPLETE: &str = "Complete";
pub(super) const FAILED: &str = "Failed";
pub(super) const SUSPENDED: &str = "Suspended";
pub(super) const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
pub(super) const FAILURE_TARGET: &str = "FailureTarget";

/// The condition of a type that is true.
pub(super) fn holds<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

pub(super) fn is_finished(status: &JobStatus) -> bool {
    holds(status, COMPLETE).or(holds(status, FAILED)).is_some()
}

pub(super) fn condition(kind: &str, reason: &str, message: &str, now: Time) -> JobCondition {
    JobCondition {
        type_: kind.into(),
        status: "True".into(),
        last_probe_time: Some(now),
        last_transition_time: Some(now),
        reason: reason.into(),
        message: message.into(),
    }
}

/// Says whether the job is suspended; one that never was has no such condition. Returns whether that is news.
pub(super) fn set_suspended(status: &mut JobStatus, suspended: bool, now: Time) -> bool {
    let (value, reason, message) = if suspended {
        ("True", "JobSuspended", "Job suspended")
    } else {
        ("False", "JobResumed", "Job resumed")
    };
    match status.conditions.iter_mut().find(|condition| condition.type_ == SUSPENDED) {
        Some(old) if old.status == value => false,
        Some(old) => {
            *old = JobCondition { status: value.into(), ..condition(SUSPENDED, reason, message, now) };
            true
        }
        None if suspended => {
            status.conditions.push(condition(SUSPENDED, reason, message, now));
            true
        }
        None => false,
    }
}
