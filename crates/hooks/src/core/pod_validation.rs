//! What is wrong with a pod's spec. Upstream: `ValidatePodSpec` and what it reaches.

use api::core::v1::*;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::quantity::Quantity;
use apimachinery::validation::*;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

pub(super) fn validate_pod(pod: &Pod) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = validate_pod_spec(&pod.spec, &path);
    if pod.spec.scheduler_name.is_empty() {
        errors.push(Error::required(&path.child("schedulerName"), ""));
    }
    errors
}

fn problems(errors: &mut ErrorList, path: &Path, value: &str, found: impl IntoIterator<Item = String>) {
    errors.extend(found.into_iter().map(|text| Error::invalid(path, value, text)));
}

fn one_of(errors: &mut ErrorList, path: &Path, value: &str, allowed: &[&str]) {
    if value.is_empty() {
        errors.push(Error::required(path, ""));
    } else if !allowed.contains(&value) {
        errors.push(Error::not_supported(path, value, allowed));
    }
}

fn not_negative(errors: &mut ErrorList, path: &Path, value: i64) {
    if value < 0 {
        errors.push(Error::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// The spec of a pod or a template.
pub(crate) fn validate_pod_spec(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    let volumes = validate_volumes(&mut errors, &spec.volumes, &path.child("volumes"));
    let mut names = HashSet::new();
    if spec.containers.is_empty() {
        errors.push(Error::required(&path.child("containers"), ""));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let path = path.child("containers").index(i);
        validate_container(&mut errors, container, &volumes, &mut names, &path);
    }
    for (i, container) in spec.init_containers.iter().enumerate() {
        let path = path.child("initContainers").index(i);
        validate_container(&mut errors, container, &volumes, &mut names, &path);
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        for (name, probe) in [
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
            ("startupProbe", &container.startup_probe),
        ] {
            if probe.is_some() && !sidecar {
                errors.push(Error::forbidden(
                    &path.child(name),
                    "may not be set for init containers without restartPolicy=Always",
                ));
            }
        }
        if container.lifecycle.is_some() && !sidecar {
            errors.push(Error::forbidden(
                &path.child("lifecycle"),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
    host_ports(&mut errors, &spec.containers, path);
    one_of(
        &mut errors,
        &path.child("restartPolicy"),
        &spec.restart_policy,
        &["Always", "OnFailure", "Never"],
    );
    one_of(
        &mut errors,
        &path.child("dnsPolicy"),
        &spec.dns_policy,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if spec.dns_policy == "None" && spec.dns_config.as_ref().is_none_or(|c| c.nameservers.is_empty()) {
        let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(Error::required(&path.child("dnsConfig").child("nameservers"), text));
    }
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(Error::invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            inclusive_range_error(1, i32::MAX.into()),
        ));
    }
    if let Some(seconds) = spec.termination_grace_period_seconds {
        not_negative(&mut errors, &path.child("terminationGracePeriodSeconds"), seconds);
    }
    for (key, value) in &spec.node_selector {
        let path = path.child("nodeSelector");
        problems(&mut errors, &path, key, is_qualified_name(key));
        problems(&mut errors, &path.key(key.as_str()), value, is_valid_label_value(value));
    }
    if !spec.service_account_name.is_empty() {
        let found = name_is_dns_subdomain(&spec.service_account_name, NameUse::Whole);
        problems(&mut errors, &path.child("serviceAccountName"), &spec.service_account_name, found);
    }
    if !spec.node_name.is_empty() {
        let found = name_is_dns_subdomain(&spec.node_name, NameUse::Whole);
        problems(&mut errors, &path.child("nodeName"), &spec.node_name, found);
    }
    for (name, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !value.is_empty() {
            problems(&mut errors, &path.child(name), value, is_dns1123_label(value));
        }
    }
    for (i, toleration) in spec.tolerations.iter().enumerate() {
        validate_toleration(&mut errors, toleration, &path.child("tolerations").index(i));
    }
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        let path = path.child("hostAliases").index(i);
        if parse_ip_sloppy(&alias.ip).is_none() {
            let text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(Error::invalid(&path.child("ip"), alias.ip.as_str(), text));
        }
        for (j, name) in alias.hostnames.iter().enumerate() {
            problems(&mut errors, &path.child("hostnames").index(j), name, is_dns1123_subdomain(name));
        }
    }
    if !spec.priority_class_name.is_empty() {
        let found = name_is_dns_subdomain(&spec.priority_class_name, NameUse::Whole);
        problems(&mut errors, &path.child("priorityClassName"), &spec.priority_class_name, found);
    }
    let mut gates = HashSet::new();
    for (i, gate) in spec.scheduling_gates.iter().enumerate() {
        let path = path.child("schedulingGates").index(i);
        problems(&mut errors, &path, &gate.name, is_qualified_name(&gate.name));
        if !gates.insert(gate.name.as_str()) {
            errors.push(Error::duplicate(&path, gate.name.as_str()));
        }
    }
    if let Some(context) = &spec.security_context {
        let path = path.child("securityContext");
        for (name, id) in [
            ("runAsUser", context.run_as_user),
            ("runAsGroup", context.run_as_group),
            ("fsGroup", context.fs_group),
        ] {
            if let Some(id) = id {
                let found = is_valid_user_id(id);
                errors.extend(found.into_iter().map(|text| Error::invalid(&path.child(name), id, text)));
            }
        }
        super::sysctls::validate(&mut errors, spec, &context.sysctls, &path.child("sysctls"));
    }
    if let Some(affinity) = &spec.affinity {
        validate_affinity(&mut errors, affinity, &path.child("affinity"));
    }
    for (i, constraint) in spec.topology_spread_constraints.iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        if constraint.max_skew <= 0 {
            errors.push(Error::invalid(
                &path.child("maxSkew"),
                constraint.max_skew,
                "must be greater than zero",
            ));
        }
        if constraint.topology_key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        one_of(
            &mut errors,
            &path.child("whenUnsatisfiable"),
            &constraint.when_unsatisfiable,
            &["DoNotSchedule", "ScheduleAnyway"],
        );
    }
    errors
}

fn validate_affinity(errors: &mut ErrorList, affinity: &Affinity, path: &Path) {
    if let Some(node) = &affinity.node_affinity
        && let Some(required) = &node.required_during_scheduling_ignored_during_execution
    {
        let path = path.child("nodeAffinity").child("requiredDuringSchedulingIgnoredDuringExecution");
        validate_node_selector(errors, required, &path);
    }
    let terms = |errors: &mut ErrorList, terms: &[PodAffinityTerm], path: Path| {
        for (i, term) in terms.iter().enumerate() {
            if term.topology_key.is_empty() {
                let text = "can not be empty";
                errors.push(Error::required(&path.index(i).child("topologyKey"), text));
            }
        }
    };
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    if let Some(pod) = &affinity.pod_affinity {
        terms(
            errors,
            &pod.required_during_scheduling_ignored_during_execution,
            path.child("podAffinity").child(required),
        );
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        terms(
            errors,
            &pod.required_during_scheduling_ignored_during_execution,
            path.child("podAntiAffinity").child(required),
        );
    }
}

/// A selector of nodes, which has terms.
pub(crate) fn validate_node_selector(errors: &mut ErrorList, selector: &NodeSelector, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(Error::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        for (j, expression) in term.match_expressions.iter().enumerate() {
            validate_node_requirement(errors, expression, &path.index(i).child("matchExpressions").index(j));
        }
    }
}

fn validate_node_requirement(errors: &mut ErrorList, requirement: &NodeSelectorRequirement, path: &Path) {
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if requirement.values.is_empty() => {
            errors.push(Error::required(&values, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !requirement.values.is_empty() => {
            errors.push(Error::forbidden(
                &values,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "Gt" | "Lt" if requirement.values.len() != 1 => {
            errors.push(Error::required(
                &values,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
    problems(errors, &path.child("key"), &requirement.key, is_qualified_name(&requirement.key));
}

fn validate_toleration(errors: &mut ErrorList, toleration: &Toleration, path: &Path) {
    if !toleration.key.is_empty() {
        problems(errors, &path.child("key"), &toleration.key, is_qualified_name(&toleration.key));
    } else if toleration.operator != "Exists" {
        let text =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&path.child("operator"), toleration.operator.as_str(), text));
    }
    match toleration.operator.as_str() {
        "" | "Equal" => problems(
            errors,
            &path.child("operator"),
            &toleration.value,
            is_valid_label_value(&toleration.value),
        ),
        "Exists" if !toleration.value.is_empty() => {
            let text = "value must be empty when `operator` is 'Exists'";
            errors.push(Error::invalid(&path.child("operator"), toleration.value.as_str(), text));
        }
        "Exists" => {}
        other => errors.push(Error::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
    }
    if !matches!(toleration.effect.as_str(), "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        let allowed = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.push(Error::not_supported(&path.child("effect"), toleration.effect.as_str(), &allowed));
    }
    if toleration.toleration_seconds.is_some() && toleration.effect != "NoExecute" {
        let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&path.child("effect"), toleration.effect.as_str(), text));
    }
}

/// Checks volumes; returns their names.
fn validate_volumes<'a>(errors: &mut ErrorList, volumes: &'a [Volume], path: &Path) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name = path.child("name");
        if volume.name.is_empty() {
            errors.push(Error::required(&name, ""));
        } else {
            problems(errors, &name, &volume.name, is_dns1123_label(&volume.name));
            if !names.insert(volume.name.as_str()) {
                errors.push(Error::duplicate(&name, volume.name.as_str()));
            }
        }
        let sources = serde_json::to_value(volume).unwrap_or_default();
        let sources = sources.as_object().into_iter().flatten().filter(|(key, _)| *key != "name");
        let sources: Vec<&String> = sources.map(|(key, _)| key).collect();
        match sources.as_slice() {
            [] => errors.push(Error::required(&path, "must specify a volume type")),
            [_] => {}
            [_, rest @ ..] => rest.iter().for_each(|source| {
                errors.push(Error::forbidden(
                    &path.child(source.to_string()),
                    "may not specify more than 1 volume type",
                ));
            }),
        }
        if volume.secret.as_ref().is_some_and(|s| s.secret_name.is_empty()) {
            errors.push(Error::required(&path.child("secret").child("secretName"), ""));
        }
        if volume.config_map.as_ref().is_some_and(|c| c.name.is_empty()) {
            errors.push(Error::required(&path.child("configMap").child("name"), ""));
        }
        if let Some(host) = &volume.host_path {
            if host.path.is_empty() {
                errors.push(Error::required(&path.child("hostPath").child("path"), ""));
            } else if host.path.split('/').any(|part| part == "..") {
                errors.push(Error::invalid(
                    &path.child("hostPath").child("path"),
                    host.path.as_str(),
                    "must not contain '..'",
                ));
            }
        }
        if volume.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name.is_empty()) {
            errors.push(Error::required(&path.child("persistentVolumeClaim").child("claimName"), ""));
        }
        let modes = [
            ("secret", volume.secret.as_ref().and_then(|s| s.default_mode)),
            ("configMap", volume.config_map.as_ref().and_then(|s| s.default_mode)),
            ("projected", volume.projected.as_ref().and_then(|s| s.default_mode)),
            ("downwardAPI", volume.downward_api.as_ref().and_then(|s| s.default_mode)),
        ];
        for (source, mode) in modes {
            if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
                let text = "must be a number between 0 and 0777 (octal), both inclusive";
                errors.push(Error::invalid(&path.child(source).child("defaultMode"), mode, text));
            }
        }
    }
    names
}

fn validate_container<'a>(
    errors: &mut ErrorList,
    container: &'a Container,
    volumes: &HashSet<&str>,
    names: &mut HashSet<&'a str>,
    path: &Path,
) {
    let name = path.child("name");
    if container.name.is_empty() {
        errors.push(Error::required(&name, ""));
    } else {
        problems(errors, &name, &container.name, is_dns1123_label(&container.name));
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&name, container.name.as_str()));
        }
    }
    let image = path.child("image");
    if container.image.is_empty() {
        errors.push(Error::required(&image, ""));
    } else if container.image.trim() != container.image {
        errors.push(Error::invalid(
            &image,
            container.image.as_str(),
            "must not have leading or trailing whitespace",
        ));
    }
    one_of(
        errors,
        &path.child("imagePullPolicy"),
        &container.image_pull_policy,
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(policy) = container.restart_policy.as_deref()
        && !matches!(policy, "Always" | "OnFailure" | "Never")
    {
        errors.push(Error::not_supported(
            &path.child("restartPolicy"),
            policy,
            &["Always", "Never", "OnFailure"],
        ));
    }
    validate_ports(errors, &container.ports, &path.child("ports"));
    validate_env(errors, &container.env, &path.child("env"));
    let mut targets = HashSet::new();
    for (i, mount) in container.volume_mounts.iter().enumerate() {
        let path = path.child("volumeMounts").index(i);
        if mount.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !volumes.contains(mount.name.as_str()) {
            errors.push(Error::not_found(&path.child("name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(Error::required(&path.child("mountPath"), ""));
        }
        if !targets.insert(mount.mount_path.as_str()) {
            errors.push(Error::invalid(
                &path.child("mountPath"),
                mount.mount_path.as_str(),
                "must be unique",
            ));
        }
        for (name, sub) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if sub.starts_with('/') {
                errors.push(Error::invalid(&path.child(name), sub.as_str(), "must be a relative path"));
            } else if sub.split('/').any(|part| part == "..") {
                errors.push(Error::invalid(&path.child(name), sub.as_str(), "must not contain '..'"));
            }
        }
        if !mount.sub_path.is_empty() && !mount.sub_path_expr.is_empty() {
            let text = "subPathExpr and subPath are mutually exclusive";
            errors.push(Error::invalid(&path.child("subPathExpr"), mount.sub_path_expr.as_str(), text));
        }
    }
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            validate_probe(errors, probe, name, &path.child(name));
        }
    }
    if let Some(lifecycle) = &container.lifecycle {
        let path = path.child("lifecycle");
        for (name, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(handler) = handler {
                let given = [
                    handler.exec.is_some(),
                    handler.http_get.is_some(),
                    handler.tcp_socket.is_some(),
                    handler.sleep.is_some(),
                ];
                one_handler(errors, &given, &path.child(name));
            }
        }
    }
    one_of(
        errors,
        &path.child("terminationMessagePolicy"),
        &container.termination_message_policy,
        &["FallbackToLogsOnError", "File"],
    );
    errors.extend(validate_resources(&container.resources, &path.child("resources")));
    if let Some(context) = &container.security_context {
        let path = path.child("securityContext");
        for (name, id) in [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)] {
            if let Some(id) = id {
                errors.extend(
                    is_valid_user_id(id).into_iter().map(|t| Error::invalid(&path.child(name), id, t)),
                );
            }
        }
        if context.allow_privilege_escalation == Some(false) && context.privileged == Some(true) {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(
                &path,
                serde_json::to_value(context).unwrap_or_default().to_string(),
                text,
            ));
        }
    }
}

