//! From a container's CRI configuration and its image to what the shim is asked to make. Everything here is decided
//! from its inputs and read-only looks at the host and the image; nothing is changed.

/// Devices that others specify by name.
mod app_armor;
pub(crate) mod cdi;
/// Devices, and the rules that guard them.
pub(crate) mod devices;
/// What the container sees at which path.
pub(crate) mod mounts;
/// The process: arguments, environment, identity, rights.
pub(crate) mod process;
/// Limits.
pub(crate) mod resources;
/// Signals by name and by CRI's numbers.
pub(crate) mod signals;

#[cfg(test)]
mod tests;

use crate::images::manifest::ExecConfig;
use cri::v1::{ContainerConfig, LinuxContainerSecurityContext, NamespaceMode, PodSandboxConfig};
use cri::{Error, Result};
use linux::cgroup::{Cgroup, DeviceRule, Resources};
use shim::protocol;
use std::path::{Path, PathBuf};

/// All that a specification is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) id: &'a str,
    pub(crate) config: &'a ContainerConfig,
    pub(crate) sandbox: &'a PodSandboxConfig,
    /// The image's defaults.
    pub(crate) image: &'a ExecConfig,
    /// The image's layers, the uppermost first.
    pub(crate) lower: &'a [PathBuf],
    /// The container's: `upper`, `work`, the shim's files.
    pub(crate) dir: &'a Path,
    /// The pod's `hosts`, `hostname`, `resolv.conf`.
    pub(crate) sandbox_dir: &'a Path,
    /// The pod's /dev/shm.
    pub(crate) shm: &'a Path,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) hostname: &'a str,
    pub(crate) seccomp_dir: &'a Path,
    /// The layers of the images that are mounted as volumes, the uppermost first: one for each such mount, in order.
    pub(crate) volumes: &'a [Vec<PathBuf>],
}

/// What creating a container takes.
pub(crate) struct Built {
    pub(crate) spec: protocol::ContainerSpec,
    pub(crate) devices: Vec<DeviceRule>,
    pub(crate) resources: Resources,
}

/// The security context, defaulted.
pub(crate) fn security(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// The pod's user namespace mappings, if it has one.
pub(crate) fn user_namespace(sandbox: &PodSandboxConfig) -> Option<&cri::v1::UserNamespace> {
    let options = sandbox.linux.as_ref()?.security_context.as_ref()?.namespace_options.as_ref()?;
    options.userns_options.as_ref().filter(|users| users.mode() == NamespaceMode::Pod)
}

/// Whether what is mounted is an image.
pub(crate) fn volume_image(mount: &cri::v1::Mount) -> Option<&str> {
    mount.image.as_ref().map(|image| image.image.as_str()).filter(|image| !image.is_empty())
}

/// Whether the pod is in the host's network namespace.
pub(crate) fn on_host_network(sandbox: &PodSandboxConfig) -> bool {
    let security = sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.is_some_and(|options| options.network() == NamespaceMode::Node)
}

/// Makes the specification.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Built> {
    let security = security(inputs.config);
    let in_userns = user_namespace(inputs.sandbox).is_some();
    let linux = inputs.config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let options = security.namespace_options.clone().unwrap_or_default();
    let (devices, rules) = devices::devices(inputs.config, security.privileged)?;
    let (mounts, propagation) = mounts::mounts(inputs, &security, &options)?;
    let (masked, readonly) = match (security.privileged, in_userns) {
        (true, _) => (Vec::new(), Vec::new()),
        // `procMount: Unmasked`, which needs a user namespace, is said by empty lists; elsewhere nobody means them.
        (false, true) => (security.masked_paths.clone(), security.readonly_paths.clone()),
        (false, false) => (
            or_default(&security.masked_paths, &mounts::MASKED),
            or_default(&security.readonly_paths, &mounts::READ_ONLY),
        ),
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let log = match (inputs.sandbox.log_directory.as_str(), inputs.config.log_path.as_str()) {
        ("", _) | (_, "") => None,
        (directory, path) => Some((directory.to_owned(), path.to_owned())),
    };
    let spec = protocol::ContainerSpec {
        id: inputs.id.to_owned(),
        dir: text(inputs.dir),
        process: process::process(inputs, &security)?,
        rootfs: protocol::Rootfs::Overlay {
            lower: inputs.lower.iter().map(|dir| text(dir)).collect(),
            upper: text(&inputs.dir.join("upper")),
            work: text(&inputs.dir.join("work")),
            options: Vec::new(),
        },
        readonly_rootfs: security.readonly_rootfs,
        propagation,
        mounts,
        devices,
        masked_paths: masked,
        readonly_paths: readonly,
        cgroup: cgroup(inputs.cgroup),
        cgroup_namespace: inputs.cgroup.is_v2() && !security.privileged,
        stdio: protocol::Stdio {
            terminal: inputs.config.tty,
            stdin: inputs.config.stdin,
            stdin_once: inputs.config.stdin_once,
            log,
        },
        pid_from: match options.pid() {
            NamespaceMode::Target if options.target_id.is_empty() => {
                return Err(Error::invalid_argument("target PID namespace without a target container"));
            }
            NamespaceMode::Target => Some(options.target_id),
            _ => None,
        },
    };
    Ok(Built { spec, devices: rules, resources: linux.map(resources::limits).unwrap_or_default() })
}

fn or_default(given: &[String], default: &[&str]) -> Vec<String> {
    match given.is_empty() {
        true => default.iter().map(|path| path.to_string()).collect(),
        false => given.to_vec(),
    }
}

/// The directories of a group as the shim wants them.
pub(crate) fn cgroup(group: &Cgroup) -> protocol::Cgroup {
    let dirs = group.dirs().iter().map(|dir| dir.to_string_lossy().into_owned()).collect();
    protocol::Cgroup { dirs, v2: group.is_v2() }
}
