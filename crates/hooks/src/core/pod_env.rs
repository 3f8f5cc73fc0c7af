//! What is wrong with the environment of a container. Upstream: `ValidateEnv`, `ValidateEnvFrom`.

use super::volume_sources::no_back_steps;
use crate::check::{Check, label, subdomain};
use api::core::v1::{EnvFromSource, EnvVar, ObjectFieldSelector, PodSpec, ResourceFieldSelector};
use apimachinery::field::{Error, Path};
use apimachinery::validation::{is_config_map_key, is_qualified_name, is_relaxed_env_var_name};

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that can be asked for by name.
const KNOWN: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "spec.host",
];

pub(super) const CONTAINER_RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn validate(check: &mut Check, env: &[EnvVar], path: &Path) {
    for (i, variable) in env.iter().enumerate() {
        let path = path.index(i);
        if check.present(&path.child("name"), &variable.name, "") {
            let found = is_relaxed_env_var_name(&variable.name);
            found.into_iter().for_each(|why| check.invalid(&path.child("name"), variable.name.as_str(), why));
        }
        let Some(from) = &variable.value_from else { continue };
        let path = path.child("valueFrom");
        let mut found = 0;
        if let Some(field) = &from.field_ref {
            found += 1;
            field_ref(check, field, FIELDS, &path.child("fieldRef"));
        }
        if let Some(resource) = &from.resource_field_ref {
            found += 1;
            resource_ref(check, resource, CONTAINER_RESOURCES, false, &path.child("resourceFieldRef"));
        }
        let keys = [
            ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
            ("secretKeyRef", from.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ];
        for (member, reference) in keys {
            let Some((name, key)) = reference else { continue };
            found += 1;
            let path = path.child(member);
            check.keeps(&path.child("name"), name, subdomain);
            if check.present(&path.child("key"), key, "") {
                let wrong = is_config_map_key(key);
                wrong.into_iter().for_each(|why| check.invalid(&path.child("key"), key.as_str(), why));
            }
        }
        if let Some(file) = &from.file_key_ref {
            found += 1;
            let path = path.child("fileKeyRef");
            if check.present(&path.child("key"), &file.key, "") {
                let wrong = is_relaxed_env_var_name(&file.key);
                wrong.into_iter().for_each(|why| check.invalid(&path.child("key"), file.key.as_str(), why));
            }
            check.present_and_keeps(&path.child("volumeName"), &file.volume_name, "", label);
            if check.present(&path.child("path"), &file.path, "") {
                no_back_steps(check, &path.child("path"), &file.path);
            }
        }
        if found == 0 {
            check.invalid(
                &path,
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            );
        } else if !variable.value.is_empty() {
            check.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if found > 1 {
            check.invalid(&path, "", "may not have more than one field specified at a time");
        }
    }
}

pub(super) fn validate_from(check: &mut Check, sources: &[EnvFromSource], path: &Path) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        if !source.prefix.is_empty() {
            let wrong = is_relaxed_env_var_name(&source.prefix);
            wrong.into_iter().for_each(|why| check.invalid(&at.child("prefix"), source.prefix.as_str(), why));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| &r.name)),
            ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
        ];
        let mut found = 0;
        for (member, name) in names {
            let Some(name) = name else { continue };
            found += 1;
            check.present_and_keeps(&at.child(member).child("name"), name, "", subdomain);
        }
        // Upstream names the list here, not its item.
        match found {
            0 => check.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => check.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

/// Files with variables are in volumes of the pod that live as long as it does.
pub(super) fn files(check: &mut Check, spec: &PodSpec, path: &Path) {
    let containers = spec.containers.iter().map(|c| &c.env).enumerate();
    let first = spec.init_containers.iter().map(|c| &c.env).enumerate();
    let last = spec.ephemeral_containers.iter().map(|c| &c.env).enumerate();
    let all = first.map(|(i, env)| (path.child("initContainers").index(i), env));
    let all = all.chain(containers.map(|(i, env)| (path.child("containers").index(i), env)));
    for (at, env) in all.chain(last.map(|(i, env)| (path.child("ephemeralContainers").index(i), env))) {
        for (i, variable) in env.iter().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) else {
                continue;
            };
            let at = at.child("env").index(i).child("valueFrom").child("fileKeyRef").child("volumeName");
            let name = file.volume_name.as_str();
            match spec.volumes.iter().rev().find(|volume| volume.name == name) {
                None => check.extend([Error::not_found(&at, name)]),
                Some(volume) if volume.empty_dir.is_none() => {
                    check.invalid(&at, name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    }
}

/// `metadata.labels['a']` in its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let inner = path.strip_suffix("']")?;
    let (path, key) = inner.split_once("['")?;
    (!path.is_empty()).then_some((path, key))
}

pub(super) fn field_ref(check: &mut Check, field: &ObjectFieldSelector, allowed: &[&str], path: &Path) {
    if !check.present(&path.child("apiVersion"), &field.api_version, "") {
        return;
    }
    let at = path.child("fieldPath");
    if !check.present(&at, &field.field_path, "") {
        return;
    }
    let asked = field.field_path.as_str();
    let (name, key) = subscript(asked).map_or((asked, None), |(name, key)| (name, Some(key)));
    let subscripted = matches!(name, "metadata.annotations" | "metadata.labels");
    if field.api_version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {}", field.api_version);
        return check.invalid(&at, asked, why);
    }
    if key.is_some() && !subscripted {
        let why = "error converting fieldPath: field label does not support subscript: ";
        return check.invalid(&at, asked, format!("{why}{asked}"));
    }
    if !KNOWN.contains(&name) {
        let why = format!("error converting fieldPath: field label not supported: {asked}");
        return check.invalid(&at, asked, why);
    }
    match key {
        Some(key) => {
            let key = if name == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            is_qualified_name(&key).into_iter().for_each(|why| check.invalid(path, key.as_str(), why));
        }
        None if !allowed.contains(&name) => check.0.push(Error::not_supported(&at, name, allowed)),
        None => {}
    }
}

pub(super) fn resource_ref(
    check: &mut Check,
    reference: &ResourceFieldSelector,
    allowed: &[&str],
    in_volume: bool,
    path: &Path,
) {
    let asked = reference.resource.as_str();
    if in_volume && reference.container_name.is_empty() {
        check.required(&path.child("containerName"), "");
    } else if asked.is_empty() {
        check.required(&path.child("resource"), "");
    } else if !allowed.contains(&asked)
        && !asked.starts_with("limits.hugepages-")
        && !asked.starts_with("requests.hugepages-")
    {
        check.0.push(Error::not_supported(&path.child("resource"), asked, allowed));
    }
    if reference.divisor.cmp_i64(0).is_eq() {
        return;
    }
    let divisor = reference.divisor.to_string();
    let kind = asked.split_once('.').map_or("", |(_, kind)| kind);
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let at = path.child("divisor");
    let only = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the";
    match kind {
        "cpu" if !matches!(divisor.as_str(), "1m" | "1") => {
            check.invalid(&at, asked, "only divisor's values 1m and 1 are supported with the cpu resource");
        }
        "memory" if !sizes.contains(&divisor.as_str()) => {
            check.invalid(&at, asked, format!("{only} memory resource"));
        }
        "ephemeral-storage" if !sizes.contains(&divisor.as_str()) => {
            check.invalid(&at, asked, format!("{only} local ephemeral storage resource"));
        }
        kind if kind.starts_with("hugepages-") && !sizes.contains(&divisor.as_str()) => {
            check.invalid(&at, asked, format!("{only} hugepages resource"));
        }
        _ => {}
    }
}
