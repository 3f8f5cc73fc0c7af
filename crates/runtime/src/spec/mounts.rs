//! What the container sees at which path: the file systems every container has, the pod's files, and what was asked for.

use super::{Inputs, user_namespace, volume_image};
use cri::v1::{LinuxContainerSecurityContext, MountPropagation, NamespaceMode, NamespaceOption};
use cri::{Error, Result};
use shim::protocol::{Mount, MountKind, Propagation};
use std::path::{Path, PathBuf};

/// Hidden unless the container is privileged; containerd's list.
pub(super) const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Read-only unless the container is privileged.
pub(super) const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The mounts in order, and the propagation of the root that they need.
pub(super) fn mounts(
    inputs: &Inputs<'_>,
    security: &LinuxContainerSecurityContext,
    options: &NamespaceOption,
) -> Result<(Vec<Mount>, Propagation)> {
    let asked = &inputs.config.mounts;
    let taken = |path: &str| asked.iter().any(|mount| clean(&mount.container_path) == path);
    let mut mounts: Vec<Mount> = usual(inputs, security, options);
    mounts.retain(|mount| !taken(&mount.destination));
    let sandbox_file = |name: &str| inputs.sandbox_dir.join(name).to_string_lossy().into_owned();
    for (path, file) in
        [("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf")]
    {
        if !taken(path) {
            let kind = MountKind::Bind { source: sandbox_file(file) };
            let readonly = security.readonly_rootfs;
            mounts.push(Mount { destination: path.into(), kind, readonly, ..Default::default() });
        }
    }
    let mut root = Propagation::Private;
    let mut own = Vec::new();
    let mut volumes = inputs.volumes.iter();
    for mount in asked {
        let mount = match volume_image(mount) {
            Some(_) => image(inputs, mount, volumes.next())?,
            None => bind(inputs, mount)?,
        };
        root = match (root, mount.propagation) {
            (Propagation::Shared, _) | (_, Propagation::Shared) => Propagation::Shared,
            (Propagation::Slave, _) | (_, Propagation::Slave) => Propagation::Slave,
            _ => Propagation::Private,
        };
        own.push(mount);
    }
    // A parent before what lies in it; else as given.
    own.sort_by_key(|mount| mount.destination.matches('/').count() - usize::from(mount.destination == "/"));
    mounts.extend(own);
    Ok((mounts, root))
}

fn usual(
    inputs: &Inputs<'_>,
    security: &LinuxContainerSecurityContext,
    options: &NamespaceOption,
) -> Vec<Mount> {
    let mount = |destination: &str, kind: MountKind| Mount {
        destination: destination.into(),
        kind,
        nosuid: true,
        noexec: true,
        nodev: true,
        ..Default::default()
    };
    let host_ipc = options.ipc() == NamespaceMode::Node;
    let shm = if host_ipc { Path::new("/dev/shm") } else { inputs.shm };
    let shm = MountKind::Bind { source: shm.to_string_lossy().into_owned() };
    let readonly = !security.privileged;
    let dev = MountKind::Tmpfs { data: "mode=755,size=65536k".into() };
    vec![
        mount("/proc", MountKind::Proc),
        Mount { nodev: false, noexec: false, ..mount("/dev", dev) },
        Mount { nodev: false, ..mount("/dev/pts", MountKind::Devpts) },
        mount("/dev/mqueue", MountKind::Mqueue),
        Mount { readonly, ..mount("/sys", MountKind::Sysfs) },
        Mount { readonly, ..mount("/sys/fs/cgroup", MountKind::Cgroup) },
        mount("/dev/shm", shm),
    ]
}

/// An image as a volume.
fn image(inputs: &Inputs<'_>, mount: &cri::v1::Mount, layers: Option<&Vec<PathBuf>>) -> Result<Mount> {
    let invalid =
        |why: &str| Error::invalid_argument(format!("image volume {:?}: {why}", mount.container_path));
    if !mount.readonly {
        return Err(invalid("must be read-only"));
    }
    if mount.container_path.is_empty() || !mount.host_path.is_empty() {
        return Err(invalid("needs a container path and no host path"));
    }
    if Path::new(&mount.image_sub_path).components().any(|part| part == std::path::Component::ParentDir) {
        return Err(invalid("its subpath must not contain '..'"));
    }
    let layers = layers.ok_or_else(|| invalid("its image is not there"))?;
    let lower = layers.iter().map(|dir| dir.to_string_lossy().into_owned()).collect();
    Ok(Mount {
        destination: clean(&mount.container_path),
        kind: MountKind::Layers { lower, sub_path: mount.image_sub_path.clone() },
        readonly: true,
        idmap: user_namespace(inputs.sandbox).is_some(),
        ..Default::default()
    })
}

fn bind(inputs: &Inputs<'_>, mount: &cri::v1::Mount) -> Result<Mount> {
    let invalid = |why: &str| Error::invalid_argument(format!("mount {:?}: {why}", mount.container_path));
    if mount.container_path.is_empty() || mount.host_path.is_empty() {
        return Err(invalid("needs a container path and a host path"));
    }
    if mount.recursive_read_only {
        if !mount.readonly {
            return Err(invalid("recursive_read_only requires readonly"));
        }
        if mount.propagation() != MountPropagation::PropagationPrivate {
            return Err(invalid("recursive_read_only requires private propagation"));
        }
    }
    let host = Path::new(&mount.host_path);
    if !host.exists() {
        std::fs::create_dir_all(host)
            .map_err(|error| Error::unknown(format!("failed to mkdir {:?}: {error}", mount.host_path)))?;
    }
    // The source may be a link; what it leads to is mounted.
    let source = std::fs::canonicalize(host).map_err(|error| {
        Error::unknown(format!("failed to resolve symlink {:?}: {error}", mount.host_path))
    })?;
    let idmap = !mount.uid_mappings.is_empty() && user_namespace(inputs.sandbox).is_some();
    Ok(Mount {
        destination: clean(&mount.container_path),
        kind: MountKind::Bind { source: source.to_string_lossy().into_owned() },
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation: match mount.propagation() {
            MountPropagation::PropagationPrivate => Propagation::Private,
            MountPropagation::PropagationHostToContainer => Propagation::Slave,
            MountPropagation::PropagationBidirectional => Propagation::Shared,
        },
        idmap,
        ..Default::default()
    })
}

/// Absolute, without `.`, `..` and doubled slashes.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}
