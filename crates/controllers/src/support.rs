//! What controllers share: feeding queues from informers, and small projections.

use api::Kind;
use api::core::v1::Namespace;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::time::Time;
use client::queue::Backoff;
use client::{Cached, Change, Client, Informer, ObjectKey, Projection, Queue};

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

/// The time of day.
pub(crate) fn now() -> Time {
    SystemClock::default().now().into()
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
