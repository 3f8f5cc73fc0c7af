//! What becomes of a volume whose claim is gone: it is kept, emptied, or deleted, by this process or by others.

use super::Key;
use super::act::{Binder, Failure};
use super::operations::Turn;
use super::plugins::{self, Plugin};
use api::core::v1::PersistentVolume;
use apimachinery::meta::options::DeleteOptions;
use client::controller::Outcome;
use rules::volumes::{Claim, MIGRATED_TO, PROVISIONED_BY};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Keeps a volume that a plugin of ours made until what it stands for is deleted.
pub(super) const OURS: &str = "kubernetes.io/pv-controller";
/// The same, of provisioners outside.
const OUTSIDE: &str = "external-provisioner.volume.kubernetes.io/finalizer";

/// Sets the finalizers of a volume that was made for a claim as its reclaim policy wants them. Returns whether that
/// changed them. Upstream: `modifyDeletionFinalizers`.
pub(super) fn protect(volume: &mut PersistentVolume) -> bool {
    let meta = &mut volume.metadata;
    let Some(made_by) = meta.annotations.get(PROVISIONED_BY) else { return false };
    let migrated = plugins::driver_of(made_by).is_some();
    if !migrated && !plugins::is_ours(made_by) {
        return false;
    }
    let before = meta.finalizers.clone();
    let policy = volume.spec.persistent_volume_reclaim_policy.as_str();
    match policy {
        "Delete" if !migrated && !before.iter().any(|finalizer| finalizer == OURS) => {
            meta.finalizers.push(OURS.into());
        }
        "Retain" | "Recycle" => meta.finalizers.retain(|finalizer| finalizer != OURS),
        _ if migrated => meta.finalizers.retain(|finalizer| finalizer != OURS),
        _ => {}
    }
    if !migrated {
        meta.finalizers.retain(|finalizer| finalizer != OUTSIDE);
    }
    meta.finalizers != before
}

