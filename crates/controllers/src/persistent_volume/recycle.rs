//! Empties a volume by a pod that deletes what is in it, and gives it back. Upstream: `recyclerclient`, which waits for
//! the pod; here its end is an event as any other.

use super::act::{Binder, Failure};
use super::operations::Turn;
use super::plugins::{self, Plugin};
use super::view::{RECYCLER, RECYCLERS};
use api::Kind as _;
use api::core::v1::{Container, Event, ObjectReference, PersistentVolume, Pod, Volume, VolumeMount};
use apimachinery::meta::options::DeleteOptions;
use client::Recorder;
use client::controller::Outcome;
use client::recorder::{EventType, reference};
use client::source::{self, Feed, Query};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::collections::HashSet;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
const SCRIPT: &str =
    "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
/// What a pod may take for each gibibyte of its volume.
const SECONDS: i64 = 30;

/// How emptying a volume goes.
enum State {
    Runs,
    Emptied,
    Failed(String),
}

impl Binder {
    pub(super) async fn recycle(&self, volume: PersistentVolume) -> Result<Outcome, Failure> {
        if !self.is_released(&volume) {
            return Ok(Outcome::Done);
        }
        let reference = volume.spec.claim_ref.clone().unwrap_or_default();
        let claim = format!("{}/{}", reference.namespace, reference.name);
        let users = self.view.users(&claim);
        // A claim of that name is another one's, and so are its pods.
        if !users.is_empty() && self.view.claims.named(&reference.namespace, &reference.name).is_none() {
            let message = format!("Volume is used by pods: {}", users.join(","));
            self.recorder.normal(&volume, "VolumeFailedRecycle", message);
            return Ok(Outcome::Done);
        }
        let Some(plugin) = plugins::of(&volume) else {
            let why = "No recycler plugin found for the volume!";
            self.set_failed(volume, "VolumeFailedRecycle", why).await?;
            return Ok(Outcome::Done);
        };
        let name = volume.metadata.name.clone();
        let about: Arc<str> = volume.metadata.uid.as_str().into();
        let state = if self.recyclers.lock().contains_key(&name) {
            self.watched(&name).await
        } else {
            match self.operations.begin(&about) {
                Turn::Runs => return Ok(Outcome::Done),
                Turn::After(delay) => return Ok(Outcome::After(delay)),
                Turn::Now => self.started(plugin, &volume).await,
            }
        };
        match state {
            State::Runs => Ok(Outcome::Done),
            State::Emptied => {
                self.operations.succeeded(&about);
                self.recorder.normal(&volume, "VolumeRecycled", "Volume recycled");
                self.unbind(volume).await?;
                Ok(Outcome::Done)
            }
            State::Failed(why) => {
                let delay = self.operations.failed(&about);
                self.set_failed(volume, "VolumeFailedRecycle", &format!("Recycle failed: {why}")).await?;
                Ok(Outcome::After(delay))
            }
        }
    }

    /// Starts the pod. One that is there already is of an earlier life, or somebody's who wants this to look done.
    async fn started(&self, plugin: Plugin, volume: &PersistentVolume) -> State {
        let pod = recycler(plugin, volume);
        let pods = self.client.namespaced::<Pod>(RECYCLERS);
        match pods.create(&pod).await {
            Ok(pod) => {
                let revision = pod.metadata.resource_version.parse().unwrap_or(0);
                let telling = AbortOnDropHandle::new(tokio::spawn(tell(
                    self.recorder.clone(),
                    reference(volume),
                    source::after(&self.client, events_of(&pod), revision),
                    pod.metadata.uid.clone(),
                )));
                self.view.pods.reached(revision).await;
                self.recyclers.lock().insert(volume.metadata.name.clone(), telling);
                State::Runs
            }
            Err(error) if error.reason() == "AlreadyExists" => {
                let name = &pod.metadata.name;
                State::Failed(match pods.delete(name, &DeleteOptions::default()).await {
                    Ok(_) => "old recycler pod found, will retry later".into(),
                    Err(error) => format!("failed to delete old recycler pod {RECYCLERS}/{name}: {error}"),
                })
            }
            Err(error) => State::Failed(format!("unexpected error creating recycler pod:  {error}")),
        }
    }

