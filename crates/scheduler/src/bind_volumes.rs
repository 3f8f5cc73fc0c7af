//! What is done before a pod is bound, and about its volumes: volumes are given to its claims, or asked for, and the binder
//! brings the rest about, which is waited for. Upstream: `PreBind` of `VolumeBinding`.

use crate::act::Again;
use crate::facts::PodInfo;
use crate::metrics::took;
use crate::queue::Attempt;
use crate::reservation::Reservation;
use crate::scheduler::{Scheduler, State};
use crate::stopwatch::Point;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::json;
use apimachinery::value::Value;
use client::recorder::{EventType, reference};
use client::{Error, ObjectKey};
use rules::volumes::{BOUND_BY_CONTROLLER, Claim, SELECTED_NODE, Volume};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the binder, and who makes volumes, may take.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Why a pod's volumes could not be bound.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("binding volumes: {0}")]
    Waiting(String),
}

/// The revisions at which volumes and claims were written.
#[derive(Debug, Default)]
struct Written {
    volumes: HashMap<Arc<str>, u64>,
    claims: HashMap<ObjectKey, u64>,
}

impl Scheduler {
    /// Sees to a pod's volumes and devices, then binds it.
    pub(crate) async fn bind_reserved(
        &self,
        pod: PodInfo,
        attempt: Attempt,
        node: &str,
        reservation: Reservation,
    ) {
        let began = std::time::Instant::now();
        // Whoever looks at the pod while its volumes are made sees where it is to go. What fails here, fails below.
        self.say_where(&pod, node.into()).await;
        let ready = self.make_ready(&pod, node, &reservation).await;
        self.metrics.lap(&took(Point::PreBind, began, ready.is_ok()));
        match ready {
            Ok(()) => {
                let Ok(permit) = self.binders.clone().acquire_owned().await else { return };
                if !self.bind(&pod, attempt, node).await {
                    self.unreserve(&pod, &reservation).await;
                }
                drop(permit);
            }
            Err(message) => {
                reservation.forget(&mut self.state.lock().cache.surroundings);
                self.unreserve(&pod, &reservation).await;
                let gone = self.pods.get(pod.facts.key()).is_none_or(|now| now.uid != pod.facts.uid);
                self.give_up(&pod, &attempt, if gone { Again::Never } else { Again::Later });
                if !gone {
                    self.say_where(&pod, Value::Null).await;
                    let about = reference(&pod.pod);
                    self.recorder.event(&about, EventType::Warning, "FailedScheduling", message.clone());
                    self.tell(&pod.pod, "SchedulerError", &message, None).await;
                }
            }
        }
    }

    /// Fails with what the pod is told.
    async fn make_ready(&self, pod: &PodInfo, node: &str, reservation: &Reservation) -> Result<(), String> {
        let told = |plugin: &str, why: String| format!("running PreBind plugin {plugin:?}: {why}");
        if reservation.has_volumes() {
            let bound = self.bind_volumes(pod, node, reservation).await;
            bound.map_err(|failure| told("VolumeBinding", failure.to_string()))?;
        }
        if reservation.claims.is_empty() {
            return Ok(());
        }
        let bound = self.bind_devices(pod, node, reservation).await;
        bound.map_err(|failure| told("DynamicResources", failure.to_string()))
    }

    /// Names a pod's node before it is bound, or takes that back. Upstream: `NominatedNodeNameForExpectation`.
    async fn say_where(&self, pod: &PodInfo, node: Value) {
        let meta = &pod.pod.metadata;
        let nomination = json!({"nominatedNodeName": node});
        if let Err(error) = self.patch_status(&meta.namespace, &meta.name, &meta.uid, nomination).await {
            tracing::debug!(pod = %pod.facts.key(), %error, "could not say where a pod is to go");
        }
    }

