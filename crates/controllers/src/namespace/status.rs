//! The five conditions of a namespace that is being deleted. Pure.

use super::plan::Found;
use api::core::v1::{NamespaceCondition, NamespaceStatus};
use apimachinery::time::Time;
use std::collections::BTreeMap;

/// Type, and reason and message while nothing is wrong; in the order in which they are written.
const FINE: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

/// What is wrong, per condition: reason and message.
fn wrong(found: &Found) -> [Option<(&'static str, String)>; 5] {
    let discovery = found.discovery.as_ref().map(|error| ("DiscoveryFailed", error.clone()));
    let content = (!found.content.is_empty()).then(|| {
        let mut errors = found.content.clone();
        errors.sort();
        let text =
            format!("Failed to delete all resource types, {} remaining: {}", errors.len(), errors.join(", "));
        ("ContentDeletionFailed", text)
    });
    // As upstream: while pods are waited for, nothing is said of what else remains.
    let remaining = if found.pods_first { &[] } else { found.remaining.as_slice() };
    let mut resources: Vec<String> = remaining
        .iter()
        .map(|r| format!("{}.{} has {} resource instances", r.resource.resource, r.resource.group, r.count))
        .collect();
    resources.sort();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in remaining.iter().flat_map(|r| &r.finalizers) {
        *finalizers.entry(finalizer).or_default() += count;
    }
    let finalizers: Vec<String> = finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    [
        discovery,
        None,
        content,
        (!resources.is_empty()).then(|| {
            ("SomeResourcesRemain", format!("Some resources are remaining: {}", resources.join(", ")))
        }),
        (!finalizers.is_empty()).then(|| {
            let list = finalizers.join(", ");
            let text = format!("Some content in the namespace has finalizers remaining: {list}");
            ("SomeFinalizersRemain", text)
        }),
    ]
}

/// Brings the conditions up to date.
pub(super) fn update(status: &mut NamespaceStatus, found: &Found, now: Time) {
    for ((kind, fine_reason, fine_message), wrong) in FINE.into_iter().zip(wrong(found)) {
        let (truth, reason, message) = match wrong {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine_reason, fine_message.to_owned()),
        };
        match status.conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(old) => {
                if old.status != truth {
                    old.last_transition_time = Some(now);
                }
                old.status = truth.into();
                old.reason = reason.into();
                old.message = message;
            }
            None => status.conditions.push(NamespaceCondition {
                type_: kind.into(),
                status: truth.into(),
                last_transition_time: Some(now),
                reason: reason.into(),
                message,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::plan::Remaining;
    use client::Resource;
    use expect_test::{Expect, expect};

    fn show(status: &NamespaceStatus) -> String {
        let line = |c: &NamespaceCondition| {
            let at = c.last_transition_time.map_or(0, Time::unix);
            format!("{} {} {at} {}: {}\n", c.type_, c.status, c.reason, c.message)
        };
        status.conditions.iter().map(line).collect()
    }

    fn check(found: &Found, expected: Expect) {
        let mut status = NamespaceStatus::default();
        update(&mut status, &Found::default(), Time::from_unix(1));
        update(&mut status, found, Time::from_unix(2));
        expected.assert_eq(&show(&status));
    }

    #[test]
    fn conditions_say_what_is_wrong() {
        check(
            &Found::default(),
            expect![[r#"
            NamespaceDeletionDiscoveryFailure False 1 ResourcesDiscovered: All resources successfully discovered
            NamespaceDeletionGroupVersionParsingFailure False 1 ParsedGroupVersions: All legacy kube types successfully parsed
            NamespaceDeletionContentFailure False 1 ContentDeleted: All content successfully deleted, may be waiting on finalization
            NamespaceContentRemaining False 1 ContentRemoved: All content successfully removed
            NamespaceFinalizersRemaining False 1 ContentHasNoFinalizers: All content-preserving finalizers finished
        "#]],
        );
        let remaining = |group: &str, name: &str, finalizers: &[(&str, usize)]| Remaining {
            resource: Resource::new(group, "v1", name),
            count: 3,
            finalizers: finalizers.iter().map(|(f, n)| (f.to_string(), *n)).collect(),
            estimate: 15,
        };
        check(
            &Found {
                discovery: Some("gone".into()),
                content: vec!["b".into(), "a".into()],
                remaining: vec![
                    remaining("apps", "deployments", &[("x/y", 2)]),
                    remaining("", "pods", &[("a/b", 1), ("x/y", 1)]),
                ],
                ..Default::default()
            },
            expect![[r#"
                NamespaceDeletionDiscoveryFailure True 2 DiscoveryFailed: gone
                NamespaceDeletionGroupVersionParsingFailure False 1 ParsedGroupVersions: All legacy kube types successfully parsed
                NamespaceDeletionContentFailure True 2 ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a, b
                NamespaceContentRemaining True 2 SomeResourcesRemain: Some resources are remaining: deployments.apps has 3 resource instances, pods. has 3 resource instances
                NamespaceFinalizersRemaining True 2 SomeFinalizersRemain: Some content in the namespace has finalizers remaining: a/b in 1 resource instances, x/y in 3 resource instances
            "#]],
        );
    }
}
