//! Binds claims to volumes, says what state both are in, and does what is to be done with volumes whose claim is gone.
//! Upstream: `persistentvolume-binder-controller`.
//!
//! One key at a time, for two claims must not take one volume; and each is worked on only when the informers show what
//! was written last.

mod act;
pub(crate) mod expand;
mod metrics;
mod operations;
mod plan;
mod plugins;
mod provision;
mod reclaim;
mod recycle;
mod view;

use crate::Context;
use act::Binder;
use client::controller::{Writes, run as work};
use client::queue::Backoff;
use client::{Change, ObjectKey, Queue, Recorder};
use rules::volumes::{Claim, Volume};
use std::sync::Arc;
use view::{BY_CLAIM, BY_CLASS, BY_VOLUME, View};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(ObjectKey),
}

impl Key {
    fn claim(namespace: &str, name: &str) -> Self {
        Key::Claim(ObjectKey::new(namespace, name))
    }

    fn volume(name: &str) -> Self {
        Key::Volume(ObjectKey::new("", name))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Claim(key) => write!(f, "claim {key}"),
            Key::Volume(key) => write!(f, "volume {key}"),
        }
    }
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let view = View::new(&context.informers);
    view.synced().await;
    let queue = Queue::new(Backoff::default());
    let metrics = metrics::Metrics::new(&context.metrics, &view);
    let binder = Arc::new(Binder {
        recorder: Recorder::new(context.client.clone(), "persistentvolume-controller", ""),
        client: context.client,
        view: view.clone(),
        queue: queue.clone(),
        metrics,
        operations: operations::Operations::default(),
        recyclers: parking_lot::Mutex::default(),
    });
    listen(&view, &binder);
    work("claims", queue, Writes::default(), 1, context.shutdown, move |key| {
        let binder = binder.clone();
        async move {
            match key {
                Key::Claim(key) => binder.sync_claim(&key).await,
                Key::Volume(key) => binder.sync_volume(&key).await,
            }
        }
    })
    .await;
}

/// Turns what happens into keys: of the object itself, and of those that may have waited for it.
fn listen(view: &View, binder: &Arc<Binder>) {
    let this = binder.clone();
    view.claims.subscribe(move |change| {
        let claim = change.object();
        this.queue.add(Key::Claim(claim.key().clone()));
        if matches!(change, Change::Deleted(_)) {
            this.metrics.forget(&claim.0.key());
            if !claim.0.volume.is_empty() {
                this.queue.add(Key::volume(&claim.0.volume));
            }
        }
        if !matches!(change, Change::Updated { .. }) {
            this.volumes_for(&claim.0.key());
        }
    });
    let this = binder.clone();
    view.volumes.subscribe(move |change| {
        let volume = change.object();
        this.queue.add(Key::Volume(volume.key().clone()));
        if matches!(change, Change::Deleted(_)) {
            this.metrics.done(volume.name(), Ok(()));
            this.operations.forget(&volume.uid);
        }
        if let Some(claim) = &volume.facts.claim {
            this.queue.add(Key::claim(&claim.namespace, &claim.name));
        }
        for claim in this.view.claims.by_index(BY_VOLUME, volume.name()) {
            this.queue.add(Key::Claim(claim.key().clone()));
        }
        let free = |v: &Volume| v.claim.is_none() && v.phase == "Available" && !v.deleting;
        // Only what makes it another volume to claims lets them look again.
        if free(&volume.facts) && change.old().is_none_or(|old| old.facts != volume.facts) {
            this.claims_of_class(&volume.facts.class, |claim| claim.could_take(&volume.facts));
        }
    });
    let this = binder.clone();
    view.classes.subscribe(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            let class = change.object();
            this.claims_of_class(class.name(), |_| true);
            if class.default {
                this.claims_of_class("", |claim| claim.class.is_none());
            }
        }
    });
    let this = binder.clone();
    view.pods.subscribe(move |change| {
        let pod = change.object();
        if change.old().is_some_and(|old| old.projection == pod.projection) {
            return;
        }
        if let Some(volume) = view::recycled(pod) {
            this.queue.add(Key::volume(volume));
        }
        let gone = pod.ended || matches!(change, Change::Deleted(_));
        for claim in &pod.claims {
            let key = format!("{}/{claim}", pod.namespace());
            if gone {
                this.volumes_for(&key);
            }
            let known = this.view.claims.named(pod.namespace(), claim);
            // Who waits for the first consumer is told of it.
            if known.is_some_and(|claim| !claim.0.bind_completed && claim.0.selected_node.is_none()) {
                this.queue.add(Key::claim(pod.namespace(), claim));
            }
        }
    });
}

impl Binder {
    /// Looks at the volumes that are for a claim.
    fn volumes_for(&self, claim: &str) {
        for volume in self.view.volumes.by_index(BY_CLAIM, claim) {
            self.queue.add(Key::Volume(volume.key().clone()));
        }
    }

    /// Looks at the claims of a class that have no volume, nor ask for a certain one.
    fn claims_of_class(&self, class: &str, which: impl Fn(&Claim) -> bool) {
        for claim in self.view.claims.by_index(BY_CLASS, class) {
            if which(&claim.0) {
                self.queue.add(Key::Claim(claim.key().clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        for story in ["volumes_static", "volumes_reclaim", "volumes_provision", "volumes_recycle"] {
            play(story, &[|c| Box::pin(super::run(c))]);
        }
    }
}
