//! What a job's status may become. Most rules hold for what the write changes: a status that breaks one already can be
//! written on. Upstream: `ValidateJobUpdateStatus`.

use super::indexes::{count_indexes, overlap};
use crate::check::Check;
use api::batch::v1::{Job, JobStatus};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use serde::Serialize;
use std::collections::HashSet;

/// A job before and after, and what is asked of them often.
struct Change<'a> {
    job: &'a Job,
    now: &'a JobStatus,
    then: &'a JobStatus,
}

fn is(status: &JobStatus, condition: &str, word: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == condition && c.status == word)
}

fn has(status: &JobStatus, condition: &str) -> bool {
    is(status, condition, "True")
}

fn is_finished(status: &JobStatus) -> bool {
    has(status, "Complete") || has(status, "Failed")
}

impl Change<'_> {
    fn of<T: PartialEq>(&self, part: impl Fn(&JobStatus) -> T) -> bool {
        part(self.now) != part(self.then)
    }

    fn of_condition(&self, condition: &str) -> bool {
        self.of(|status| has(status, condition))
    }

    fn is_indexed(&self) -> bool {
        self.job.spec.completion_mode.as_deref() == Some("Indexed")
    }
}

fn shown(value: &impl Serialize) -> BadValue {
    BadValue::json(value)
}

