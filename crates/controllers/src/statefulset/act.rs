//! The writes: revisions, pods, claims, the status.

use super::claims::{self, Owner};
use super::identity::{Version, identify, name};
use super::plan::{Plan, Step};
use super::{ClaimFacts, SetFacts};
use crate::history::{self, History, Revision, data};
use crate::pod_control::{PodControl, Result};
use crate::pods::{PodFacts, controller_reference, slow_start};
use api::apps::v1::{ControllerRevision, StatefulSet};
use api::core::v1::{PersistentVolumeClaim, Pod};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::value::Value;
use client::recorder::{EventType, reference};
use client::{Cached, Informer, ObjectKey};
use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) struct Act {
    pub control: PodControl<PodFacts>,
    pub history: History,
    pub sets: Informer<SetFacts>,
    pub claims: Informer<ClaimFacts>,
}

/// The two revisions that a set is between, and its collisions so far.
pub(super) struct Versions {
    pub current: Version,
    pub update: Version,
    pub collisions: i32,
}

/// What upstream gives a set's pods that the set's spec of the moment may no longer say.
fn version(revision: &ControllerRevision) -> Option<Version> {
    let template = data::typed_template(&revision.data)?;
    Some(Version { name: revision.metadata.name.clone(), template })
}

/// The set's template as the server wrote it.
fn template(raw: &[u8]) -> Value {
    let set: Value = serde_json::from_slice(raw).unwrap_or_default();
    set["spec"]["template"].clone()
}

/// Whether a revision that was written without today's defaults means the same template.
fn means(raw: &[u8], revision: &ControllerRevision, wanted: &str) -> bool {
    let Ok(mut set) = serde_json::from_slice::<Value>(raw) else { return false };
    let Some(template) = data::template(&revision.data) else { return false };
    set["spec"]["template"] = template;
    if let Some(id) = api::table().kind("apps", "v1", "StatefulSet") {
        schema::defaults::apply(api::table(), id, &mut set);
    }
    hooks::strategy("apps", "StatefulSet").default(&mut set);
    data::text(&data::of_template(&set["spec"]["template"])) == wanted
}

impl Act {
    /// The revisions of a set: the one that its template is (made, or given a new number, if need be), and the one that
    /// its pods come from.
    pub(super) async fn versions(
        &self,
        key: &ObjectKey,
        cached: &Cached<SetFacts>,
        set: &StatefulSet,
        revisions: &[Revision],
    ) -> Result<Option<Versions>> {
        let wanted = data::of_template(&template(&cached.raw.bytes));
        let text = data::text(&wanted);
        let next = revisions.last().map_or(1, |last| last.revision + 1);
        let mut collisions = set.status.collision_count.unwrap_or(0);
        let equal = revisions.iter().rev().find(|revision| history::holds(revision, &text));
        let update = match (equal, revisions.last()) {
            (Some(equal), Some(last)) if history::holds(last, &text) => {
                // Of several with the same data the newest counts.
                let _ = equal;
                last.decode()?
            }
            (Some(equal), _) => {
                let mut revision = equal.decode()?;
                revision.revision = next;
                self.history.update(key, &revision).await?
            }
            (None, Some(last)) if means(&cached.raw.bytes, &last.decode()?, &text) => last.decode()?,
            (None, _) => self.snapshot(key, set, wanted, &text, next, &mut collisions).await?,
        };
        let current = revisions.iter().find(|revision| revision.name() == set.status.current_revision);
        let current = match current {
            Some(current) => current.decode()?,
            None => update.clone(),
        };
        Ok(version(&current).zip(version(&update)).map(|(current, update)| Versions {
            current,
            update,
            collisions,
        }))
    }

    async fn snapshot(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        wanted: Value,
        text: &str,
        number: i64,
        collisions: &mut i32,
    ) -> Result<ControllerRevision> {
        let mut revision = <ControllerRevision as api::Kind>::new();
        let meta = &mut revision.metadata;
        meta.namespace.clone_from(&set.metadata.namespace);
        meta.labels.clone_from(&set.spec.template.metadata.labels);
        meta.labels.insert(history::HASH_LABEL.into(), data::hash(text, Some(*collisions)));
        meta.annotations.clone_from(&set.metadata.annotations);
        meta.owner_references = vec![controller_reference(set)];
        revision.data = wanted;
        revision.revision = number;
        loop {
            let hash = data::hash(text, Some(*collisions));
            revision.metadata.name = history::name(&set.metadata.name, &hash);
            match self.history.create(key, &revision).await {
                Err(error) if error.is_already_exists() => {
                    let there = self.history.get(key, &revision.metadata.name).await?;
                    if data::text(&there.data) == text {
                        return Ok(there);
                    }
                    *collisions += 1;
                }
                other => return Ok(other?),
            }
        }
    }

