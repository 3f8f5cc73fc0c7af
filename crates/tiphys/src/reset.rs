//! `tiphys reset`: ends what a stopped server left running on this machine. Upstream's nearest kin: `kubeadm reset`.

use crate::places::Places;
use crate::{held_sockets, kernel_settings, node};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::io;
use std::path::Path;
use store::embedded::Directory;

/// Ends every pod and removes interfaces, mounts, cgroups, packet-filter tables, sockets and logs. Cluster data and
/// images stay, unless `remove_data`.
pub(crate) fn run(places: &Places, remove_data: bool) -> Result<()> {
    if !places.data_dir.exists() && !places.run_dir.exists() {
        return Ok(());
    }
    // Held to the end, so that no server starts meanwhile.
    let store = places.data_dir.join("store");
    let lock = match Directory::lock(&store) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("a server runs on {}: stop it first", places.data_dir.display())
        }
        Err(error) => return Err(error).with_context(|| store.display().to_string()),
    };
    // Its cgroup is among those of shims.
    held_sockets::release(places)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (runtime, network) = node::open_embedded(places, None, None).await?;
        runtime.purge().await.context("ending pods")?;
        network.remove().await.context("removing the pod network")
    })?;
    drop(runtime);
    network::cleanup().context("removing the routes to other nodes")?;
    proxy::cleanup().context("removing the rules of Services")?;
    kernel_settings::restore(places)?;
    for dir in [&places.root_dir, &places.run_dir, &places.data_dir] {
        unmount_below(dir)?;
    }
    let cgroups = linux::cgroup::Cgroups::detect()?;
    let pods = format!("{}/kubepods", places.pods_cgroup.trim_end_matches('/'));
    cgroups.group(&pods)?.remove().context("removing the pods' cgroups")?;
    if places.pods_cgroup != "/" {
        cgroups.group(&places.pods_cgroup)?.remove().context("removing the cgroup")?;
    }
    for dir in [&places.root_dir.join("pods"), &places.run_dir, &places.pod_logs] {
        remove(dir)?;
    }
    remove_links(&places.container_logs, &places.pod_logs)?;
    if remove_data {
        remove(&places.root_dir)?;
        remove(&places.data_dir)?;
    }
    drop(lock);
    Ok(())
}

fn unmount_below(dir: &Path) -> Result<()> {
    let mounted = linux::mount::below(dir).with_context(|| format!("mounts below {}", dir.display()))?;
    for target in mounted {
        linux::mount::unmount(&target).with_context(|| format!("unmounting {}", target.display()))?;
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Links to logs that were just removed; others' links stay.
fn remove_links(links: &Path, logs: &Path) -> Result<()> {
    let entries = match fs::read_dir(links) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| links.display().to_string()),
    };
    for entry in entries {
        let path = entry?.path();
        if fs::read_link(&path).is_ok_and(|target| target.starts_with(logs)) {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