impl Binder {
    /// Upstream: `reclaimVolume`.
    pub(super) async fn reclaim(self: &Arc<Self>, volume: PersistentVolume) -> Result<Outcome, Failure> {
        if volume.metadata.annotations.get(MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
            return Ok(Outcome::Done);
        }
        match volume.spec.persistent_volume_reclaim_policy.as_str() {
            "Retain" => Ok(Outcome::Done),
            "Recycle" => self.recycle(volume).await,
            "Delete" => self.delete(volume).await,
            _ => {
                let why = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                self.set_failed(volume, "VolumeUnknownReclaimPolicy", why).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn delete(self: &Arc<Self>, volume: PersistentVolume) -> Result<Outcome, Failure> {
        let deleter = plugins::deleter(&volume);
        let who = self.deleter_name(&volume, &deleter);
        self.metrics.begin(&volume.metadata.name, &who, "delete");
        match deleter {
            Err(why) => self.set_failed(volume, "VolumeFailedDelete", &why).await?,
            Ok(None) => {}
            Ok(Some(plugin)) => {
                let about: Arc<str> = volume.metadata.uid.as_str().into();
                match self.operations.begin(&about) {
                    Turn::Runs => {}
                    Turn::After(delay) => return Ok(Outcome::After(delay)),
                    Turn::Now => {
                        // Whole trees take their time, and nobody else need wait for it.
                        let this = self.clone();
                        tokio::spawn(async move { this.delete_beside(plugin, volume, about).await });
                    }
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// As metrics name whoever deletes a volume.
    fn deleter_name(&self, volume: &PersistentVolume, deleter: &Result<Option<Plugin>, String>) -> String {
        match deleter {
            Err(_) => "N/A".into(),
            Ok(Some(plugin)) => plugin.name().into(),
            Ok(None) => {
                let class = rules::volumes::Volume::of(volume).class;
                let class = self.view.classes.named("", &class);
                let provisioner = class.map(|class| class.provisioner.clone());
                let provisioner = provisioner.map(|p| plugins::driver_of(&p).map_or(p, str::to_owned));
                provisioner.unwrap_or_else(|| "N/A".into())
            }
        }
    }

    async fn delete_beside(&self, plugin: Plugin, volume: PersistentVolume, about: Arc<str>) {
        let name = volume.metadata.name.clone();
        match self.delete_now(plugin, &volume).await {
            Ok(()) => self.operations.succeeded(&about),
            Err(why) => {
                self.metrics.done(&name, Err(()));
                let delay = self.operations.failed(&about);
                let told = self.set_failed(volume, "VolumeFailedDelete", &why.to_string()).await;
                if let Err(error) = told {
                    tracing::debug!(volume = name, %error, "could not say that a volume is not deleted");
                }
                self.queue.add_after(Key::volume(&name), delay);
            }
        }
    }

    async fn delete_now(&self, plugin: Plugin, volume: &PersistentVolume) -> Result<(), Failure> {
        let name = &volume.metadata.name;
        let api = self.client.all::<PersistentVolume>();
        // It may have got a claim while this waited for its turn.
        let Some(newest) = api.get_opt(name).await?.filter(|newest| self.is_released(newest)) else {
            return Ok(());
        };
        let Some(source) = &volume.spec.host_path else {
            let why = "spec.PersistentVolumeSource.HostPath is nil";
            return Err(Failure::Other(format!("failed to create deleter for volume {name:?}: {why}")));
        };
        let path = PathBuf::from(&source.path);
        let begun = std::time::Instant::now();
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
        let removed = removed.unwrap_or_else(|error| Err(error.to_string()));
        self.metrics.operation(plugin.name(), "volume_delete", removed.is_ok(), begun);
        removed.map_err(Failure::Other)?;
        let mut newest = newest;
        if newest.metadata.finalizers.iter().any(|finalizer| finalizer == OURS) {
            newest.metadata.finalizers.retain(|finalizer| finalizer != OURS);
            let saved = self.save_volume(&newest).await;
            saved.map_err(|e| {
                Failure::Other(format!("persistent volume controller can't update finalizer: {e}"))
            })?;
        }
        match api.delete(name, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether its claim is gone, or has another volume.
    pub(super) fn is_released(&self, volume: &PersistentVolume) -> bool {
        let Some(reference) = volume.spec.claim_ref.as_ref().filter(|claim| !claim.uid.is_empty()) else {
            return false;
        };
        let other = |claim: &Claim| !claim.volume.is_empty() && claim.volume != volume.metadata.name;
        match self.view.claims.named(&reference.namespace, &reference.name) {
            Some(claim) if claim.0.uid == reference.uid => other(&claim.0),
            _ => true,
        }
    }
}

/// Deletes a directory of this machine, below `/tmp` only. Upstream: the deleter of `host_path`, for tests and trials, which
/// takes any path with `/tmp/` in it.
fn remove(path: &Path) -> Result<(), String> {
    let shown = path.to_string_lossy();
    let below = path.strip_prefix("/tmp").is_ok_and(|rest| rest.components().next().is_some());
    if !below || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("host_path deleter only supports /tmp/.+ but received provided {shown}"));
    }
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{shown}: {error}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn finalizers_follow_the_policy() {
        let check = |made_by: &str, policy: &str, before: &[&str], after: &[&str]| {
            let mut volume: PersistentVolume = apimachinery::value::from_value(json!({
                "metadata": {"annotations": {PROVISIONED_BY: made_by}, "finalizers": before},
                "spec": {"persistentVolumeReclaimPolicy": policy},
            }))
            .unwrap();
            assert_eq!(protect(&mut volume), before != after, "{made_by} {policy}");
            assert_eq!(volume.metadata.finalizers, after, "{made_by} {policy}");
        };
        check("kubernetes.io/host-path", "Delete", &[OUTSIDE, "x"], &["x", OURS]);
        check("kubernetes.io/host-path", "Retain", &[OURS, "x"], &["x"]);
        check("kubernetes.io/gce-pd", "Delete", &[OURS, OUTSIDE], &[OUTSIDE]);
        check("hostpath.csi.k8s.io", "Delete", &[OUTSIDE], &[OUTSIDE]);
    }

    #[test]
    fn only_what_is_below_tmp_is_removed() {
        let told = remove(Path::new("/etc/hosts")).unwrap_err();
        assert_eq!(told, "host_path deleter only supports /tmp/.+ but received provided /etc/hosts");
        for other in ["/tmp", "/tmp/", "/tmp/../etc/hosts", "/var/tmp/x", "/etc/tmp/x", "tmp/x"] {
            assert!(remove(Path::new(other)).is_err(), "{other}");
        }
        let made = std::env::temp_dir().join(format!("volume-{}", std::process::id()));
        let path = Path::new("/tmp").join(made.file_name().unwrap());
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