    /// Forgets revisions beyond the limit that no pod is of, the oldest first.
    pub(super) async fn truncate(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        revisions: &[Revision],
        live: &BTreeSet<String>,
    ) -> Result<()> {
        let Ok(limit) = usize::try_from(set.spec.revision_history_limit.unwrap_or(10)) else { return Ok(()) };
        let old: Vec<&Revision> = revisions.iter().filter(|r| !live.contains(r.name())).collect();
        for revision in &old[..old.len().saturating_sub(limit)] {
            self.history.delete(key, revision.name()).await?;
        }
        Ok(())
    }

    /// Makes a plan true.
    pub(super) async fn take(&self, key: &ObjectKey, set: &StatefulSet, plan: Plan) -> Result<()> {
        let done = self.steps(key, set, &plan).await;
        self.write_status(key, set, plan).await?;
        done
    }

    async fn steps(&self, key: &ObjectKey, set: &StatefulSet, plan: &Plan) -> Result<()> {
        for phase in &plan.phases {
            let next = AtomicUsize::new(0);
            // In order there is one step that matters; in parallel batches grow as long as they succeed.
            let all = slow_start(phase.len(), || {
                let at = next.fetch_add(1, Ordering::Relaxed);
                self.step(key, set, &phase[at])
            });
            all.await.1?;
        }
        Ok(())
    }

    async fn step(&self, key: &ObjectKey, set: &StatefulSet, step: &Step) -> Result<()> {
        match step {
            Step::Create(pod, ordinal) => self.create(key, set, pod, *ordinal).await,
            Step::Claim { pod, ordinal } => {
                self.make_claims(key, set, pod.name(), *ordinal).await?;
                self.retain(key, set, pod.name(), &pod.uid, *ordinal).await
            }
            Step::Retain { pod, ordinal } => self.retain(key, set, pod.name(), &pod.uid, *ordinal).await,
            Step::Update { pod, ordinal } => self.update(key, set, pod, *ordinal).await,
            Step::Delete(pod) => self.delete(key, set, pod.name()).await,
        }
    }

    async fn create(&self, key: &ObjectKey, set: &StatefulSet, pod: &Pod, ordinal: i32) -> Result<()> {
        let name = &pod.metadata.name;
        if let Err(error) = self.make_claims(key, set, name, ordinal).await {
            self.tell_pod(set, "Create", name, Some(&error));
            return Err(error);
        }
        let made = match self.control.client.namespaced::<Pod>(&key.namespace).create(pod).await {
            Err(error) if error.is_already_exists() => return Err(error.into()),
            Err(error) => {
                self.tell_pod(set, "Create", name, Some(&error));
                return Err(error.into());
            }
            Ok(made) => made,
        };
        self.control.writes.note(key, &self.control.pods, &made.metadata.resource_version);
        self.retain(key, set, name, &made.metadata.uid, ordinal).await?;
        self.tell_pod(set, "Create", name, None::<&client::Error>);
        Ok(())
    }

    async fn update(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &Cached<PodFacts>,
        ordinal: i32,
    ) -> Result<()> {
        let mut changed = pod.decode()?;
        debug_assert_eq!(changed.metadata.name, name(set, ordinal));
        identify(set, ordinal, &mut changed);
        if !claims::mounted(set, ordinal, &changed) {
            claims::mount(set, ordinal, &mut changed);
            self.make_claims(key, set, pod.name(), ordinal).await?;
        }
        self.retain(key, set, pod.name(), &pod.uid, ordinal).await?;
        let written = self.control.client.namespaced::<Pod>(&key.namespace).update(&changed).await;
        self.tell_pod(set, "Update", pod.name(), written.as_ref().err());
        self.control.writes.note(key, &self.control.pods, &written?.metadata.resource_version);
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, set: &StatefulSet, name: &str) -> Result<()> {
        let pods = self.control.client.namespaced::<Pod>(&key.namespace);
        match pods.delete(name, &DeleteOptions::default()).await {
            Ok(answer) => {
                let revision = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                self.control.writes.note(key, &self.control.pods, revision);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                self.tell_pod(set, "Delete", name, Some(&error));
                return Err(error.into());
            }
        }
        self.tell_pod(set, "Delete", name, None::<&client::Error>);
        Ok(())
    }

