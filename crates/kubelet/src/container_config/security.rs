//! Security contexts of pods and containers in the CRI's terms. Pure. Upstream: `kuberuntime/security_context*.go`.

use crate::labels::format_pod;
use api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use cri::v1;
use cri::v1::security_profile::ProfileType;
use std::path::Path;

/// Paths that an ordinary container must not read, or must not write, of `/proc` and `/sys`.
const MASKED: [&str; 12] = [
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
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image runs as.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// Which namespaces containers and sandbox share with the node or each other.
pub(crate) fn namespace_options(pod: &Pod) -> v1::NamespaceOption {
    let node_or =
        |node: bool, other: v1::NamespaceMode| (if node { v1::NamespaceMode::Node } else { other }) as i32;
    let pid = if pod.spec.share_process_namespace == Some(true) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or(pod.spec.host_network, v1::NamespaceMode::Pod),
        pid: node_or(pod.spec.host_pid, pid),
        ipc: node_or(pod.spec.host_ipc, v1::NamespaceMode::Pod),
        ..Default::default()
    }
}

fn int(value: i64) -> Option<v1::Int64Value> {
    Some(v1::Int64Value { value })
}

fn se_linux(options: Option<&SELinuxOptions>) -> Option<v1::SeLinuxOption> {
    options.map(|o| v1::SeLinuxOption {
        user: o.user.clone(),
        role: o.role.clone(),
        r#type: o.type_.clone(),
        level: o.level.clone(),
    })
}

fn profile(kind: ProfileType, localhost_ref: String) -> v1::SecurityProfile {
    v1::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn seccomp(
    profile_of: Option<&SeccompProfile>,
    default: bool,
    root: &Path,
) -> Result<v1::SecurityProfile, String> {
    let Some(wanted) = profile_of else {
        let kind = if default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        return Ok(profile(kind, String::new()));
    };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, String::new())),
        "Localhost" => match wanted.localhost_profile.as_deref().filter(|p| !p.is_empty()) {
            Some(name) => Ok(profile(ProfileType::Localhost, root.join(name).to_string_lossy().into_owned())),
            // Never unconfined by accident (CVE-2023-2431).
            None => Err("localhostProfile must be set if seccompProfile type is Localhost.".into()),
        },
        _ => Ok(profile(ProfileType::Unconfined, String::new())),
    }
}

fn app_armor(wanted: Option<&AppArmorProfile>) -> Option<v1::SecurityProfile> {
    wanted.map(|wanted| match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault, String::new()),
        "Localhost" => profile(ProfileType::Localhost, wanted.localhost_profile.clone().unwrap_or_default()),
        _ => profile(ProfileType::Unconfined, String::new()),
    })
}

fn groups_policy(pod: &PodSecurityContext) -> i32 {
    let strict = pod.supplemental_groups_policy.as_deref() == Some("Strict");
    (if strict { v1::SupplementalGroupsPolicy::Strict } else { v1::SupplementalGroupsPolicy::Merge }) as i32
}

fn groups(pod: &PodSecurityContext) -> Vec<i64> {
    pod.fs_group.into_iter().chain(pod.supplemental_groups.iter().copied()).collect()
}

/// The security context of the sandbox.
pub(crate) fn sandbox_context(
    pod: &Pod,
    seccomp_default: bool,
    seccomp_root: &Path,
) -> Result<v1::LinuxSandboxSecurityContext, String> {
    let privileged = pod.spec.containers.iter().chain(&pod.spec.init_containers).any(is_privileged);
    let mut out = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod)),
        privileged,
        // What a sandbox runs is the runtime's own; upstream gives it the default profile always.
        seccomp: Some(profile(ProfileType::RuntimeDefault, String::new())),
        ..Default::default()
    };
    let Some(context) = &pod.spec.security_context else { return Ok(out) };
    out.run_as_user = context.run_as_user.and_then(int);
    out.run_as_group = context.run_as_group.and_then(int);
    out.supplemental_groups = groups(context);
    out.supplemental_groups_policy = groups_policy(context);
    out.selinux_options = se_linux(context.se_linux_options.as_ref());
    seccomp(context.seccomp_profile.as_ref(), seccomp_default, seccomp_root)?;
    Ok(out)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged) == Some(true)
}

/// The security context of a container.
pub(crate) fn container_context(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    seccomp_default: bool,
    seccomp_root: &Path,
) -> Result<v1::LinuxContainerSecurityContext, String> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let no_pod = PodSecurityContext::default();
    let of_pod = pod.spec.security_context.as_ref().unwrap_or(&no_pod);
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(of_pod.run_as_user);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let strings =
        |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let seccomp_profile = if privileged {
        profile(ProfileType::Unconfined, String::new())
    } else {
        seccomp(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            seccomp_default,
            seccomp_root,
        )?
    };
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| v1::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespace_options(pod)),
        selinux_options: se_linux(own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref())),
        run_as_user: user.or(image_user.uid).and_then(int),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).and_then(int),
        run_as_username: if user.is_none() && image_user.uid.is_none() {
            image_user.name.clone()
        } else {
            String::new()
        },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: groups_policy(of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: strings(&MASKED),
        readonly_paths: strings(&READ_ONLY),
        seccomp: Some(seccomp_profile),
        apparmor: app_armor(own.app_armor_profile.as_ref().or(of_pod.app_armor_profile.as_ref())),
        ..Default::default()
    })
}

/// Refuses to run as root what must not; only numbers can be judged.
pub(crate) fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let own = container.security_context.as_ref();
    let of_pod = pod.spec.security_context.as_ref();
    let non_root = own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let whom = format!("(pod: {:?}, container: {})", format_pod(pod), container.name);
    match own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user)) {
        Some(0) => return Err(format!("container's runAsUser breaks non-root policy {whom}")),
        Some(_) => return Ok(()),
        None => {}
    }
    match image.uid {
        Some(0) => Err(format!("container has runAsNonRoot and image will run as root {whom}")),
        Some(_) => Ok(()),
        None if image.name.is_empty() => {
            Err(format!("container has runAsNonRoot and image will run as root {whom}"))
        }
        None => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {whom}",
            image.name
        )),
    }
}
