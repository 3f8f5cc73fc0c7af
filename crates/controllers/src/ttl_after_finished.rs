//! Deletes Jobs some time after they finished, as their `ttlSecondsAfterFinished` says.
//! Upstream: `ttl-after-finished-controller`.

use crate::Context;
use crate::support::{now, queue};
use api::batch::v1::Job;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::{Duration as Span, Time};
use client::controller::{Outcome, Writes, run as work};
use client::{Change, Error, Informer, Projection};
use component::metrics::{Opts, Stability};
use std::time::Duration;

const WORKERS: usize = 5;

/// What is kept of a Job: when it is to go.
#[derive(Debug, PartialEq)]
struct Facts {
    expires: Option<Time>,
}

/// When a Job that is not being deleted yet is to go; never if it has not finished, or is to stay.
fn expires(job: &Job) -> Option<Time> {
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let ttl = job.spec.ttl_seconds_after_finished?;
    let ended = |c: &&api::batch::v1::JobCondition| {
        matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True"
    };
    let finished = job.status.conditions.iter().find(ended)?.last_transition_time?;
    Some(finished.plus(Span::from_seconds(ttl.into())))
}

impl Projection for Facts {
    type Kind = Job;

    fn project(job: &Job) -> Self {
        Facts { expires: expires(job) }
    }
}

/// Runs until shutdown. Keys are Jobs.
pub(crate) async fn run(context: Context) {
    let jobs: Informer<Facts> = context.informers.get();
    let queue = queue();
    let changed = queue.clone();
    jobs.subscribe(move |change| {
        if !matches!(change, Change::Deleted(_)) && change.object().expires.is_some() {
            changed.add(change.object().key().clone());
        }
    });
    jobs.synced().await;
    let opts = Opts {
        name: "ttl_after_finished_controller_job_deletion_duration_seconds",
        help: "The time it took to delete the job since it became eligible for deletion",
        stability: Stability::Alpha,
    };
    let buckets: Vec<f64> = (0..14).map(|i| 0.1 * 2_f64.powi(i)).collect();
    let latency = context.metrics.histogram_vec(opts, &[], &buckets).with(&[]);
    let client = context.client;
    work("ttl_jobs_to_delete", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let (jobs, client, latency) = (jobs.clone(), client.clone(), latency.clone());
        async move {
            let Some(expires) = jobs.get(&key).and_then(|job| job.expires) else { return Ok(Outcome::Done) };
            let left = expires.unix() - now().unix();
            if left > 0 {
                return Ok(Outcome::After(Duration::from_secs(left.unsigned_abs())));
            }
            // The cache may not know that it is to stay longer.
            let api = client.namespaced::<Job>(&key.namespace);
            let Some(fresh) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
            match self::expires(&fresh) {
                None => return Ok(Outcome::Done),
                Some(expires) if expires > now() => {
                    let left = expires.unix() - now().unix();
                    return Ok(Outcome::After(Duration::from_secs(left.max(1).unsigned_abs())));
                }
                Some(_) => {}
            }
            let options = DeleteOptions {
                propagation_policy: Some("Foreground".into()),
                preconditions: Some(Preconditions {
                    uid: Some(fresh.metadata.uid.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            match api.delete(&key.name, &options).await {
                Err(error) if error.is_not_found() => {}
                done => drop(done?),
            }
            latency.observe(now().since(expires).seconds_f64());
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn jobs_expire_after_they_finished() {
        let check = |ttl: Option<i32>, condition: &str, status: &str, want: Option<i64>| {
            let job: Job = apimachinery::value::from_value(json!({
                "spec": {"ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [
                    {"type": condition, "status": status, "lastTransitionTime": "1970-01-01T00:00:10Z"}]},
            }))
            .unwrap();
            assert_eq!(expires(&job).map(Time::unix), want);
        };
        check(Some(5), "Complete", "True", Some(15));
        check(Some(0), "Failed", "True", Some(10));
        check(None, "Complete", "True", None);
        check(Some(5), "Complete", "False", None);
        check(Some(5), "Suspended", "True", None);
    }
}
