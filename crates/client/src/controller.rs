//! The loop of a controller: workers take keys, wait until their own writes to that key are visible, and reconcile.

use crate::informer::Reached;
use crate::measures::Queues;
use crate::queue::Queue;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a reconcile asks for when it succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Look again after this long.
    After(Duration),
}

struct Write {
    revision: u64,
    informer: Arc<dyn Reached>,
}

/// The last writes made on behalf of each key. Cheap to clone.
///
/// A key is not reconciled again until the informers of what was written have caught up: a controller never acts on a
/// state older than its own last action (KEP-5647 does so in four controllers; here all do).
pub struct Writes<K>(Arc<Mutex<HashMap<K, Vec<Write>>>>);

impl<K> Clone for Writes<K> {
    fn clone(&self) -> Self {
        Writes(self.0.clone())
    }
}

impl<K> Default for Writes<K> {
    fn default() -> Self {
        Writes(Arc::default())
    }
}

impl<K> std::fmt::Debug for Writes<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writes").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Writes<K> {
    /// Records that reconciling `key` wrote an object which `informer` will show at `resource_version`.
    pub fn note(&self, key: &K, informer: &(impl Reached + Clone + 'static), resource_version: &str) {
        let Ok(revision) = resource_version.parse() else { return };
        self.0
            .lock()
            .entry(key.clone())
            .or_default()
            .push(Write { revision, informer: Arc::new(informer.clone()) });
    }

    async fn visible(&self, key: &K) {
        let writes = self.0.lock().remove(key);
        for write in writes.into_iter().flatten() {
            write.informer.reached(write.revision).await;
        }
    }
}

tokio::task_local! {
    static QUEUES: Queues;
}

/// Runs a controller whose queues are counted.
pub async fn counted<F: Future>(queues: Queues, controller: F) -> F::Output {
    QUEUES.scope(queues, controller).await
}

/// Runs `workers` reconcilers over a queue until `shutdown`. A failed key returns with back-off.
pub async fn run<K, F, Fut, E>(
    name: &'static str,
    queue: Queue<K>,
    writes: Writes<K>,
    workers: usize,
    shutdown: CancellationToken,
    reconcile: F,
) where
    K: Hash + Eq + Clone + Display + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, E>> + Send,
    E: Display + Send,
{
    let _ = QUEUES.try_with(|queues| queue.observe(queues, name));
    let reconcile = Arc::new(reconcile);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (queue, writes, reconcile) = (queue.clone(), writes.clone(), reconcile.clone());
        tasks.spawn(async move {
            while let Some(key) = queue.get().await {
                writes.visible(&key).await;
                match reconcile(key.clone()).await {
                    Ok(outcome) => {
                        queue.forget(&key);
                        if let Outcome::After(delay) = outcome {
                            queue.add_after(key.clone(), delay);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(controller = name, %key, %error, "reconcile failed; it will be tried again");
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    shutdown.cancelled().await;
    queue.close();
    tasks.shutdown().await;
}
