//! Sandboxes of pods that nobody wants any more, found when the kubelet starts: they are stopped and removed, as their
//! labels say. Upstream: `HandlePodCleanups`.

use crate::labels::{POD_NAME, POD_NAMESPACE, POD_UID};
use crate::pods::Pods;
use api::core::v1::Pod;
use cri::RuntimeService;
use cri::v1;
use std::collections::HashMap;
use std::sync::Arc;

/// Gives every unknown pod of the runtime a worker whose pod is gone already.
pub(crate) async fn end(runtime: &dyn RuntimeService, pods: &Arc<Pods>) -> cri::Result<()> {
    let listed = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?;
    let mut unknown: HashMap<String, Pod> = HashMap::new();
    for sandbox in listed.items {
        let Some(uid) = sandbox.labels.get(POD_UID).filter(|uid| pods.get(uid).is_none()) else { continue };
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
