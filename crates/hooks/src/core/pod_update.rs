//! What may change in a pod, by whom. Upstream: `ValidatePodUpdate`, `ValidatePodStatusUpdate`,
//! `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`.

use super::pod_validation::{validate_ephemeral, validate_pod, validate_resources};
use crate::Context;
use crate::diff::diff;
use crate::tree::{or, text, typed};
use api::core::v1::Pod;
use apimachinery::field::{Error, ErrorList, Path};
use serde_json::Value;

/// Keeps what the subresource of the request is not about.
pub(super) fn prepare(pod: &mut Value, old: &Value, context: &Context) {
    let kept = |pod: &mut Value, members: &[&str]| {
        let mut spec = old["spec"].clone();
        for member in members {
            match pod["spec"].get(*member) {
                Some(value) => spec[*member] = value.clone(),
                None => drop(spec.as_object_mut().map(|s| s.remove(*member))),
            }
        }
        pod["spec"] = spec;
    };
    match context.subresource {
        Some("status") => {
            match old["metadata"].get("ownerReferences") {
                Some(owners) => pod["metadata"]["ownerReferences"] = owners.clone(),
                None => drop(pod["metadata"].as_object_mut().map(|m| m.remove("ownerReferences"))),
            }
            let class = text(old, &["status", "qosClass"]).to_owned();
            if let Some(status) = pod.get_mut("status").filter(|_| !class.is_empty()) {
                or(status, "qosClass", class);
            }
        }
        Some("ephemeralcontainers") => kept(pod, &["ephemeralContainers"]),
        Some("resize") => {
            let mut spec = old["spec"].clone();
            for list in ["containers", "initContainers"] {
                let (Some(Value::Array(into)), Some(Value::Array(from))) =
                    (spec.get_mut(list), pod["spec"].get(list))
                else {
                    continue;
                };
                for container in into {
                    let same = from.iter().find(|c| c["name"] == container["name"]);
                    for key in ["resources", "resizePolicy"] {
                        if let Some(value) = same.and_then(|c| c.get(key)) {
                            container[key] = value.clone();
                        }
                    }
                }
            }
            pod["spec"] = spec;
        }
        _ => {}
    }
}

