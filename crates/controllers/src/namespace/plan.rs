//! What remains of a namespace's content, and what that means. Pure.

use apimachinery::meta::ObjectMeta;
use apimachinery::time::Time;
use client::Resource;
use std::collections::BTreeMap;

/// How long finalizers of others are given, in seconds.
const FINALIZERS_TAKE: i64 = 15;

/// What remains of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remaining {
    pub resource: Resource,
    pub count: usize,
    /// How many objects each finalizer holds.
    pub finalizers: BTreeMap<String, usize>,
    /// In how many seconds it should be gone; zero says nothing.
    pub estimate: i64,
}

/// What one look at a namespace found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Why not all resources are known.
    pub discovery: Option<String>,
    /// Why some content could not be deleted.
    pub content: Vec<String>,
    /// All of these, as they are reported.
    pub errors: Vec<String>,
    pub remaining: Vec<Remaining>,
    /// Whether only pods were looked at, because some remain.
    pub pods_first: bool,
    /// The longest time that a failed or remaining resource was estimated to take.
    pub longest: i64,
}

impl Found {
    pub(super) fn estimate(&self) -> i64 {
        self.longest
    }

    /// Adds what came of one resource.
    pub(super) fn add(&mut self, outcome: Outcome) {
        self.longest = self.longest.max(outcome.estimate);
        self.remaining.extend(outcome.remaining);
        self.errors.extend(outcome.error.clone());
        self.content.extend(outcome.error);
    }
}

/// What came of deleting one resource's objects.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub estimate: i64,
    pub remaining: Option<Remaining>,
    pub error: Option<String>,
}

/// Judges what is left of a resource after it was deleted.
pub(super) fn judge(resource: &Resource, namespace: &str, left: &[ObjectMeta], estimate: i64) -> Outcome {
    if left.is_empty() {
        return Outcome::default();
    }
    let mut finalizers = BTreeMap::new();
    for finalizer in left.iter().flat_map(|object| &object.finalizers) {
        *finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    let expected = match estimate {
        0 if finalizers.is_empty() => None,
        0 => Some(FINALIZERS_TAKE),
        estimate => Some(estimate),
    };
    let Resource { group, version, resource: name } = resource;
    let error = expected.is_none().then(|| {
        format!(
            "unexpected items still remain in namespace: {namespace} for gvr: {group}/{version}, Resource={name}"
        )
    });
    let estimate = expected.unwrap_or(0);
    let remaining = Remaining { resource: resource.clone(), count: left.len(), finalizers, estimate };
    Outcome { estimate, remaining: Some(remaining), error }
}

/// The seconds that pods may take to end: the longest grace period, until so much time has passed since the deletion.
pub(super) fn grace(periods: impl Iterator<Item = i64>, deleted_at: Time, now: Time) -> i64 {
    let longest = periods.max().unwrap_or(0).max(0);
    if now.unix() - deleted_at.unix() >= longest { 0 } else { longest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(finalizers: &[&[&str]], estimate: i64, expected: Expect) {
        let left: Vec<ObjectMeta> = finalizers
            .iter()
            .map(|f| ObjectMeta {
                finalizers: f.iter().map(|f| f.to_string()).collect(),
                ..Default::default()
            })
            .collect();
        let outcome = judge(&Resource::new("", "v1", "pods"), "web", &left, estimate);
        let remaining = outcome
            .remaining
            .map(|r| format!("{} {:?} {}", r.count, r.finalizers, r.estimate))
            .unwrap_or_default();
        expected.assert_eq(&format!(
            "{} | {remaining} | {}",
            outcome.estimate,
            outcome.error.unwrap_or_default()
        ));
    }

    #[test]
    fn what_remains_is_expected_to_go_or_is_an_error() {
        check(&[], 30, expect!["0 |  | "]);
        check(&[&[], &[]], 30, expect!["30 | 2 {} 30 | "]);
        check(&[&["a", "b"], &["a"]], 0, expect![[r#"15 | 2 {"a": 2, "b": 1} 15 | "#]]);
        check(
            &[&[]],
            0,
            expect![
                "0 | 1 {} 0 | unexpected items still remain in namespace: web for gvr: /v1, Resource=pods"
            ],
        );
    }

    #[test]
    fn pods_have_their_longest_grace_period() {
        let at = Time::from_unix(100);
        assert_eq!(grace([5, 30].into_iter(), at, Time::from_unix(110)), 30);
        assert_eq!(grace([5, 30].into_iter(), at, Time::from_unix(130)), 0);
        assert_eq!(grace([].into_iter(), at, at), 0);
    }
}
