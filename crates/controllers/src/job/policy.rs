//! What a pod's failure means to its job: `podFailurePolicy` and `successPolicy`. Pure.

use super::facts::PodFacts;
use super::indexes::Indexes;
use api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement as OnExitCodes};
use client::Cached;

/// What is done about a failed pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Count,
    Ignore,
    FailIndex,
    /// With the message of the job's condition.
    FailJob(String),
}

/// The action of the first rule that the pod meets.
pub(super) fn action(job: &Job, pod: &Cached<PodFacts>) -> Action {
    match rule(job, pod) {
        Some(("Ignore", _)) => Action::Ignore,
        Some(("FailIndex", _)) => Action::FailIndex,
        Some(("FailJob", message)) => Action::FailJob(message),
        _ => Action::Count,
    }
}

/// What the first rule that the pod meets says, and how it is met.
pub(super) fn rule<'a>(job: &'a Job, pod: &Cached<PodFacts>) -> Option<(&'a str, String)> {
    let rules = job.spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (i, rule) in rules.enumerate() {
        let by_code = rule.on_exit_codes.as_ref().and_then(|codes| matching_exit(codes, pod));
        let patterns = &rule.on_pod_conditions;
        let by_condition = pod.conditions.iter().find(|(kind, status)| {
            patterns.iter().any(|pattern| *kind == pattern.type_ && *status == pattern.status)
        });
        let who = format!("{}/{}", pod.namespace(), pod.name());
        let message = if let Some((container, code)) = by_code {
            format!(
                "Container {container} for pod {who} failed with exit code {code} matching {} rule at index {i}",
                rule.action
            )
        } else if let Some((kind, _)) = by_condition {
            format!("Pod {who} has condition {kind} matching {} rule at index {i}", rule.action)
        } else {
            continue;
        };
        return Some((&rule.action, message));
    }
    None
}

fn matching_exit<'a>(codes: &OnExitCodes, pod: &'a PodFacts) -> Option<&'a (String, i32)> {
    pod.exit_codes.iter().find(|(container, code)| {
        let named = codes.container_name.as_ref().is_none_or(|name| name == container);
        named && codes.values.contains(code) == (codes.operator == "In")
    })
}

/// The message of the first success rule that is met.
pub(super) fn succeeded(job: &Job, succeeded: &Indexes) -> Option<String> {
    let completions = job.spec.completions.unwrap_or(0);
    let rules = job.spec.success_policy.iter().flat_map(|policy| &policy.rules);
    for (i, rule) in rules.enumerate() {
        let (have, listed) = match &rule.succeeded_indexes {
            None => (succeeded.len(), None),
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                // Only indexes beyond the completions: such a rule is never met.
                if wanted.len() == 0 {
                    continue;
                }
                let have = wanted.0.iter().filter(|index| succeeded.has(**index)).count();
                (i32::try_from(have).unwrap_or(i32::MAX), Some(wanted.len()))
            }
        };
        if rule.succeeded_count.or(listed).is_some_and(|needed| have >= needed) {
            return Some(format!("Matched rules at index {i}"));
        }
    }
    None
}
