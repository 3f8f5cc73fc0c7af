//! What is left of pods that nobody wants any more, found when the kubelet starts: sandboxes are stopped and removed, as
//! their labels say, and so are directories and logs. Upstream: `HandlePodCleanups`.

use crate::context::Context;
use crate::labels::{POD_NAME, POD_NAMESPACE, POD_UID};
use crate::pods::Pods;
use api::core::v1::Pod;
use cri::RuntimeService;
use cri::v1;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// Removes what is on disk of pods that neither the API nor a manifest nor the runtime knows: directories, logs and the
/// links to them. Upstream: `cleanupOrphanedPodDirs`, `evictPodLogsDirectories`.
pub(crate) async fn clean(context: &Arc<Context>, pods: &Arc<Pods>) {
    let (context, pods) = (context.clone(), pods.clone());
    let cleaned = tokio::task::spawn_blocking(move || {
        let (mut number, mut failed) = (0, 0);
        for uid in entries(&context.config.root_dir.join("pods")).filter(|uid| pods.get(uid).is_none()) {
            number += 1;
            if let Err(error) = context.volumes.tear_down(&context.config, &uid) {
                failed += 1;
                tracing::warn!(%uid, %error, "the directory of an orphaned pod could not be removed");
            }
            context.user_namespaces.release(&uid);
        }
        context.metrics.orphans_cleaned.set(f64::from(number));
        context.metrics.orphans_not_cleaned.set(f64::from(failed));
        let logs = &context.config.pod_logs_dir;
        // Upstream's form; whatever else is there is somebody else's.
        for entry in entries(logs) {
            let uid = entry.rsplit_once('_').filter(|(rest, _)| rest.contains('_')).map(|(_, uid)| uid);
            let orphaned = uid.is_some_and(|uid| pods.get(uid).is_none());
            if orphaned && let Err(error) = std::fs::remove_dir_all(logs.join(&entry)) {
                tracing::warn!(logs = entry, %error, "the logs of an orphaned pod could not be removed");
            }
        }
        let links = &context.config.container_logs_dir;
        for link in entries(links).map(|name| links.join(name)) {
            if link.is_symlink() && !link.exists() {
                let _ = std::fs::remove_file(link);
            }
        }
    });
    drop(cleaned.await);
}

fn entries(dir: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Gives every unknown pod of the runtime a worker whose pod is gone already. `wanted` are those that are about to be known.
pub(crate) async fn end(
    runtime: &dyn RuntimeService,
    pods: &Arc<Pods>,
    wanted: &HashSet<String>,
) -> cri::Result<()> {
    let listed = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?;
    let mut unknown: HashMap<String, Pod> = HashMap::new();
    for sandbox in listed.items {
        let unknown_to_us = |uid: &&String| pods.get(uid).is_none() && !wanted.contains(*uid);
        let Some(uid) = sandbox.labels.get(POD_UID).filter(unknown_to_us) else { continue };
        let mut pod = Pod::default();
        pod.metadata.uid = uid.clone();
        pod.metadata.name = sandbox.labels.get(POD_NAME).cloned().unwrap_or_default();
        pod.metadata.namespace = sandbox.labels.get(POD_NAMESPACE).cloned().unwrap_or_default();
        unknown.insert(uid.clone(), pod);
    }
    for (uid, pod) in unknown {
        tracing::info!(pod = %crate::labels::format_pod(&pod), "ending a pod that nobody wants any more");
        pods.apply_gone(Arc::new(pod), &uid);
    }
    Ok(())
}
