//! What is wrong with a pod's containers. Upstream: `validateContainers`, `validateInitContainers`.

use super::pod_env;
use super::pod_resources::{self, Of};
use super::pod_security;
use super::volume_sources::{descending, no_back_steps};
use crate::check::{Check, label};
use api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, ExecAction,
    HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, Volume, VolumeDevice, VolumeMount,
};
use apimachinery::field::{Error, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::validation::{is_http_header_name, is_valid_port_name, is_valid_port_num};
use std::collections::{BTreeSet, HashMap, HashSet};

/// What containers are judged by beside themselves.
pub(super) struct Pod<'a> {
    pub spec: &'a PodSpec,
    pub volumes: HashMap<&'a str, &'a Volume>,
    pub claims: BTreeSet<&'a str>,
}

pub(super) fn validate(check: &mut Check, pod: &Pod<'_>, path: &Path) {
    let spec = pod.spec;
    let at = path.child("containers");
    if spec.containers.is_empty() {
        check.required(&at, "");
    }
    let mut names = HashSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let path = at.index(i);
        common(check, pod, container, &path);
        if !names.insert(container.name.as_str()) {
            check.0.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        running(check, pod, container, &path);
        restart_policy(check, container.restart_policy.as_deref(), &container.restart_policy_rules, &path);
    }
    host_ports(check, &spec.containers, &at);
    init(check, pod, names, &path.child("initContainers"));
}

fn init<'a>(check: &mut Check, pod: &Pod<'a>, mut names: HashSet<&'a str>, at: &Path) {
    const SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";
    for (i, container) in pod.spec.init_containers.iter().enumerate() {
        let path = at.index(i);
        common(check, pod, container, &path);
        let policy = container.restart_policy.as_deref();
        let rules = &container.restart_policy_rules;
        restart_policy(check, policy, rules, &path);
        if names.contains(container.name.as_str()) {
            check.0.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        } else if !container.name.is_empty() {
            names.insert(container.name.as_str());
        }
        host_ports(check, std::slice::from_ref(container), at);
        if policy == Some("Always") {
            running(check, pod, container, &path);
        } else {
            let given = [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ];
            for (member, _) in given.into_iter().filter(|(_, given)| *given) {
                check.forbidden(&path.child(member), SIDECARS);
            }
            for (j, policy) in container.resize_policy.iter().enumerate() {
                if policy.restart_policy == "RestartContainer" {
                    let at = path.child("resizePolicy").index(j).child("restartPolicy");
                    let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    check.invalid(&at, policy.restart_policy.as_str(), why);
                }
            }
        }
    }
}

pub(super) fn ephemeral(check: &mut Check, pod: &Pod<'_>, at: &Path) {
    const NOT_HERE: &str = "cannot be set for an Ephemeral Container";
    let others = pod.spec.containers.iter().chain(&pod.spec.init_containers).map(|c| c.name.as_str());
    let others: HashSet<&str> = others.collect();
    let mut names = others.clone();
    for (i, ephemeral) in pod.spec.ephemeral_containers.iter().enumerate() {
        let path = at.index(i);
        let container = as_container(ephemeral);
        common(check, pod, &container, &path);
        image_alone(check, &container, &path);
        if !names.insert(ephemeral.name.as_str()) {
            check.0.push(Error::duplicate(&path.child("name"), ephemeral.name.as_str()));
        }
        let target = ephemeral.target_container_name.as_str();
        if !target.is_empty() && !others.contains(target) {
            check.0.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        let resources = &ephemeral.resources;
        let given = [
            ("ports", !ephemeral.ports.is_empty()),
            (
                "resources",
                !(resources.limits.is_empty()
                    && resources.requests.is_empty()
                    && resources.claims.is_empty()),
            ),
            ("resizePolicy", !ephemeral.resize_policy.is_empty()),
            ("restartPolicy", ephemeral.restart_policy.is_some()),
            ("restartPolicyRules", !ephemeral.restart_policy_rules.is_empty()),
            ("livenessProbe", ephemeral.liveness_probe.is_some()),
            ("readinessProbe", ephemeral.readiness_probe.is_some()),
            ("startupProbe", ephemeral.startup_probe.is_some()),
            ("lifecycle", ephemeral.lifecycle.is_some()),
        ];
        for (member, _) in given.into_iter().filter(|(_, given)| *given) {
            check.forbidden(&path.child(member), NOT_HERE);
        }
        for (j, mount) in ephemeral.volume_mounts.iter().enumerate() {
            let path = path.child("volumeMounts").index(j);
            for (member, sub) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if !sub.is_empty() {
                    check.forbidden(&path.child(member), NOT_HERE);
                }
            }
        }
    }
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let mut value = apimachinery::value::to_value(ephemeral).unwrap_or_default();
    crate::tree::remove(&mut value, "targetContainerName");
    crate::tree::typed(&value)
}

