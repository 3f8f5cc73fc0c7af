//! What an update may change in a pod, each way there is to update one. Upstream: the strategies of `pkg/registry/core/pod`.

use super::pod_spec_update::validate_spec;
use super::pod_validation::validate_pod;
use super::{pod_resize, pod_status_update};
use crate::Context;
use crate::check::Check;
use crate::shown::diff;
use crate::tree::{at, typed};
use api::core::v1::Pod;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::value::{Key, Value};
use std::collections::BTreeMap;

pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Keeps what the subresource of the request is not about.
pub(super) fn prepare(pod: &mut Value, old: &Value, context: &Context) {
    match context.subresource {
        Some("status") => pod_status_update::prepare(pod, old),
        Some("ephemeralcontainers") => {
            keep_the_rest(pod, old);
            let mut spec = old["spec"].clone();
            set(&mut spec, "ephemeralContainers", pod["spec"].get("ephemeralContainers"));
            pod["spec"] = spec;
        }
        Some("resize") if pod_resize::has_as_many(pod, old) => {
            keep_the_rest(pod, old);
            pod_resize::prepare(pod, old);
        }
        _ => {}
    }
}

/// What is not in the spec stays as it is.
fn keep_the_rest(pod: &mut Value, old: &Value) {
    set(pod, "status", old.get("status"));
    for member in ["labels", "annotations", "finalizers", "ownerReferences"] {
        set(&mut pod["metadata"], member, old["metadata"].get(member));
    }
}

/// Gives a member the value it has elsewhere, or none.
pub(super) fn set(object: &mut Value, member: &str, value: Option<&Value>) {
    match value {
        Some(value) => object[member] = value.clone(),
        None => crate::tree::remove(object, member),
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

pub(super) fn validate((new, pod): (&Pod, &Value), old: &Value, context: &Context) -> ErrorList {
    let before = || typed::<Pod>(old);
    let mut check = Check::default();
    match context.subresource {
        Some("status") => {
            annotations(&mut check, pod, old);
            pod_status_update::validate(&mut check, new, &before());
        }
        Some("ephemeralcontainers") => {
            check.extend(validate_pod(new, pod));
            annotations(&mut check, pod, old);
            ephemeral(&mut check, pod, old);
        }
        Some("resize") => {
            check.extend(validate_pod(new, pod));
            pod_resize::validate(&mut check, (new, pod), (&before(), old));
        }
        _ => {
            check.extend(validate_pod(new, pod));
            let right = check.0.is_empty();
            annotations(&mut check, pod, old);
            // Most updates are of labels and annotations: a spec that is right and as it was needs nobody's leave.
            if !right || pod["spec"] != old["spec"] {
                validate_spec(&mut check, (new, &pod["spec"]), (&before(), &old["spec"]));
            }
        }
    }
    check.0
}

/// Annotations that say how a pod is run stay as they are.
fn annotations(check: &mut Check, pod: &Value, old: &Value) {
    fn of(pod: &Value) -> impl Iterator<Item = (&Key, &Value)> {
        at(pod, &["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten()
    }
    let (new, old): (BTreeMap<_, _>, BTreeMap<_, _>) = (of(pod).collect(), of(old).collect());
    let path = Path::new("metadata").child("annotations");
    let mut forbid = |key: &str, verb: &str| {
        if key.starts_with(APP_ARMOR) {
            check.forbidden(&path.key(key), format!("may not {verb} AppArmor annotations"));
        }
        if key == MIRROR {
            check.forbidden(&path.key(key), format!("may not {verb} mirror pod annotation"));
        }
    };
    for (key, _) in old.iter().filter(|(key, value)| new.get(*key) != Some(value)) {
        forbid(key, "remove or update");
    }
    for key in new.keys().filter(|key| !old.contains_key(*key)) {
        forbid(key, "add");
    }
}

/// Ephemeral containers are only ever added.
fn ephemeral(check: &mut Check, pod: &Value, old: &Value) {
    let path = Path::new("spec").child("ephemeralContainers");
    if old["metadata"]["annotations"].get(MIRROR).is_some() {
        check.0 = Error::forbidden(&Path::new(""), "static pods do not support ephemeral containers").into();
        return;
    }
    const LIST: [&str; 2] = ["spec", "ephemeralContainers"];
    for then in crate::tree::list(old, &LIST) {
        let name = then["name"].as_str().unwrap_or_default();
        match crate::tree::list(pod, &LIST).iter().find(|c| c["name"] == then["name"]) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                check.forbidden(&path, why);
            }
            Some(now) if now != then => {
                let changes = diff("io.k8s.api.core.v1.EphemeralContainer", then, now);
                let why = format!("existing ephemeral containers {name:?} may not be changed\n{changes}");
                check.forbidden(&path, why);
            }
            Some(_) => {}
        }
    }
}