    async fn bind_volumes(
        &self,
        pod: &PodInfo,
        node: &str,
        reservation: &Reservation,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + TIMEOUT;
        let written = self.write_bindings(node, reservation).await?;
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let here = self.pods.get(pod.facts.key()).is_some_and(|now| now.uid == pod.facts.uid);
            if !here {
                let name = &pod.facts.key().name;
                let why = format!("pod does not exist any more: pod {name:?} not found");
                return Err(Failure::Waiting(why));
            }
            if self.state.lock().are_bound(node, reservation, &written).map_err(Failure::Waiting)? {
                return Ok(());
            }
            match timeout_at(deadline, changed.changed()).await {
                // The sender lives as long as `self`.
                Ok(_) => {}
                Err(_) => return Err(Failure::Waiting("context deadline exceeded".into())),
            }
        }
    }

    /// Gives volumes to claims, and claims to the node.
    async fn write_bindings(&self, node: &str, reservation: &Reservation) -> Result<Written, Failure> {
        let mut written = Written::default();
        for (name, key) in &reservation.volumes {
            let (Some(volume), Some(claim)) = (self.volumes.named("", name), self.claims.get(key)) else {
                let why = format!("failed to check binding: {}", absent_volume(name));
                return Err(Failure::Waiting(why));
            };
            let (mut volume, claim) = (volume.decode()?, claim.decode()?);
            let kept = Volume::of(&volume).is_for(&Claim::of(&claim));
            volume.spec.claim_ref = Some(reference(&claim));
            if !kept {
                let annotations = &mut volume.metadata.annotations;
                annotations.entry(BOUND_BY_CONTROLLER.into()).or_insert_with(|| "yes".into());
            }
            let volume = self.client.all::<PersistentVolume>().update(&volume).await?;
            written.volumes.insert(name.clone(), revision(&volume.metadata.resource_version));
        }
        for key in &reservation.provisions {
            let Some(claim) = self.claims.get(key) else {
                let why = format!("failed to check provisioning pvc: {}", absent_claim(key));
                return Err(Failure::Waiting(why));
            };
            let mut claim = claim.decode()?;
            claim.metadata.annotations.insert(SELECTED_NODE.into(), node.into());
            let claim =
                self.client.namespaced::<PersistentVolumeClaim>(&key.namespace).update(&claim).await?;
            written.claims.insert(key.clone(), revision(&claim.metadata.resource_version));
        }
        Ok(written)
    }
}

/// In the words of upstream's caches.
fn absent_volume(name: &str) -> String {
    format!("could not find v1.PersistentVolume {name:?}")
}

fn absent_claim(key: &ObjectKey) -> String {
    format!("could not find v1.PersistentVolumeClaim {:?}", key.to_string())
}

fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

impl State {
    /// Whether all that was asked for has come about; or why it will not. Upstream: `checkBindings`.
    fn are_bound(&self, node: &str, reservation: &Reservation, written: &Written) -> Result<bool, String> {
        let storage = &self.cache.surroundings.storage;
        let Some(at) = self.cache.node(node) else {
            return Err(format!("failed to get node {node:?}: node {node:?} not found"));
        };
        let reached = |volume: &Volume| {
            if volume.reachable_from(&at.facts.labels) {
                return Ok(());
            }
            let name = &volume.name;
            Err(format!(
                "pv {name:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"
            ))
        };
        for (name, key) in &reservation.volumes {
            let Some(volume) = storage.volume(name) else {
                return Err(format!("failed to check binding: {}", absent_volume(name)));
            };
            let Some(claim) = storage.claim(key) else {
                return Err(format!("failed to check binding: {}", absent_claim(key)));
            };
            if storage.volume_revision(name) < written.volumes.get(name).copied() {
                return Ok(false);
            }
            reached(&volume.facts)?;
            if volume.facts.claim.as_ref().is_none_or(|claim| claim.uid.is_empty()) {
                return Err(format!("ClaimRef got reset for pv {name:?}"));
            }
            if !claim.is_usable() {
                return Ok(false);
            }
        }
        for key in &reservation.provisions {
            let name = &key.name;
            let Some(claim) = storage.claim(key) else {
                return Err(format!("failed to check provisioning pvc: {}", absent_claim(key)));
            };
            if storage.claim_revision(key) < written.claims.get(key).copied() {
                return Ok(false);
            }
            // Who cannot make a volume there takes the node away, for another to be chosen.
            if claim.selected_node.as_deref() != Some(node) {
                return Err(format!("provisioning failed for PVC {name:?}"));
            }
            if !claim.volume.is_empty() {
                let Some(volume) = storage.volume(&claim.volume) else { return Ok(false) };
                reached(&volume.facts)?;
            }
            if !claim.is_usable() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
