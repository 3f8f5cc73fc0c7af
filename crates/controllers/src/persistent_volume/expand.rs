//! Tells claims that are to grow who makes their volumes grow: always somebody outside. Upstream:
//! `persistentvolume-expander-controller`, whose own plugins have all gone but flexVolume's.

use super::act::SIZE_BEFORE;
use super::plugins;
use crate::Context;
use crate::support::queue;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::json;
use apimachinery::quantity::Quantity;
use client::controller::{Outcome, Writes, run as work};
use client::{Change, Client, Error, Informer, ObjectKey, Patch, PatchParams, Projection, Recorder};

/// On a claim: who makes its volume grow.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

/// What is kept of a claim.
struct Size {
    bound: bool,
    asked: Quantity,
    has: Quantity,
}

impl Projection for Size {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        let storage = |amounts: &std::collections::BTreeMap<String, Quantity>| {
            amounts.get("storage").cloned().unwrap_or_default()
        };
        Size {
            bound: claim.status.phase == "Bound",
            asked: storage(&claim.spec.resources.requests),
            has: storage(&claim.status.capacity),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] Error),
    #[error("failed to get PV {name:?}: {error}")]
    NoVolume { name: String, error: Error },
    #[error("persistent Volume is not bound to PVC being updated : {0}")]
    NotBound(ObjectKey),
}

/// Runs until shutdown. Keys are claims.
pub(crate) async fn run(context: Context) {
    let claims: Informer<Size> = context.informers.get();
    claims.synced().await;
    let queue = queue();
    let grown = queue.clone();
    claims.subscribe(move |change| {
        let claim = change.object();
        let more = change.old().is_none_or(|old| claim.asked > old.asked || claim.has > old.has);
        if claim.bound && more && !matches!(change, Change::Deleted(_)) {
            grown.add(claim.key().clone());
        }
    });
    let recorder = Recorder::new(context.client.clone(), "volume_expand", "");
    let client = context.client;
    work("volume_expand", queue, Writes::default(), 10, context.shutdown, move |key| {
        let (claims, client, recorder) = (claims.clone(), client.clone(), recorder.clone());
        async move {
            let Some(cached) = claims.get(&key) else { return Ok(Outcome::Done) };
            expand(&client, &recorder, &key, &cached.decode()?, &cached.projection).await?;
            Ok::<_, Failure>(Outcome::Done)
        }
    })
    .await;
}

async fn expand(
    client: &Client,
    recorder: &Recorder,
    key: &ObjectKey,
    claim: &PersistentVolumeClaim,
    size: &Size,
) -> Result<(), Failure> {
    let name = claim.spec.volume_name.clone();
    let volume = client.all::<PersistentVolume>().get(&name).await;
    let volume = volume.map_err(|error| Failure::NoVolume { name, error })?;
    let ours = volume.spec.claim_ref.as_ref().is_some_and(|reference| {
        reference.namespace == claim.metadata.namespace && reference.uid == claim.metadata.uid
    });
    if !ours {
        return Err(Failure::NotBound(key.clone()));
    }
    if size.asked <= size.has && !volume.metadata.annotations.contains_key(SIZE_BEFORE) {
        return Ok(());
    }
    let Some((plugin, driver)) = plugins::migrated(&volume) else {
        let message = "waiting for an external controller to expand this PVC";
        recorder.normal(claim, "ExternalExpanding", message);
        return Ok(());
    };
    let message =
        format!("CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc");
    recorder.normal(claim, "ExternalExpanding", message);
    if claim.metadata.annotations.get(RESIZER).is_some_and(|known| known == driver) {
        return Ok(());
    }
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": claim.metadata.uid, "annotations": {RESIZER: driver}},
    }));
    let api = client.namespaced::<PersistentVolumeClaim>(&key.namespace);
    match api.patch_status(&key.name, &patch, &PatchParams::default()).await {
        Err(error) if !error.is_not_found() => {
            let message = format!("error setting resizer annotation to pvc {key}, with error {error}");
            recorder.warning(claim, "ExternalExpanding", message);
            Err(error.into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn a_story() {
        play("volumes_expand", &[|c| Box::pin(super::run(c)), |c| Box::pin(super::super::run(c))]);
    }
}
