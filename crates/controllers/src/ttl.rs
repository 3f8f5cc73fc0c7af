//! Tells kubelets by an annotation of their node how long they may keep secrets and config maps, which depends on how
//! many nodes there are. Upstream: `ttl-controller`.

use crate::Context;
use crate::support::queue;
use api::core::v1::Node;
use apimachinery::json;
use client::controller::{Outcome, Writes, run as work};
use client::{Change, Error, Informer, Patch, PatchParams, Projection};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// From how many nodes down to the step before, above how many up to the next, and the seconds of the step.
const STEPS: [(usize, usize, i64); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// What is kept of a node.
struct Facts {
    ttl: Option<i64>,
}

impl Projection for Facts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        Facts { ttl: node.metadata.annotations.get(ANNOTATION).and_then(|ttl| ttl.parse().ok()) }
    }
}

/// The step for so many nodes, coming from another one.
fn step(nodes: usize, mut at: usize) -> usize {
    while nodes > STEPS[at].1 {
        at += 1;
    }
    while nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

/// Runs until shutdown. Keys are nodes.
pub(crate) async fn run(context: Context) {
    let nodes: Informer<Facts> = context.informers.get();
    let queue = queue();
    let at = Arc::new(AtomicUsize::new(0));
    let (changed, counted, stand) = (queue.clone(), nodes.clone(), at.clone());
    nodes.subscribe(move |change| {
        stand.store(step(counted.len(), stand.load(Ordering::Relaxed)), Ordering::Relaxed);
        if !matches!(change, Change::Deleted(_)) {
            changed.add(change.object().key().clone());
        }
    });
    nodes.synced().await;
    let client = context.client;
    work("ttlcontroller", queue, Writes::default(), 2, context.shutdown, move |key| {
        let (nodes, client, at) = (nodes.clone(), client.clone(), at.clone());
        async move {
            let wanted = STEPS[at.load(Ordering::Relaxed)].2;
            let Some(node) = nodes.get(&key) else { return Ok(Outcome::Done) };
            if node.ttl == Some(wanted) {
                return Ok(Outcome::Done);
            }
            let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted.to_string()}}});
            let api = client.all::<Node>();
            match api.patch(&key.name, &Patch::Strategic(patch), &PatchParams::default()).await {
                Err(error) if !error.is_not_found() => Err::<_, Error>(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        let mut at = 0;
        let mut seen = Vec::new();
        for nodes in [1, 100, 101, 95, 90, 89, 600, 5000, 1900, 10] {
            at = step(nodes, at);
            seen.push((nodes, STEPS[at].2));
        }
        let wanted = [
            (1, 0),
            (100, 0),
            (101, 15),
            (95, 15),
            (90, 15),
            (89, 0),
            (600, 30),
            (5000, 300),
            (1900, 300),
            (10, 0),
        ];
        assert_eq!(seen, wanted);
    }
}