pub(super) fn validate_ephemeral(pod: &Pod) -> ErrorList {
    let mut errors = ErrorList::default();
    let mut names: HashSet<&str> =
        pod.spec.containers.iter().chain(&pod.spec.init_containers).map(|c| c.name.as_str()).collect();
    for (i, container) in pod.spec.ephemeral_containers.iter().enumerate() {
        let path = Path::new("spec").child("ephemeralContainers").index(i);
        if container.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), container.name.as_str()));
        }
        if container.image.is_empty() {
            errors.push(Error::required(&path.child("image"), ""));
        }
        for (name, set) in [
            ("ports", !container.ports.is_empty()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
            ("lifecycle", container.lifecycle.is_some()),
            ("resources", !container.resources.requests.is_empty() || !container.resources.limits.is_empty()),
        ] {
            if set {
                errors.push(Error::forbidden(&path.child(name), "cannot be set for an Ephemeral Container"));
            }
        }
        let target = &container.target_container_name;
        if !target.is_empty()
            && !pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|c| c.name == *target)
        {
            errors.push(Error::not_found(&path.child("targetContainerName"), target.as_str()));
        }
    }
    errors
}

fn validate_ports(errors: &mut ErrorList, ports: &[ContainerPort], path: &Path) {
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        if !port.name.is_empty() {
            let found = is_valid_port_name(&port.name);
            if !found.is_empty() {
                problems(errors, &path.child("name"), &port.name, found);
            } else if !names.insert(port.name.as_str()) {
                errors.push(Error::duplicate(&path.child("name"), port.name.as_str()));
            }
        }
        if port.container_port == 0 {
            errors.push(Error::required(&path.child("containerPort"), ""));
        } else {
            let found = is_valid_port_num(port.container_port.into());
            errors.extend(
                found
                    .into_iter()
                    .map(|t| Error::invalid(&path.child("containerPort"), port.container_port, t)),
            );
        }
        if port.host_port != 0 {
            let found = is_valid_port_num(port.host_port.into());
            errors.extend(
                found.into_iter().map(|t| Error::invalid(&path.child("hostPort"), port.host_port, t)),
            );
        }
        one_of(errors, &path.child("protocol"), &port.protocol, &["SCTP", "TCP", "UDP"]);
    }
}