/// What holds for a pod's containers and not for a template's.
pub(super) fn image_alone(check: &mut Check, container: &Container, path: &Path) {
    if container.image.trim() != container.image {
        let why = "must not have leading or trailing whitespace";
        check.invalid(&path.child("image"), container.image.as_str(), why);
    }
}

fn common(check: &mut Check, pod: &Pod<'_>, container: &Container, path: &Path) {
    check.present_and_keeps(&path.child("name"), &container.name, "", label);
    check.present(&path.child("image"), &container.image, "");
    let at = path.child("terminationMessagePolicy");
    if check.present(&at, &container.termination_message_policy, "") {
        check.one_of(&at, &container.termination_message_policy, &["File", "FallbackToLogsOnError"]);
    }
    ports(check, &container.ports, &path.child("ports"));
    pod_env::validate(check, &container.env, &path.child("env"));
    pod_env::validate_from(check, &container.env_from, &path.child("envFrom"));
    mounts(check, pod, container, &path.child("volumeMounts"));
    devices(check, pod, container, &path.child("volumeDevices"));
    let at = path.child("imagePullPolicy");
    if check.present(&at, &container.image_pull_policy, "") {
        check.one_of(&at, &container.image_pull_policy, &["Always", "IfNotPresent", "Never"]);
    }
    let at = path.child("resources");
    pod_resources::validate(check, &container.resources, Of::Container, Some(&pod.claims), &at);
    resize(check, pod, &container.resize_policy, &path.child("resizePolicy"));
    pod_security::container(
        check,
        pod.spec,
        container.security_context.as_ref(),
        &path.child("securityContext"),
    );
}

/// What a container that goes on running may have.
fn running(check: &mut Check, pod: &Pod<'_>, container: &Container, path: &Path) {
    let grace = pod.spec.termination_grace_period_seconds;
    if let Some(life) = &container.lifecycle {
        lifecycle(check, pod, life, grace, &path.child("lifecycle"));
    }
    for (member, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(one) = probe else { continue };
        let path = path.child(member);
        self::probe(check, one, &path);
        if member != "readinessProbe" && one.success_threshold != 1 {
            check.invalid(&path.child("successThreshold"), one.success_threshold, "must be 1");
        }
        if let Some(seconds) = one.termination_grace_period_seconds.filter(|_| member == "readinessProbe") {
            let at = path.child("terminationGracePeriodSeconds");
            check.invalid(&at, seconds, "must not be set for readinessProbes");
        }
    }
}

fn ports(check: &mut Check, ports: &[ContainerPort], path: &Path) {
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if !port.name.is_empty() {
            let wrong = is_valid_port_name(&port.name);
            if wrong.is_empty() && !names.insert(port.name.as_str()) {
                check.0.push(Error::duplicate(&path.child("name"), port.name.as_str()));
            }
            wrong.into_iter().for_each(|why| check.invalid(&path.child("name"), port.name.as_str(), why));
        }
        if port.container_port == 0 {
            check.required(&path.child("containerPort"), "");
        } else {
            check.port(&path.child("containerPort"), port.container_port);
        }
        if port.host_port != 0 {
            check.port(&path.child("hostPort"), port.host_port);
        }
        if check.present(&path.child("protocol"), &port.protocol, "") {
            check.one_of(&path.child("protocol"), &port.protocol, &["SCTP", "TCP", "UDP"]);
        }
    }
}

fn host_ports(check: &mut Check, containers: &[Container], path: &Path) {
    let mut taken = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().enumerate().filter(|(_, p)| p.host_port != 0) {
            let shown = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
            let at = path.index(i).child("ports").index(j).child("hostPort");
            check.when(taken.contains(&shown), || Error::duplicate(&at, shown.as_str()));
            taken.insert(shown);
        }
    }
}

