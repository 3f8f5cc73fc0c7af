//! What controllers share: feeding queues from informers, and small projections.

use api::Kind;
use api::core::v1::Namespace;
use apimachinery::clock::{Clock, SystemClock};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::{Time, Timestamp};
use client::controller::Outcome;
use client::queue::Backoff;
use client::{Cached, Change, Client, Informer, ObjectKey, Projection, Queue};
use std::sync::Arc;
use std::time::Duration;

/// A queue with upstream's default back-off.
pub(crate) fn queue() -> Queue<ObjectKey> {
    Queue::new(Backoff::default())
}

/// Adds the keys that an object touches to a queue, for its old and its new state.
pub(crate) fn feed<P: Projection, I: IntoIterator<Item = ObjectKey>>(
    informer: &Informer<P>,
    queue: &Queue<ObjectKey>,
    keys: impl Fn(&Cached<P>) -> I + Send + Sync + 'static,
) {
    let queue = queue.clone();
    informer.subscribe(move |change: &Change<P>| {
        for object in change.old().into_iter().chain([change.object()]) {
            keys(object).into_iter().for_each(|key| queue.add(key));
        }
    });
}

/// What most controllers need to know of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceState {
    pub active: bool,
}

impl Projection for NamespaceState {
    type Kind = Namespace;

    fn project(namespace: &Namespace) -> Self {
        NamespaceState {
            active: namespace.metadata.deletion_timestamp.is_none()
                && namespace.status.phase != "Terminating",
        }
    }
}

/// The time of day, as one process or one test sees it. Cheap to clone.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Clock>);

impl WallClock {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        WallClock(clock)
    }

    /// The second that it is.
    pub(crate) fn now(&self) -> Time {
        self.0.now().into()
    }

    /// The time that it is.
    pub(crate) fn instant(&self) -> Timestamp {
        self.0.now()
    }

    /// How long it is until then, exactly: a timer of this length ends when the second has come, not one later.
    pub(crate) fn until(&self, then: Time) -> Duration {
        self.until_instant(then.timestamp().unwrap_or(Timestamp::MAX))
    }

    pub(crate) fn until_instant(&self, then: Timestamp) -> Duration {
        let left = then.as_nanosecond() - self.0.now().as_nanosecond();
        Duration::from_nanos(u64::try_from(left.max(0)).unwrap_or(u64::MAX))
    }

    /// A reconcile that is done until then, if it ever is to be looked at again.
    pub(crate) fn outcome(&self, again: Option<Time>) -> Outcome {
        again.map_or(Outcome::Done, |then| Outcome::After(self.until(then)))
    }
}

/// The time of day, for those whose stories nobody tells.
pub(crate) fn now() -> Time {
    WallClock::default().now()
}

impl Default for WallClock {
    fn default() -> Self {
        WallClock(Arc::new(SystemClock::default()))
    }
}

impl std::fmt::Debug for WallClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WallClock").field(&self.0.now()).finish()
    }
}

/// Deletes an object in the background. Returns the resource version at which it is being deleted, if it lives on.
pub(crate) async fn delete_by_name<K: Kind>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> client::Result<String> {
    let options = DeleteOptions::default();
    let answer = client.namespaced::<K>(namespace).delete(name, &options).await?;
    Ok(answer["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
}
