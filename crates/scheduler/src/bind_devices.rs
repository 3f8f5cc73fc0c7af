//! What is done about a pod's claims to devices before it is bound: they are written what they get, and reserved for the pod,
//! and what their devices wait for is waited for. Upstream: `PreBind`, `Unreserve` and `PostFilter` of `DynamicResources`.

use crate::devices::extended::Extended;
use crate::devices::rows::{Claim, Readiness};
use crate::facts::PodInfo;
use crate::plugins::dynamic_resources::{BINDING_PATIENCE, BINDING_SECONDS};
use crate::reservation::{ClaimReservation, Reservation};
use crate::scheduler::Scheduler;
use api::Kind as _;
use api::core::v1::Pod;
use api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::json;
use apimachinery::meta::OwnerReference;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Time;
use apimachinery::value::to_value;
use client::recorder::{EventType, reference};
use client::{Api, Error, ObjectKey, Patch, PatchParams};
use rules::resource_claim::{EXTENDED, FINALIZER};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long the devices of a pod may take to be bound.
const PATIENCE: Duration = Duration::from_secs(BINDING_SECONDS.unsigned_abs());
/// How often a write is tried that others came before.
const TRIES: usize = 5;

/// Why a pod's claims are not ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}: {1}")]
    Api(String, #[source] Error),
    #[error("{0}")]
    Meanwhile(String),
    #[error("device binding timeout: {0}")]
    TooLate(String),
    #[error("device binding failed: {0}")]
    Failed(String),
}

fn while_doing(what: String) -> impl FnOnce(Error) -> Failure {
    |error| Failure::Api(what, error)
}

fn now() -> Time {
    Time::from(SystemClock::default().now())
}

impl Scheduler {
    fn claims_in(&self, namespace: &str) -> Api<ResourceClaim> {
        self.client.namespaced(namespace)
    }

    pub(crate) async fn bind_devices(
        &self,
        pod: &PodInfo,
        node: &str,
        reservation: &Reservation,
    ) -> Result<(), Failure> {
        let mut keys = Vec::new();
        for claim in &reservation.claims {
            keys.push(self.bind_claim(pod, claim).await?);
        }
        if !self.features.binding_conditions || self.are_ready(&keys)? {
            return Ok(());
        }
        let message = format!("waiting for binding conditions for device on node {node}");
        self.recorder.event(&reference(&pod.pod), EventType::Normal, "BindingConditionsPending", message);
        let began = std::time::Instant::now();
        let bound = self.wait_for_devices(&keys).await;
        let outcome = match &bound {
            Ok(()) => "success",
            Err(Failure::TooLate(_)) => "timeout",
            Err(Failure::Failed(_)) => "failed",
            Err(_) => "error",
        };
        let state = self.state.lock();
        for claim in keys.iter().filter_map(|key| state.cache.surroundings.devices.claim(key)) {
            self.metrics.devices_bound(claim, outcome, began.elapsed());
        }
        bound
    }

