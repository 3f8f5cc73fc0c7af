//! Deletes pods whose devices have `NoExecute` taints that the pods' requests do not bear, when their time is over.
//! Upstream: `device-taint-eviction-controller`, without DeviceTaintRules, whose gate is off.

mod plan;

use crate::pod_end::{Disruption, Evictions, How, end};
use crate::resource_claim::facts::{BY_POOL, ClaimFacts, PodFacts, pool};
use crate::support::queue;
use crate::{Context, WallClock};
use api::core::v1::{ObjectReference, Pod};
use api::resource::v1::{DeviceRequestAllocationResult, DeviceTaint, ResourceSlice};
use apimachinery::time::Time;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::recorder::EventType;
use client::{Cached, Change, Client, Error, Informer, ObjectKey, Projection, Queue, Recorder};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "device-taint-eviction-controller";
const GATE: &str = "DRADeviceTaints";
const WORKERS: usize = 10;
const WHY: Disruption =
    ("DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint");

/// What is kept of a slice: the taints of its devices that evict.
#[derive(Debug, PartialEq)]
struct SliceFacts {
    pool: String,
    generation: i64,
    tainted: HashMap<String, Vec<DeviceTaint>>,
}

impl Projection for SliceFacts {
    type Kind = ResourceSlice;

    fn project(slice: &ResourceSlice) -> Self {
        let evicting = |taints: &[DeviceTaint]| -> Vec<DeviceTaint> {
            taints.iter().filter(|taint| taint.effect == plan::NO_EXECUTE).cloned().collect()
        };
        let tainted = slice.spec.devices.iter().map(|device| (device.name.clone(), evicting(&device.taints)));
        SliceFacts {
            pool: pool(&slice.spec.driver, &slice.spec.pool.name),
            generation: slice.spec.pool.generation,
            tainted: tainted.filter(|(_, taints)| !taints.is_empty()).collect(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_POOL, |slice| vec![slice.pool.clone()])]
    }
}

/// How far the eviction of a pod is, by the pod's uid.
enum Eviction {
    Scheduled(Arc<str>),
    Done(Arc<str>),
}

/// What is told of evictions, by name and help.
const DELETIONS: (&str, &str) = (
    "device_taint_eviction_controller_pod_deletions_total",
    "Total number of Pods deleted by DeviceTaintEvictionController since its start.",
);
const LATENCY: (&str, &str) = (
    "device_taint_eviction_controller_pod_deletion_duration_seconds",
    "Latency, in seconds, between the time when a device taint effect has been activated and a Pod's deletion via DeviceTaintEvictionController.",
);

struct Loop {
    client: Client,
    clock: WallClock,
    recorder: Recorder,
    metrics: Evictions,
    pods: Informer<PodFacts>,
    claims: Informer<ClaimFacts>,
    slices: Informer<SliceFacts>,
    evictions: Mutex<HashMap<ObjectKey, Eviction>>,
}

/// Runs until shutdown, if devices may have taints. Keys are pods.
pub(crate) async fn run(context: Context) {
    if context.gates.enabled(GATE) {
        follow(context).await;
    }
}

async fn follow(context: Context) {
    let pods: Informer<PodFacts> = context.informers.get();
    let claims: Informer<ClaimFacts> = context.informers.get();
    let slices: Informer<SliceFacts> = context.informers.get();
    pods.synced().await;
    claims.synced().await;
    slices.synced().await;
    let queue = queue();
    subscribe(&pods, &claims, &slices, &queue);
    let this = Arc::new(Loop {
        recorder: Recorder::new(context.client.clone(), NAME, ""),
        metrics: Evictions::new(&context.metrics, DELETIONS, LATENCY),
        client: context.client,
        clock: context.clock,
        pods,
        claims,
        slices,
        evictions: Mutex::default(),
    });
    work(NAME, queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

fn subscribe(
    pods: &Informer<PodFacts>,
    claims: &Informer<ClaimFacts>,
    slices: &Informer<SliceFacts>,
    queue: &Queue<ObjectKey>,
) {
    let changed = queue.clone();
    pods.subscribe(move |change| {
        let pod = change.object();
        if !pod.wanted.is_empty() && (pod.placed || matches!(change, Change::Deleted(_))) {
            changed.add(pod.key().clone());
        }
    });
    let changed = queue.clone();
    claims.subscribe(move |change| {
        for claim in change.old().into_iter().chain([change.object()]) {
            consumers(claim).for_each(|pod| changed.add(pod));
        }
    });
    let (allocated, changed) = (claims.clone(), queue.clone());
    slices.subscribe(move |change| {
        if change.old().is_some_and(|old| old.projection == change.object().projection) {
            return;
        }
        for slice in change.old().into_iter().chain([change.object()]) {
            for claim in allocated.by_index(BY_POOL, &slice.pool) {
                consumers(&claim).for_each(|pod| changed.add(pod));
            }
        }
    });
}

/// The pods that a claim is reserved for.
fn consumers(claim: &Cached<ClaimFacts>) -> impl Iterator<Item = ObjectKey> + '_ {
    let pods = claim.reserved_for.iter().filter(|c| c.api_group.is_empty() && c.resource == "pods");
    pods.map(|consumer| ObjectKey::new(claim.namespace(), &consumer.name))
}

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

    /// When a device has to be given up. Only what the newest generation of its pool says counts.
    fn device_due(&self, device: &DeviceRequestAllocationResult) -> Option<Time> {
        let slices = self.slices.by_index(BY_POOL, &pool(&device.driver, &device.pool));
        let newest = slices.iter().map(|slice| slice.generation).max()?;
        let mut current = slices.iter().filter(|slice| slice.generation == newest);
        let taints = current.find_map(|slice| slice.tainted.get(&device.device))?;
        plan::due(taints, &device.tolerations)
    }

    /// When a pod has to give the first of its devices up.
    fn due(&self, pod: &Cached<PodFacts>) -> Option<Time> {
        let claims = pod.wanted.iter().filter_map(|wanted| {
            let claim = self.claims.named(pod.namespace(), wanted.claim()?)?;
            let ours = !wanted.is_owned() || claim.is_of(&pod.uid);
            (ours && claim.reserved(&pod.uid)).then_some(claim)
        });
        let due = |claim: Arc<Cached<ClaimFacts>>| {
            claim.devices.iter().filter_map(|device| self.device_due(device)).min()
        };
        claims.filter_map(due).min()
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.placed) else {
            self.evictions.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let done = |eviction: &Eviction| matches!(eviction, Eviction::Done(uid) if *uid == pod.uid);
        if self.evictions.lock().get(key).is_some_and(done) {
            return Ok(Outcome::Done);
        }
        let Some(due) = self.due(&pod) else {
            self.cancel(key, &pod.uid);
            return Ok(Outcome::Done);
        };
        let now = self.clock.now();
        if due > now {
            self.evictions.lock().insert(key.clone(), Eviction::Scheduled(pod.uid.clone()));
            return Ok(Outcome::After(self.clock.until(due)));
        }
        if self.evict(key, &pod.uid).await? {
            self.metrics.evicted(due, now);
        }
        self.evictions.lock().insert(key.clone(), Eviction::Done(pod.uid.clone()));
        Ok(Outcome::Done)
    }

    fn cancel(&self, key: &ObjectKey, uid: &Arc<str>) {
        if let Some(Eviction::Scheduled(of)) = self.evictions.lock().remove(key)
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

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn a_story() {
        play("device_taint_eviction", &[|context| Box::pin(super::follow(context))]);
    }
}
