//! Keeps claims that pods use, and volumes that are bound, from being deleted under them, by a finalizer.
//! Upstream: `pvc-protection-controller` and `pv-protection-controller`; `classes` has the third.

pub(crate) mod classes;

use crate::Context;
use crate::placed_pods::{BY_CLAIM, PlacedPod, claims_of};
use crate::support::{feed, queue};
use api::Kind;
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use apimachinery::meta::ObjectMeta;
use client::controller::{Outcome, Writes, run as work};
use client::{Client, Error, Informer, ListParams, ObjectKey, Projection};
use std::marker::PhantomData;

const CLAIMS: &str = "kubernetes.io/pvc-protection";
const VOLUMES: &str = "kubernetes.io/pv-protection";

/// What is kept of an object that is protected.
struct Protected<K> {
    deleting: bool,
    held: bool,
    bound: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K> Protected<K> {
    fn new(meta: &ObjectMeta, finalizer: &str, phase: &str) -> Self {
        Protected {
            deleting: meta.deletion_timestamp.is_some(),
            held: meta.finalizers.iter().any(|f| f == finalizer),
            bound: phase == "Bound",
            kind: PhantomData,
        }
    }
}

impl Projection for Protected<PersistentVolumeClaim> {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        Protected::new(&claim.metadata, CLAIMS, &claim.status.phase)
    }
}

impl Projection for Protected<PersistentVolume> {
    type Kind = PersistentVolume;

    fn project(volume: &PersistentVolume) -> Self {
        Protected::new(&volume.metadata, VOLUMES, &volume.status.phase)
    }
}

/// What to do about an object.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Hold,
    /// Let it go, if it is not in use.
    Release,
}

fn step(deleting: bool, held: bool) -> Step {
    match (deleting, held) {
        (true, true) => Step::Release,
        (false, false) => Step::Hold,
        _ => Step::Nothing,
    }
}

/// Writes the object with the finalizer, or without it.
async fn write<K: Kind>(client: &Client, mut object: K, finalizer: &str, hold: bool) -> Result<(), Error> {
    let finalizers = &mut object.metadata_mut().finalizers;
    finalizers.retain(|f| f != finalizer);
    if hold {
        finalizers.push(finalizer.into());
    }
    let namespace = object.metadata().namespace.clone();
    match client.namespaced::<K>(&namespace).update(&object).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Runs the protection of claims until shutdown. Keys are claims.
pub(crate) async fn run_claims(context: Context) {
    let objects: Informer<Protected<PersistentVolumeClaim>> = context.informers.get();
    let pods: Informer<PlacedPod> = context.informers.get();
    objects.synced().await;
    pods.synced().await;
    let queue = queue();
    feed(&objects, &queue, |claim| [claim.key().clone()]);
    feed(&pods, &queue, |pod| {
        let namespace = pod.namespace().to_owned();
        pod.claims.iter().map(move |claim| ObjectKey::new(&namespace, claim)).collect::<Vec<_>>()
    });
    let client = context.client;
    work("pvcprotection", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (objects, pods, client) = (objects.clone(), pods.clone(), client.clone());
        async move {
            let Some(cached) = objects.get(&key) else { return Ok(Outcome::Done) };
            match step(cached.deleting, cached.held) {
                Step::Nothing => {}
                Step::Hold => write(&client, cached.decode()?, CLAIMS, true).await?,
                Step::Release => {
                    let name = format!("{}/{}", key.namespace, key.name);
                    if pods.by_index(BY_CLAIM, &name).is_empty() && !used(&client, &key).await? {
                        write(&client, cached.decode()?, CLAIMS, false).await?;
                    }
                }
            }
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

/// Asks the server whether a pod uses the claim: the cache may not know one that was just given a node.
async fn used(client: &Client, claim: &ObjectKey) -> Result<bool, Error> {
    let pods = client.namespaced::<Pod>(&claim.namespace).list(&ListParams::default()).await?;
    Ok(pods.items.iter().any(|pod| claims_of(pod).iter().any(|name| **name == *claim.name)))
}

/// Runs the protection of volumes until shutdown. Keys are volumes.
pub(crate) async fn run_volumes(context: Context) {
    let objects: Informer<Protected<PersistentVolume>> = context.informers.get();
    objects.synced().await;
    let queue = queue();
    feed(&objects, &queue, |volume| [volume.key().clone()]);
    let client = context.client;
    work("pvprotection", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (objects, client) = (objects.clone(), client.clone());
        async move {
            let Some(cached) = objects.get(&key) else { return Ok(Outcome::Done) };
            match step(cached.deleting, cached.held) {
                Step::Hold => write(&client, cached.decode()?, VOLUMES, true).await?,
                Step::Release if !cached.bound => write(&client, cached.decode()?, VOLUMES, false).await?,
                _ => {}
            }
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finalizer_comes_first_and_goes_last() {
        assert_eq!(step(false, false), Step::Hold);
        assert_eq!(step(false, true), Step::Nothing);
        assert_eq!(step(true, true), Step::Release);
        assert_eq!(step(true, false), Step::Nothing);
    }
}
