//! Watches what remains of namespaces, and looks at one again as soon as a resource has nothing left in it.

use client::source::{Feed, Query, Source};
use client::{ObjectKey, Queue, Resource};
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::task::AbortHandle;

pub(super) struct Waits {
    source: Arc<dyn Source>,
    queue: Queue<ObjectKey>,
    running: Mutex<HashMap<ObjectKey, AbortHandle>>,
}

impl Waits {
    pub(super) fn new(source: Arc<dyn Source>, queue: Queue<ObjectKey>) -> Self {
        Waits { source, queue, running: Mutex::default() }
    }

    /// Stops waiting for a namespace.
    pub(super) fn end(&self, namespace: &ObjectKey) {
        if let Some(running) = self.running.lock().remove(namespace) {
            running.abort();
        }
    }

    /// Adds the namespace to the queue when one of the resources has no object in it any more.
    pub(super) fn begin(&self, namespace: &ObjectKey, resources: impl Iterator<Item = Resource>) {
        let each: Vec<_> = resources
            .map(|resource| {
                let query = Query::all(resource).in_namespace(&*namespace.name);
                Box::pin(emptied(self.source.clone(), query))
            })
            .collect();
        let (queue, key) = (self.queue.clone(), namespace.clone());
        let task = tokio::spawn(async move {
            futures::future::select_all(each).await;
            queue.add(key);
        });
        if let Some(before) = self.running.lock().insert(namespace.clone(), task.abort_handle()) {
            before.abort();
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.running.lock().values().for_each(AbortHandle::abort);
    }
}

/// Returns when nothing is left; never if that cannot be watched, for the next look is due anyway.
async fn emptied(source: Arc<dyn Source>, query: Query) {
    let mut feeds = source.open(query);
    let mut left: HashSet<ObjectKey> = HashSet::new();
    while let Some(Ok(batch)) = feeds.next().await {
        for feed in batch {
            match feed {
                Feed::Snapshot { objects, .. } => {
                    left = objects.into_iter().map(|object| object.key).collect();
                }
                Feed::Put(object) => drop(left.insert(object.key)),
                Feed::Delete(object) => drop(left.remove(&object.key)),
                Feed::Progress(_) => {}
            }
        }
        if left.is_empty() {
            return;
        }
    }
    std::future::pending().await
}
