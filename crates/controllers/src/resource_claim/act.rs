//! The writes: claims, their status, and where a pod's claims are.

use super::Item;
use super::facts::{BY_OWNER, ClaimFacts, PodFacts, Template, asks_admin};
use super::metrics::Metrics;
use super::plan::{chooses, consumer, decide, from_template, is_pod, unhold};
use api::core::v1::Pod;
use api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use client::controller::{Outcome, Writes};
use client::{Cached, Client, Error, Informer, ObjectKey, Patch, PatchParams, Recorder};
use rules::resource_claim::{Place, Wanted, not_its_own};

const MANAGER: &str = "ResourceClaimController";

pub(super) struct Act {
    pub client: Client,
    pub recorder: Recorder,
    pub metrics: Metrics,
    pub writes: Writes<Item>,
    pub pods: Informer<PodFacts>,
    pub claims: Informer<ClaimFacts>,
    pub templates: Informer<Template>,
    /// Whether requests may have alternatives.
    pub prioritized_list: bool,
}

impl Act {
    pub(super) async fn reconcile(&self, item: &Item) -> Result<Outcome, String> {
        match item {
            Item::Pod(key) => self.pod(item, key).await?,
            Item::Claim(key) => self.claim(item, key).await.map_err(|error| error.to_string())?,
        }
        Ok(Outcome::Done)
    }

    fn note(&self, item: &Item, claim: &ResourceClaim) {
        self.writes.note(item, &self.claims, &claim.metadata.resource_version);
    }

