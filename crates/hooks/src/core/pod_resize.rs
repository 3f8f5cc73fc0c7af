//! How a pod may grow and shrink where it runs. Upstream: `ValidatePodResize`.

use super::pod_update::{MIRROR, set};
use crate::check::Check;
use api::core::v1::{Container, Pod, ResourceRequirements};
use api::qos::compute_pod_qos;
use apimachinery::field::{Error, Path};
use apimachinery::quantity::Quantity;
use apimachinery::value::{Map, Value};
use std::collections::BTreeMap;

const LISTS: [&str; 2] = ["containers", "initContainers"];
const ONLY: &str = "only cpu and memory resources are mutable";

/// Whether a pod has as many containers as before; what else there is to say of others is left to validation.
pub(super) fn has_as_many(pod: &Value, old: &Value) -> bool {
    let count = |pod: &Value, list: &str| pod["spec"][list].as_array().map_or(0, Vec::len);
    LISTS.iter().all(|list| count(pod, list) == count(old, list))
}

/// Takes over resources alone, unless the containers are others: that is for validation to tell.
pub(super) fn prepare(pod: &mut Value, old: &Value) {
    let mut spec = old["spec"].clone();
    set(&mut spec, "resources", pod["spec"].get("resources"));
    for list in LISTS {
        let (Some(Value::Array(into)), Some(Value::Array(from))) =
            (spec.get_mut(list), pod["spec"].get(list))
        else {
            continue;
        };
        if into.iter().zip(from).any(|(old, new)| old["name"] != new["name"]) {
            into.clone_from(from);
            continue;
        }
        for (old, new) in into.iter_mut().zip(from) {
            ["resources", "resizePolicy"].iter().for_each(|key| set(old, key, new.get(*key)));
        }
    }
    pod["spec"] = spec;
}

/// Pods, each also as a tree.
pub(super) fn validate(check: &mut Check, new: (&Pod, &Value), old: (&Pod, &Value)) {
    let ((new, tree), (old, before)) = (new, old);
    let path = Path::new("spec");
    let mut alone = |why: &str| check.0 = Error::forbidden(&Path::new(""), why).into();
    if old.metadata.annotations.contains_key(MIRROR) {
        return alone("static pods cannot be resized");
    }
    if old.spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return alone("windows pods cannot be resized");
    }
    if old.status.qos_class != compute_pod_qos(new).as_str() {
        let why = "Pod QOS Class may not change as a result of resizing";
        check.invalid(&path, new.status.qos_class.as_str(), why);
    }
    let running = old.status.container_statuses.iter().find(|s| s.state.running.is_some());
    if running.is_some_and(|status| status.resources.is_none()) {
        check.forbidden(&path, "Pod running on node without support for resize");
    }
    let mut munged = tree["spec"].clone();
    of_the_pod(check, new, old, (&mut munged, &before["spec"]), &path);
    if !old.status.node_allocatable_resource_claim_statuses.is_empty() {
        check.forbidden(&path, "pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(check, new, old, &path) {
        return;
    }
    for (list, new, old) in [
        ("initContainers", &new.spec.init_containers, &old.spec.init_containers),
        ("containers", &new.spec.containers, &old.spec.containers),
    ] {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let at = path.child(list).index(i).child("resources");
            not_removed(check, &new.resources, &old.resources, &at, "resource");
        }
    }
    of_containers(check, new, (&mut munged, &before["spec"]), &path);
    if check.0.is_empty() && munged != before["spec"] {
        check.forbidden(&path, ONLY);
    }
}

fn of_the_pod(check: &mut Check, new: &Pod, old: &Pod, trees: (&mut Value, &Value), path: &Path) {
    let given = |pod: &Pod| {
        pod.spec.resources.as_ref().is_some_and(|r| !r.requests.is_empty() || !r.limits.is_empty())
    };
    if !given(new) && !given(old) {
        return;
    }
    let at = path.child("resources");
    match (&new.spec.resources, &old.spec.resources) {
        (None, Some(_)) => return check.forbidden(&at, "pod-level resources cannot be removed"),
        (Some(new), Some(old)) => not_removed(check, new, old, &at, "pod-level resource"),
        _ => {}
    }
    let (munged, before) = trees;
    let before = before.get("resources");
    if munged.get("resources").is_some_and(Value::is_object) {
        keep_native(&mut munged["resources"], before);
        let empty = munged["resources"].as_object().is_some_and(Map::is_empty);
        if before.is_none() && empty {
            set(munged, "resources", None);
        }
    }
    if munged.get("resources") != before {
        check.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

fn not_removed(
    check: &mut Check,
    new: &ResourceRequirements,
    old: &ResourceRequirements,
    path: &Path,
    what: &str,
) {
    type Amounts = BTreeMap<String, Quantity>;
    let removed = |new: &Amounts, old: &Amounts| old.keys().any(|name| !new.contains_key(name));
    if removed(&new.requests, &old.requests) {
        check.forbidden(&path.child("requests"), format!("{what} requests cannot be removed"));
    }
    if removed(&new.limits, &old.limits) {
        check.forbidden(&path.child("limits"), format!("{what} limits cannot be removed"));
    }
}

/// Containers are neither added, nor removed, renamed or reordered.
fn same_containers(check: &mut Check, new: &Pod, old: &Pod, path: &Path) -> bool {
    let before = check.0.len();
    for (list, new, old) in [
        ("containers", &new.spec.containers, &old.spec.containers),
        ("initContainers", &new.spec.init_containers, &old.spec.init_containers),
    ] {
        let at = path.child(list);
        if new.len() != old.len() {
            check.forbidden(&at, format!("{list} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            check.forbidden(
                &at.index(i).child("name"),
                format!("{list} may not be renamed or reordered on resize"),
            );
        }
    }
    check.0.len() == before
}

/// Makes processors and memory what they were.
fn keep_native(resources: &mut Value, old: Option<&Value>) {
    for amounts in ["limits", "requests"] {
        let before = old.and_then(|old| old.get(amounts));
        let mut kept = resources.get(amounts).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        for name in ["cpu", "memory"] {
            set(&mut kept, name, before.and_then(|b| b.get(name)));
        }
        let empty = kept.as_object().is_some_and(Map::is_empty);
        set(resources, amounts, Some(&kept).filter(|_| !empty));
    }
}

fn of_containers(check: &mut Check, new: &Pod, trees: (&mut Value, &Value), path: &Path) {
    let (munged, before) = trees;
    let restarts = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    for list in LISTS {
        let Some(Value::Array(containers)) = munged.get_mut(list) else { continue };
        let olds = before[list].as_array().into_iter().flatten();
        for (i, (container, old)) in containers.iter_mut().zip(olds).enumerate() {
            let changed = container != old;
            let mut resources = container["resources"].take();
            crate::tree::remove(&mut resources, "claims");
            if resources.is_null() {
                resources = Value::Object(Map::new());
            }
            keep_native(&mut resources, old.get("resources"));
            container["resources"] = resources;
            let same = container == old;
            if list == "containers" {
                if !same {
                    check.forbidden(path, ONLY);
                }
                continue;
            }
            let at = path.child(list).index(i);
            if !same {
                let why = "only cpu and memory resources for init or sidecar containers are mutable";
                check.forbidden(&at, why);
            }
            let Some(typed) = new.spec.init_containers.get(i).filter(|c| changed && !restarts(c)) else {
                continue;
            };
            for _ in typed.resize_policy.iter().filter(|p| p.restart_policy == "RestartContainer") {
                let why =
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                check.forbidden(&at, why);
            }
        }
    }
}