fn host_ports(errors: &mut ErrorList, containers: &[Container], path: &Path) {
    let mut taken = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().enumerate().filter(|(_, p)| p.host_port != 0) {
            if !taken.insert((port.protocol.as_str(), port.host_ip.as_str(), port.host_port)) {
                let path = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let value = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
                errors.push(Error::duplicate(&path, value));
            }
        }
    }
}

fn validate_env(errors: &mut ErrorList, env: &[EnvVar], path: &Path) {
    for (i, variable) in env.iter().enumerate() {
        let path = path.index(i);
        if variable.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        } else {
            problems(errors, &path.child("name"), &variable.name, is_relaxed_env_var_name(&variable.name));
        }
        let Some(from) = &variable.value_from else { continue };
        let path = path.child("valueFrom");
        let given = [
            from.field_ref.is_some(),
            from.resource_field_ref.is_some(),
            from.config_map_key_ref.is_some(),
            from.secret_key_ref.is_some(),
            from.file_key_ref.is_some(),
        ];
        match given.iter().filter(|g| **g).count() {
            0 => errors.push(Error::invalid(
                &path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            )),
            1 => {}
            _ => errors.push(Error::invalid(&path, "", "may not have more than one field specified at a time")),
        }
        if !variable.value.is_empty() {
            errors.push(Error::invalid(&path, "", "may not be specified when `value` is not empty"));
        }
        if let Some(reference) = &from.config_map_key_ref
            && reference.key.is_empty()
        {
            errors.push(Error::required(&path.child("configMapKeyRef").child("key"), ""));
        }
        if let Some(reference) = &from.secret_key_ref
            && reference.key.is_empty()
        {
            errors.push(Error::required(&path.child("secretKeyRef").child("key"), ""));
        }
    }
}