    /// Makes the claims of a pod that are absent.
    async fn make_claims(&self, key: &ObjectKey, set: &StatefulSet, pod: &str, ordinal: i32) -> Result<()> {
        let api = self.control.client.namespaced::<PersistentVolumeClaim>(&key.namespace);
        let mut failure = Ok(());
        for (_, claim) in claims::claims(set, ordinal) {
            let name = &claim.metadata.name;
            match self.claims.named(&key.namespace, name) {
                Some(there) if there.deleting => {
                    failure = Err(crate::pod_control::Error::Claim(format!("pvc {name} is being deleted")));
                    continue;
                }
                Some(_) => continue,
                None => {}
            }
            match api.create(&claim).await {
                Ok(made) => {
                    self.control.writes.note(key, &self.claims, &made.metadata.resource_version);
                    let text =
                        format!("Create Claim {name} Pod {pod} in StatefulSet {} success", set.metadata.name);
                    self.control.recorder.normal(set, "SuccessfulCreate", text);
                }
                Err(error) => {
                    if !error.is_already_exists() {
                        let text = format!(
                            "Create Claim {name} for Pod {pod} in StatefulSet {} failed error: {error}",
                            set.metadata.name
                        );
                        self.control.recorder.warning(set, "FailedCreate", text);
                    }
                    let text = format!("failed to create PVC {name}: {error}");
                    failure = Err(crate::pod_control::Error::Claim(text));
                }
            }
        }
        failure
    }

    /// Gives a pod's claims the owners that the retention policy asks for.
    async fn retain(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &str,
        uid: &str,
        ordinal: i32,
    ) -> Result<()> {
        let owner = Owner { name: pod, uid };
        for (_, claim) in claims::claims(set, ordinal) {
            let name = &claim.metadata.name;
            let Some(there) = self.claims.named(&key.namespace, name) else { continue };
            if claims::is_foreign(&there.owners, set, owner) {
                let text = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
                );
                self.control.recorder.warning(set, "ConflictingController", text);
            }
            if claims::owned_as_wanted(&there.owners, set, owner) {
                continue;
            }
            let mut changed = there.decode()?;
            changed.metadata.owner_references = claims::wanted_owners(&there.owners, set, owner);
            let api = self.control.client.namespaced::<PersistentVolumeClaim>(&key.namespace);
            match api.update(&changed).await {
                Ok(written) => {
                    self.control.writes.note(key, &self.claims, &written.metadata.resource_version);
                }
                Err(error) => {
                    let text = format!("could not update claim {name} for delete policy ownerRefs: {error}");
                    let error = crate::pod_control::Error::Claim(text);
                    self.tell_pod(set, "Update", pod, Some(&error));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn tell_pod(&self, set: &StatefulSet, verb: &str, pod: &str, error: Option<&impl Display>) {
        let of = &set.metadata.name;
        let about = reference(set);
        let recorder = &self.control.recorder;
        match error {
            None => {
                let text = format!("{verb} Pod {pod} in StatefulSet {of} successful");
                recorder.event(&about, EventType::Normal, &format!("Successful{verb}"), text);
            }
            Some(error) => {
                let text = format!("{verb} Pod {pod} in StatefulSet {of} failed error: {error}");
                recorder.event(&about, EventType::Warning, &format!("Failed{verb}"), text);
            }
        }
    }

    async fn write_status(&self, key: &ObjectKey, set: &StatefulSet, plan: Plan) -> Result<()> {
        if plan.status == set.status {
            return Ok(());
        }
        let mut changed = set.clone();
        changed.status = plan.status;
        match self.control.client.namespaced::<StatefulSet>(&key.namespace).update_status(&changed).await {
            Ok(written) => {
                self.control.writes.note(key, &self.sets, &written.metadata.resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Adopts and releases pods; returns those that are the set's.
    pub(super) async fn claim_pods(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        claims: crate::pods::Claims,
    ) -> Result<Vec<Arc<Cached<PodFacts>>>> {
        crate::pods::settle(&self.control, key, set, claims).await
    }
}
