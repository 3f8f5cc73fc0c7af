//! What is mounted into a container: its volumes, `/etc/hosts`, the termination message file.
//! Upstream: `makeMounts`, `makeHostsMount`.

use super::container::Start;
use super::{expansion, hostname, hosts_file};
use crate::context::Context;
use crate::volumes::{Mounted, sub_path};
use api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use cri::v1;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const HOSTS: &str = "/etc/hosts";

/// All mounts of one start of a container.
pub(crate) async fn mounts(
    context: &Context,
    start: &Start<'_>,
    env: &[(String, String)],
) -> Result<Vec<v1::Mount>, String> {
    let Start { pod, container, volumes, pod_ips, .. } = start;
    let mut out = Vec::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        if let Some(image) = start.volume_images.get(&mount.name) {
            out.push(image_mount(mount, image));
            continue;
        }
        out.push(volume_mount(context, pod, container, volumes, env, index, mount).await?);
    }
    let wants_hosts = !container.volume_mounts.iter().any(|m| m.mount_path == HOSTS);
    if wants_hosts && (!pod_ips.is_empty() || pod.spec.host_network) {
        out.push(hosts_mount(context, pod, pod_ips)?);
    }
    if !container.termination_message_path.is_empty() {
        out.push(termination_mount(context, pod, container)?);
    }
    Ok(out)
}

/// The volumes that a container has as devices. Upstream: `makeBlockVolumes`.
pub(crate) fn devices(container: &Container, volumes: &Mounted) -> Result<Vec<v1::Device>, String> {
    let device = |wanted: &VolumeDevice| {
        let volume = volumes.get(&wanted.name).ok_or_else(|| {
            format!("cannot find volume {:?} to pass into container {:?}", wanted.name, container.name)
        })?;
        Ok(v1::Device {
            container_path: absolute(&wanted.device_path),
            host_path: volume.host_path.to_string_lossy().into_owned(),
            permissions: if volume.read_only { "r" } else { "mrw" }.into(),
        })
    };
    container.volume_devices.iter().map(device).collect()
}

/// The images of image volumes that are there: the volume's name, and the image as it was named and as the runtime knows
/// it.
pub(crate) type VolumeImages = HashMap<String, v1::ImageSpec>;

/// An image, which the runtime mounts itself.
fn image_mount(mount: &VolumeMount, image: &v1::ImageSpec) -> v1::Mount {
    v1::Mount {
        container_path: absolute(&mount.mount_path),
        readonly: true,
        image: Some(image.clone()),
        image_sub_path: mount.sub_path.clone(),
        ..Default::default()
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

async fn volume_mount(
    context: &Context,
    pod: &Pod,
    container: &Container,
    volumes: &Mounted,
    env: &[(String, String)],
    index: usize,
    mount: &VolumeMount,
) -> Result<v1::Mount, String> {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
        Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
        _ => v1::MountPropagation::PropagationPrivate,
    };
    let container_path = absolute(&mount.mount_path);
    let volume = volumes.get(&mount.name).ok_or_else(|| {
        format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name)
    })?;
    let read_only = mount.read_only || volume.read_only;
    let recursive_read_only = match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !context.runtime_info.recursive_read_only => {
            return Err(format!(
                "failed to resolve recursive read-only mode: volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
                mount.name
            ));
        }
        Some("Enabled") => true,
        Some("IfPossible") => mount.read_only && context.runtime_info.recursive_read_only,
        _ => false,
    };
    let mut out = v1::Mount {
        container_path,
        host_path: volume.host_path.to_string_lossy().into_owned(),
        readonly: read_only,
        propagation: propagation as i32,
        recursive_read_only,
        ..Default::default()
    };
    let inner = if mount.sub_path_expr.is_empty() {
        mount.sub_path.clone()
    } else {
        let known: BTreeMap<String, String> = env.iter().cloned().collect();
        let missing = std::cell::Cell::new(None);
        let expanded = expansion::expand(&mount.sub_path_expr, |name| {
            let value = known.get(name).cloned();
            if value.is_none() {
                missing.set(Some(name.to_owned()));
            }
            value
        });
        if let Some(name) = missing.take() {
            return Err(format!("missing value for {name:?}"));
        }
        expanded
    };
    if !inner.is_empty() {
        let at = sub_path::Place {
            volume: volume.host_path.clone(),
            inner,
            target: context
                .config
                .pod_dir(&pod.metadata.uid)
                .join("volume-subpaths")
                .join(&mount.name)
                .join(&container.name)
                .join(index.to_string()),
            mode: volume.mode,
        };
        let bound =
            tokio::task::spawn_blocking(move || sub_path::bind(&at)).await.map_err(|e| e.to_string())?;
        let path = bound.map_err(|error| {
            format!(
                "failed to prepare subPath for volumeMount {:?} of container {:?}: {error}",
                mount.name, container.name
            )
        })?;
        out.host_path = path.to_string_lossy().into_owned();
    }
    Ok(out)
}

/// Upstream writes it anew for every container; so a pod that changed its address sees the new one.
fn hosts_mount(context: &Context, pod: &Pod, pod_ips: &[String]) -> Result<v1::Mount, String> {
    let (name, domain) = hostname::hostname_and_domain(pod, &context.config.cluster_domain);
    let content = if pod.spec.host_network {
        let node_file = std::fs::read_to_string(HOSTS).map_err(|e| format!("failed to read {HOSTS}: {e}"))?;
        hosts_file::of_node(&node_file, &pod.spec.host_aliases)
    } else {
        hosts_file::managed(pod_ips, &name, &domain, &pod.spec.host_aliases)
    };
    let path = context.config.pod_dir(&pod.metadata.uid).join("etc-hosts");
    write(&path, content.as_bytes(), 0o644)?;
    Ok(v1::Mount {
        container_path: HOSTS.into(),
        host_path: path.to_string_lossy().into_owned(),
        ..Default::default()
    })
}

fn termination_mount(context: &Context, pod: &Pod, container: &Container) -> Result<v1::Mount, String> {
    let dir = context.config.pod_dir(&pod.metadata.uid).join("containers").join(&container.name);
    std::fs::create_dir_all(&dir).map_err(|e| format!("failed to create {}: {e}", dir.display()))?;
    // One file per start, so that the last words of one run are not taken for those of the next.
    let path = dir.join(format!("{:08x}", crate::clock::now() as u32));
    write(&path, b"", 0o666)?;
    let at = &container.termination_message_path;
    Ok(v1::Mount {
        container_path: absolute(at),
        host_path: path.to_string_lossy().into_owned(),
        ..Default::default()
    })
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("failed to write {}: {e}", path.display());
    // Written in place: running containers have this very file mounted.
    std::fs::write(path, content).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}
