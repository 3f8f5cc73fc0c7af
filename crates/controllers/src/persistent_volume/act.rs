//! The writes that bind: a volume first, then its claim, so that whoever is interrupted finds the thread again.

use super::Key;
use super::metrics::Metrics;
use super::operations::Operations;
use super::plan::{self, ClaimSight, ClaimStep, Tell, VolumeSight, VolumeStep};
use super::view::{BY_CLAIM, BY_CLASS, View};
use super::{plugins, reclaim};
use api::Kind;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::quantity::Quantity;
use client::controller::Outcome;
use client::recorder::reference;
use client::{Client, Error, Informer, ObjectKey, Projection, Queue, Recorder};
use parking_lot::Mutex;
use rules::volumes::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Claim, MIGRATED_TO, PROVISIONED_BY, Volume, best};
use std::collections::{BTreeMap, HashMap};
use tokio_util::task::AbortOnDropHandle;

/// The size that a volume had before it is grown, while its claim does not know.
pub(super) const SIZE_BEFORE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Why something is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("{0}")]
    Other(String),
}

/// Binds, releases and reclaims.
pub(super) struct Binder {
    pub client: Client,
    pub view: View,
    pub queue: Queue<Key>,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub operations: Operations,
    /// Volumes that a pod of ours empties.
    pub recyclers: Mutex<HashMap<String, AbortOnDropHandle<()>>>,
}

type Done = Result<Outcome, Failure>;

