//! `persistentVolumeClaim` and `ephemeral` on volumes that are a path of this node: `hostPath` and `local`
//! PersistentVolumes.

use super::claimed::Claimed;
use super::{Plugin, Ready, Request, grow, host_path, local, ownership};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use futures::future::BoxFuture;
use rules::ephemeral_volume::{claim_name, is_for_pod};

const PROTECTION: &str = "kubernetes.io/pvc-protection";

pub(super) struct Claim;

impl Plugin for Claim {
    fn supports(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn name(&self, _: &Volume) -> Option<&'static str> {
        None
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(set_up(request))
    }
}

async fn set_up(request: &Request<'_>) -> Result<Ready, String> {
    let (claim, read_only) = claim(request).await?;
    let volume = volume_of(request, &claim).await?;
    let mut ready = if let Some(source) = &volume.spec.local {
        let _ = request.plugin.set(local::PLUGIN);
        let ready = local::ready(request, &volume, source).await?;
        // A bare device has nothing on it that could be counted.
        if volume.spec.volume_mode.as_deref() != Some("Block") {
            let claimed = Claimed {
                namespace: claim.metadata.namespace.clone(),
                claim: claim.metadata.name.clone(),
                path: ready.host_path.clone(),
            };
            request.claims.note(&request.pod.metadata.uid, &request.volume.name, claimed);
        }
        ready
    } else if let Some(path) = &volume.spec.host_path {
        let _ = request.plugin.set("kubernetes.io/host-path");
        host_path::ready(path.path.clone().into(), path.type_.clone().unwrap_or_default()).await?
    } else {
        return Err(format!(
            "PersistentVolume {} is of a type that this node does not support",
            volume.metadata.name
        ));
    };
    ready.read_only = read_only;
    if volume.spec.local.is_some() {
        grow::follow(request, &claim, &volume, &ready).await?;
        ready.refresh_at = Some(crate::clock::now() + grow::LOOK).filter(|_| !read_only);
    }
    let files = volume.spec.volume_mode.as_deref() != Some("Block");
    if let (Some(group), Some(_), false, true) = (request.fs_group(), &volume.spec.local, read_only, files) {
        let path = ready.host_path.clone();
        tokio::task::spawn_blocking(move || ownership::set_group(&path, group, false))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
    }
    Ok(ready)
}

/// The claim that the volume stands for, if it can be used, and whether the pod only reads. Upstream: `getPVCExtractPV`.
async fn claim(request: &Request<'_>) -> Result<(PersistentVolumeClaim, bool), String> {
    let (pod, volume) = (request.pod, request.volume);
    let (name, read_only) = match &volume.persistent_volume_claim {
        Some(source) => (source.claim_name.clone(), source.read_only),
        None => (claim_name(pod, &volume.name), false),
    };
    let namespace = &pod.metadata.namespace;
    let refused = |why: &str| format!("error processing PVC {namespace}/{name}: {why}");
    let claims = request.client.namespaced::<PersistentVolumeClaim>(namespace);
    let claim = claims.get(&name).await;
    let claim = claim.map_err(|e| refused(&format!("failed to fetch PVC from API server: {e}")))?;
    let meta = &claim.metadata;
    // Who is protected stays until its pods are gone.
    if meta.deletion_timestamp.is_some() && !meta.finalizers.iter().any(|f| f == PROTECTION) {
        return Err(refused("PVC is being deleted"));
    }
    if claim.status.phase != "Bound" {
        return Err(refused("PVC is not bound"));
    }
    if claim.spec.volume_name.is_empty() {
        return Err(refused("PVC has empty pvc.Spec.VolumeName"));
    }
    if volume.ephemeral.is_some() {
        is_for_pod(pod, &claim)?;
    }
    Ok((claim, read_only))
}

/// The volume that is bound to the claim. Upstream: `getPVSpec`.
async fn volume_of(request: &Request<'_>, claim: &PersistentVolumeClaim) -> Result<PersistentVolume, String> {
    let (name, meta) = (&claim.spec.volume_name, &claim.metadata);
    let refused = |why: String| format!("error processing PVC {}/{}: {why}", meta.namespace, meta.name);
    let volume = request.client.all::<PersistentVolume>().get(name).await;
    let volume = volume.map_err(|e| refused(format!("failed to fetch PV {name} from API server: {e}")))?;
    let Some(reference) = &volume.spec.claim_ref else {
        return Err(refused(format!(
            "found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )));
    };
    if reference.uid != meta.uid {
        return Err(refused(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {} does not point to claim.UID {}",
            reference.uid, meta.uid
        )));
    }
    Ok(volume)
}