fn mounts(check: &mut Check, pod: &Pod<'_>, container: &Container, path: &Path) {
    let devices = &container.volume_devices;
    let mut points = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().enumerate() {
        let at = path.index(i);
        check.present(&at.child("name"), &mount.name, "");
        if !pod.volumes.contains_key(mount.name.as_str()) {
            check.0.push(Error::not_found(&at.child("name"), mount.name.as_str()));
        }
        check.present(&at.child("mountPath"), &mount.mount_path, "");
        if !points.insert(mount.mount_path.as_str()) {
            check.invalid(&at.child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        if devices.iter().any(|d| d.name == mount.name) {
            let why = "must not already exist in volumeDevices";
            check.invalid(&at.child("name"), mount.name.as_str(), why);
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let why = "must not already exist as a path in volumeDevices";
            check.invalid(&at.child("mountPath"), mount.mount_path.as_str(), why);
        }
        // Upstream names the list in what follows, not its item.
        if !mount.sub_path.is_empty() {
            descending(check, &path.child("subPath"), &mount.sub_path);
        }
        if !mount.sub_path_expr.is_empty() {
            if !mount.sub_path.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                check.invalid(&at.child("subPathExpr"), mount.sub_path_expr.as_str(), why);
            }
            descending(check, &path.child("subPathExpr"), &mount.sub_path_expr);
        }
        propagation(check, container, mount, path);
    }
}

fn propagation(check: &mut Check, container: &Container, mount: &VolumeMount, path: &Path) {
    if let Some(mode) = mount.mount_propagation.as_deref() {
        let at = path.child("mountPropagation");
        check.one_of(&at, mode, &["Bidirectional", "HostToContainer", "None"]);
        let privileged = container.security_context.as_ref().is_some_and(|c| c.privileged == Some(true));
        if mode == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            check.forbidden(&at, why);
        }
    }
    let at = path.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !mount.read_only {
                check.forbidden(&at, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                check.forbidden(&at, why);
            }
        }
        Some(other) => check.one_of(&at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(check: &mut Check, pod: &Pod<'_>, container: &Container, path: &Path) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, VolumeDevice { name, device_path }) in container.volume_devices.iter().enumerate() {
        let at = path.index(i);
        check.present(&at.child("name"), name, "");
        if names.contains(name) {
            check.invalid(&at.child("name"), name.as_str(), "must be unique");
        }
        match pod.volumes.get(name.as_str()) {
            None => check.0.push(Error::not_found(&at.child("name"), name.as_str())),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let why =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                check.invalid(&at.child("name"), name.as_str(), why);
            }
            Some(_) => {}
        }
        let there = at.child("devicePath");
        check.present(&there, device_path, "");
        if paths.contains(device_path) {
            check.invalid(&there, device_path.as_str(), "must be unique");
        }
        let mut steps = Check::default();
        no_back_steps(&mut steps, &there, device_path);
        if steps.0.is_empty() {
            paths.insert(device_path);
        } else {
            check.invalid(&there, device_path.as_str(), "can not contain backsteps ('..')");
        }
        if container.volume_mounts.iter().any(|m| m.name == *name) {
            check.invalid(&at.child("name"), name.as_str(), "must not already exist in volumeMounts");
        }
        if container.volume_mounts.iter().any(|m| m.mount_path == *device_path) {
            let why = "must not already exist as a path in volumeMounts";
            check.invalid(&there, device_path.as_str(), why);
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}

/// What a probe or a hook does; the first that is given counts.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a IntOrString>,
    grpc: Option<i32>,
    sleep: Option<i64>,
}

fn handler(check: &mut Check, handler: &Handler<'_>, grace: Option<i64>, path: &Path) {
    let given = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http_get.is_some()),
        ("tcpSocket", handler.tcp_socket.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ];
    let mut first = true;
    for (member, _) in given.into_iter().filter(|(_, given)| *given) {
        let path = path.child(member);
        if !std::mem::take(&mut first) {
            check.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        match member {
            "exec" if handler.exec.is_some_and(|e| e.command.is_empty()) => {
                check.required(&path.child("command"), "");
            }
            "httpGet" => handler.http_get.into_iter().for_each(|get| http_get(check, get, &path)),
            "tcpSocket" => {
                handler.tcp_socket.into_iter().for_each(|at| port_or_name(check, at, &path.child("port")));
            }
            "grpc" => handler.grpc.into_iter().for_each(|at| check.port(&path.child("port"), at)),
            "sleep" => {
                if let (Some(seconds), Some(grace)) = (handler.sleep, grace)
                    && !(0..=grace).contains(&seconds)
                {
                    let why =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    check.invalid(&path, seconds, why);
                }
            }
            _ => {}
        }
    }
    if first {
        check.required(path, "must specify a handler type");
    }
}

fn http_get(check: &mut Check, get: &HTTPGetAction, path: &Path) {
    check.present(&path.child("path"), &get.path, "");
    port_or_name(check, &get.port, &path.child("port"));
    check.one_of(&path.child("scheme"), &get.scheme, &["HTTP", "HTTPS"]);
    for header in &get.http_headers {
        let wrong = is_http_header_name(&header.name);
        wrong
            .into_iter()
            .for_each(|why| check.invalid(&path.child("httpHeaders"), header.name.as_str(), why));
    }
}

fn port_or_name(check: &mut Check, port: &IntOrString, path: &Path) {
    match port {
        IntOrString::Int(number) => {
            let wrong = is_valid_port_num((*number).into());
            wrong.into_iter().for_each(|why| check.invalid(path, *number, why));
        }
        IntOrString::String(name) => {
            let wrong = is_valid_port_name(name);
            wrong.into_iter().for_each(|why| check.invalid(path, name.as_str(), why));
        }
    }
}

fn probe(check: &mut Check, probe: &Probe, path: &Path) {
    let does = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref().map(|s| &s.port),
        grpc: probe.grpc.as_ref().map(|g| g.port),
        sleep: None,
    };
    handler(check, &does, None, path);
    for (member, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        check.not_negative(&path.child(member), number);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        check.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn lifecycle(check: &mut Check, pod: &Pod<'_>, life: &Lifecycle, grace: Option<i64>, path: &Path) {
    let does = |hook: &LifecycleHandler, check: &mut Check, path: &Path| {
        let does = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref().map(|s| &s.port),
            grpc: None,
            sleep: hook.sleep.as_ref().map(|s| s.seconds),
        };
        handler(check, &does, grace, path);
    };
    if let Some(hook) = &life.post_start {
        does(hook, check, &path.child("postStart"));
    }
    if let Some(hook) = &life.pre_stop {
        does(hook, check, &path.child("preStop"));
    }
    let Some(signal) = &life.stop_signal else { return };
    let at = path.child("stopSignal");
    match pod.spec.os.as_ref().map(|os| os.name.as_str()) {
        None => check.forbidden(&at, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => check.one_of(&at, signal, &["SIGKILL", "SIGTERM"]),
        Some("linux") => check.one_of(&at, signal, SIGNALS),
        Some(_) => {}
    }
}

const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn resize(check: &mut Check, pod: &Pod<'_>, policies: &[ContainerResizePolicy], path: &Path) {
    let mut seen = HashSet::new();
    for (i, policy) in policies.iter().enumerate() {
        let (resource, restart) = (policy.resource_name.as_str(), policy.restart_policy.as_str());
        check.when(!seen.insert(resource), || Error::duplicate(&path.index(i), resource));
        if check.present(path, resource, "") {
            check.one_of(path, resource, &["cpu", "memory"]);
        }
        if check.present(path, restart, "") {
            check.one_of(path, restart, &["NotRequired", "RestartContainer"]);
        }
        if pod.spec.restart_policy == "Never" && restart != "NotRequired" {
            check.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

fn restart_policy(check: &mut Check, policy: Option<&str>, rules: &[ContainerRestartRule], path: &Path) {
    const MAX_RULES: usize = 20;
    const MAX_CODES: usize = 255;
    let at = path.child("restartPolicy");
    match policy {
        None if rules.is_empty() => return,
        None => check.required(&at, "must specify restartPolicy when restart rules are used"),
        Some(policy) => check.one_of(&at, policy, &["Always", "Never", "OnFailure"]),
    }
    let path = path.child("restartPolicyRules");
    check.when(rules.len() > MAX_RULES, || Error::too_many(&path, Some(rules.len()), MAX_RULES));
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        check.one_of(&path.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let at = path.child("exitCodes");
        let Some(codes) = &rule.exit_codes else {
            check.required(&at, "must be specified");
            continue;
        };
        check.one_of(&at.child("operator"), &codes.operator, &["In", "NotIn"]);
        let many = codes.values.len() > MAX_CODES;
        check.when(many, || Error::too_many(&at.child("values"), Some(codes.values.len()), MAX_CODES));
    }
}