pub(super) fn validate_status(job: &Job, old: &Job) -> ErrorList {
    let mut check = Check::default();
    let change = Change { job, now: &job.status, then: &old.status };
    let path = Path::new("status");
    counts(&mut check, change.now, &path);
    conditions_and_times(&mut check, &change, &path);
    when_finished(&mut check, &change, &path);
    indexes(&mut check, &change, &path);
    let now = change.now;
    if is_finished(now) && (change.of(is_finished) || change.of(|s| s.terminating)) {
        let pods = now.terminating.filter(|n| *n > 0);
        let at = path.child("terminating");
        pods.into_iter().for_each(|n| check.invalid(&at, n, "terminating>0 is invalid for finished job"));
    }
    if change.of(|s| s.ready) || change.of(|s| s.active) {
        let ready = now.ready.filter(|ready| *ready > now.active);
        let at = path.child("ready");
        ready.into_iter().for_each(|n| check.invalid(&at, n, "cannot set more ready pods than active"));
    }
    let at = path.child("conditions");
    let mut refuse = |wrong: bool, why: &str| {
        check.when(wrong, || Error::invalid(&at, BadValue::omitted(), why));
    };
    let met = has(now, "SuccessCriteriaMet");
    refuse(met && has(now, "Failed"), "cannot set SuccessCriteriaMet=True and Failed=true conditions");
    refuse(
        met && has(now, "FailureTarget"),
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    );
    refuse(
        job.spec.success_policy.is_some() && !met && has(now, "Complete"),
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    transitions(&mut check, &change, &path);
    check.0
}

fn counts(check: &mut Check, status: &JobStatus, path: &Path) {
    check.not_negative(&path.child("active"), status.active);
    check.not_negative(&path.child("succeeded"), status.succeeded);
    check.not_negative(&path.child("failed"), status.failed);
    status.ready.into_iter().for_each(|n| check.not_negative(&path.child("ready"), n));
    status.terminating.into_iter().for_each(|n| check.not_negative(&path.child("terminating"), n));
    let Some(pods) = &status.uncounted_terminated_pods else { return };
    let (path, mut seen) = (path.child("uncountedTerminatedPods"), HashSet::new());
    for (member, uids) in [("succeeded", &pods.succeeded), ("failed", &pods.failed)] {
        for (i, uid) in uids.iter().enumerate() {
            let at = path.child(member).index(i);
            if uid.is_empty() {
                check.invalid(&at, "", "must not be empty");
            } else {
                check.when(!seen.insert(uid), || Error::duplicate(&at, uid.as_str()));
            }
        }
    }
}

fn conditions_and_times(check: &mut Check, change: &Change<'_>, path: &Path) {
    let (now, at) = (change.now, path.child("conditions"));
    let (complete, failed) = (has(now, "Complete"), has(now, "Failed"));
    let mut refuse = |concerned: bool, wrong: bool, why: &str| {
        check.when(concerned && wrong, || Error::invalid(&at, BadValue::omitted(), why));
    };
    let completes = change.of_condition("Complete");
    refuse(
        completes || change.of_condition("Failed"),
        complete && failed,
        "cannot set Complete=True and Failed=true conditions",
    );
    refuse(
        completes || change.of_condition("FailureTarget"),
        complete && has(now, "FailureTarget"),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    let done = path.child("completionTime");
    if completes || change.of(|s| s.completion_time) {
        match now.completion_time {
            Some(time) if !complete => {
                let why = "cannot set completionTime when there is no Complete=True condition";
                check.invalid(&done, shown(&time), why);
            }
            None if complete => check.required(&done, "completionTime is required for Complete jobs"),
            _ => {}
        }
    }
    if (change.of(|s| s.start_time) || change.of(|s| s.completion_time))
        && let (Some(start), Some(end)) = (now.start_time, now.completion_time)
        && end < start
    {
        check.invalid(&done, shown(&end), "must be equal to or after `startTime`");
    }
    let mut refuse = |concerned: bool, wrong: bool, why: &str| {
        check.when(concerned && wrong, || Error::invalid(&at, BadValue::omitted(), why));
    };
    refuse(
        change.of_condition("Failed") || change.of(|s| s.failed_indexes.clone()),
        failed && !has(now, "FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    refuse(
        completes || change.of_condition("SuccessCriteriaMet"),
        complete && !has(now, "SuccessCriteriaMet"),
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
}

fn when_finished(check: &mut Check, change: &Change<'_>, path: &Path) {
    let (now, spec, finishes) = (change.now, &change.job.spec, change.of(is_finished));
    if !is_finished(now) {
        return;
    }
    if now.active > 0 && (finishes || change.of(|s| s.active)) {
        check.invalid(&path.child("active"), now.active, "active>0 is invalid for finished job");
    }
    let nothing_to_do = spec.suspend == Some(true) && spec.completions == Some(0);
    if now.start_time.is_none() && (finishes || change.of(|s| s.start_time)) && !nothing_to_do {
        check.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let uncounted = now.uncounted_terminated_pods.as_ref();
    let some = uncounted.filter(|pods| !pods.failed.is_empty() || !pods.succeeded.is_empty());
    if let Some(pods) = some.filter(|_| finishes || change.of(|s| s.uncounted_terminated_pods.clone())) {
        let pods = crate::shown::shown_typed("io.k8s.api.batch.v1.UncountedTerminatedPods", pods);
        check.invalid(&path.child("uncountedTerminatedPods"), pods, "must be empty for finished job");
    }
}

fn indexes(check: &mut Check, change: &Change<'_>, path: &Path) {
    let (now, spec) = (change.now, &change.job.spec);
    let (completed, failed) = (path.child("completedIndexes"), path.child("failedIndexes"));
    let completes = change.of(|s| s.completed_indexes.clone());
    let fails = change.of(|s| s.failed_indexes.clone());
    let mut parse = |at: &Path, member: &str, text: &str, completions: i32| {
        if let Err(why) = count_indexes(text, completions) {
            check.invalid(at, text, format!("error parsing {member}: {why}"));
        }
    };
    if let Some(completions) = spec.completions {
        if completes {
            parse(&completed, "completedIndexes", &now.completed_indexes, completions);
        }
        if let Some(text) =
            now.failed_indexes.as_ref().filter(|_| fails && spec.backoff_limit_per_index.is_some())
        {
            parse(&failed, "failedIndexes", text, completions);
        }
    }
    if completes && !now.completed_indexes.is_empty() && !change.is_indexed() {
        let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
        check.invalid(&completed, now.completed_indexes.as_str(), why);
    }
    let Some(text) = &now.failed_indexes else { return };
    if fails && spec.backoff_limit_per_index.is_none() {
        let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        check.invalid(&failed, text.as_str(), why);
    }
    if let Some(completions) = spec.completions.filter(|_| fails || completes)
        && let Some(index) = overlap(&now.completed_indexes, text, completions)
    {
        let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
        check.invalid(&failed, text.as_str(), why);
    }
}

/// What does not go back.
fn transitions(check: &mut Check, change: &Change<'_>, path: &Path) {
    let (now, then, spec, at) = (change.now, change.then, &change.job.spec, path.child("conditions"));
    for condition in ["Failed", "Complete", "FailureTarget"] {
        check.when(has(then, condition) && !has(now, condition), || {
            let why = format!("cannot disable the terminal {condition}=True condition");
            Error::invalid(&at, BadValue::omitted(), why)
        });
    }
    if now.failed < then.failed {
        check.invalid(&path.child("failed"), now.failed, "cannot decrease the failed counter");
    }
    // An elastic job may shrink.
    let elastic = change.is_indexed() && spec.completions == spec.parallelism;
    if now.succeeded < then.succeeded && !elastic {
        check.invalid(&path.child("succeeded"), now.succeeded, "cannot decrease the succeeded counter");
    }
    if let (Some(time), Some(before)) = (now.completion_time, then.completion_time)
        && time != before
    {
        check.invalid(&path.child("completionTime"), shown(&time), "field is immutable");
    }
    let resumes = has(then, "Suspended") && is(now, "Suspended", "False");
    let fixed = then.start_time.is_some() && spec.suspend != Some(true) && !resumes;
    if fixed && change.of(|s| s.start_time) {
        let why = "field is immutable for unsuspended job once set";
        check.invalid(&path.child("startTime"), shown(&now.start_time), why);
    }
    let (met, was_met) = (has(now, "SuccessCriteriaMet"), has(then, "SuccessCriteriaMet"));
    check.when(was_met && !met, || {
        Error::invalid(&at, BadValue::omitted(), "cannot disable the SuccessCriteriaMet=True condition")
    });
    check.when(has(then, "Complete") && !was_met && met, || {
        let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        Error::invalid(&at, BadValue::omitted(), why)
    });
}
