//! Static pods: manifests in a directory, or a file (watched, not polled), run without the API's consent, and shown in it
//! by mirror pods. Upstream: `pkg/kubelet/config/file_linux.go`, `pod/mirror_client.go`.

use super::static_pod;
use crate::context::Context;
use crate::file_watch::{FileWatch, WatchFlags};
use crate::labels::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE};
use crate::pod_worker::Mailbox;
use crate::pods::Pods;

use api::core::v1::{Pod, Toleration};
use apimachinery::meta::OwnerReference;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use client::Client;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The manifests of a directory, or one file that is one.
pub(crate) struct Manifests {
    path: PathBuf,
    known: HashMap<String, Arc<Pod>>,
}

impl Manifests {
    pub(crate) fn new(path: PathBuf) -> Self {
        let path = std::path::absolute(&path).unwrap_or(path);
        Manifests { path, known: HashMap::new() }
    }

    /// The pods that are wanted now.
    pub(crate) fn uids(&self, context: &Context) -> HashSet<String> {
        read_all(context, &self.path).into_keys().collect()
    }

    /// Brings the pods to what the manifests say now.
    pub(crate) fn look(&mut self, context: &Arc<Context>, pods: &Arc<Pods>) {
        let present = read_all(context, &self.path);
        // What is gone makes room for what takes its place.
        self.known.retain(|uid, pod| {
            let keep = present.contains_key(uid);
            if !keep {
                let shown = pods.get(uid).and_then(|mailbox| mailbox.letter().mirror_uid);
                pods.remove(uid);
                // One that nobody knows yet is deleted when it is seen.
                if let Some(shown) = shown {
                    let (client, pod) = (context.client.clone(), pod.clone());
                    tokio::spawn(async move { unmirror(&client, &pod, shown).await });
                }
            }
            keep
        });
        for (uid, pod) in present {
            if let std::collections::hash_map::Entry::Vacant(new) = self.known.entry(uid) {
                let pod = Arc::new(pod);
                new.insert(pod.clone());
                pods.apply_static(pod);
            }
        }
        context.static_pods_known.send_replace(true);
    }

    /// Runs until dropped.
    pub(crate) async fn run(mut self, context: &Arc<Context>, pods: &Arc<Pods>) {
        loop {
            // The watch is older than the look: what happens in between is looked at again.
            let watch = watch(&self.path);
            self.look(context, pods);
            let changed = match watch {
                Ok(watch) => watch.changed().await,
                Err(error) => Err(error),
            };
            match changed {
                // An editor writes in several steps.
                Ok(()) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err(error) => {
                    tracing::debug!(path = %self.path.display(), %error, "the manifests cannot be watched");
                    tokio::time::sleep(Duration::from_secs(20)).await;
                }
            }
        }
    }
}

/// Shows a static pod, which runs from now on, in the API.
pub(crate) fn show(context: &Arc<Context>, pods: &Arc<Pods>, pod: Arc<Pod>) {
    let (context, pods) = (context.clone(), pods.clone());
    tokio::spawn(async move { mirror(&context, &pods, &pod).await });
}

/// Watches a directory of manifests. While it is not there, the nearest directory above that is: whatever appears in it
/// may be the way to the manifests. A file is watched by its directory, since editors put another in its place.
fn watch(path: &Path) -> std::io::Result<FileWatch> {
    let appears = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    let goes = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    let content = appears | goes | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE | WatchFlags::MOVED_FROM;
    loop {
        let dir = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        match FileWatch::new(&[(dir, content)]) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            outcome => return outcome,
        }
        let Some(above) = path.ancestors().skip(1).find(|above| above.is_dir()) else { continue };
        let next = path.ancestors().take_while(|below| *below != above).last().unwrap_or(path);
        match FileWatch::new(&[(above, appears | goes)]) {
            // It went away just now.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(_) if next.exists() => {}
            outcome => return outcome,
        }
    }
}

fn read_all(context: &Context, path: &Path) -> HashMap<String, Pod> {
    let mut files = Vec::new();
    if path.is_file() {
        files.push(path.to_owned());
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|n| n.starts_with('.'));
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    let mut out = HashMap::new();
    for path in files {
        match std::fs::read(&path).map_err(|e| e.to_string()).and_then(|bytes| read(context, &bytes)) {
            Ok(pod) => {
                out.insert(pod.metadata.uid.clone(), pod);
            }
            Err(error) => tracing::error!(path = %path.display(), error, "a manifest could not be read"),
        }
    }
    out
}

/// A manifest as a pod of this node, with defaults where the API server would have set them.
fn read(context: &Context, bytes: &[u8]) -> Result<Pod, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
    let mut pod: Pod = static_pod::parse(text)?;
    let node = &context.config.node_name;
    let hash = rules::template_hash::hash(&pod, None);
    let meta = &mut pod.metadata;
    if meta.name.is_empty() {
        return Err("invalid pod: name is needed for the pod".into());
    }
    meta.name = format!("{}-{}", meta.name, node.to_lowercase());
    if meta.namespace.is_empty() {
        meta.namespace = "default".into();
    }
    let more = rules::template_hash::hash(&(node, &meta.name, &meta.namespace, hash), None);
    let uid =
        format!("{hash:08x}{more:08x}{:08x}{:08x}", hash.rotate_left(13) ^ more, more.rotate_left(7) ^ hash);
    meta.uid = uid.clone();
    meta.annotations.insert(CONFIG_HASH.into(), uid);
    meta.annotations.insert(CONFIG_SOURCE.into(), "file".into());
    meta.annotations.insert(CONFIG_SEEN.into(), crate::clock::time().to_string());
    meta.creation_timestamp = crate::clock::time();
    defaults(&mut pod);
    static_pod::check(&context.config, &pod)?;
    pod.spec.node_name = node.clone();
    pod.status.phase = "Pending".into();
    Ok(pod)
}

