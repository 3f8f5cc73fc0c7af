//! When a pod has to go, as things are; and that it goes.

use super::Item;
use super::facts::{RuleFacts, Saying, SliceFacts};
use super::plan::{self, Eviction, RuleId};
use super::rule_status::PERIOD;
use crate::WallClock;
use crate::pod_end::{Disruption, Evictions, How, end};
use crate::resource_claim::facts::{BY_POOL, ClaimFacts, PodFacts, pool};
use api::core::v1::{ObjectReference, Pod};
use api::resource::v1::{DeviceRequestAllocationResult, DeviceTaint};
use client::controller::{Outcome, Writes};
use client::recorder::EventType;
use client::{Cached, Client, Error, Informer, ObjectKey, Queue, Recorder};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const WHY: Disruption =
    ("DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint");

/// How far the eviction of a pod is, by the pod's uid.
pub(super) enum Stage {
    Scheduled(Arc<str>),
    Done(Arc<str>),
}

pub(super) struct Loop {
    pub client: Client,
    pub clock: WallClock,
    pub recorder: Recorder,
    pub metrics: Evictions,
    pub queue: Queue<Item>,
    pub writes: Writes<Item>,
    pub pods: Informer<PodFacts>,
    pub claims: Informer<ClaimFacts>,
    pub slices: Informer<SliceFacts>,
    /// Nothing where they are ignored.
    pub rules: Option<Informer<RuleFacts>>,
    pub evictions: Mutex<HashMap<ObjectKey, Stage>>,
    /// How many pods have gone for a rule, by its uid.
    pub evicted: Mutex<HashMap<Arc<str>, u64>>,
}

/// A rule that evicts.
pub(super) type Evicting = (RuleId, Saying);

impl Loop {
    fn tell(&self, key: &ObjectKey, uid: &str, what: &str) {
        let pod = ObjectReference {
            kind: "Pod".into(),
            api_version: "v1".into(),
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
            uid: uid.into(),
            ..Default::default()
        };
        self.recorder.event(&pod, EventType::Normal, "DeviceTaintManagerEviction", what);
    }

    /// The rules that evict.
    pub(super) fn evicting(&self) -> Vec<Evicting> {
        let rules = self.rules.iter().flat_map(Informer::list).filter(|rule| rule.saying.evicts());
        let rules = rules.map(|rule| (id(&rule), rule.saying.clone()));
        rules.collect()
    }

    /// What the driver says of a device that evicts. Only what the newest generation of its pool says counts.
    fn published(&self, device: &DeviceRequestAllocationResult) -> Vec<DeviceTaint> {
        let slices = self.slices.by_index(BY_POOL, &pool(&device.driver, &device.pool));
        let newest = slices.iter().map(|slice| slice.generation).max();
        let mut current = slices.iter().filter(|slice| Some(slice.generation) == newest);
        current.find_map(|slice| slice.tainted.get(&device.device)).cloned().unwrap_or_default()
    }

    fn of_device(&self, device: &DeviceRequestAllocationResult, rules: &[Evicting]) -> Eviction {
        let published = self.published(device);
        let meant = rules.iter().filter(|(_, saying)| saying.is_about_given(device));
        let by_rules = meant.map(|(id, saying)| (Some(id), &saying.taint));
        plan::eviction(published.iter().map(|taint| (None, taint)).chain(by_rules), &device.tolerations)
    }

    /// When a pod has to give the first of its devices up, and why; nothing if it need not.
    pub(super) fn of_pod(&self, pod: &Cached<PodFacts>, rules: &[Evicting]) -> Option<Eviction> {
        let claims = pod.wanted.iter().filter_map(|wanted| {
            let claim = self.claims.named(pod.namespace(), wanted.claim()?)?;
            let ours = !wanted.is_owned() || claim.is_of(&pod.uid);
            (ours && claim.reserved(&pod.uid)).then_some(claim)
        });
        let evictions = claims.filter_map(|claim| {
            let devices = claim.devices.iter().map(|device| self.of_device(device, rules));
            Some(devices.fold(Eviction::default(), Eviction::and)).filter(|all| all.when.is_some())
        });
        evictions.reduce(Eviction::and)
    }

    /// Sees to a pod.
    pub(super) async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.placed) else {
            self.evictions.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let done = |stage: &Stage| matches!(stage, Stage::Done(uid) if *uid == pod.uid);
        if self.evictions.lock().get(key).is_some_and(done) {
            return Ok(Outcome::Done);
        }
        let eviction = self.of_pod(&pod, &self.evicting());
        let Some((eviction, due)) = eviction.and_then(|all| Some((all.clone(), all.when?))) else {
            self.cancel(key, &pod.uid);
            return Ok(Outcome::Done);
        };
        // More may be about to come.
        for rule in &eviction.rules {
            self.queue.add_after(Item::Rule(rule.name.clone()), PERIOD);
        }
        let now = self.clock.now();
        if due > now {
            self.evictions.lock().insert(key.clone(), Stage::Scheduled(pod.uid.clone()));
            return Ok(Outcome::After(self.clock.until(due)));
        }
        if self.evict(key, &pod.uid).await? {
            self.metrics.evicted(due, now);
            let mut evicted = self.evicted.lock();
            for rule in &eviction.rules {
                *evicted.entry(rule.uid.clone()).or_default() += 1;
            }
        }
        self.evictions.lock().insert(key.clone(), Stage::Done(pod.uid.clone()));
        Ok(Outcome::Done)
    }

    fn cancel(&self, key: &ObjectKey, uid: &Arc<str>) {
        if let Some(Stage::Scheduled(of)) = self.evictions.lock().remove(key)
            && of == *uid
        {
            self.tell(key, uid, "Cancelling deletion");
        }
    }

    /// Returns whether the pod was there to be evicted. One that is being deleted already is left to it.
    async fn evict(&self, key: &ObjectKey, uid: &str) -> Result<bool, Error> {
        let live = self.client.namespaced::<Pod>(&key.namespace).get_opt(&key.name).await?;
        let Some(live) = live.filter(|live| live.metadata.uid == uid) else { return Ok(false) };
        if live.metadata.deletion_timestamp.is_none() {
            self.tell(key, uid, "Marking for deletion");
            end(&self.client, &live, How::Gracefully, Some(WHY), self.clock.now()).await?;
        }
        Ok(true)
    }
}

pub(super) fn id(rule: &Cached<RuleFacts>) -> RuleId {
    RuleId { name: rule.name().into(), uid: rule.uid.clone() }
}
