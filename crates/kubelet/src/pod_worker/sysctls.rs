//! Which sysctls a pod may set on this node: those that are safe, and those that the node's owner allows. Pure.
//! Upstream: `pkg/kubelet/sysctl`.

use super::status::Forced;
use api::core::v1::Pod;

/// Namespaced, and without influence on other pods; every kernel that we run on has them so.
const SAFE: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const IPC: &[&str] = &[
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.shm",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.msg",
];

/// With dots between its parts, whichever way it was written.
fn normal(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name[first..].starts_with('/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The kernel's namespace that a sysctl, or all that begin with this, is in.
fn namespace(name: &str) -> Option<&'static str> {
    match name {
        _ if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some("IPC"),
        _ if name.starts_with("net.") => Some("Net"),
        _ => None,
    }
}

/// `--allowed-unsafe-sysctls`: names, and beginnings that end in `*`.
pub fn check_allowed(patterns: &[String]) -> Result<(), String> {
    for pattern in patterns {
        let name = normal(pattern);
        let name = name.split('*').next().unwrap_or_default();
        if namespace(name).is_none() {
            return Err(format!("the sysctls {name:?} are not known to be namespaced"));
        }
    }
    Ok(())
}

/// Refuses a pod that wants to set another one.
pub(crate) fn admit(pod: &Pod, allowed: &[String]) -> Result<(), Forced> {
    let sysctls = pod.spec.security_context.iter().flat_map(|context| &context.sysctls);
    for name in sysctls.map(|sysctl| normal(&sysctl.name)) {
        let unsafe_one = allowed.iter().any(|pattern| {
            let pattern = normal(pattern);
            pattern.split_once('*').map_or(pattern == name, |(start, _)| name.starts_with(start))
        });
        let shared = match namespace(&name) {
            Some(ns @ "IPC") if pod.spec.host_ipc => Some(ns),
            Some(ns @ "Net") if pod.spec.host_network => Some(ns),
            _ => None,
        };
        let why = match shared {
            _ if !unsafe_one && !SAFE.contains(&name.as_str()) => format!("{name:?} not allowlisted"),
            Some(ns) => format!("{name:?} not allowed with host {ns} enabled"),
            None => continue,
        };
        let (reason, message) = ("SysctlForbidden".into(), format!("forbidden sysctl: {why}"));
        return Err(Forced { reason, message, ..Default::default() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(name: &str, host: bool, expected: Expect) {
        let spec = json!({ "hostNetwork": host, "hostIPC": host, "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        let pod: Pod = apimachinery::value::from_value(json!({ "spec": spec })).unwrap();
        let allowed = ["kernel.msg*".to_owned(), "net/core.somaxconn".replace('.', "/")];
        let message = admit(&pod, &allowed).err().map(|refused| refused.message);
        expected.assert_eq(&message.unwrap_or_default());
    }

    #[test]
    fn only_what_is_safe_or_allowed() {
        check("net.ipv4.tcp_syncookies", false, expect![""]);
        check("net/ipv4/tcp_syncookies", false, expect![""]);
        check("net.core.somaxconn", false, expect![""]);
        check("kernel.msgmax", false, expect![""]);
        check(
            "kernel.msgmax",
            true,
            expect![[r#"forbidden sysctl: "kernel.msgmax" not allowed with host IPC enabled"#]],
        );
        check(
            "net.ipv4.tcp_syncookies",
            true,
            expect![[r#"forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host Net enabled"#]],
        );
        check("kernel.sem", false, expect![[r#"forbidden sysctl: "kernel.sem" not allowlisted"#]]);
        check("vm.swappiness", false, expect![[r#"forbidden sysctl: "vm.swappiness" not allowlisted"#]]);
        assert!(check_allowed(&["vm.*".into()]).is_err() && check_allowed(&["net.*".into()]).is_ok());
    }
}