/// What a pod may not have at first.
pub(super) fn validate_new(pod: &Pod) -> ErrorList {
    let mut errors = ErrorList::default();
    if !pod.spec.ephemeral_containers.is_empty() {
        errors.push(Error::forbidden(
            &Path::new("spec").child("ephemeralContainers"),
            "cannot be set on create",
        ));
    }
    if !pod.spec.node_name.is_empty() && !pod.spec.scheduling_gates.is_empty() {
        errors.push(Error::forbidden(
            &Path::new("spec").child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
    errors
}

pub(super) fn validate(pod: &Value, old: &Value, context: &Context) -> ErrorList {
    let (new, before): (Pod, Pod) = (typed(pod), typed(old));
    match context.subresource {
        Some("status") => validate_status(&new, &before),
        Some("ephemeralcontainers") => validate_ephemeral_update(&new, &before),
        Some("resize") => {
            let mut errors = ErrorList::default();
            for (i, container) in new.spec.containers.iter().enumerate() {
                let path = Path::new("spec").child("containers").index(i).child("resources");
                errors.extend(validate_resources(&container.resources, &path));
            }
            if new.status.qos_class != api::qos::compute_pod_qos(&new).as_str() {
                let text = "Pod QOS Class may not change as a result of resizing";
                errors.push(Error::invalid(&Path::new("spec"), new.status.qos_class.as_str(), text));
            }
            errors
        }
        _ => validate_spec(pod, old, &new, &before),
    }
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                         previously negative)";

fn validate_spec(pod: &Value, old: &Value, new: &Pod, before: &Pod) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = validate_pod(new);
    for (name, now, then) in [
        ("containers", &new.spec.containers, &before.spec.containers),
        ("initContainers", &new.spec.init_containers, &before.spec.init_containers),
    ] {
        if now.len() != then.len() {
            errors.push(Error::forbidden(&spec.child(name), "pod updates may not add or remove containers"));
            return errors;
        }
    }
    let deadline = spec.child("activeDeadlineSeconds");
    match (new.spec.active_deadline_seconds, before.spec.active_deadline_seconds) {
        (Some(now), Some(then)) if now > then => {
            errors.push(Error::invalid(&deadline, now, "must be less than or equal to previous value"));
        }
        (None, Some(then)) => {
            errors.push(Error::invalid(
                &deadline,
                then,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
    for kept in &before.spec.tolerations {
        let mut there = new.spec.tolerations.iter().map(|t| {
            let mut same = t.clone();
            same.toleration_seconds = kept.toleration_seconds;
            same
        });
        if !there.any(|t| t == *kept) {
            errors.push(Error::forbidden(
                &spec.child("tolerations"),
                "existing toleration can not be modified except its tolerationSeconds",
            ));
            break;
        }
    }
    let gates = spec.child("schedulingGates");
    if new.spec.scheduling_gates.iter().any(|gate| !before.spec.scheduling_gates.contains(gate)) {
        errors.push(Error::forbidden(&gates, "only deletion is allowed, but found new scheduling gate"));
    }
    // What may change is made equal; then nothing else may differ.
    let mut munged = pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = munged.get_mut(list) else { continue };
        for (container, then) in containers.iter_mut().zip(old["spec"][list].as_array().into_iter().flatten())
        {
            container["image"] = then["image"].clone();
        }
    }
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"];
    let gated = !before.spec.scheduling_gates.is_empty();
    if gated {
        // A pod that is not yet to be scheduled may still be told where to.
        free.extend(["nodeSelector", "affinity"]);
    }
    let shortened = before.spec.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && new.spec.termination_grace_period_seconds == Some(1);
    if shortened {
        free.push("terminationGracePeriodSeconds");
    }
    for member in free {
        match old["spec"].get(member) {
            Some(value) => munged[member] = value.clone(),
            None => drop(munged.as_object_mut().map(|m| m.remove(member))),
        }
    }
    if munged != old["spec"] {
        let text = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            diff(&munged, &old["spec"])
        );
        errors.push(Error::forbidden(&spec, text));
    }
    errors
}

fn validate_ephemeral_update(new: &Pod, old: &Pod) -> ErrorList {
    let path = Path::new("spec").child("ephemeralContainers");
    let mut errors = ErrorList::default();
    for (i, then) in old.spec.ephemeral_containers.iter().enumerate() {
        match new.spec.ephemeral_containers.iter().find(|c| c.name == then.name) {
            None => {
                let text = format!("existing ephemeral containers {:?} may not be removed\n", then.name);
                errors.push(Error::forbidden(&path, text));
            }
            Some(now) if now != then => {
                let text = format!("existing ephemeral containers {:?} may not be changed\n", then.name);
                errors.push(Error::forbidden(&path.index(i), text));
            }
            Some(_) => {}
        }
    }
    errors.extend(validate_ephemeral(new));
    errors
}

fn validate_status(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("status");
    let (now, then) = (&new.spec.node_name, &old.spec.node_name);
    if now != then {
        errors.push(Error::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    if new.spec.restart_policy == "Always" {
        return errors;
    }
    // A container that ended for good does not come back.
    for (i, status) in old.status.container_statuses.iter().enumerate() {
        let Some(terminated) = &status.state.terminated else { continue };
        if terminated.exit_code != 0 && new.spec.restart_policy == "OnFailure" {
            continue;
        }
        let rules = old.spec.containers.iter().find(|c| c.name == status.name);
        if rules.is_some_and(|c| c.restart_policy.is_some() || !c.restart_policy_rules.is_empty()) {
            continue;
        }
        let after = new.status.container_statuses.iter().find(|c| c.name == status.name);
        if after.is_some_and(|after| after.state.terminated.is_none()) {
            let text = "may not be transitioned to non-terminated state";
            errors.push(Error::forbidden(&path.child("containerStatuses").index(i).child("state"), text));
        }
    }
    errors
}
