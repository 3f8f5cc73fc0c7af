//! The status of a disruption budget. Pure.

use crate::pods::PodFacts;
use api::core::v1::Pod;
use api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use apimachinery::int_or_string::{IntOrString, Rounding};
use apimachinery::meta::{Condition, LabelSelector};
use apimachinery::time::{Duration, Time};
use client::Cached;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long an evicted pod may take to be seen as being deleted.
const DELETION_TIMEOUT: i64 = 2 * 60;
const ALLOWED: &str = "DisruptionAllowed";

pub(super) type PodRef = Arc<Cached<PodFacts>>;

/// How many pods there should be, and which have nobody who would know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scale {
    pub expected: i32,
    pub unmanaged: bool,
}

/// Whether a budget asks how many pods their controllers want.
pub(super) fn asks_scale(budget: &PodDisruptionBudget) -> bool {
    budget.spec.max_unavailable.is_some() || matches!(budget.spec.min_available, Some(IntOrString::String(_)))
}

/// What a budget comes to.
#[derive(Debug)]
pub(super) struct Plan {
    pub status: PodDisruptionBudgetStatus,
    /// Pods that were to be deleted and were not.
    pub not_deleted: Vec<PodRef>,
    pub again: Option<Time>,
}

/// `scale` is asked for if [`asks_scale`]. Fails with what is wrong with the budget's own figures.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[PodRef],
    scale: &Scale,
    now: Time,
) -> Result<Plan, String> {
    let spec = &budget.spec;
    let scaled = |value: &IntOrString| {
        value.scaled_value(scale.expected, Rounding::Up).map_err(|error| error.to_string())
    };
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (scale.expected, (scale.expected - scaled(most)?).max(0)),
        (None, Some(IntOrString::Int(least))) => (i32::try_from(pods.len()).unwrap_or(i32::MAX), *least),
        (None, Some(least)) => (scale.expected, scaled(least)?),
        (None, None) => (0, 0),
    };
    let mut plan = Plan { status: budget.status.clone(), not_deleted: Vec::new(), again: None };
    let mut disrupted = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.deleting) {
        let Some(since) = budget.status.disrupted_pods.get(pod.name()) else { continue };
        let until = since.plus(Duration::from_seconds(DELETION_TIMEOUT));
        if until <= now {
            plan.not_deleted.push(pod.clone());
        } else {
            plan.again = Some(plan.again.map_or(until, |again: Time| again.min(until)));
            disrupted.insert(pod.name().to_owned(), *since);
        }
    }
    let healthy = pods.iter().filter(|pod| {
        let leaving = disrupted
            .get(pod.name())
            .is_some_and(|since: &Time| since.plus(Duration::from_seconds(DELETION_TIMEOUT)) > now);
        !pod.deleting && !leaving && pod.ready
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let status = &mut plan.status;
    status.current_healthy = healthy;
    status.desired_healthy = desired;
    status.expected_pods = expected;
    status.disruptions_allowed = allowed;
    status.disrupted_pods = disrupted;
    status.observed_generation = budget.metadata.generation;
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set(status, value, reason, String::new(), now);
    Ok(plan)
}

/// The status when nothing can be said: nothing may be disrupted.
pub(super) fn failed(budget: &PodDisruptionBudget, why: String, now: Time) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone();
    status.disruptions_allowed = 0;
    set(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: String, now: Time) {
    let old = status.conditions.iter().position(|condition| condition.type_ == ALLOWED);
    let kept = old.map(|at| &status.conditions[at]).filter(|old| old.status == value);
    let new = Condition {
        type_: ALLOWED.into(),
        status: value.into(),
        observed_generation: status.observed_generation,
        last_transition_time: kept.map_or(now, |old| old.last_transition_time),
        reason: reason.into(),
        message,
    };
    match old {
        Some(at) => status.conditions[at] = new,
        None => status.conditions.push(new),
    }
}

/// A selector as Go prints it, for the event about pods that nobody manages.
pub(crate) fn printed(selector: Option<&LabelSelector>) -> String {
    selector.map_or_else(|| "nil".into(), ToString::to_string)
}

/// A pod whose eviction came to nothing, without the condition that says it goes.
pub(super) fn undisrupted(pod: &Pod, now: Time) -> Pod {
    let mut pod = pod.clone();
    let conditions = pod.status.conditions.iter_mut();
    for condition in { conditions }.filter(|c| c.type_ == "DisruptionTarget" && c.status != "False") {
        condition.status = "False".into();
        condition.reason = String::new();
        condition.message = String::new();
        condition.last_transition_time = Some(now);
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(spec: apimachinery::value::Value, expected_pods: i32, expected: Expect) {
        let budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": spec});
        let budget: PodDisruptionBudget = apimachinery::value::from_value(budget).unwrap();
        let scale = Scale { expected: expected_pods, unmanaged: false };
        let shown = match plan(&budget, &[], &scale, Time::from_unix(0)) {
            Ok(plan) => format!(
                "expected {} desired {} allowed {}",
                plan.status.expected_pods, plan.status.desired_healthy, plan.status.disruptions_allowed
            ),
            Err(error) => error,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn figures() {
        check(json!({"maxUnavailable": 1}), 5, expect!["expected 5 desired 4 allowed 0"]);
        check(json!({"maxUnavailable": "30%"}), 5, expect!["expected 5 desired 3 allowed 0"]);
        check(json!({"maxUnavailable": 9}), 5, expect!["expected 5 desired 0 allowed 0"]);
        check(json!({"minAvailable": "50%"}), 5, expect!["expected 5 desired 3 allowed 0"]);
        check(json!({"minAvailable": 2}), 0, expect!["expected 0 desired 2 allowed 0"]);
        check(json!({}), 5, expect!["expected 0 desired 0 allowed 0"]);
    }

    #[test]
    fn selectors_as_go_prints_them() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]});
        let selector: LabelSelector = apimachinery::value::from_value(selector).unwrap();
        expect!["&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"]
            .assert_eq(&printed(Some(&selector)));
    }
}
