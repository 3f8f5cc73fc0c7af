//! Pods made, ended and patched on behalf of an owner: the write, the event about it, and the note that it must be seen
//! before the owner is looked at again. Upstream: `RealPodControl`.

use api::Kind as _;
use api::core::v1::{ObjectReference, Pod};
use apimachinery::meta::options::DeleteOptions;
use client::controller::Writes;
use client::recorder::EventType;
use client::{Client, Informer, ObjectKey, Patch, PatchParams, Projection, Recorder};

/// What kept a controller from its pods.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("unable to delete pods: {0}")]
    Delete(client::Error),
    #[error("unable to create pods, no labels")]
    NoLabels,
    /// What is wrong with a pod's claim.
    #[error("{0}")]
    Claim(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Writes pods for one controller.
pub(crate) struct PodControl<P: Projection> {
    pub client: Client,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub pods: Informer<P>,
}

impl<P: Projection> PodControl<P> {
    /// Makes a pod of the owner `about`. Nothing is made, and nothing is wrong, in a namespace that goes away.
    pub(crate) async fn create(&self, key: &ObjectKey, about: &ObjectReference, pod: &Pod) -> Result<()> {
        if pod.metadata.labels.is_empty() {
            return Err(Error::NoLabels);
        }
        match self.client.namespaced::<Pod>(&key.namespace).create(pod).await {
            Ok(made) => {
                self.writes.note(key, &self.pods, &made.metadata.resource_version);
                let text = format!("Created pod: {}", made.metadata.name);
                self.recorder.event(about, EventType::Normal, "SuccessfulCreate", text);
                Ok(())
            }
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                let text = format!("Error creating: {error}");
                self.recorder.event(about, EventType::Warning, "FailedCreate", text);
                Err(error.into())
            }
        }
    }

    /// Asks a pod to end. One that is gone already is fine.
    pub(crate) async fn delete(&self, key: &ObjectKey, about: &ObjectReference, name: &str) -> Result<()> {
        let pods = self.client.namespaced::<Pod>(&key.namespace);
        match pods.delete(name, &DeleteOptions::default()).await {
            Ok(answer) => {
                let revision = answer["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                self.writes.note(key, &self.pods, revision);
                let text = format!("Deleted pod: {name}");
                self.recorder.event(about, EventType::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {error}");
                self.recorder.event(about, EventType::Warning, "FailedDelete", text);
                Err(Error::Delete(error))
            }
        }
    }

    /// Patches a pod. `None`: it is gone, or its name is another pod's by now; either way it needs nothing any more.
    pub(crate) async fn patch(&self, key: &ObjectKey, pod: &ObjectKey, patch: &Patch) -> Result<Option<Pod>> {
        let pods = self.client.namespaced::<Pod>(&pod.namespace);
        match pods.patch(&pod.name, patch, &PatchParams::default()).await {
            Ok(pod) => {
                self.writes.note(key, &self.pods, &pod.metadata().resource_version);
                Ok(Some(pod))
            }
            // A uid that does not match is a conflict or a change of what cannot change.
            Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
