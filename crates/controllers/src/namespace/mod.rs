//! Empties namespaces that are being deleted, pods first, and lets go of them. Upstream: `namespace-controller`.
//!
//! What it waits for (pods that end, finalizers of others) it watches, so that a namespace goes with its last object;
//! upstream's estimated delays stand behind that.

mod act;
mod plan;
mod status;
mod wait;

use crate::Context;
use crate::support::now;
use api::core::v1::Namespace;
use client::controller::{Outcome, Writes, run as work};
use client::queue::Backoff;
use client::{Informer, ObjectKey, Projection, Queue};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 10;
/// The finalizer in a namespace's spec that is this controller's.
const FINALIZER: &str = "kubernetes";
/// A namespace is tried again at least every minute.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(5), max: Duration::from_secs(60) };

struct Facts {
    deleting: bool,
}

impl Projection for Facts {
    type Kind = Namespace;

    fn project(namespace: &Namespace) -> Self {
        Facts { deleting: namespace.metadata.deletion_timestamp.is_some() }
    }
}

struct Loop {
    namespaces: Informer<Facts>,
    act: act::Act,
    waits: wait::Waits,
}

/// Runs until shutdown. Keys are namespaces.
pub(crate) async fn run(context: Context) {
    let namespaces: Informer<Facts> = context.informers.get();
    let queue = Queue::new(BACKOFF);
    let deleted = queue.clone();
    namespaces.subscribe(move |change| {
        if change.object().deleting {
            deleted.add(change.object().key().clone());
        }
    });
    namespaces.synced().await;
    let this = Arc::new(Loop {
        namespaces,
        waits: wait::Waits::new(client::source::of(&context.client), queue.clone()),
        act: act::Act { client: context.client },
    });
    work("namespace", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("{}", .0.join(", "))]
    Content(Vec<String>),
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        self.waits.end(key);
        if !self.namespaces.get(key).is_some_and(|namespace| namespace.deleting) {
            return Ok(Outcome::Done);
        }
        // The newest state, for others edit namespaces that are going away, too.
        let Some(namespace) = self.act.terminating(&key.name).await? else { return Ok(Outcome::Done) };
        let deleted_at = namespace.metadata.deletion_timestamp.unwrap_or_else(now);
        let found = self.act.delete_content(&key.name, deleted_at).await;
        let Some(namespace) = self.act.write_conditions(namespace, &found).await? else {
            return Ok(Outcome::Done);
        };
        let estimate = found.estimate();
        if !found.remaining.is_empty() {
            self.waits.begin(key, found.remaining.iter().map(|remaining| remaining.resource.clone()));
        }
        if !found.errors.is_empty() {
            return Err(Error::Content(found.errors));
        }
        if estimate > 0 {
            let again = Duration::from_secs(estimate.unsigned_abs() / 2 + 1);
            tracing::debug!(namespace = %key.name, ?again, "content remains in the namespace");
            return Ok(Outcome::After(again));
        }
        self.act.finalize(namespace).await?;
        Ok(Outcome::Done)
    }
}
