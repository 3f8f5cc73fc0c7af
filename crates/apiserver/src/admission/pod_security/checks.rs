//! The checks of the Pod Security Standards, in the order of their names: each looks at a pod and says what it finds.

use super::policy::{Level, LevelVersion};
use apimachinery::value::Value;
use std::collections::BTreeSet;

/// A pod under scrutiny.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
}

/// A reason and its detail.
type Finding = Option<(String, String)>;

struct Check {
    level: Level,
    /// The first minor version with the check.
    since: u32,
    /// The first minor version in which a restricted check stands in for it.
    until: Option<u32>,
    run: fn(&Pod<'_>, LevelVersion) -> Finding,
}

const fn check(level: Level, since: u32, run: fn(&Pod<'_>, LevelVersion) -> Finding) -> Check {
    Check { level, since, until: None, run }
}

const fn replaced(since: u32, until: u32, run: fn(&Pod<'_>, LevelVersion) -> Finding) -> Check {
    Check { level: Level::Baseline, since, until: Some(until), run }
}

const CHECKS: [Check; 19] = [
    check(Level::Restricted, 8, allow_privilege_escalation),
    check(Level::Baseline, 0, app_armor_profile),
    replaced(0, 22, capabilities_baseline),
    check(Level::Restricted, 22, capabilities_restricted),
    check(Level::Baseline, 0, host_namespaces),
    replaced(0, 0, host_path_volumes),
    check(Level::Baseline, 0, host_ports),
    check(Level::Baseline, 34, host_probes),
    check(Level::Baseline, 0, privileged),
    replaced(0, 35, proc_mount_baseline),
    check(Level::Restricted, 35, proc_mount),
    check(Level::Restricted, 0, restricted_volumes),
    check(Level::Restricted, 0, run_as_non_root),
    check(Level::Restricted, 23, run_as_user),
    check(Level::Baseline, 0, se_linux_options),
    replaced(0, 19, seccomp_baseline),
    check(Level::Restricted, 19, seccomp_restricted),
    check(Level::Baseline, 0, sysctls),
    check(Level::Baseline, 0, windows_host_process),
];

/// All that a pod violates at a level.
pub(super) fn evaluate(at: LevelVersion, metadata: &Value, spec: &Value) -> Vec<(String, String)> {
    let pod = Pod { metadata, spec };
    let applies = |check: &&Check| {
        let stood_in =
            at.level == Level::Restricted && check.until.is_some_and(|until| at.version.is_at_least(until));
        check.level <= at.level
            && at.level > Level::Privileged
            && at.version.is_at_least(check.since)
            && !stood_in
    };
    CHECKS.iter().filter(applies).filter_map(|check| (check.run)(&pod, at)).collect()
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
    }

    fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// In a user namespace of its own, root within is nobody without.
    fn has_user_namespace(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

fn name(container: &Value) -> String {
    container["name"].as_str().unwrap_or_default().to_owned()
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|i| format!("\"{}\"", i.as_ref())).collect();
    all.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn containers_named(names: &[String]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

fn found(reason: &str, detail: String) -> Finding {
    Some((reason.to_owned(), detail))
}

/// `pod and containers "a", "b"`, if there is anybody to name.
fn setters(pod: bool, containers: &[String]) -> Option<String> {
    let mut all = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !containers.is_empty() {
        all.push(containers_named(containers));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

fn allow_privilege_escalation(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(25) && pod.is_windows() {
        return None;
    }
    let bad: Vec<String> = pod
        .containers()
        .filter(|c| c["securityContext"]["allowPrivilegeEscalation"] != false)
        .map(name)
        .collect();
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers_named(&bad));
    found("allowPrivilegeEscalation != false", detail)
}

fn app_armor_profile(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| {
        let ty = &context["appArmorProfile"]["type"];
        let text = ty.as_str().unwrap_or_default();
        let wrong = context["appArmorProfile"].is_object() && !matches!(text, "RuntimeDefault" | "Localhost");
        if wrong {
            values.insert(text.to_owned());
        }
        wrong
    };
    let of_pod = bad(&pod.spec["securityContext"]);
    let containers: Vec<String> = pod.containers().filter(|c| bad(&c["securityContext"])).map(name).collect();
    let annotations = pod.metadata["annotations"].as_object();
    let forbidden: Vec<String> = annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            key.starts_with("container.apparmor.security.beta.kubernetes.io/")
                && !(value.is_empty() || value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={:?}", value.as_str().unwrap_or_default()))
        .collect();
    let mut who: Vec<String> = setters(of_pod, &containers).into_iter().collect();
    let mut values: Vec<String> = values.into_iter().collect();
    if !forbidden.is_empty() {
        who.push(plural("annotation", "annotations", forbidden.len()).to_owned());
        values.extend(forbidden);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    found(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

fn capabilities<'c>(container: &'c Value, list: &str) -> impl Iterator<Item = &'c str> {
    let list = container["securityContext"]["capabilities"][list].as_array();
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// Containers that add what they may not, and what they add.
fn adding(pod: &Pod<'_>, allowed: &[&str]) -> (Vec<String>, BTreeSet<String>) {
    let mut forbidden = BTreeSet::new();
    let mut bad = Vec::new();
    for container in pod.containers() {
        let before = forbidden.len();
        let added: Vec<&str> = capabilities(container, "add").filter(|c| !allowed.contains(c)).collect();
        forbidden.extend(added.iter().map(|c| (*c).to_owned()));
        if !added.is_empty() || forbidden.len() != before {
            bad.push(name(container));
        }
    }
    (bad, forbidden)
}

fn capabilities_baseline(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    const ALLOWED: [&str; 13] = [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ];
    let (bad, forbidden) = adding(pod, &ALLOWED);
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers_named(&bad),
        quoted(forbidden)
    );
    found("non-default capabilities", detail)
}

fn capabilities_restricted(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(25) && pod.is_windows() {
        return None;
    }
    let keeping: Vec<String> =
        pod.containers().filter(|c| !capabilities(c, "drop").any(|d| d == "ALL")).map(name).collect();
    let (bad, forbidden) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let who = containers_named(&keeping);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !bad.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers_named(&bad),
            quoted(forbidden)
        ));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|key| pod.spec[*key] == true);
    let shared: Vec<String> = shared.map(|key| format!("{key}=true")).collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

fn volumes<'a>(pod: &Pod<'a>) -> impl Iterator<Item = &'a Value> {
    pod.spec["volumes"].as_array().into_iter().flatten()
}

fn host_path_volumes(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let bad: Vec<String> = volumes(pod).filter(|v| v["hostPath"].is_object()).map(name).collect();
    if bad.is_empty() {
        return None;
    }
    found("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(bad)))
}

fn host_ports(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let mut ports = BTreeSet::new();
    let mut bad = Vec::new();
    for container in pod.containers() {
        let list = container["ports"].as_array().into_iter().flatten();
        let used: Vec<i64> = list.filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect();
        if !used.is_empty() {
            bad.push(name(container));
            ports.extend(used.iter().map(ToString::to_string));
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        containers_named(&bad),
        plural("uses", "use", bad.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.iter().cloned().collect::<Vec<_>>().join(", ")
    );
    found("hostPort", detail)
}

fn host_probes(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let mut bad = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    for container in pod.containers() {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &container[p]);
        let handlers = ["postStart", "preStop"].map(|h| &container["lifecycle"][h]);
        for action in probes.into_iter().chain(handlers) {
            for kind in ["httpGet", "tcpSocket"] {
                let host = action[kind]["host"].as_str().unwrap_or_default();
                if !host.is_empty() {
                    bad.insert(name(container));
                    hosts.insert(host.to_owned());
                }
            }
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("container", "containers", bad.len()),
        quoted(&bad),
        plural("uses", "use", bad.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(&hosts)
    );
    found("probe or lifecycle host", detail)
}

fn privileged(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let bad: Vec<String> =
        pod.containers().filter(|c| c["securityContext"]["privileged"] == true).map(name).collect();
    if bad.is_empty() {
        return None;
    }
    found("privileged", format!("{} must not set securityContext.privileged=true", containers_named(&bad)))
}

fn proc_mount_baseline(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(35) && pod.has_user_namespace() { None } else { proc_mount(pod, at) }
}

fn proc_mount(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let mut kinds = BTreeSet::new();
    let mut bad = Vec::new();
    for container in pod.containers() {
        if let Some(kind) = container["securityContext"]["procMount"].as_str().filter(|k| *k != "Default") {
            bad.push(name(container));
            kinds.insert(kind);
        }
    }
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.procMount to {}", containers_named(&bad), quoted(kinds));
    found("procMount", detail)
}

fn restricted_volumes(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let mut kinds = BTreeSet::new();
    let mut bad = Vec::new();
    for volume in volumes(pod) {
        let map = volume.as_object();
        let own = || map.into_iter().flatten().filter(|(k, v)| *k != "name" && !v.is_null()).map(|(k, _)| k);
        if own().any(|kind| ALLOWED.contains(&kind.as_str())) {
            continue;
        }
        bad.push(name(volume));
        kinds.insert(own().next().cloned().unwrap_or_else(|| "unknown".into()));
    }
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(&bad),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(kinds)
    );
    found("restricted volume types", detail)
}

fn run_as_non_root(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    const REASON: &str = "runAsNonRoot != true";
    if at.version.is_at_least(35) && pod.has_user_namespace() {
        return None;
    }
    let of_pod = &pod.spec["securityContext"]["runAsNonRoot"];
    let says = |c: &Value| c["securityContext"]["runAsNonRoot"].as_bool();
    let bad: Vec<String> = pod.containers().filter(|c| says(c) == Some(false)).map(name).collect();
    if let Some(who) = setters(*of_pod == false, &bad) {
        return found(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent: Vec<String> = match of_pod.as_bool() {
        Some(true) => Vec::new(),
        _ => pod.containers().filter(|c| says(c).is_none()).map(name).collect(),
    };
    if silent.is_empty() {
        return None;
    }
    let who = containers_named(&silent);
    found(REASON, format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(35) && pod.has_user_namespace() {
        return None;
    }
    let root = |context: &Value| context["runAsUser"] == 0;
    let bad: Vec<String> = pod.containers().filter(|c| root(&c["securityContext"])).map(name).collect();
    let who = setters(root(&pod.spec["securityContext"]), &bad)?;
    found("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn se_linux_options(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let text = |key: &str| options[key].as_str().unwrap_or_default();
        let ty = text("type");
        let engine = ty == "container_engine_t" && at.version.is_at_least(31);
        let known = matches!(ty, "" | "container_t" | "container_init_t" | "container_kvm_t") || engine;
        if !known {
            types.insert(ty.to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        !known || !text("user").is_empty() || !text("role").is_empty()
    };
    let of_pod = bad(&pod.spec["securityContext"]);
    let containers: Vec<String> = pod.containers().filter(|c| bad(&c["securityContext"])).map(name).collect();
    let who = setters(of_pod, &containers)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    if user {
        data.push("user may not be set".into());
    }
    if role {
        data.push("role may not be set".into());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; "));
    found("seLinuxOptions", detail)
}

fn seccomp_annotations(pod: &Pod<'_>) -> Finding {
    let annotations = &pod.metadata["annotations"];
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(
        pod.containers().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", name(c))),
    );
    let forbidden: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = annotations[&key].as_str()?;
            let good =
                matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!good).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let list: Vec<&str> = forbidden.iter().map(String::as_str).collect();
    let word = plural("annotation", "annotations", list.len());
    found("seccompProfile", format!("forbidden {word} {}", list.join(", ")))
}

/// Who sets a profile that is none of the two, and which.
fn bad_seccomp(pod: &Pod<'_>) -> Finding {
    let mut values = BTreeSet::new();
    let mut bad = |context: &Value| {
        let profile = &context["seccompProfile"];
        let ty = profile["type"].as_str().unwrap_or_default();
        let wrong = profile.is_object() && !matches!(ty, "RuntimeDefault" | "Localhost");
        if wrong {
            values.insert(ty.to_owned());
        }
        wrong
    };
    let of_pod = bad(&pod.spec["securityContext"]);
    let containers: Vec<String> = pod.containers().filter(|c| bad(&c["securityContext"])).map(name).collect();
    let who = setters(of_pod, &containers)?;
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
    found("seccompProfile", detail)
}

fn seccomp_baseline(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(19) { bad_seccomp(pod) } else { seccomp_annotations(pod) }
}

fn seccomp_restricted(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    if at.version.is_at_least(25) && pod.is_windows() {
        return None;
    }
    if let Some(finding) = bad_seccomp(pod) {
        return Some(finding);
    }
    if pod.spec["securityContext"]["seccompProfile"].is_object() {
        return None;
    }
    let silent: Vec<String> =
        pod.containers().filter(|c| !c["securityContext"]["seccompProfile"].is_object()).map(name).collect();
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers_named(&silent)
    );
    found("seccompProfile", detail)
}

fn sysctls(pod: &Pod<'_>, at: LevelVersion) -> Finding {
    /// Names and the minor version since which they are allowed.
    const ALLOWED: [(&str, u32); 12] = [
        ("kernel.shm_rmid_forced", 0),
        ("net.ipv4.ip_local_port_range", 0),
        ("net.ipv4.tcp_syncookies", 0),
        ("net.ipv4.ping_group_range", 0),
        ("net.ipv4.ip_unprivileged_port_start", 0),
        ("net.ipv4.ip_local_reserved_ports", 27),
        ("net.ipv4.tcp_keepalive_time", 29),
        ("net.ipv4.tcp_fin_timeout", 29),
        ("net.ipv4.tcp_keepalive_intvl", 29),
        ("net.ipv4.tcp_keepalive_probes", 29),
        ("net.ipv4.tcp_rmem", 32),
        ("net.ipv4.tcp_wmem", 32),
    ];
    let list = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<String> = list
        .map(name)
        .filter(|name| !ALLOWED.iter().any(|(known, since)| known == name && at.version.is_at_least(*since)))
        .collect();
    if bad.is_empty() { None } else { found("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Pod<'_>, _: LevelVersion) -> Finding {
    let host = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let bad: Vec<String> = pod.containers().filter(|c| host(&c["securityContext"])).map(name).collect();
    let who = setters(host(&pod.spec["securityContext"]), &bad)?;
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
