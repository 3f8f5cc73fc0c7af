//! What the binder keeps of claims, volumes, classes and pods.

use super::plugins;
use api::core::v1::{ContainerStatus, PersistentVolume, PersistentVolumeClaim, Pod};
use api::storage::v1::StorageClass;
use apimachinery::time::Time;
use client::informer::Index;
use client::{Cached, Informer, Informers, Projection};
use rules::ephemeral_volume::claim_name;
use rules::volumes::{Claim, Volume};
use std::cmp::Reverse;

/// Volumes by the claim they are for, pods by the claims they use: `namespace/name`.
pub(super) const BY_CLAIM: &str = "claim";
/// Volumes that are nobody's, and claims that may have any, by class.
pub(super) const BY_CLASS: &str = "class";
/// Claims by the volume they have, or want.
pub(super) const BY_VOLUME: &str = "volume";

/// The namespace where recycler pods run, and how their names begin.
pub(super) const RECYCLERS: &str = "default";
pub(super) const RECYCLER: &str = "recycler-for-";

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

pub(super) struct ClaimRow(pub Claim);

impl Projection for ClaimRow {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        ClaimRow(Claim::of(claim))
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_VOLUME, |claim| vec![claim.0.volume.clone()].into_iter().filter(|v| !v.is_empty()).collect()),
            (BY_CLASS, |claim| {
                let any = claim.0.volume.is_empty() && !claim.0.bind_completed;
                if any { vec![claim.0.class().to_owned()] } else { Vec::new() }
            }),
        ]
    }
}

pub(super) struct VolumeRow {
    pub facts: Volume,
    /// The plugin that serves it here, as metrics name it.
    pub plugin: &'static str,
}

impl Projection for VolumeRow {
    type Kind = PersistentVolume;

    fn project(volume: &PersistentVolume) -> Self {
        VolumeRow { facts: Volume::of(volume), plugin: plugins::of(volume).map_or("N/A", |p| p.name()) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_CLAIM, |volume| {
                let claim = volume.facts.claim.iter();
                claim.map(|claim| format!("{}/{}", claim.namespace, claim.name)).collect()
            }),
            (BY_CLASS, |volume| match volume.facts.claim {
                None => vec![volume.facts.class.clone()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

pub(super) struct ClassRow {
    pub default: bool,
    pub delayed: bool,
    pub provisioner: String,
    created: Time,
}

impl Projection for ClassRow {
    type Kind = StorageClass;

    fn project(class: &StorageClass) -> Self {
        let says = |name: &str| class.metadata.annotations.get(name).is_some_and(|v| v == "true");
        ClassRow {
            default: DEFAULT_CLASS.into_iter().any(says),
            delayed: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: class.provisioner.clone(),
            created: class.metadata.creation_timestamp,
        }
    }
}

/// What is kept of a pod.
#[derive(PartialEq)]
pub(super) struct Consumer {
    pub claims: Vec<String>,
    pub placed: bool,
    /// It does not, and will not, use them any more.
    pub ended: bool,
    /// For pods that empty volumes: their phase, and what is said of it.
    pub recycler: Option<(String, String)>,
}

impl Projection for Consumer {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let (meta, status) = (&pod.metadata, &pod.status);
        let claims = pod.spec.volumes.iter().filter_map(|volume| match &volume.persistent_volume_claim {
            Some(source) => Some(source.claim_name.clone()),
            None => volume.ephemeral.as_ref().map(|_| claim_name(pod, &volume.name)),
        });
        let rests =
            |statuses: &[ContainerStatus]| statuses.iter().all(|status| status.state.running.is_none());
        let all_rest = rests(&status.init_container_statuses)
            && rests(&status.container_statuses)
            && rests(&status.ephemeral_container_statuses);
        let recycles = meta.namespace == RECYCLERS && meta.name.starts_with(RECYCLER);
        Consumer {
            claims: claims.collect(),
            placed: !pod.spec.node_name.is_empty(),
            ended: matches!(status.phase.as_str(), "Succeeded" | "Failed")
                || meta.deletion_timestamp.is_some() && all_rest,
            recycler: recycles.then(|| (status.phase.clone(), status.message.clone())),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_CLAIM, |pod| pod.claims.iter().map(|claim| format!("{}/{claim}", pod.namespace())).collect())]
    }
}

/// The volume that a pod empties.
pub(super) fn recycled(pod: &Cached<Consumer>) -> Option<&str> {
    pod.recycler.as_ref()?;
    pod.name().strip_prefix(RECYCLER)
}

#[derive(Clone)]
pub(super) struct View {
    pub claims: Informer<ClaimRow>,
    pub volumes: Informer<VolumeRow>,
    pub classes: Informer<ClassRow>,
    pub pods: Informer<Consumer>,
}

impl View {
    pub(super) fn new(informers: &Informers) -> Self {
        View {
            claims: informers.get(),
            volumes: informers.get(),
            classes: informers.get(),
            pods: informers.get(),
        }
    }

    pub(super) async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.pods.synced().await;
    }

    /// Whether the scheduler chooses among the volumes for claims of a class.
    pub(super) fn is_delayed(&self, class: &str) -> bool {
        self.classes.named("", class).is_some_and(|class| class.delayed)
    }

    /// The class of claims that name none: of several the newest.
    pub(super) fn default_class(&self) -> Option<String> {
        let classes = self.classes.list();
        let defaults = classes.iter().filter(|class| class.default);
        defaults
            .min_by_key(|c| (Reverse(c.created), c.name().to_owned()))
            .map(|class| class.name().to_owned())
    }

    /// The names of the pods that use a claim and wait for a node.
    pub(super) fn waiting(&self, claim: &str) -> Vec<String> {
        let pods = self.pods.by_index(BY_CLAIM, claim);
        pods.iter().filter(|pod| !pod.ended && !pod.placed).map(|pod| pod.name().to_owned()).collect()
    }

    /// The pods that may be using a claim.
    pub(super) fn users(&self, claim: &str) -> Vec<String> {
        let pods = self.pods.by_index(BY_CLAIM, claim);
        let used = pods.iter().filter(|pod| !pod.ended);
        used.map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect()
    }
}
