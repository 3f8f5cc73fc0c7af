//! The writes: pods claimed, made, removed and let go; the job's status.

use super::JobFacts;
use super::facts::{FAILURES, FINALIZER, IGNORED_FAILURES, INDEX, PodFacts};
use super::plan::{NewPod, Plan, Pod as Seen};
use crate::pods::{adoption, from_template, patch_pod, release, slow_start};
use crate::support::delete_by_name;
use api::batch::v1::Job;
use api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use apimachinery::labels::Selector;
use client::controller::{Outcome, Writes};
use client::recorder::{EventType, reference};
use client::{Client, Informer, ObjectKey, Patch, Recorder, Result};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

pub(super) struct Act {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub jobs: Informer<JobFacts>,
    pub pods: Informer<PodFacts>,
}

impl Act {
    /// Takes the finalizer from pods.
    pub(super) async fn let_go(&self, key: &ObjectKey, pods: impl Iterator<Item = &Seen>) -> Result<()> {
        let patch =
            Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}));
        let patches = pods.map(|pod| patch_pod(&self.client, pod.key(), &patch));
        for pod in futures::future::join_all(patches).await {
            if let Some(pod) = pod? {
                self.writes.note(key, &self.pods, &pod.metadata.resource_version);
            }
        }
        Ok(())
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
            } else if let Some(pod) = patch_pod(&self.client, pod.key(), &release(job, &pod.uid)).await? {
                self.writes.note(key, &self.pods, &pod.metadata.resource_version);
            }
        }
        let wanted: Vec<Seen> = strays
            .into_iter()
            .filter(|pod| !deleting && !pod.deleting && selector.matches(&pod.labels))
            .collect();
        if wanted.is_empty() {
            return Ok(ours);
        }
        let fresh = self.client.namespaced::<Job>(&key.namespace).get(&key.name).await?;
        if fresh.metadata.uid != job.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
            return Ok(ours);
        }
        for pod in wanted {
            let Patch::Strategic(mut patch) = adoption(job, &pod.uid) else { continue };
            patch["metadata"]["finalizers"] = json!([FINALIZER]);
            if let Some(new) = patch_pod(&self.client, pod.key(), &Patch::Strategic(patch)).await? {
                self.writes.note(key, &self.pods, &new.metadata.resource_version);
                ours.push(pod);
            }
        }
        Ok(ours)
    }

    /// Makes a plan true.
    pub(super) async fn take(&self, key: &ObjectKey, job: &Job, plan: Plan) -> Result<Outcome> {
        let deletions = plan.delete.iter().map(|pod| self.delete(key, job, pod));
        let deleted: Result<()> = futures::future::join_all(deletions).await.into_iter().collect();
        let next = AtomicUsize::new(0);
        let (made, created) = slow_start(plan.create.len(), || {
            // Every call takes the next of the pods to make.
            let at = next.fetch_add(1, Ordering::Relaxed);
            self.create(key, job, plan.create[at].clone())
        })
        .await;
        let mut status = plan.status;
        status.active -= i32::try_from(plan.create.len() - made).unwrap_or(0);
        if status != job.status {
            let mut changed = job.clone();
            changed.status = status;
            match self.client.namespaced::<Job>(&key.namespace).update_status(&changed).await {
                Ok(written) => self.writes.note(key, &self.jobs, &written.metadata.resource_version),
                Err(error) if error.is_not_found() => return Ok(Outcome::Done),
                Err(error) => return Err(error),
            }
            for (normal, reason, message) in plan.tell {
                let kind = if normal { EventType::Normal } else { EventType::Warning };
                self.recorder.event(&reference(job), kind, &reason, message);
            }
        }
        self.let_go(key, plan.let_go.iter()).await?;
        deleted?;
        created?;
        Ok(plan.again.map_or(Outcome::Done, Outcome::After))
    }

    async fn create(&self, key: &ObjectKey, job: &Job, new: NewPod) -> Result<()> {
        let pod = pod(job, &new);
        match self.client.namespaced::<Pod>(&key.namespace).create(&pod).await {
            Ok(made) => {
                self.writes.note(key, &self.pods, &made.metadata.resource_version);
                let text = format!("Created pod: {}", made.metadata.name);
                self.recorder.normal(job, "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.recorder.warning(job, "FailedCreate", format!("Error creating: {error}"));
                Err(error)
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, job: &Job, pod: &Seen) -> Result<()> {
        // The finalizer holds the pod until its end is counted.
        match delete_by_name::<Pod>(&self.client, &key.namespace, pod.name()).await {
            Ok(revision) => {
                self.writes.note(key, &self.pods, &revision);
                self.recorder.normal(job, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.recorder.warning(job, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
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