fn one_handler(errors: &mut ErrorList, given: &[bool], path: &Path) {
    match given.iter().filter(|g| **g).count() {
        0 => errors.push(Error::required(path, "must specify a handler type")),
        1 => {}
        _ => errors.push(Error::forbidden(path, "may not specify more than 1 handler type")),
    }
}

fn validate_probe(errors: &mut ErrorList, probe: &Probe, name: &str, path: &Path) {
    let given =
        [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    one_handler(errors, &given, path);
    for (name, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        not_negative(errors, &path.child(name), value.into());
    }
    if name != "readinessProbe" && probe.success_threshold > 1 {
        errors.push(Error::invalid(&path.child("successThreshold"), probe.success_threshold, "must be 1"));
    }
    if probe.termination_grace_period_seconds.is_some() {
        let path = path.child("terminationGracePeriodSeconds");
        if name == "readinessProbe" {
            errors.push(Error::invalid(
                &path,
                probe.termination_grace_period_seconds.unwrap_or(0),
                "must not be set for readinessProbes",
            ));
        } else if probe.termination_grace_period_seconds.is_some_and(|s| s <= 0) {
            errors.push(Error::invalid(
                &path,
                probe.termination_grace_period_seconds.unwrap_or(0),
                "must be greater than 0",
            ));
        }
    }
    if let Some(get) = &probe.http_get {
        let path = path.child("httpGet");
        if get.path.is_empty() {
            errors.push(Error::required(&path.child("path"), ""));
        }
        port(errors, &get.port, &path.child("port"));
        one_of(errors, &path.child("scheme"), &get.scheme, &["HTTP", "HTTPS"]);
        for header in &get.http_headers {
            problems(errors, &path.child("httpHeaders"), &header.name, is_http_header_name(&header.name));
        }
    }
    if let Some(socket) = &probe.tcp_socket {
        port(errors, &socket.port, &path.child("tcpSocket").child("port"));
    }
    if probe.exec.as_ref().is_some_and(|e| e.command.is_empty()) {
        errors.push(Error::required(&path.child("exec").child("command"), ""));
    }
}

fn port(errors: &mut ErrorList, port: &IntOrString, path: &Path) {
    match port {
        IntOrString::Int(number) => {
            let found = is_valid_port_num((*number).into());
            errors.extend(found.into_iter().map(|t| Error::invalid(path, *number, t)));
        }
        IntOrString::String(name) => problems(errors, path, name, is_valid_port_name(name)),
    }
}

pub(super) fn validate_resources(resources: &ResourceRequirements, path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    let check = |errors: &mut ErrorList, list: &BTreeMap<String, Quantity>, path: &Path| {
        for (name, quantity) in list {
            let path = path.key(name.as_str());
            problems(errors, &path, name, resource_name(name));
            if quantity.cmp_i64(0).is_lt() {
                let text = "must be greater than or equal to 0";
                errors.push(Error::invalid(&path, quantity.to_string(), text));
            }
            let whole =
                name.contains('/') && !name.starts_with("kubernetes.io/") || name.starts_with("hugepages-");
            if whole && quantity.milli_value() % 1000 != 0 {
                errors.push(Error::invalid(
                    &path,
                    Value::from(quantity.to_string()).to_string(),
                    "must be an integer",
                ));
            }
        }
    };
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    check(&mut errors, &resources.limits, &limits);
    check(&mut errors, &resources.requests, &requests);
    for (name, request) in &resources.requests {
        let overcommit = !name.contains('/') && !name.starts_with("hugepages-");
        match resources.limits.get(name) {
            Some(limit) if request > limit => {
                let text = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests, request.to_string(), text));
            }
            Some(limit) if !overcommit && request != limit => {
                let text = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests, request.to_string(), text));
            }
            None if !overcommit => {
                let text = format!("Limit must be set for non overcommitable resources: {name}");
                errors.push(Error::required(&limits, text));
            }
            _ => {}
        }
    }
    errors
}

/// Names without a domain are the system's own.
fn resource_name(name: &str) -> Vec<String> {
    let mut found: Vec<String> = is_qualified_name(name).into_iter().collect();
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if found.is_empty() && !name.contains('/') && !known {
        found.push("must be a standard resource for containers".to_owned());
    }
    found
}
