//! A day's work with kubectl, in three versions of it, and what of it the oldest does: what one types, and what one reads.
#![allow(clippy::unwrap_used)]

/// Deleting, with and without what hangs on it.
mod deletes;
/// Inside pods: logs, exec, attach, cp, port-forward, debug.
mod pods;
/// Looking: get, describe, explain, events, wait.
mod reads;
/// Deployments: scale, rollout, set.
mod rollouts;
/// Changing: create, apply, edit, patch, replace, label, annotate, run, expose.
mod writes;

use cluster_tests::{Room, Scenario, Suite, scenarios};
use deletes::*;
use pods::*;
use reads::*;
use rollouts::*;
use std::process::ExitCode;
use writes::*;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![
        get,
        watch,
        describe,
        explain_and_resources,
        auth,
        wait_and_events,
        version,
        create,
        apply,
        edit,
        patch,
        replace,
        label_and_annotate,
        run_and_expose,
        scale,
        rollout,
        set,
        logs,
        exec,
        attach,
        copy,
        port_forward,
        debug,
        delete,
    ];
    const ALONE: &[Scenario] = scenarios![cordon_and_drain];
    // Those in which the node's runtime has a say.
    const ON_CONTAINERD: &[Scenario] =
        scenarios![describe, run_and_expose, rollout, logs, exec, attach, copy, port_forward, debug, delete];
    // Its remote commands go over SPDY.
    const OLD: &[Scenario] = scenarios![
        get,
        describe,
        apply,
        edit,
        patch,
        run_and_expose,
        scale,
        rollout,
        set,
        logs,
        attach,
        copy,
        port_forward,
        debug,
        delete,
    ];
    // The oldest that serves. Those between are played by hand: KUBECTLS="1.28.3 1.29.4".
    let others = std::env::var("KUBECTLS").unwrap_or_else(|_| "1.27.1".into());
    let others: Vec<&str> = others.leak().split_whitespace().collect();
    let suite =
        Suite { old: OLD, alone: ALONE, on_containerd: ON_CONTAINERD, ..Suite::new("kubectl", TOGETHER) };
    Suite { kubectls: &["1.35.2", "1.36.4", "1.37.1"], old_kubectls: others.leak(), ..suite }.run()
}

/// Every one of the words must be in the text.
#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// The columns of a table's head.
fn head(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()
}

/// A Deployment of one replica that does nothing, ready at once.
fn idle(room: &Room, name: &str) {
    let k = &room.kubectl;
    k.sh(&format!(
        "kubectl create deployment {name} --image=localhost/busybox:debian12 --dry-run=client -o yaml -- sleep infinity |
        kubectl patch --local -f - -o yaml -p '{{\"spec\":{{\"template\":{{\"spec\":{{\"terminationGracePeriodSeconds\":0}}}}}}}}' |
        kubectl -n $NS create -f -"
    ));
    k.run(&format!("rollout status deployment/{name} --timeout=$PATIENCE"));
}
