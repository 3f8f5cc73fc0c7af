//! Keeps classes of volume attributes that claims or volumes name from being deleted under them.
//! Upstream: `volumeattributesclass-protection-controller`.

use super::{Protected, Step, step, write};
use crate::Context;
use crate::support::{feed, queue};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use api::storage::v1::VolumeAttributesClass;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Error, Informer, ObjectKey, Projection};
use std::marker::PhantomData;

const CLASSES: &str = "kubernetes.io/vac-protection";
/// What names a class, by the class.
const BY_CLASS: &str = "class";

impl Projection for Protected<VolumeAttributesClass> {
    type Kind = VolumeAttributesClass;

    fn project(class: &VolumeAttributesClass) -> Self {
        Protected::new(&class.metadata, CLASSES, "")
    }
}

/// The classes that a claim or a volume names.
struct Names<K> {
    classes: Vec<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Names<K> {
    fn of<'a>(names: impl IntoIterator<Item = &'a String>) -> Self {
        let mut classes: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).cloned().collect();
        classes.sort();
        classes.dedup();
        Names { classes, kind: PhantomData }
    }
}

impl Projection for Names<PersistentVolumeClaim> {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        let (spec, status) = (&claim.spec, &claim.status);
        let target = status.modify_volume_status.as_ref().map(|s| &s.target_volume_attributes_class_name);
        let names = [
            spec.volume_attributes_class_name.as_ref(),
            status.current_volume_attributes_class_name.as_ref(),
            target,
        ];
        Names::of(names.into_iter().flatten())
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_CLASS, |claim| claim.classes.clone())]
    }
}

impl Projection for Names<PersistentVolume> {
    type Kind = PersistentVolume;

    fn project(volume: &PersistentVolume) -> Self {
        Names::of(volume.spec.volume_attributes_class_name.as_ref())
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_CLASS, |volume| volume.classes.clone())]
    }
}

fn keys(classes: &[String]) -> Vec<ObjectKey> {
    classes.iter().map(|class| ObjectKey::new("", class)).collect()
}

/// Runs the protection of classes until shutdown. Keys are classes.
pub(crate) async fn run(context: Context) {
    let objects: Informer<Protected<VolumeAttributesClass>> = context.informers.get();
    let claims: Informer<Names<PersistentVolumeClaim>> = context.informers.get();
    let volumes: Informer<Names<PersistentVolume>> = context.informers.get();
    objects.synced().await;
    claims.synced().await;
    volumes.synced().await;
    let queue = queue();
    feed(&objects, &queue, |class| [class.key().clone()]);
    feed(&claims, &queue, |claim: &Cached<Names<_>>| keys(&claim.classes));
    feed(&volumes, &queue, |volume: &Cached<Names<_>>| keys(&volume.classes));
    let client = context.client;
    work("vacprotection", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (objects, client) = (objects.clone(), client.clone());
        let (claims, volumes) = (claims.clone(), volumes.clone());
        async move {
            let Some(cached) = objects.get(&key) else { return Ok(Outcome::Done) };
            match step(cached.deleting, cached.held) {
                Step::Nothing => {}
                Step::Hold => write(&client, cached.decode()?, CLASSES, true).await?,
                Step::Release => {
                    let used = !claims.by_index(BY_CLASS, &key.name).is_empty()
                        || !volumes.by_index(BY_CLASS, &key.name).is_empty();
                    if !used {
                        write(&client, cached.decode()?, CLASSES, false).await?;
                    }
                }
            }
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn a_claim_uses_the_class_that_it_has_and_those_that_it_is_to_have() {
        let claim = json!({
            "spec": {"volumeAttributesClassName": "gold"},
            "status": {
                "currentVolumeAttributesClassName": "silver",
                "modifyVolumeStatus": {"targetVolumeAttributesClassName": "gold", "status": "Pending"},
            },
        });
        let claim: PersistentVolumeClaim = apimachinery::value::from_value(claim).unwrap();
        assert_eq!(Names::<PersistentVolumeClaim>::project(&claim).classes, ["gold", "silver"]);
        assert!(Names::<PersistentVolume>::project(&PersistentVolume::default()).classes.is_empty());
    }
}
