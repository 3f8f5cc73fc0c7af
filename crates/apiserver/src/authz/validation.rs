//! What must hold of an AuthorizationConfiguration, in upstream's words.

use super::conditions::Conditions;
use super::configuration::{AuthorizationConfiguration, WebhookConfiguration, default_name};
use apimachinery::field::{BadValue, Error, ErrorList, Path, aggregate};
use apimachinery::time::Duration;
use apimachinery::validation::is_dns1123_subdomain;
use std::collections::BTreeSet;

/// The authorizers there are, by the names that flags and files know.
pub const MODES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const LONGEST_TIMEOUT: i64 = 30;

/// Reads a file and refuses it with everything that is wrong; authorizers of the `required` types must be in it.
pub fn load(text: &str, required: &BTreeSet<String>) -> Result<AuthorizationConfiguration, String> {
    let configuration = AuthorizationConfiguration::parse(text)?;
    if let Some(wrong) = validate(&configuration).aggregate() {
        return Err(wrong);
    }
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for authorizer in configuration.authorizers.iter().filter(|a| a.kind != "Webhook") {
        let (kind, name) = (&authorizer.kind, &authorizer.name);
        seen.insert(kind.clone());
        let expected = default_name(kind);
        if *name != expected {
            errors.push(format!("expected name {expected} for authorizer {kind} instead of {name}"));
        }
    }
    let missing: Vec<&str> = required.difference(&seen).map(String::as_str).collect();
    if !missing.is_empty() {
        errors.push(format!("missing required types: [{}]", missing.join(" ")));
    }
    aggregate(errors).map_or(Ok(configuration), Err)
}

/// Everything that is wrong with a configuration.
pub fn validate(configuration: &AuthorizationConfiguration) -> ErrorList {
    let root = Path::new("authorizers");
    let mut errors = ErrorList::default();
    if configuration.authorizers.is_empty() {
        errors.push(Error::required(&root, "at least one authorization mode must be defined"));
    }
    let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, authorizer) in configuration.authorizers.iter().enumerate() {
        let path = root.index(at);
        let kind = authorizer.kind.as_str();
        let type_path = path.child("type");
        if kind.is_empty() {
            errors.push(Error::required(&type_path, ""));
            continue;
        }
        if !MODES.contains(&kind) {
            errors.push(Error::not_supported(&type_path, kind, &MODES));
            continue;
        }
        if !types.insert(kind) && kind != "Webhook" {
            errors.push(Error::duplicate(&type_path, kind));
            continue;
        }
        let name_path = path.child("name");
        let name = &authorizer.name;
        let invalid = is_dns1123_subdomain(name);
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        } else if names.contains(name) {
            errors.push(Error::duplicate(&name_path, name));
        } else if !invalid.is_empty() {
            let why = format!("authorizer name is invalid: {}", invalid.join(", "));
            errors.push(Error::invalid(&name_path, name, why));
        }
        names.insert(name);
        let hook_path = path.child("webhook");
        match (&authorizer.webhook, kind) {
            (None, "Webhook") => errors.push(Error::required(&hook_path, "required when type=Webhook")),
            (Some(hook), "Webhook") => webhook(hook, &path, &mut errors),
            (Some(_), _) => {
                errors.push(Error::invalid(
                    &hook_path,
                    "non-null",
                    "may only be specified when type=Webhook",
                ));
            }
            (None, _) => {}
        }
    }
    errors
}

/// As upstream's paths have it, the members of `webhook` stand directly below the authorizer.
fn webhook(hook: &WebhookConfiguration, path: &Path, errors: &mut ErrorList) {
    let zero = Duration::default();
    let timeout = path.child("timeout");
    if hook.timeout == zero {
        errors.push(Error::required(&timeout, ""));
    } else if hook.timeout > Duration::from_seconds(LONGEST_TIMEOUT) || hook.timeout < zero {
        errors.push(Error::invalid(&timeout, hook.timeout.to_string(), "must be > 0s and <= 30s"));
    }
    for (name, ttl) in [("authorizedTTL", hook.authorized_ttl), ("unauthorizedTTL", hook.unauthorized_ttl)] {
        if ttl == zero {
            errors.push(Error::required(&path.child(name), ""));
        } else if ttl < zero {
            errors.push(Error::invalid(&path.child(name), ttl.to_string(), "must be > 0s"));
        }
    }
    let version = path.child("subjectAccessReviewVersion");
    match hook.subject_access_review_version.as_str() {
        "" => errors.push(Error::required(&version, "")),
        "v1" | "v1beta1" => {}
        other => errors.push(Error::not_supported(&version, other, &["v1", "v1beta1"])),
    }
    let version = path.child("matchConditionSubjectAccessReviewVersion");
    match hook.match_condition_subject_access_review_version.as_str() {
        "" if hook.match_conditions.is_empty() => {}
        "" => errors.push(Error::required(&version, "required if match conditions are specified")),
        "v1" => {}
        other => errors.push(Error::not_supported(&version, other, &["v1"])),
    }
    let policy = path.child("failurePolicy");
    match hook.failure_policy.as_str() {
        "" => errors.push(Error::required(&policy, "")),
        "NoOpinion" | "Deny" => {}
        other => errors.push(Error::not_supported(&policy, other, &["NoOpinion", "Deny"])),
    }
    connection(hook, &path.child("connectionInfo"), errors);
    errors.extend(Conditions::compile(&hook.match_conditions, path).1);
}

fn connection(hook: &WebhookConfiguration, path: &Path, errors: &mut ErrorList) {
    let info = &hook.connection_info;
    let file_path = path.child("kubeConfigFile");
    match (info.kind.as_str(), info.kubeconfig.as_deref()) {
        ("", _) => errors.push(Error::required(&path.child("type"), "")),
        ("InClusterConfig", None) => {}
        ("InClusterConfig", Some(file)) => {
            errors.push(Error::invalid(&file_path, file, "can only be set when type=KubeConfigFile"));
        }
        ("KubeConfigFile", None | Some("")) => errors.push(Error::required(&file_path, "")),
        ("KubeConfigFile", Some(file)) => {
            let mut refuse = |why: String| errors.push(Error::invalid(&file_path, file, why));
            if !file.starts_with('/') {
                return refuse("must be an absolute path".into());
            }
            match std::fs::metadata(file) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    refuse(format!("error loading file: stat {file}: no such file or directory"));
                }
                Err(e) => refuse(format!("error loading file: {e}")),
                Ok(found) if !found.is_file() => refuse("must be a regular file".into()),
                Ok(_) => {}
            }
        }
        _ => errors.push(Error::not_supported(
            &path.child("type"),
            BadValue::json(info),
            &["InClusterConfig", "KubeConfigFile"],
        )),
    }
}
