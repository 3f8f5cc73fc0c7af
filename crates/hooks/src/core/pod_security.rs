//! What is wrong with the security contexts of a pod and its containers, and with what only one operating system has.

use super::volume_sources::descending;
use crate::check::{Check, subdomain};
use crate::shown::shown_typed;
use api::core::v1::{
    AppArmorProfile, Container, PodSpec, SeccompProfile, SecurityContext, WindowsSecurityContextOptions,
};
use apimachinery::field::{Error, Path};
use apimachinery::validation::{is_valid_group_id, is_valid_user_id};

pub(super) fn container(check: &mut Check, spec: &PodSpec, context: Option<&SecurityContext>, path: &Path) {
    let Some(context) = context else { return };
    if let Some(id) = context.run_as_user {
        is_valid_user_id(id).into_iter().for_each(|why| check.invalid(&path.child("runAsUser"), id, why));
    }
    if let Some(id) = context.run_as_group {
        is_valid_group_id(id).into_iter().for_each(|why| check.invalid(&path.child("runAsGroup"), id, why));
    }
    if let Some(mount) = context.proc_mount.as_deref() {
        let at = path.child("procMount");
        check.one_of(&at, mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && spec.host_users != Some(false) {
            check.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(check, context.seccomp_profile.as_ref(), &path.child("seccompProfile"));
    if context.allow_privilege_escalation == Some(false) {
        let shown = || shown_typed("io.k8s.api.core.v1.SecurityContext", context);
        if context.privileged == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check.invalid(path, shown(), why);
        }
        let added =
            context.capabilities.iter().flat_map(|c| &c.add).filter(|c| *c == "CAP_SYS_ADMIN").count();
        for _ in 0..added {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check.invalid(path, shown(), why);
        }
    }
    windows(check, context.windows_options.as_ref(), &path.child("windowsOptions"));
    app_armor(check, context.app_armor_profile.as_ref(), &path.child("appArmorProfile"));
}

pub(super) fn pod(check: &mut Check, spec: &PodSpec, path: &Path) {
    let Some(context) = &spec.security_context else { return };
    if let Some(id) = context.fs_group {
        is_valid_group_id(id).into_iter().for_each(|why| check.invalid(&path.child("fsGroup"), id, why));
    }
    if let Some(id) = context.run_as_user {
        is_valid_user_id(id).into_iter().for_each(|why| check.invalid(&path.child("runAsUser"), id, why));
    }
    if let Some(id) = context.run_as_group {
        is_valid_group_id(id).into_iter().for_each(|why| check.invalid(&path.child("runAsGroup"), id, why));
    }
    for (i, id) in context.supplemental_groups.iter().enumerate() {
        let at = path.child("supplementalGroups").index(i);
        is_valid_group_id(*id).into_iter().for_each(|why| check.invalid(&at, *id, why));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        check.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    super::sysctls::validate(&mut check.0, spec, &context.sysctls, &path.child("sysctls"));
    if let Some(policy) = &context.fs_group_change_policy {
        check.one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    seccomp(check, context.seccomp_profile.as_ref(), &path.child("seccompProfile"));
    windows(check, context.windows_options.as_ref(), &path.child("windowsOptions"));
    app_armor(check, context.app_armor_profile.as_ref(), &path.child("appArmorProfile"));
    if let Some(policy) = &context.supplemental_groups_policy {
        check.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        check.one_of(&path.child("seLinuxChangePolicy"), policy, &["Recursive"]);
    }
}

fn seccomp(check: &mut Check, profile: Option<&SeccompProfile>, path: &Path) {
    let Some(profile) = profile else { return };
    let at = path.child("type");
    if profile.type_.is_empty() {
        check.required(&at, "type is required when seccompProfile is set");
    } else {
        check.one_of(&at, &profile.type_, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    let at = path.child("localhostProfile");
    match (&profile.localhost_profile, profile.type_ == "Localhost") {
        (None, true) => check.required(&at, "must be set when seccomp type is Localhost"),
        (Some(local), true) => descending(check, &at, local),
        (Some(_), false) => {
            let shown = shown_typed("io.k8s.api.core.v1.SeccompProfile", profile);
            check.invalid(&at, shown, "can only be set when seccomp type is Localhost");
        }
        (None, false) => {}
    }
}

fn app_armor(check: &mut Check, profile: Option<&AppArmorProfile>, path: &Path) {
    const MAX: usize = 4095;
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => check.required(&at, NEEDED),
        ("Localhost", Some(local)) => {
            if local.trim() != local {
                check.invalid(&at, local.as_str(), "must not be padded with whitespace");
            } else if local.is_empty() {
                check.required(&at, NEEDED);
            }
            check.when(local.len() > MAX, || Error::too_long(&at, MAX));
        }
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            check.invalid(&at, local.as_str(), "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => check.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => {
            let known = ["Localhost", "RuntimeDefault", "Unconfined"];
            check.0.push(Error::not_supported(&path.child("type"), other, &known));
        }
    }
}

fn windows(check: &mut Check, options: Option<&WindowsSecurityContextOptions>, path: &Path) {
    let Some(options) = options else { return };
    if let Some(name) = &options.gmsa_credential_spec_name {
        check.keeps(&path.child("gmsaCredentialSpecName"), name, subdomain);
    }
    if let Some(spec) = options.gmsa_credential_spec.as_deref() {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            check.invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            check.invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = options.run_as_user_name.as_deref() {
        user_name(check, name, &path.child("runAsUserName"));
    }
}

fn user_name(check: &mut Check, name: &str, path: &Path) {
    if name.is_empty() {
        return check.invalid(path, name, "runAsUserName cannot be an empty string");
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return check.invalid(path, name, "runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return check.invalid(path, name, "runAsUserName cannot contain more than one backslash"),
    };
    if domain.is_some_and(|d| d.len() >= 256) {
        check.invalid(path, name, "runAsUserName's Domain length must be under 256 characters");
    }
    if user.is_empty() {
        check.invalid(path, name, "runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        check.invalid(path, name, "runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        check.invalid(path, name, "runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        let why = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        check.invalid(path, name, why);
    }
}

/// Containers of all kinds with their places, in upstream's order.
fn all_containers<'a>(spec: &'a PodSpec, path: &Path) -> Vec<(Path, Option<&'a SecurityContext>)> {
    let of = |containers: &'a [Container], member: &'static str| {
        let at = path.child(member);
        containers.iter().enumerate().map(move |(i, c)| (at.index(i), c.security_context.as_ref()))
    };
    let at = path.child("ephemeralContainers");
    let ephemeral = spec.ephemeral_containers.iter().enumerate();
    of(&spec.init_containers, "initContainers")
        .chain(of(&spec.containers, "containers"))
        .chain(ephemeral.map(move |(i, c)| (at.index(i), c.security_context.as_ref())))
        .collect()
}

pub(super) fn host_processes(check: &mut Check, spec: &PodSpec, path: &Path) {
    let asked = |options: Option<&WindowsSecurityContextOptions>| options.and_then(|o| o.host_process);
    let of_pod = asked(spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()));
    let containers = all_containers(spec, path);
    let mut processes = 0;
    for (path, context) in &containers {
        let own = asked(context.and_then(|c| c.windows_options.as_ref()));
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let at = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            check.invalid(&at, own, why);
        }
        processes += usize::from(own.or(of_pod) == Some(true));
    }
    if processes == 0 {
        return;
    }
    if processes != containers.len() {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        check.invalid(path, "", why);
    }
    if !spec.host_network {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        check.invalid(&path.child("hostNetwork"), false, why);
    }
}

pub(super) fn operating_system(check: &mut Check, spec: &PodSpec, path: &Path) {
    let Some(os) = &spec.os else { return };
    if !check.present(&path.child("os").child("name"), &os.name, "") {
        return;
    }
    check.one_of(&path.child("os"), &os.name, &["linux", "windows"]);
    match os.name.as_str() {
        "linux" => {
            let why = "windows options cannot be set for a linux pod";
            if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
                check.forbidden(&path.child("securityContext").child("windowsOptions"), why);
            }
            for (at, context) in all_containers(spec, path) {
                if context.is_some_and(|c| c.windows_options.is_some()) {
                    check.forbidden(&at.child("securityContext").child("windowsOptions"), why);
                }
            }
        }
        "windows" => for_windows(check, spec, path),
        _ => {}
    }
}

fn for_windows(check: &mut Check, spec: &PodSpec, path: &Path) {
    const WHY: &str = "cannot be set for a windows pod";
    let mut refuse = |given: bool, at: Path| {
        if given {
            check.forbidden(&at, WHY);
        }
    };
    let context = path.child("securityContext");
    if let Some(c) = &spec.security_context {
        refuse(c.app_armor_profile.is_some(), context.child("appArmorProfile"));
        refuse(c.se_linux_options.is_some(), context.child("seLinuxOptions"));
    }
    refuse(spec.host_users.is_some(), path.child("hostUsers"));
    refuse(spec.host_pid, path.child("hostPID"));
    refuse(spec.host_ipc, path.child("hostIPC"));
    if let Some(c) = &spec.security_context {
        refuse(c.seccomp_profile.is_some(), context.child("seccompProfile"));
        refuse(c.fs_group.is_some(), context.child("fsGroup"));
        refuse(c.fs_group_change_policy.is_some(), context.child("fsGroupChangePolicy"));
        refuse(!c.sysctls.is_empty(), context.child("sysctls"));
    }
    refuse(spec.share_process_namespace.is_some(), path.child("shareProcessNamespace"));
    if let Some(c) = &spec.security_context {
        refuse(c.run_as_user.is_some(), context.child("runAsUser"));
        refuse(c.run_as_group.is_some(), context.child("runAsGroup"));
        refuse(!c.supplemental_groups.is_empty(), context.child("supplementalGroups"));
        refuse(c.supplemental_groups_policy.is_some(), context.child("supplementalGroupsPolicy"));
    }
    for (at, c) in all_containers(spec, path) {
        let Some(c) = c else { continue };
        let at = at.child("securityContext");
        refuse(c.app_armor_profile.is_some(), at.child("appArmorProfile"));
        refuse(c.se_linux_options.is_some(), at.child("seLinuxOptions"));
        refuse(c.seccomp_profile.is_some(), at.child("seccompProfile"));
        refuse(c.capabilities.is_some(), at.child("capabilities"));
        refuse(c.read_only_root_filesystem.is_some(), at.child("readOnlyRootFilesystem"));
        refuse(c.privileged.is_some(), at.child("privileged"));
        refuse(c.allow_privilege_escalation.is_some(), at.child("allowPrivilegeEscalation"));
        refuse(c.proc_mount.is_some(), at.child("procMount"));
        refuse(c.run_as_user.is_some(), at.child("runAsUser"));
        refuse(c.run_as_group.is_some(), at.child("runAsGroup"));
    }
}
