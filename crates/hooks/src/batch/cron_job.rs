//! CronJobs.

use super::job::default_patterns;
use super::job_validation::validate_spec;
use crate::templates::*;
use crate::tree::{absent_or, age, at, column, list, name, object_age, or, text, typed, with};
use crate::{Column, Context, Strategy};
use api::batch::v1::CronJob;
use apimachinery::cron::{Schedule, load_zone};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::labels::format_label_selector;
use apimachinery::meta::LabelSelector;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct CronJobs;

/// A job's name has 63 characters, eleven of them for the time.
const MAX_NAME: usize = 52;

/// A cron job, and schedule and time zone it had before.
fn validate(cron_job: &CronJob, old: Option<(&str, Option<&str>)>) -> ErrorList {
    let (old_schedule, old_zone) = (old.map(|old| old.0), old.and_then(|old| old.1));
    let path = Path::new("spec");
    let spec = &cron_job.spec;
    let mut errors = ErrorList::new();
    let at = path.child("schedule");
    if spec.schedule.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Err(error) = Schedule::parse(&spec.schedule) {
        errors.push(Error::invalid(&at, spec.schedule.as_str(), error));
    }
    let zone_in_schedule = spec.schedule.contains("TZ");
    let allowed = old_schedule.is_some_and(|s| s.contains("TZ"));
    if zone_in_schedule && (!allowed || spec.time_zone.is_some()) {
        let text = if allowed {
            "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        } else {
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        };
        errors.push(Error::invalid(&at, spec.schedule.as_str(), text));
    }
    if let Some(deadline) = spec.starting_deadline_seconds {
        not_negative(&mut errors, &path.child("startingDeadlineSeconds"), deadline);
    }
    if let Some(zone) = spec.time_zone.as_deref().filter(|zone| old_zone != Some(*zone)) {
        let at = path.child("timeZone");
        if zone.is_empty() {
            errors.push(Error::invalid(&at, zone, "timeZone must be nil or non-empty string"));
        } else if zone.eq_ignore_ascii_case("local") {
            errors.push(Error::invalid(
                &at,
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ));
        } else if let Err(error) = load_zone(zone) {
            errors.push(Error::invalid(&at, zone, error));
        }
    }
    match spec.concurrency_policy.as_str() {
        "Allow" | "Forbid" | "Replace" => {}
        "" => errors.push(Error::required(&path.child("concurrencyPolicy"), "")),
        other => errors.push(Error::not_supported(
            &path.child("concurrencyPolicy"),
            other,
            &["Allow", "Forbid", "Replace"],
        )),
    }
    let job = path.child("jobTemplate").child("spec");
    errors.extend(validate_spec(&spec.job_template.spec, &job));
    if let Some(selector) = &spec.job_template.spec.selector {
        let why = "`selector` will be auto-generated";
        errors.push(Error::invalid(&job.child("selector"), BadValue::json(selector), why));
    }
    if spec.job_template.spec.manual_selector == Some(true) {
        let at = job.child("manualSelector");
        errors.push(Error::not_supported(&at, true, &["nil", "false"]));
    }
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        limit.into_iter().for_each(|n| not_negative(&mut errors, &path.child(field), n));
    }
    errors
}

impl Strategy for CronJobs {
    fn warnings(&self, cron_job: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        let mut found = super::job::job_warnings(cron_job, old, context, &["spec", "jobTemplate", "spec"]);
        let zoned = text(cron_job, &["spec", "schedule"]).contains("TZ");
        if zoned && old.is_some() && context.subresource.is_none() {
            // Upstream's path has the spec twice.
            found.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
        }
        found
    }

    fn default(&self, cron_job: &mut Value) {
        with(cron_job, "spec", |spec| {
            or(spec, "concurrencyPolicy", "Allow");
            absent_or(spec, "suspend", false);
            absent_or(spec, "successfulJobsHistoryLimit", 3);
            absent_or(spec, "failedJobsHistoryLimit", 1);
            with(spec, "jobTemplate", |template| {
                with(template, "spec", |job| {
                    // A template is no job yet: only its pods get defaults, and its patterns.
                    default_patterns(job);
                    default_template(job);
                });
            });
        });
    }

    fn validate(&self, cron_job: &Value, _: &Context) -> ErrorList {
        let mut errors = validate(&typed(cron_job), None);
        let name = text(cron_job, &["metadata", "name"]);
        if name.len() > MAX_NAME {
            let at = Path::new("metadata").child("name");
            errors.push(Error::invalid(&at, name, "must be no more than 52 characters"));
        }
        errors
    }

    fn validate_update(&self, cron_job: &Value, old: &Value, context: &Context) -> ErrorList {
        match context.subresource {
            Some("status") => ErrorList::new(),
            _ => {
                let zone = old["spec"]["timeZone"].as_str();
                validate(&typed(cron_job), Some((text(old, &["spec", "schedule"]), zone)))
            }
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column(
                "Schedule",
                "string",
                0,
                "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron.",
            ),
            column(
                "Timezone",
                "string",
                0,
                "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time zone names and the time zone offset is loaded from the system-wide time zone database by the API server during CronJob validation and the controller manager during execution. If no system-wide time zone database can be found a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a system event with the reason UnknownTimeZone. More information can be found in https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
            ),
            column(
                "Suspend",
                "boolean",
                0,
                "This flag tells the controller to suspend subsequent executions, it does not apply to already started executions.  Defaults to false.",
            ),
            column("Active", "integer", 0, "A list of pointers to currently running jobs."),
            column(
                "Last Schedule",
                "string",
                0,
                "Information when was the last time the job was successfully scheduled.",
            ),
            AGE,
            CONTAINERS,
            IMAGES,
            column(
                "Selector",
                "string",
                1,
                "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, cron_job: &Value, now: Time) -> Vec<Value> {
        let spec = &cron_job["spec"];
        let job = &spec["jobTemplate"]["spec"];
        let [containers, images] = containers(&job["template"]);
        let selector: Option<LabelSelector> = typed(&job["selector"]);
        let last = text(cron_job, &["status", "lastScheduleTime"]);
        vec![
            name(cron_job),
            text(spec, &["schedule"]).into(),
            at(spec, &["timeZone"]).and_then(Value::as_str).unwrap_or("<none>").into(),
            if spec["suspend"] == true { "True".into() } else { "False".into() },
            list(cron_job, &["status", "active"]).len().into(),
            if last.is_empty() { "<none>".into() } else { age(last, now).into() },
            object_age(cron_job, now).into(),
            containers,
            images,
            format_label_selector(selector.as_ref()).into(),
        ]
    }
}