impl Binder {
    pub(super) async fn sync_claim(&self, key: &ObjectKey) -> Done {
        let Some(cached) = self.view.claims.get(key) else { return Ok(Outcome::Done) };
        let facts = &cached.0;
        let mut claim = cached.decode()?;
        if migrate(&mut claim.metadata.annotations, &super::provision::PROVISIONERS) {
            claim = self.save_claim(&claim).await?;
        }
        let named = self.view.volumes.named("", &facts.volume);
        let mut candidates = self.view.volumes.by_index(BY_CLASS, facts.class());
        candidates.extend(self.view.volumes.by_index(BY_CLAIM, &facts.key()));
        let candidates: Vec<&Volume> = candidates.iter().map(|volume| &volume.facts).collect();
        let delayed = self.view.is_delayed(facts.class());
        let sight = ClaimSight {
            delayed,
            named: named.as_ref().map(|volume| &volume.facts),
            best: best(facts, &candidates, delayed),
            default_class: self.view.default_class(),
            waiting: self.view.waiting(&facts.key()),
        };
        match plan::claim(facts, sight) {
            ClaimStep::Bind(volume) => {
                let Some(volume) = self.view.volumes.named("", &volume) else { return Ok(Outcome::Done) };
                let bound = self.bind(volume.decode()?, claim).await;
                self.metrics.done(&facts.key(), if bound.is_ok() { Ok(()) } else { Err(()) });
                bound?;
            }
            ClaimStep::Wait(tell) => {
                self.tell(&claim, tell);
                self.set_claim_status(claim, "Pending", None).await?;
            }
            ClaimStep::Classify(class) => {
                claim.spec.storage_class_name = Some(class);
                let saved = self.save_claim(&claim).await;
                self.metrics.classified(saved.is_ok());
                let said = |error| format!("can't update PersistentVolumeClaim[{:?}]: {error}", facts.key());
                saved.map_err(|error| Failure::Other(said(error)))?;
            }
            ClaimStep::Provision => self.provision(claim, facts).await?,
            ClaimStep::Lose(tell) => {
                if claim.status.phase != "Lost" {
                    let claim = self.set_claim_status(claim, "Lost", None).await?;
                    self.tell(&claim, Some(tell));
                }
            }
            ClaimStep::Misbound(tell, error) => {
                self.tell(&claim, Some(tell));
                return Err(Failure::Other(error));
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) async fn sync_volume(self: &std::sync::Arc<Self>, key: &ObjectKey) -> Done {
        let Some(cached) = self.view.volumes.get(key) else {
            self.recyclers.lock().remove(&*key.name);
            return Ok(Outcome::Done);
        };
        let mut volume = cached.decode()?;
        let migrated = migrate(&mut volume.metadata.annotations, &[PROVISIONED_BY]);
        if reclaim::protect(&mut volume) || migrated {
            volume = self.save_volume(&volume).await?;
        }
        let facts = &cached.facts;
        let claim = self.claim_of(facts).await?;
        let spec = &volume.spec;
        let dispensable = spec.persistent_volume_reclaim_policy == "Delete"
            && volume.metadata.annotations.contains_key(PROVISIONED_BY);
        let sight = VolumeSight { claim: claim.as_ref().map(|(_, facts)| facts), dispensable };
        match plan::volume(facts, sight) {
            VolumeStep::Available => _ = self.set_phase(volume, "Available", "").await?,
            VolumeStep::Bound => _ = self.set_phase(volume, "Bound", "").await?,
            VolumeStep::Reclaim => {
                // A failure stays to be seen while it is tried again.
                if !matches!(volume.status.phase.as_str(), "Released" | "Failed") {
                    volume = self.set_phase(volume, "Released", "").await?;
                }
                return self.reclaim(volume).await;
            }
            VolumeStep::Mismatched { volume: of_volume, claim: of_claim } => {
                self.tell(&volume, Some(of_volume));
                if let Some((claim, _)) = &claim {
                    self.tell(claim, Some(of_claim));
                }
            }
            VolumeStep::Offer => {
                if let Some((_, claim)) = &claim {
                    self.queue.add(Key::claim(&claim.namespace, &claim.name));
                }
            }
            VolumeStep::Unbind => self.unbind(volume).await?,
        }
        Ok(Outcome::Done)
    }

    /// The claim that a volume is for; none when it is gone, or another came in its place. What the cache does not have
    /// is asked for: a volume must not be reclaimed because news are late.
    async fn claim_of(&self, volume: &Volume) -> Result<Option<(PersistentVolumeClaim, Claim)>, Failure> {
        let Some(wanted) = volume.claim.as_ref().filter(|claim| !claim.uid.is_empty()) else {
            return Ok(None);
        };
        if let Some(cached) = self.view.claims.named(&wanted.namespace, &wanted.name) {
            if cached.0.uid == wanted.uid {
                return Ok(Some((cached.decode()?, cached.0.clone())));
            }
        } else if matches!(volume.phase.as_str(), "Released" | "Failed") {
            return Ok(None);
        }
        let api = self.client.namespaced::<PersistentVolumeClaim>(&wanted.namespace);
        let claim = api.get_opt(&wanted.name).await?.filter(|claim| claim.metadata.uid == wanted.uid);
        Ok(claim.map(|claim| {
            let facts = Claim::of(&claim);
            (claim, facts)
        }))
    }

    /// Makes a volume and a claim each other's, as far as they are not yet.
    async fn bind(
        &self,
        mut volume: PersistentVolume,
        mut claim: PersistentVolumeClaim,
    ) -> Result<(), Failure> {
        let facts = Claim::of(&claim);
        let kept = Volume::of(&volume);
        let named = kept.is_for(&facts);
        let known = named && kept.claim.as_ref().is_some_and(|reference| reference.uid == facts.uid);
        let marked = volume.metadata.annotations.contains_key(BOUND_BY_CONTROLLER);
        if !known {
            volume.spec.claim_ref = Some(reference(&claim));
        }
        if !named && !marked {
            volume.metadata.annotations.insert(BOUND_BY_CONTROLLER.into(), "yes".into());
        }
        if !known {
            volume = self.save_volume(&volume).await?;
        }
        let volume = self.set_phase(volume, "Bound", "").await?;
        if claim.spec.volume_name != volume.metadata.name || !facts.bind_completed {
            let annotations = &mut claim.metadata.annotations;
            if claim.spec.volume_name != volume.metadata.name {
                claim.spec.volume_name = volume.metadata.name.clone();
                annotations.entry(BOUND_BY_CONTROLLER.into()).or_insert_with(|| "yes".into());
            }
            annotations.entry(BIND_COMPLETED.into()).or_insert_with(|| "yes".into());
            claim = self.save_claim(&claim).await?;
        }
        self.set_claim_status(claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    /// Frees a volume of a claim that took another. One that its author meant for the claim goes on waiting for it.
    pub(super) async fn unbind(&self, mut volume: PersistentVolume) -> Result<(), Failure> {
        if volume.metadata.annotations.remove(BOUND_BY_CONTROLLER).is_some() {
            volume.spec.claim_ref = None;
        } else if let Some(reference) = &mut volume.spec.claim_ref {
            reference.uid.clear();
        }
        let volume = self.save_volume(&volume).await?;
        self.set_phase(volume, "Available", "").await?;
        Ok(())
    }

    /// Sets the phase of a claim, and what it has of its volume. Upstream: `updateClaimStatus`.
    async fn set_claim_status(
        &self,
        mut claim: PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<PersistentVolumeClaim, Failure> {
        let before = claim.status.clone();
        let status = &mut claim.status;
        status.phase = phase.into();
        match volume {
            None => {
                status.access_modes.clear();
                status.capacity.clear();
                status.current_volume_attributes_class_name = None;
            }
            Some(volume) => {
                status.access_modes = volume.spec.access_modes.clone();
                // Of a claim that is bound already, the size may differ: its file system's, not its device's.
                if before.phase != phase {
                    let Some(size) = volume.spec.capacity.get("storage") else {
                        let name = &volume.metadata.name;
                        return Err(Failure::Other(format!(
                            "PersistentVolume {name:?} is without a storage capacity"
                        )));
                    };
                    match volume.metadata.annotations.get(SIZE_BEFORE) {
                        Some(text) => {
                            let smaller = text.parse::<Quantity>().unwrap_or_else(|_| size.clone());
                            status.capacity.insert("storage".into(), smaller);
                        }
                        None if status.capacity.get("storage") != Some(size) => {
                            status.capacity = volume.spec.capacity.clone();
                        }
                        None => {}
                    }
                }
                if before.phase == "Pending" && phase == "Bound" {
                    let class = &volume.spec.volume_attributes_class_name;
                    status.current_volume_attributes_class_name = class.clone();
                }
            }
        }
        if claim.status == before {
            return Ok(claim);
        }
        let api = self.client.namespaced::<PersistentVolumeClaim>(&claim.metadata.namespace);
        seen(&self.view.claims, api.update_status(&claim).await?).await
    }

    /// Sets the phase of a volume.
    pub(super) async fn set_phase(
        &self,
        mut volume: PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<PersistentVolume, Failure> {
        if volume.status.phase == phase {
            return Ok(volume);
        }
        volume.status.phase = phase.into();
        volume.status.message = message.into();
        seen(&self.view.volumes, self.client.all().update_status(&volume).await?).await
    }

    /// Says that something could not be done with a volume, once.
    pub(super) async fn set_failed(
        &self,
        volume: PersistentVolume,
        reason: &'static str,
        why: &str,
    ) -> Result<(), Failure> {
        if volume.status.phase != "Failed" {
            let volume = self.set_phase(volume, "Failed", why).await?;
            self.recorder.warning(&volume, reason, why);
        }
        Ok(())
    }

    pub(super) async fn save_volume(&self, volume: &PersistentVolume) -> Result<PersistentVolume, Failure> {
        seen(&self.view.volumes, self.client.all().update(volume).await?).await
    }

    pub(super) async fn save_claim(
        &self,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolumeClaim, Failure> {
        let api = self.client.namespaced(&claim.metadata.namespace);
        seen(&self.view.claims, api.update(claim).await?).await
    }

    pub(super) fn tell<K: Kind>(&self, about: &K, tell: Option<Tell>) {
        if let Some(Tell(kind, reason, message)) = tell {
            self.recorder.event(&reference(about), kind, reason, message);
        }
    }
}

/// Waits until what was written is what the informer shows.
async fn seen<P: Projection>(informer: &Informer<P>, written: P::Kind) -> Result<P::Kind, Failure> {
    if let Ok(revision) = written.metadata().resource_version.parse() {
        informer.reached(revision).await;
    }
    Ok(written)
}

/// Says which CSI driver took the place of the plugin that made, or is to make, a volume. Returns whether that changed.
pub(super) fn migrate(annotations: &mut BTreeMap<String, String>, named_by: &[&str]) -> bool {
    let Some(provisioner) = named_by.iter().find_map(|key| annotations.get(*key)) else { return false };
    match plugins::driver_of(provisioner) {
        Some(driver) if annotations.get(MIGRATED_TO).is_some_and(|known| known == driver) => false,
        Some(driver) => {
            annotations.insert(MIGRATED_TO.into(), driver.into());
            true
        }
        None => annotations.remove(MIGRATED_TO).is_some_and(|known| !known.is_empty()),
    }
}
