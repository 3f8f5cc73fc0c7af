//! What is done next.

use super::*;
use crate::probes::{Kind, Outcome};
use expect_test::expect;

#[test]
fn plans_regular_containers() {
    check(TWO, "", expect!["sandbox 0; start a; start b"]);
    check(TWO, "sandbox", expect!["start a; start b"]);
    check(TWO, "sandbox a=running", expect!["start b"]);
    check(TWO, "sandbox a=running b=running", expect![""]);
    check(TWO, "sandbox a=exit:0 b=running", expect!["start a"]);
    check(
        TWO,
        "sandbox a!=running b=running",
        expect!["kill a1: Container a definition changed, will be restarted; start a"],
    );
    check(TWO, "dead-sandbox a=exit:0 b=exit:1", expect!["kill pod; sandbox 1; start a; start b"]);
    check(ONCE, "sandbox a=exit:1", expect!["kill pod"]);
    check(ONCE, "dead-sandbox a=exit:1", expect!["kill pod"]);
    check(ON_FAILURE, "sandbox a=exit:0", expect!["kill pod"]);
    check(ON_FAILURE, "sandbox a=exit:1", expect!["start a"]);
    check(
        ONCE,
        "sandbox a=unknown",
        expect![[r#"kill a1: Container is in "unknown" state, try killing it before restart; start a"#]],
    );
}

#[test]
fn plans_initialization() {
    check(INIT, "", expect!["sandbox 0; init i"]);
    check(INIT, "sandbox", expect!["init i"]);
    check(INIT, "sandbox i=running", expect![""]);
    check(INIT, "sandbox i=exit:0", expect!["init j"]);
    check(INIT, "sandbox i=exit:1", expect!["init i"]);
    check(INIT, "sandbox i=exit:0 j=exit:0", expect!["start a"]);
    check(INIT, "sandbox a=running", expect![""]);
    check(&INIT.replacen('{', "{restartPolicy: Never, ", 1), "sandbox i=exit:1", expect!["kill pod"]);
    check(SIDECAR, "sandbox s=running", expect!["init j"]);
    check(SIDECAR, "sandbox s=running j=exit:0", expect!["start a"]);
    check(SIDECAR, "sandbox s=exit:1 j=exit:0 a=running", expect!["init s"]);
}

#[test]
fn plans_for_failed_probes_and_back_off() {
    let mut results = Results::default();
    results.set(Kind::Liveness, "a1", Outcome::Failure);
    let none = BackOff::default();
    check_with(
        TWO,
        "sandbox a=running b=running",
        results,
        &none,
        expect!["kill a1: Container a failed liveness probe, will be restarted; start a"],
    );
    let mut back_off = BackOff::default();
    let spec = pod(TWO);
    let key = super::super::plan::back_off_key(&spec.spec.containers[0]);
    back_off.next(&key, 0);
    back_off.next(&key, 1);
    check_with(TWO, "sandbox a=exit:1 b=running", Results::default(), &back_off, expect!["back off a 20s"]);
}

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let pod = pod(
        "{initContainers: [{name: s, restartPolicy: Always}, {name: t, restartPolicy: Always}], containers: [{name: a}, {name: b}]}",
    );
    let runtime = runtime(&pod, "sandbox s=running t=running a=running b=running");
    let running: Vec<&RuntimeContainer> = runtime.running().collect();
    let stages = super::super::plan::termination_order(&pod, &running);
    let names: Vec<Vec<&str>> =
        stages.iter().map(|stage| stage.iter().map(|i| running[*i].name.as_str()).collect()).collect();
    assert_eq!(names, [vec!["b", "a"], vec!["t"], vec!["s"]]);
}
