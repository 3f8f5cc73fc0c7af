//! The claims of pods: made from templates, reserved for pods that no scheduler placed, given back by pods that have
//! ended. Upstream: `resource-claim-controller`.

mod act;
pub(crate) mod facts;
mod metrics;
mod plan;

use crate::Context;
use act::Act;
use client::controller::{Writes, run as work};
use client::queue::Backoff;
use client::{Change, Informer, ObjectKey, Queue, Recorder};
use facts::{BY_CLAIM, BY_TEMPLATE, ClaimFacts, PodFacts, Template};
use metrics::Metrics;
use std::fmt;
use std::sync::Arc;

/// `--concurrent-resourceclaim-syncs`.
const WORKERS: usize = 10;
const PRIORITIZED_LIST: &str = "DRAPrioritizedList";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Pod(key) => write!(f, "pod:{key}"),
            Item::Claim(key) => write!(f, "claim:{key}"),
        }
    }
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let pods: Informer<PodFacts> = context.informers.get();
    let claims: Informer<ClaimFacts> = context.informers.get();
    let templates: Informer<Template> = context.informers.get();
    let queue = Queue::new(Backoff::default());
    subscribe(&pods, &claims, &templates, &queue);
    pods.synced().await;
    claims.synced().await;
    templates.synced().await;
    let writes = Writes::default();
    let act = Arc::new(Act {
        recorder: Recorder::new(context.client.clone(), "resource_claim", ""),
        metrics: Metrics::new(&context.metrics, &claims),
        client: context.client,
        writes: writes.clone(),
        pods,
        claims,
        templates,
        prioritized_list: context.gates.enabled(PRIORITIZED_LIST),
    });
    work("resource_claim", queue, writes, WORKERS, context.shutdown, move |item| {
        let act = act.clone();
        async move { act.reconcile(&item).await }
    })
    .await;
}

fn subscribe(
    pods: &Informer<PodFacts>,
    claims: &Informer<ClaimFacts>,
    templates: &Informer<Template>,
    queue: &Queue<Item>,
) {
    let changed = queue.clone();
    pods.subscribe(move |change| {
        let pod = change.object();
        let gone = matches!(change, Change::Deleted(_));
        if gone || pod.done() {
            let claims = pod.claims().map(|name| ObjectKey::new(pod.namespace(), name));
            claims.for_each(|claim| changed.add(Item::Claim(claim)));
        }
        if !gone && pod.asks() {
            changed.add(Item::Pod(pod.key().clone()));
        }
    });
    let (users, changed) = (pods.clone(), queue.clone());
    claims.subscribe(move |change| {
        let key = change.object().key();
        if !matches!(change, Change::Deleted(_)) {
            changed.add(Item::Claim(key.clone()));
        }
        let using = users.by_index(BY_CLAIM, &key.to_string());
        using.iter().for_each(|pod| changed.add(Item::Pod(pod.key().clone())));
    });
    let (users, changed) = (pods.clone(), queue.clone());
    templates.subscribe(move |change| {
        let waiting = users.by_index(BY_TEMPLATE, &change.object().key().to_string());
        waiting.iter().for_each(|pod| changed.add(Item::Pod(pod.key().clone())));
    });
}

#[cfg(test)]
mod tests {
    use crate::testing::{play, play_with};

    #[test]
    fn a_story() {
        play("resource_claim", &[|context| Box::pin(super::run(context))]);
    }

    #[test]
    fn no_alternatives() {
        let controllers = &[(|context| Box::pin(super::run(context))) as crate::Controller];
        play_with("resource_claim_gates", "DRAPrioritizedList=false", controllers);
    }
}
