//! Deletes pods whose devices have `NoExecute` taints that the pods' requests do not bear, when their time is over; taints
//! by rules among them, whose status says how far that is. Upstream: `device-taint-eviction-controller`.

mod act;
mod facts;
mod plan;
mod rule_status;
mod status;

use crate::Context;
use crate::pod_end::Evictions;
use crate::resource_claim::facts::{BY_POOL, ClaimFacts, PodFacts};
use act::Loop;
use api::resource::v1beta2::DeviceTaintRule;
use client::controller::{Writes, run as work};
use client::discovery::served;
use client::queue::Backoff;
use client::{Cached, Change, Informer, ObjectKey, Queue, Recorder};
use facts::{RuleFacts, SliceFacts};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

const NAME: &str = "device-taint-eviction-controller";
const GATE: &str = "DRADeviceTaints";
const RULES: &str = "DRADeviceTaintRules";
const WORKERS: usize = 10;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Pod(ObjectKey),
    Rule(Arc<str>),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Pod(key) => write!(f, "pod:{key}"),
            Item::Rule(name) => write!(f, "rule:{name}"),
        }
    }
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

/// Runs until shutdown, if devices may have taints.
pub(crate) async fn run(context: Context) {
    if context.gates.enabled(GATE) {
        let rules = context.gates.enabled(RULES) && served::<DeviceTaintRule>(&context.client).await;
        follow(context, if rules { Rules::Too } else { Rules::Ignored }).await;
    }
}

/// Whether rules taint devices, beside drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Too,
    Ignored,
}

async fn follow(context: Context, rules: Rules) {
    let pods: Informer<PodFacts> = context.informers.get();
    let claims: Informer<ClaimFacts> = context.informers.get();
    let slices: Informer<SliceFacts> = context.informers.get();
    let rules: Option<Informer<RuleFacts>> = (rules == Rules::Too).then(|| context.informers.get());
    pods.synced().await;
    claims.synced().await;
    slices.synced().await;
    let queue = Queue::new(Backoff::default());
    if let Some(rules) = &rules {
        rules.synced().await;
        subscribe_rules(rules, &claims, &queue);
    }
    subscribe(&pods, &claims, &slices, &queue);
    let writes = Writes::default();
    let this = Arc::new(Loop {
        recorder: Recorder::new(context.client.clone(), NAME, ""),
        metrics: Evictions::new(&context.metrics, DELETIONS, LATENCY),
        client: context.client,
        clock: context.clock,
        queue: queue.clone(),
        writes: writes.clone(),
        pods,
        claims,
        slices,
        rules,
        evictions: Mutex::default(),
        evicted: Mutex::default(),
    });
    work(NAME, queue, writes, WORKERS, context.shutdown, move |item| {
        let this = this.clone();
        async move {
            match &item {
                Item::Pod(key) => this.reconcile(key).await,
                Item::Rule(name) => this.tell_of(&item, name).await,
            }
        }
    })
    .await;
}

fn subscribe(
    pods: &Informer<PodFacts>,
    claims: &Informer<ClaimFacts>,
    slices: &Informer<SliceFacts>,
    queue: &Queue<Item>,
) {
    let changed = queue.clone();
    pods.subscribe(move |change| {
        let pod = change.object();
        if !pod.wanted.is_empty() && (pod.placed || matches!(change, Change::Deleted(_))) {
            changed.add(Item::Pod(pod.key().clone()));
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

/// What a rule says is looked at by itself, and by the pods with devices that it means. Rules do not change often.
fn subscribe_rules(rules: &Informer<RuleFacts>, claims: &Informer<ClaimFacts>, queue: &Queue<Item>) {
    let (allocated, changed) = (claims.clone(), queue.clone());
    rules.subscribe(move |change| {
        let rule = change.object();
        if change.old().is_some_and(|old| old.uid == rule.uid && old.saying == rule.saying) {
            return;
        }
        changed.add(Item::Rule(rule.name().into()));
        let evicting: Vec<_> =
            change.old().into_iter().chain([rule]).filter(|rule| rule.saying.evicts()).collect();
        for claim in allocated.list() {
            let mut devices = claim.devices.iter();
            if devices.any(|device| evicting.iter().any(|rule| rule.saying.is_about_given(device))) {
                consumers(&claim).for_each(|pod| changed.add(pod));
            }
        }
    });
}

/// The pods that a claim is reserved for.
fn consumers(claim: &Cached<ClaimFacts>) -> impl Iterator<Item = Item> + '_ {
    let pods = claim.reserved_for.iter().filter(|c| c.api_group.is_empty() && c.resource == "pods");
    pods.map(|consumer| Item::Pod(ObjectKey::new(claim.namespace(), &consumer.name)))
}

#[cfg(test)]
mod tests {
    use super::{Rules, follow};
    use crate::testing::play;

    #[test]
    fn a_story() {
        play("device_taint_eviction", &[|context| Box::pin(follow(context, Rules::Ignored))]);
    }

    #[test]
    fn a_story_of_rules() {
        play("device_taint_rules", &[|context| Box::pin(follow(context, Rules::Too))]);
    }
}