fn defaults(pod: &mut Pod) {
    let spec = &mut pod.spec;
    let set = |field: &mut String, default: &str| {
        if field.is_empty() {
            *field = default.into();
        }
    };
    set(&mut spec.restart_policy, "Always");
    set(&mut spec.dns_policy, "ClusterFirst");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    // A static pod stays whatever happens to its node.
    let everything =
        Toleration { operator: "Exists".into(), effect: "NoExecute".into(), ..Default::default() };
    if !spec.tolerations.contains(&everything) {
        spec.tolerations.push(everything);
    }
    for container in spec.containers.iter_mut().chain(&mut spec.init_containers) {
        set(&mut container.termination_message_path, "/dev/termination-log");
        set(&mut container.termination_message_policy, "File");
        let latest = container.image.ends_with(":latest")
            || !container.image.rsplit('/').next().unwrap_or("").contains([':', '@']);
        set(&mut container.image_pull_policy, if latest { "Always" } else { "IfNotPresent" });
        for probe in
            [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]
        {
            let Some(probe) = probe else { continue };
            for (field, default) in [
                (&mut probe.timeout_seconds, 1),
                (&mut probe.period_seconds, 10),
                (&mut probe.success_threshold, 1),
                (&mut probe.failure_threshold, 3),
            ] {
                if *field == 0 {
                    *field = default;
                }
            }
        }
    }
}

/// Shows the static pod in the API.
async fn mirror(context: &Context, pods: &Pods, pod: &Pod) {
    let mut shown = pod.clone();
    let hash = pod.metadata.annotations.get(CONFIG_HASH).cloned().unwrap_or_default();
    shown.metadata.uid = String::new();
    shown.metadata.annotations.insert(CONFIG_MIRROR.into(), hash.clone());
    shown.metadata.creation_timestamp = Default::default();
    shown.status = Default::default();
    let mut pause = Duration::from_millis(500);
    loop {
        let Some(mailbox) = wanted(pods, &pod.metadata.uid) else { return };
        let node = context.node.borrow().clone();
        if !node.metadata.uid.is_empty() {
            shown.metadata.owner_references = vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.metadata.name.clone(),
                uid: node.metadata.uid.clone(),
                controller: Some(true),
                ..Default::default()
            }];
            let api = context.client.namespaced::<Pod>(&pod.metadata.namespace);
            match api.create(&shown).await {
                Ok(made) => {
                    // If nobody wants it by now, whoever sees it deletes it.
                    mailbox.write(|letter| letter.mirror_uid = Some(made.metadata.uid));
                    return;
                }
                Err(error) if error.is_already_exists() => match api.get(&pod.metadata.name).await {
                    Ok(old) if old.metadata.annotations.get(CONFIG_MIRROR) == Some(&hash) => {
                        mailbox.write(|letter| letter.mirror_uid = Some(old.metadata.uid));
                        return;
                    }
                    // Of an older manifest.
                    Ok(old) => unmirror(&context.client, pod, old.metadata.uid).await,
                    Err(error) => tracing::warn!(%error, "a mirror pod could not be read"),
                },
                Err(error) => {
                    tracing::warn!(pod = %pod.metadata.name, %error, "a mirror pod could not be made")
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Deletes one image of a static pod, and no later one.
async fn unmirror(client: &Client, pod: &Pod, uid: String) {
    let api = client.namespaced::<Pod>(&pod.metadata.namespace);
    let preconditions = Preconditions { uid: Some(uid), ..Default::default() };
    let options = DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(preconditions),
        ..Default::default()
    };
    if let Err(error) = api.delete(&pod.metadata.name, &options).await
        && !error.is_not_found()
        && !error.is_conflict()
    {
        tracing::warn!(pod = %pod.metadata.name, %error, "a mirror pod could not be deleted");
    }
}

/// The pod, unless its manifest is gone: one that still ends is not shown anew.
fn wanted(pods: &Pods, uid: &str) -> Option<Arc<Mailbox>> {
    pods.get(uid).filter(|mailbox| !mailbox.letter().gone)
}

/// The API's image of a static pod changed: one that was deleted is made again while the manifest is there, and deleted
/// when it is not.
pub(crate) fn mirror_changed(context: &Arc<Context>, pods: &Arc<Pods>, shown: Pod, deleted: bool) {
    let hash = shown.metadata.annotations.get(CONFIG_MIRROR).cloned().unwrap_or_default();
    let Some(mailbox) = wanted(pods, &hash) else {
        if !deleted {
            let (mut known, client) = (context.static_pods_known.subscribe(), context.client.clone());
            let pods = pods.clone();
            tokio::spawn(async move {
                let known = known.wait_for(|known| *known).await.is_ok();
                if known && wanted(&pods, &hash).is_none() {
                    unmirror(&client, &shown, shown.metadata.uid.clone()).await;
                }
            });
        }
        return;
    };
    if !deleted && shown.metadata.deletion_timestamp.is_none() {
        mailbox.write(|letter| letter.mirror_uid = Some(shown.metadata.uid));
        return;
    }
    mailbox.write(|letter| letter.mirror_uid = None);
    let (context, pods, pod) = (context.clone(), pods.clone(), mailbox.letter().pod);
    tokio::spawn(async move {
        if !deleted {
            unmirror(&context.client, &shown, shown.metadata.uid.clone()).await;
        }
        mirror(&context, &pods, &pod).await;
    });
}
