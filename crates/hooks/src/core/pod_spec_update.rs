//! What may change in a pod's spec. Upstream: `ValidatePodUpdate`.

use super::pod_update::set;
use super::pod_validation::tolerations;
use crate::check::Check;
use crate::shown::diff;
use crate::tree::at;
use api::core::v1::{NodeAffinity, NodeSelectorTerm, Pod, PodSpec};
use apimachinery::field::{BadValue, Path};
use apimachinery::validation::inclusive_range_error;
use apimachinery::value::Value;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                         additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                         previously negative)";

/// Pods, each with its spec as a tree.
pub(super) fn validate_spec(check: &mut Check, new: (&Pod, &Value), old: (&Pod, &Value)) {
    let path = Path::new("spec");
    let (now, then) = (&new.0.spec, &old.0.spec);
    for (name, now, then) in [
        ("containers", &now.containers, &then.containers),
        ("initContainers", &now.init_containers, &then.init_containers),
    ] {
        let at = path.child(name);
        if now.len() != then.len() {
            return check.forbidden(&at, "pod updates may not add or remove containers");
        }
        for (i, container) in now.iter().enumerate() {
            let at = at.index(i).child("image");
            check.present(&at, &container.image, "");
            if container.image.trim() != container.image {
                let why = "must not have leading or trailing whitespace";
                check.invalid(&at, container.image.as_str(), why);
            }
        }
    }
    if deadline(check, now, then, &path.child("activeDeadlineSeconds")) == Deadline::Wrong {
        return;
    }
    only_more_tolerations(check, now, then, &path.child("tolerations"));
    let gates = path.child("schedulingGates");
    for (i, gate) in now.scheduling_gates.iter().enumerate() {
        if !then.scheduling_gates.contains(gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            check.forbidden(&gates.index(i).child("name"), why);
        }
    }
    if new.1 == old.1 {
        return;
    }
    let munged = munge(check, (now, new.1), (then, old.1));
    if munged != *old.1 {
        let changes = diff("io.k8s.api.core.v1.PodSpec", old.1, &munged);
        check
            .forbidden(&path, format!("pod updates may not change fields other than {UPDATABLE}\n{changes}"));
    }
}

#[derive(PartialEq, Eq)]
enum Deadline {
    Fit,
    /// So wrong that nothing else is said.
    Wrong,
}

/// A deadline may be set, and come nearer.
fn deadline(check: &mut Check, now: &PodSpec, then: &PodSpec, path: &Path) -> Deadline {
    const MOST: i64 = i32::MAX as i64;
    match (now.active_deadline_seconds, then.active_deadline_seconds) {
        (Some(now), _) if !(0..=MOST).contains(&now) => {
            check.invalid(path, now, inclusive_range_error(0, MOST));
            Deadline::Wrong
        }
        (Some(now), Some(then)) if then < now => {
            check.invalid(path, now, "must be less than or equal to previous value");
            Deadline::Wrong
        }
        (None, Some(_)) => {
            let none = BadValue::verbatim("null");
            check.invalid(path, none, "must not update from a positive integer to nil value");
            Deadline::Fit
        }
        _ => Deadline::Fit,
    }
}

fn only_more_tolerations(check: &mut Check, now: &PodSpec, then: &PodSpec, path: &Path) {
    for kept in &then.tolerations {
        let mut there = now.tolerations.iter().map(|t| {
            let mut same = t.clone();
            same.toleration_seconds = kept.toleration_seconds;
            same
        });
        if !there.any(|t| t == *kept) {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            return check.forbidden(path, why);
        }
    }
    tolerations(check, &now.tolerations, path);
}

/// The new spec with what may change as it was.
fn munge(check: &mut Check, new: (&PodSpec, &Value), old: (&PodSpec, &Value)) -> Value {
    let ((now, tree), (then, before)) = (new, old);
    let mut munged = tree.clone();
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = munged.get_mut(list) else { continue };
        for (container, then) in containers.iter_mut().zip(before[list].as_array().into_iter().flatten()) {
            set(container, "image", then.get("image"));
        }
    }
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let shortened = then.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && now.termination_grace_period_seconds == Some(1);
    if shortened {
        free.push("terminationGracePeriodSeconds");
    }
    if !then.scheduling_gates.is_empty() {
        // A pod that is not yet to be scheduled may still be told where to.
        free.push("nodeSelector");
        steered(check, now, then);
        munge_node_affinity(&mut munged, before);
    }
    free.into_iter().for_each(|member| set(&mut munged, member, before.get(member)));
    munged
}

fn munge_node_affinity(munged: &mut Value, before: &Value) {
    const AFFINITY: [&str; 2] = ["affinity", "nodeAffinity"];
    let (new, old) = (at(munged, &AFFINITY).cloned(), at(before, &AFFINITY));
    if new.as_ref() == old {
        return;
    }
    let alone = munged["affinity"].as_object().is_none_or(|a| a.len() == 1);
    if before.get("affinity").is_none() && alone {
        set(munged, "affinity", None);
        return;
    }
    if munged["affinity"].is_null() {
        munged["affinity"] = Value::Object(Default::default());
    }
    set(&mut munged["affinity"], "nodeAffinity", old);
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

fn terms(affinity: Option<&NodeAffinity>) -> &[NodeSelectorTerm] {
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |selector| &selector.node_selector_terms)
}

/// Where a gated pod may go only becomes narrower.
fn steered(check: &mut Check, now: &PodSpec, then: &PodSpec) {
    if then.node_selector.iter().any(|(key, value)| now.node_selector.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        let selector = BadValue::json(&now.node_selector);
        check.invalid(&Path::new("spec").child("nodeSelector"), selector, why);
    }
    let affinity = |spec: &'_ PodSpec| spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let (now, then) = (affinity(now), affinity(then));
    let (new, old) = (terms(now.as_ref()), terms(then.as_ref()));
    if now == then || old.is_empty() {
        return;
    }
    let path =
        Path::new("spec").child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    let shown =
        |term: &NodeSelectorTerm| crate::shown::shown_typed("io.k8s.api.core.v1.NodeSelectorTerm", term);
    if old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return check.invalid(
            &path,
            crate::shown::shown_list("io.k8s.api.core.v1.NodeSelectorTerm", new),
            why,
        );
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let nothing =
            |term: &NodeSelectorTerm| term.match_expressions.is_empty() && term.match_fields.is_empty();
        let more = new.match_expressions.starts_with(&old.match_expressions)
            && new.match_fields.starts_with(&old.match_fields);
        if !more || nothing(old) && !nothing(new) {
            let why = "only additions are allowed (no mutations or deletions)";
            check.invalid(&path.index(i), shown(new), why);
        }
    }
}
