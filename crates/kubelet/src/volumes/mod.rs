//! The volumes of pods. A [`Plugin`] makes one kind of volume appear at a path; [`Volumes`] sets up all volumes of a pod,
//! keeps their content current, and takes them down. To add a kind: one file, and one line in [`plugins`].
//! Directories are upstream's: `<root>/pods/<uid>/volumes/<plugin>/<name>`.

mod atomic_writer;
mod claim;
pub(crate) mod claimed;
mod content;
mod empty_dir;
mod git_repo;
mod grow;
mod host_path;
mod image;
mod local;
pub(crate) mod measures;
mod mount_table;
mod ownership;
mod payload;
pub(crate) mod sub_path;

use crate::config::Config;
use crate::container_config::field_ref::Facts;
use crate::events::Events;
use crate::metrics::StorageOperations;
use crate::objects::Objects;
use crate::tokens::Tokens;
use api::core::v1::{Pod, Volume};
use client::Client;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    pub host_path: PathBuf,
    pub read_only: bool,
    /// Mode for directories that a sub-path makes.
    pub mode: u32,
    /// Nanoseconds since the epoch when its content must be looked at again.
    pub refresh_at: Option<i64>,
}

/// The volumes of a pod by name.
pub(crate) type Mounted = HashMap<String, Ready>;

/// What a plugin works with.
pub(crate) struct Request<'a> {
    pub pod: &'a Pod,
    pub volume: &'a Volume,
    /// `<root>/pods/<uid>/volumes`.
    pub dir: &'a Path,
    pub facts: &'a Facts,
    pub objects: &'a Objects,
    pub client: &'a Client,
    pub tokens: &'a Tokens,
    pub claims: &'a claimed::Claims,
    pub events: &'a Events,
    pub measures: &'a measures::Measures,
    /// Upstream's name of what makes the volume, which a claim's own plugin finds out.
    pub plugin: OnceLock<&'static str>,
}

impl Request<'_> {
    /// Where a plugin of this name keeps the volume.
    fn path(&self, plugin: &str) -> PathBuf {
        self.dir.join(plugin.replace('/', "~")).join(&self.volume.name)
    }

    fn fs_group(&self) -> Option<i64> {
        self.pod.spec.security_context.as_ref().and_then(|c| c.fs_group)
    }
}

/// One kind of volume.
pub(crate) trait Plugin: Send + Sync {
    fn supports(&self, volume: &Volume) -> bool;
    /// Upstream's name; none of what stands for another.
    fn name(&self, volume: &Volume) -> Option<&'static str>;
    /// Makes the volume appear, or its content current. Idempotent.
    fn set_up<'a>(&'a self, request: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>>;
}

/// Why a volume is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub(crate) struct SetUpError {
    pub volume: String,
    pub message: String,
}

/// The volumes of all pods of the node.
pub(crate) struct Volumes {
    plugins: Vec<Box<dyn Plugin>>,
    objects: Arc<Objects>,
    client: Client,
    tokens: Tokens,
    /// Claims whose volumes can be measured.
    pub(crate) claims: claimed::Claims,
    events: Events,
    pub(crate) measures: measures::Measures,
}

fn plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(empty_dir::EmptyDir),
        Box::new(host_path::HostPath),
        Box::new(content::Content),
        Box::new(claim::Claim),
        Box::new(image::Image),
        Box::new(git_repo::GitRepo),
    ]
}

impl Volumes {
    pub(crate) fn new(
        client: Client,
        objects: Arc<Objects>,
        events: Events,
        operations: StorageOperations,
    ) -> Self {
        Volumes {
            plugins: plugins(),
            objects,
            client,
            tokens: Tokens::default(),
            claims: Default::default(),
            events,
            measures: measures::Measures::new(operations),
        }
    }

    /// Sets up every volume of the pod, or says which one cannot be.
    pub(crate) async fn set_up(
        &self,
        config: &Config,
        pod: &Pod,
        facts: &Facts,
    ) -> Result<Mounted, SetUpError> {
        let dir = config.pod_dir(&pod.metadata.uid).join("volumes");
        let mut out = Mounted::new();
        for volume in &pod.spec.volumes {
            let failed = |message: String| SetUpError { volume: volume.name.clone(), message };
            let plugin = self.plugins.iter().find(|p| p.supports(volume));
            let plugin = plugin.ok_or_else(|| failed("no volume plugin matched".into()))?;
            let request = Request {
                pod,
                volume,
                dir: &dir,
                facts,
                objects: &self.objects,
                client: &self.client,
                tokens: &self.tokens,
                claims: &self.claims,
                events: &self.events,
                measures: &self.measures,
                plugin: plugin.name(volume).map(OnceLock::from).unwrap_or_default(),
            };
            let began = Instant::now();
            let ready = plugin.set_up(&request).await;
            let kind = request.plugin.get().copied().unwrap_or("N/A");
            self.measures.tried(&pod.metadata.uid, &volume.name, kind, began, ready.is_ok());
            out.insert(volume.name.clone(), ready.map_err(failed)?);
        }
        Ok(out)
    }

    /// Unmounts what was mounted for the pod and removes its directory. Blocks; nothing is deleted through a mount.
    pub(crate) fn tear_down(&self, config: &Config, uid: &str) -> std::io::Result<()> {
        self.tokens.forget(uid);
        self.claims.forget(uid);
        let began = Instant::now();
        let done = tear_down(&config.pod_dir(uid));
        self.measures.ended(uid, began, done.is_ok());
        done
    }

    /// Takes down the volumes of a pod that has ended, before anybody is told that it is gone; the rest of its directory
    /// stays (termination messages are in it). Upstream: `WaitForUnmount` in `SyncTerminatedPod`.
    pub(crate) fn unmount(&self, config: &Config, uid: &str) -> std::io::Result<()> {
        self.tokens.forget(uid);
        self.claims.forget(uid);
        let dir = config.pod_dir(uid);
        let began = Instant::now();
        let parts = ["volumes", "volume-subpaths", "plugins"];
        let done = mount_table::unmount_beneath(&dir)
            .and_then(|()| parts.iter().try_for_each(|part| remove(&dir.join(part))));
        self.measures.ended(uid, began, done.is_ok());
        done
    }
}

fn tear_down(dir: &Path) -> std::io::Result<()> {
    mount_table::unmount_beneath(dir)?;
    remove(dir)
}

/// Removes a directory beneath which nothing is mounted any more, if it is there.
fn remove(dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2017-1002102: what a container has left in its volumes leads nobody out of them who takes them away.
    #[test]
    fn root_nothing_is_deleted_through_links_or_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::create_dir_all(precious.join("deep")).unwrap();
        std::fs::write(precious.join("deep/file"), "kept").unwrap();
        let config = Config { root_dir: dir.path().join("kubelet"), ..Config::new("n", "127.0.0.1") };
        let volume = config.pod_dir("uid").join("volumes/kubernetes.io~empty-dir/v");
        std::fs::create_dir_all(volume.join("mounted")).unwrap();
        std::os::unix::fs::symlink(&precious, volume.join("link")).unwrap();
        std::os::unix::fs::symlink(precious.join("deep"), volume.join("mounted.link")).unwrap();
        rustix::mount::mount_bind(&precious, volume.join("mounted")).unwrap();
        let pod = config.pod_dir("uid");
        tear_down(&pod).unwrap();
        assert!(!pod.exists());
        assert_eq!(std::fs::read_to_string(precious.join("deep/file")).unwrap(), "kept");
    }
}
