//! What kinds refuse, and in which words: each rule as an object and the complaints about it.
#![allow(clippy::unwrap_used)]

mod access;
mod autoscalers;
mod certificates;
mod core;
mod devices;
mod networking;
mod storage;

use apimachinery::time::Time;
use apimachinery::value::Value;
use expect_test::Expect;
use hooks::{Context, strategy};

fn context(subresource: Option<&'static str>) -> Context<'static> {
    Context {
        user: "tester",
        uid: "",
        groups: &[],
        extra: NO_EXTRA.get_or_init(Default::default),
        now: Time::default(),
        namespace: hooks::NamespaceLabels(&|_| None),
        gates: hooks::Gates(&|_| false),
        api_version: "",
        subresource,
        judged: None,
    }
}

static NO_EXTRA: std::sync::OnceLock<std::collections::BTreeMap<String, Vec<String>>> =
    std::sync::OnceLock::new();

/// The complaints about a new object, with the kind's defaults.
#[track_caller]
fn check(group: &str, kind: &str, mut object: Value, expected: Expect) {
    let strategy = strategy(group, kind);
    strategy.default(&mut object);
    let mut errors = strategy.validate_first(&object, &context(None));
    errors.extend(strategy.validate(&object, &context(None)));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

/// The complaints about a change.
#[track_caller]
fn check_update(group: &str, kind: &str, old: Value, new: Value, expected: Expect) {
    let strategy = strategy(group, kind);
    let errors = strategy.validate_update(&new, &old, &context(None));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

/// The complaints about a change of the status.
#[track_caller]
fn check_status(group: &str, kind: &str, old: Value, new: Value, expected: Expect) {
    let errors = strategy(group, kind).validate_update(&new, &old, &context(Some("status")));
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}