    async fn wait_for_devices(&self, keys: &[ObjectKey]) -> Result<(), Failure> {
        let mut changed = self.changed.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changed.mark_unchanged();
            if self.are_ready(keys)? {
                return Ok(());
            }
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(Failure::TooLate("context deadline exceeded".into()));
            }
        }
    }

    /// Whether the devices of all claims are bound.
    fn are_ready(&self, keys: &[ObjectKey]) -> Result<bool, Failure> {
        let state = self.state.lock();
        for key in keys {
            let Some(claim) = state.cache.surroundings.devices.claim(key) else {
                return Err(Failure::Meanwhile(format!(
                    "could not find ResourceClaim {:?}",
                    key.to_string()
                )));
            };
            match claim.readiness() {
                Readiness::Ready => {}
                Readiness::Failed(why) => return Err(Failure::Failed(why)),
                Readiness::NotYet if claim.deadline(BINDING_PATIENCE).is_some_and(|until| until < now()) => {
                    return Err(Failure::TooLate(format!("claim={}", claim.name)));
                }
                Readiness::NotYet => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Writes a claim what it gets, and that the pod may use it. Upstream: `bindClaim`.
    async fn bind_claim(&self, pod: &PodInfo, reserved: &ClaimReservation) -> Result<ObjectKey, Failure> {
        let api = self.claims_in(&reserved.key.namespace);
        let (mut claim, key) = match &reserved.extended {
            Some(extended) => {
                let made = self.make_claim(pod, &api, extended).await?;
                let key = ObjectKey::new(pod.namespace(), &made.metadata.name);
                (made, key)
            }
            None => {
                let key = reserved.key.clone();
                let told = while_doing(format!("get claim {key}"));
                (api.get(&key.name).await.map_err(told)?, key)
            }
        };
        let uid = &pod.facts.uid;
        if reserved.extended.is_none() && claim.metadata.uid != reserved.uid {
            return Err(Failure::Meanwhile(format!("claim {key} got deleted in the meantime")));
        }
        let mut tries = 0;
        while reserved.allocation.is_some() || !Claim::of(&claim).is_reserved_for(uid) {
            match self.write_claim(pod, &api, &key, claim, reserved.allocation.as_deref()).await {
                Ok(written) => {
                    claim = written;
                    break;
                }
                Err(Failure::Api(_, error)) if error.is_conflict() && tries < TRIES => {
                    tries += 1;
                    let told = while_doing(format!("get updated claim {key} after conflict"));
                    claim = api.get(&key.name).await.map_err(told)?;
                }
                Err(failure) => return Err(failure),
            }
        }
        let revision = claim.metadata.resource_version.parse().unwrap_or(0);
        {
            let mut state = self.state.lock();
            let devices = &mut state.cache.surroundings.devices;
            devices.written(&key, Arc::new(Claim::of(&claim)), revision);
            devices.land(&reserved.uid);
        }
        if let Some(extended) = &reserved.extended {
            let status = json!({"extendedResourceClaimStatus": {
                "resourceClaimName": key.name.to_string(),
                "requestMappings": to_value(&extended.mappings).unwrap_or_default(),
            }});
            let meta = &pod.pod.metadata;
            let told = self.patch_status(&meta.namespace, &meta.name, &meta.uid, status).await;
            told.map_err(while_doing(format!("update pod {} ExtendedResourceClaimStatus", pod.facts.key())))?;
        }
        Ok(key)
    }

    async fn write_claim(
        &self,
        pod: &PodInfo,
        api: &Api<ResourceClaim>,
        key: &ObjectKey,
        mut claim: ResourceClaim,
        allocation: Option<&AllocationResult>,
    ) -> Result<ResourceClaim, Failure> {
        let meanwhile =
            |what: &str| Err(Failure::Meanwhile(format!("claim {key} got {what} in the meantime")));
        if claim.metadata.deletion_timestamp.is_some() {
            return meanwhile("deleted");
        }
        if let Some(allocation) = allocation {
            if claim.status.allocation.is_some() {
                return meanwhile("allocated elsewhere");
            }
            if !claim.metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                claim.metadata.finalizers.push(FINALIZER.into());
                let told = while_doing(format!("add finalizer to claim {key}"));
                claim = api.update(&claim).await.map_err(told)?;
            }
            claim.status.allocation = Some(allocation.clone());
        }
        let Some(given) = &mut claim.status.allocation else { return meanwhile("deallocated elsewhere") };
        if self.features.binding_conditions {
            given.allocation_timestamp.get_or_insert_with(now);
        }
        let meta = &pod.pod.metadata;
        claim.status.reserved_for.push(ResourceClaimConsumerReference {
            resource: "pods".into(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..Default::default()
        });
        let what = if allocation.is_some() { "allocation and reservation" } else { "reservation" };
        api.update_status(&claim).await.map_err(while_doing(format!("add {what} to claim {key}")))
    }

    /// Makes the claim for what extended resources devices are to give.
    async fn make_claim(
        &self,
        pod: &PodInfo,
        api: &Api<ResourceClaim>,
        extended: &Extended,
    ) -> Result<ResourceClaim, Failure> {
        let of = &pod.pod.metadata;
        let mut claim = ResourceClaim::new();
        let meta = &mut claim.metadata;
        meta.namespace = of.namespace.clone();
        meta.generate_name = format!("{}-extended-resources-", of.name);
        meta.annotations.insert(EXTENDED.into(), "true".into());
        meta.owner_references.push(OwnerReference {
            api_version: Pod::api_version(),
            kind: Pod::KIND.into(),
            name: of.name.clone(),
            uid: of.uid.clone(),
            controller: Some(true),
            ..Default::default()
        });
        claim.spec.devices.requests = extended.requests.clone();
        let made = api.create(&claim).await;
        self.metrics.claim_made(made.is_ok());
        made.map_err(while_doing("create claim for extended resources".into()))
    }

    /// Takes a pod back from the claims that were reserved for it, and removes the one that was made for it.
    pub(crate) async fn unreserve(&self, pod: &PodInfo, reservation: &Reservation) {
        let uid = &pod.facts.uid;
        for reserved in &reservation.claims {
            let claim = {
                let state = self.state.lock();
                let devices = &state.cache.surroundings.devices;
                match reserved.extended {
                    Some(_) => devices.extended_claim(uid).cloned(),
                    None => devices.claim(&reserved.key).cloned(),
                }
            };
            let Some(claim) = claim else { continue };
            let key = ObjectKey::new(&claim.namespace, &claim.name);
            let undone = if claim.extended {
                self.delete_claim(&key).await
            } else if claim.is_allocated() && claim.is_reserved_for(uid) {
                let patch = Patch::Strategic(json!({
                    "metadata": {"uid": claim.uid.clone()},
                    "status": {"reservedFor": [{"$patch": "delete", "uid": uid.to_string()}]},
                }));
                let api = self.claims_in(&claim.namespace);
                api.patch_status(&claim.name, &patch, &PatchParams::default()).await.map(drop)
            } else {
                continue;
            };
            if let Err(error) = undone {
                // It is come by again when the pod is tried again.
                tracing::warn!(pod = %pod.facts.key(), claim = %key, %error, "could not unreserve a claim");
            }
        }
    }

    /// Gives a claim's devices back, so that other ones can be had for it.
    pub(crate) async fn release(&self, pod: &PodInfo, key: &ObjectKey) {
        let released = async {
            let api = self.claims_in(&key.namespace);
            let Some(mut claim) = api.get_opt(&key.name).await? else { return Ok(()) };
            let known = Claim::of(&claim);
            if known.extended {
                return self.delete_claim(key).await;
            }
            if known.is_idle_but_for(&pod.facts.uid) {
                claim.status = Default::default();
                api.update_status(&claim).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = released.await {
            tracing::warn!(pod = %pod.facts.key(), claim = %key, %error, "could not give a claim's devices back");
        }
    }

    /// Deletes a claim that is ours, its finalizer first.
    async fn delete_claim(&self, key: &ObjectKey) -> Result<(), Error> {
        let api = self.claims_in(&key.namespace);
        for tried in 0.. {
            let Some(mut claim) = api.get_opt(&key.name).await? else { return Ok(()) };
            claim.metadata.finalizers.retain(|finalizer| finalizer != FINALIZER);
            match api.update(&claim).await {
                Err(error) if error.is_conflict() && tried < TRIES => {}
                updated => {
                    updated?;
                    break;
                }
            }
        }
        match api.delete(&key.name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