    /// Looks how the pod does, and takes it away when it is done.
    async fn watched(&self, volume: &str) -> State {
        let name = format!("{RECYCLER}{volume}");
        let pod = self.view.pods.named(RECYCLERS, &name);
        let ended = match pod.as_ref().and_then(|pod| pod.recycler.as_ref()) {
            None => Err("recycler pod was deleted".to_owned()),
            Some((phase, message)) => match (phase.as_str(), message.as_str()) {
                ("Succeeded", _) => Ok(()),
                ("Failed", "") => Err("pod failed, pod.Status.Message unknown".into()),
                ("Failed", message) => Err(message.to_owned()),
                _ => return State::Runs,
            },
        };
        self.recyclers.lock().remove(volume);
        let deleted = self.client.namespaced::<Pod>(RECYCLERS).delete(&name, &DeleteOptions::default()).await;
        match (ended, deleted) {
            (Err(why), _) => State::Failed(format!("failed to recycle volume: {why}")),
            (Ok(()), Err(error)) if !error.is_not_found() => {
                State::Failed(format!("failed to delete recycler pod: {error}"))
            }
            (Ok(()), _) => State::Emptied,
        }
    }
}

fn events_of(pod: &Pod) -> Query {
    let of = format!("involvedObject.name={}", pod.metadata.name);
    Query::of::<Event>().in_namespace(pod.metadata.namespace.clone()).fields(of)
}

/// Tells of a volume what is told of the pod that empties it, each event once, until the pod is done with.
async fn tell(
    recorder: Recorder,
    volume: ObjectReference,
    mut events: BoxStream<'static, client::Result<Vec<Feed>>>,
    uid: String,
) {
    let mut told = HashSet::new();
    while let Some(Ok(feeds)) = events.next().await {
        for feed in feeds {
            let Feed::Put(raw) = feed else { continue };
            let Ok(event) = raw.decode::<Event>() else { continue };
            let of_another = &event.involved_object.uid;
            if !of_another.is_empty() && *of_another != uid || !told.insert(raw.key.name.clone()) {
                continue;
            }
            let kind = if event.type_ == "Warning" { EventType::Warning } else { EventType::Normal };
            recorder.event(&volume, kind, "RecyclerPod", format!("Recycler pod: {}", event.message));
        }
    }
}

/// The pod that empties a volume.
fn recycler(plugin: Plugin, volume: &PersistentVolume) -> Pod {
    let size = volume.spec.capacity.get("storage").map_or(0, |size| size.value() >> 30);
    let least = match plugin {
        Plugin::HostPath => 60,
        Plugin::Nfs => 300,
    };
    let mut pod = Pod::new();
    pod.metadata.name = format!("{RECYCLER}{}", volume.metadata.name);
    pod.metadata.namespace = RECYCLERS.into();
    pod.spec.active_deadline_seconds = Some((size * SECONDS).max(least));
    pod.spec.restart_policy = "Never".into();
    let mut host_path = volume.spec.host_path.clone();
    // It is to be there; what it is, is the volume's affair.
    if let Some(source) = &mut host_path {
        source.type_ = None;
    }
    let nfs = volume.spec.nfs.clone().map(|mut nfs| {
        nfs.read_only = false;
        nfs
    });
    pod.spec.volumes = vec![Volume { name: "vol".into(), host_path, nfs, ..Default::default() }];
    let mount = VolumeMount { name: "vol".into(), mount_path: "/scrub".into(), ..Default::default() };
    pod.spec.containers = vec![Container {
        name: "pv-recycler".into(),
        image: IMAGE.into(),
        command: vec!["/bin/sh".into()],
        args: vec!["-c".into(), SCRIPT.into()],
        volume_mounts: vec![mount],
        ..Default::default()
    }];
    pod
}
