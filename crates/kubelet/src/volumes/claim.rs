//! `persistentVolumeClaim` on volumes that are a path of this node: `hostPath` and `local` PersistentVolumes.

use super::{Plugin, Ready, Request, host_path, ownership};
use api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use futures::future::BoxFuture;

pub(super) struct Claim;

impl Plugin for Claim {
    fn supports(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        Box::pin(set_up(request))
    }
}

async fn set_up(request: &Request<'_>) -> Result<Ready, String> {
    let meta = &request.pod.metadata;
    let (name, read_only) = match &request.volume.persistent_volume_claim {
        Some(source) => (source.claim_name.clone(), source.read_only),
        // An ephemeral claim is named after its pod and volume.
        None => (format!("{}-{}", meta.name, request.volume.name), false),
    };
    let claims = request.client.namespaced::<PersistentVolumeClaim>(&meta.namespace);
    let claim = claims.get(&name).await.map_err(|e| {
        format!("error processing PVC {}/{name}: failed to fetch PVC from API server: {e}", meta.namespace)
    })?;
    if claim.status.phase != "Bound" || claim.spec.volume_name.is_empty() {
        return Err(format!("error processing PVC {}/{name}: PVC is not bound", meta.namespace));
    }
    let volumes = request.client.all::<PersistentVolume>();
    let volume = volumes.get(&claim.spec.volume_name).await.map_err(|e| e.to_string())?;
    let bound = volume.spec.claim_ref.as_ref().is_some_and(|r| r.uid == claim.metadata.uid);
    if !bound {
        return Err(format!(
            "PersistentVolume {} is not bound to PVC {}/{name}",
            volume.metadata.name, meta.namespace
        ));
    }
    let mut ready = if let Some(local) = &volume.spec.local {
        let mut ready = host_path::ready(local.path.clone().into(), String::new()).await?;
        if !ready.host_path.exists() {
            return Err(format!("path {:?} does not exist", local.path));
        }
        ready.mode = 0o755;
        ready
    } else if let Some(path) = &volume.spec.host_path {
        host_path::ready(path.path.clone().into(), path.type_.clone().unwrap_or_default()).await?
    } else {
        return Err(format!(
            "PersistentVolume {} is of a type that this node does not support",
            volume.metadata.name
        ));
    };
    ready.read_only = read_only;
    if let (Some(group), Some(_), false) = (request.fs_group(), &volume.spec.local, read_only) {
        let path = ready.host_path.clone();
        tokio::task::spawn_blocking(move || ownership::set_group(&path, group, false))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
    }
    Ok(ready)
}
