//! The writes: pods claimed, made, removed and let go; the job's status.

use super::JobFacts;
use super::facts::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, PodFacts};
use super::metrics::Metrics;
use super::plan::{NewPod, Plan, Pod as Seen};
use crate::pod_control::{PodControl, Result};
use crate::pods::{adoption, from_template, release, slow_start};
use crate::support::WallClock;
use api::batch::v1::Job;
use api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use apimachinery::json;
use apimachinery::labels::Selector;
use client::controller::Outcome;
use client::recorder::{EventType, reference};
use client::{Informer, ObjectKey, Patch};
use std::sync::atomic::{AtomicUsize, Ordering};

const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

pub(super) struct Act {
    pub control: PodControl<PodFacts>,
    pub jobs: Informer<JobFacts>,
    pub clock: WallClock,
    pub metrics: Metrics,
}

/// Takes the finalizer from a pod.
fn letting_go() -> Patch {
    Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}))
}

impl Act {
    /// Takes the finalizer from pods.
    pub(super) async fn let_go(&self, key: &ObjectKey, pods: impl Iterator<Item = &Seen>) -> Result<()> {
        let patch = letting_go();
        let patches = pods.map(|pod| self.control.patch(key, pod.key(), &patch));
        futures::future::join_all(patches).await.into_iter().try_for_each(|patched| patched.map(drop))
    }

    /// The pods that are the job's; those that match and have no controller become so.
    pub(super) async fn claim(
        &self,
        key: &ObjectKey,
        job: &Job,
        selector: &Selector,
        owned: Vec<Seen>,
        strays: Vec<Seen>,
    ) -> Result<Vec<Seen>> {
        let mut ours = Vec::new();
        let deleting = job.metadata.deletion_timestamp.is_some();
        for pod in owned {
            if selector.matches(&pod.labels) || deleting {
                ours.push(pod);
            } else if let Patch::Strategic(mut patch) = release(job, &pod.uid) {
                patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([FINALIZER]);
                self.control.patch(key, pod.key(), &Patch::Strategic(patch)).await?;
            }
        }
        let wanted: Vec<Seen> = strays
            .into_iter()
            .filter(|pod| !deleting && !pod.deleting && selector.matches(&pod.labels))
            .collect();
        if wanted.is_empty() {
            return Ok(ours);
        }
        let fresh = self.control.client.namespaced::<Job>(&key.namespace).get(&key.name).await?;
        if fresh.metadata.uid != job.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
            return Ok(ours);
        }
        for pod in wanted {
            let Patch::Strategic(mut patch) = adoption(job, &pod.uid) else { continue };
            patch["metadata"]["finalizers"] = json!([FINALIZER]);
            if self.control.patch(key, pod.key(), &Patch::Strategic(patch)).await?.is_some() {
                ours.push(pod);
            }
        }
        Ok(ours)
    }

    /// Makes a plan true.
    pub(super) async fn take(&self, key: &ObjectKey, job: &Job, plan: Plan) -> Result<Outcome> {
        let about = reference(job);
        // The finalizer holds a pod until its end is counted; the end of a surplus pod does not count.
        let deletions = plan.delete.iter().map(|pod| self.control.delete(key, &about, pod.name()));
        let deletions = futures::future::join_all(deletions);
        let surplus = futures::future::join_all(plan.discard.iter().map(|pod| async {
            self.control.patch(key, pod.key(), &letting_go()).await?;
            self.control.delete(key, &about, pod.name()).await
        }));
        let mut deleted = deletions.await;
        deleted.extend(surplus.await);
        let kept = deleted.iter().filter(|deleted| deleted.is_err()).count();
        let deleted: Result<()> = deleted.into_iter().collect();
        let next = AtomicUsize::new(0);
        let (made, created) = slow_start(plan.create.len(), || {
            // Every call takes the next of the pods to make.
            let at = next.fetch_add(1, Ordering::Relaxed);
            let pod = pod(job, &plan.create[at]);
            let about = &about;
            async move { self.control.create(key, about, &pod).await }
        })
        .await;
        let mut status = plan.status;
        self.metrics.made(job, &status, made, next.into_inner() - made);
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        status.active = status.active - count(plan.create.len() - made) + count(kept);
        if status != job.status {
            let mut changed = job.clone();
            changed.status = status;
            match self.control.client.namespaced::<Job>(&key.namespace).update_status(&changed).await {
                Ok(written) => {
                    self.metrics.written(job, &changed.status);
                    self.control.writes.note(key, &self.jobs, &written.metadata.resource_version);
                }
                Err(error) if error.is_not_found() => return Ok(Outcome::Done),
                Err(error) => return Err(error.into()),
            }
            for (normal, reason, message) in plan.tell {
                let kind = if normal { EventType::Normal } else { EventType::Warning };
                self.control.recorder.event(&about, kind, &reason, message);
            }
        }
        self.let_go(key, plan.let_go.iter()).await?;
        self.metrics.handled(&plan.handled);
        deleted?;
        created?;
        Ok(self.clock.outcome(plan.again))
    }
}

/// A pod of a job, with its index where it has one.
fn pod(job: &Job, new: &NewPod) -> Pod {
    let mut pod = from_template(job, &job.spec.template);
    if !pod.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        pod.metadata.finalizers.push(FINALIZER.into());
    }
    let Some(index) = new.index else { return pod };
    let name = &job.metadata.name;
    // Room for the five generated characters.
    let longest = 63 - 5 - format!("-{index}-").len();
    pod.metadata.generate_name = format!("{}-{index}-", &name[..name.len().min(longest)]);
    pod.metadata.annotations.insert(INDEX.into(), index.to_string());
    pod.metadata.labels.insert(INDEX.into(), index.to_string());
    if let Some((failures, ignored)) = new.failures {
        pod.metadata.annotations.insert(FAILURES.into(), failures.to_string());
        if ignored > 0 {
            pod.metadata.annotations.insert(IGNORED_FAILURES.into(), ignored.to_string());
        }
    }
    pod.spec.hostname = format!("{name}-{index}");
    let variable = EnvVar {
        name: INDEX_ENV.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: format!("metadata.labels['{INDEX}']"),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    for container in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
        if !container.env.iter().any(|env| env.name == INDEX_ENV) {
            container.env.push(variable.clone());
        }
    }
    pod
}