    async fn pod(&self, item: &Item, key: &ObjectKey) -> Result<(), String> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.asks()) else { return Ok(()) };
        let mut made = Vec::new();
        for wanted in &pod.wanted {
            match self.provide(item, &pod, wanted).await {
                Ok(name) => made.extend(name.map(|name| (wanted.name.as_str(), name))),
                Err(error) => {
                    let message = format!("PodResourceClaim {}: {error}", wanted.name);
                    if let Ok(pod) = pod.decode() {
                        self.recorder.warning(&pod, "FailedResourceClaimCreation", message.clone());
                    }
                    return Err(message);
                }
            }
        }
        if !made.is_empty() {
            // The pod comes back once it shows them.
            return self.tell(item, &pod, &made).await;
        }
        if pod.placed { self.reserve(item, &pod).await } else { Ok(()) }
    }

    /// Sees to it that a claim is there. Returns its name where the pod's status does not say so yet.
    async fn provide(
        &self,
        item: &Item,
        pod: &Cached<PodFacts>,
        wanted: &Wanted,
    ) -> Result<Option<String>, String> {
        let Some(template) = &wanted.template else { return Ok(None) };
        match &wanted.place {
            Place::Named(_) | Place::Needless => return Ok(None),
            Place::Made(name) => {
                let known = self.claims.named(pod.namespace(), name);
                if known.is_some_and(|claim| claim.is_of(&pod.uid)) {
                    return Ok(None);
                }
            }
            Place::NotYet => {}
        }
        let owned = self.claims.by_index(BY_OWNER, &pod.uid);
        if let Some(claim) = owned.iter().find(|claim| claim.called.as_ref() == Some(&wanted.name)) {
            return Ok(Some(claim.name().to_owned()));
        }
        self.make(item, pod, &wanted.name, template).await.map(Some)
    }

    async fn make(
        &self,
        item: &Item,
        pod: &Cached<PodFacts>,
        called: &str,
        template: &str,
    ) -> Result<String, String> {
        let failed = |error: &dyn std::fmt::Display| format!("resource claim template {template:?}: {error}");
        let Some(known) = self.templates.named(pod.namespace(), template) else {
            return Err(failed(&format!("resourceclaimtemplate.resource.k8s.io {template:?} not found")));
        };
        let known = known.decode().map_err(|error| failed(&error))?;
        if !self.prioritized_list && chooses(&known) {
            return Err(
                "template includes a prioritized list of subrequests, but the feature is disabled".into()
            );
        }
        let pod = pod.decode().map_err(|error| error.to_string())?;
        let claim = from_template(&pod, called, known);
        let made = self.client.namespaced(&pod.metadata.namespace).create(&claim).await;
        self.metrics.made(made.is_ok(), asks_admin(&claim.spec));
        // Upstream names the claim by a name that it does not have yet.
        let made: ResourceClaim = made.map_err(|error| format!("create ResourceClaim : {error}"))?;
        self.note(item, &made);
        Ok(made.metadata.name)
    }

    /// Writes into the pod's status where its claims are: all that were made for it, for what is applied is all there is.
    async fn tell(&self, item: &Item, pod: &Cached<PodFacts>, made: &[(&str, String)]) -> Result<(), String> {
        let told = pod.wanted.iter().filter_map(|wanted| {
            let new = made.iter().find(|(called, _)| *called == wanted.name).map(|(_, name)| name);
            match (&wanted.place, new) {
                (_, Some(name)) | (Place::Made(name), None) => {
                    Some(json!({"name": wanted.name, "resourceClaimName": name}))
                }
                _ => None,
            }
        });
        let patch = Patch::Apply(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod.name(), "namespace": pod.namespace(), "uid": *pod.uid},
            "status": {"resourceClaimStatuses": told.collect::<Vec<_>>()},
        }));
        let params = PatchParams { field_manager: MANAGER.into(), force: true, ..Default::default() };
        let api = self.client.namespaced::<Pod>(pod.namespace());
        let written = api.patch_status(pod.name(), &patch, &params).await;
        let written =
            written.map_err(|error| format!("update pod {} ResourceClaimStatuses: {error}", pod.key()))?;
        self.writes.note(item, &self.pods, &written.metadata.resource_version);
        Ok(())
    }

    /// Reserves allocated claims for a pod that no scheduler has seen.
    async fn reserve(&self, item: &Item, pod: &Cached<PodFacts>) -> Result<(), String> {
        for wanted in &pod.wanted {
            let Some(name) = wanted.claim() else { continue };
            let Some(claim) = self.claims.named(pod.namespace(), name) else { return Ok(()) };
            if wanted.is_owned() && !claim.is_of(&pod.uid) {
                return Err(not_its_own((pod.namespace(), name), (pod.namespace(), pod.name())));
            }
            if !claim.allocated || claim.reserved(&pod.uid) {
                continue;
            }
            let reserved = async {
                let mut claim = claim.decode()?;
                claim.status.reserved_for.push(consumer(pod.name(), &pod.uid));
                self.client.namespaced(pod.namespace()).update_status(&claim).await
            };
            let reserved = reserved.await;
            let reserved =
                reserved.map_err(|error: Error| format!("reserve claim {}: {error}", claim.key()))?;
            self.note(item, &reserved);
        }
        Ok(())
    }

    /// Whether a consumer may still use a claim. One that the cache does not show may be too new for it.
    async fn runs(&self, namespace: &str, consumer: &ResourceClaimConsumerReference) -> Result<bool, Error> {
        if !is_pod(consumer) {
            return Ok(true);
        }
        if let Some(pod) = self.pods.named(namespace, &consumer.name) {
            return Ok(*pod.uid == *consumer.uid && !pod.done());
        }
        let live = self.client.namespaced::<Pod>(namespace).get_opt(&consumer.name).await?;
        Ok(live.is_some_and(|pod| pod.metadata.uid == consumer.uid))
    }

    async fn claim(&self, item: &Item, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(()) };
        let mut remaining = Vec::new();
        for consumer in &claim.reserved_for {
            if self.runs(&key.namespace, consumer).await? {
                remaining.push(consumer.clone());
            }
        }
        let plan = decide(&claim, remaining);
        if plan.consumers.is_some() || plan.release {
            self.give_back(item, claim.decode()?, plan.consumers, plan.release).await?;
        }
        let Some(owner) = plan.unused else { return Ok(()) };
        // Those of pods that are gone are the garbage collector's.
        let ended = self.pods.named(&key.namespace, &owner.name);
        if claim.deleting || !ended.is_some_and(|pod| *pod.uid != *owner.uid || pod.done()) {
            return Ok(());
        }
        let preconditions = Preconditions { uid: Some(claim.uid.to_string()), ..Default::default() };
        let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
        match self.client.namespaced::<ResourceClaim>(&key.namespace).delete(&key.name, &options).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }

    async fn give_back(
        &self,
        item: &Item,
        mut claim: ResourceClaim,
        consumers: Option<Vec<ResourceClaimConsumerReference>>,
        release: bool,
    ) -> Result<(), Error> {
        let api = self.client.namespaced::<ResourceClaim>(&claim.metadata.namespace);
        let before = claim.status.clone();
        if let Some(consumers) = consumers {
            claim.status.reserved_for = consumers;
        }
        if release {
            claim.status.allocation = None;
        }
        if claim.status != before {
            claim = api.update_status(&claim).await?;
            self.note(item, &claim);
        }
        if release {
            unhold(&mut claim);
            let claim = api.update(&claim).await?;
            self.note(item, &claim);
        }
        Ok(())
    }
}
