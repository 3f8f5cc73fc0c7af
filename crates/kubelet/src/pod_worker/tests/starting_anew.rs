//! How all containers start anew.

use super::super::phase::Finality;
use super::statuses::{shown_status, status_after};
use super::*;
use expect_test::expect;

const WHOLE: &str = "{restartPolicy: Never, initContainers: [{name: i, image: x}, {name: s, image: x, restartPolicy: Always}], containers: [{name: a, image: x, restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, {name: b, image: x}]}";

#[test]
fn all_start_anew() {
    check(WHOLE, "sandbox i=exit:0 s=running a=exit:1 b=running", expect![""]);
    check(
        WHOLE,
        "sandbox i=exit:0 s=running a=exit:42 b=running",
        expect!["remove b4; remove i1; remove s2; remove a3"],
    );
    check(WHOLE, "sandbox a=exit:42", expect!["remove a1"]);
    check(WHOLE, "sandbox", expect!["init i"]);

    let mut old = PodStatus::default();
    let mut check = |has: &str, want: Expect| {
        old = status_after(WHOLE, has, &old, Finality::Going, &[]);
        let restarts = old.init_container_statuses.iter().chain(&old.container_statuses);
        let restarts: Vec<String> = restarts.map(|s| s.restart_count.to_string()).collect();
        want.assert_eq(&format!("{}\n{}", shown_status(&old), restarts.join(" ")));
    };
    check(
        "sandbox i=exit:0 s=running a=running b=running",
        expect![[r#"
        Running
        i=Completed(0)+
        s=running+
        a=running+
        b=running+
        !AllContainersRestarting::
        0 0 0 0"#]],
    );
    check(
        "sandbox i=exit:0 s=running a=exit:42 b=running",
        expect![[r#"
        Running
        i=Completed(0)+
        s=running+
        a=Error(42)
        b=running+
        !Ready:ContainersNotReady:containers with unready status: [a]
        !ContainersReady:ContainersNotReady:containers with unready status: [a]
        0 0 0 0"#]],
    );
    check(
        "sandbox i=exit:0 s=running a=exit:42 b=exit:137",
        expect![[r#"
        Running
        i=Completed(0)+
        s=running+
        a=Error(42)
        b=Error(137)
        !Ready:ContainersNotReady:containers with unready status: [a b]
        !ContainersReady:ContainersNotReady:containers with unready status: [a b]
        0 0 0 0"#]],
    );
    // One after the other goes; each counts once.
    check(
        "sandbox a=exit:42",
        expect![[r#"
        Running
        i=RestartingAllContainers
        s=RestartingAllContainers
        a=Error(42)
        b=RestartingAllContainers
        !Ready:ContainersNotReady:containers with unready status: [s a b]
        !ContainersReady:ContainersNotReady:containers with unready status: [s a b]
        1 1 0 1"#]],
    );
    check(
        "sandbox a=exit:42",
        expect![[r#"
            Running
            i=PodInitializing
            s=PodInitializing
            a=Error(42)
            b=PodInitializing
            !Ready:ContainersNotReady:containers with unready status: [s a b]
            !ContainersReady:ContainersNotReady:containers with unready status: [s a b]
            1 1 0 1"#]],
    );
    check(
        "sandbox",
        expect![[r#"
            Running
            i=PodInitializing
            s=PodInitializing
            a=RestartingAllContainers
            b=PodInitializing
            !Ready:ContainersNotReady:containers with unready status: [s a b]
            !ContainersReady:ContainersNotReady:containers with unready status: [s a b]
            !AllContainersRestarting::
            1 1 1 1"#]],
    );
    check(
        "sandbox i=running",
        expect![[r#"
        Pending
        i=running
        s=PodInitializing
        a=PodInitializing
        b=PodInitializing
        !Ready:ContainersNotReady:containers with unready status: [s a b]
        !ContainersReady:ContainersNotReady:containers with unready status: [s a b]
        !AllContainersRestarting::
        1 1 1 1"#]],
    );
    check(
        "sandbox i=exit:0 s=running a=running b=running",
        expect![[r#"
        Running
        i=Completed(0)+
        s=running+
        a=running+
        b=running+
        !AllContainersRestarting::
        1 1 1 1"#]],
    );
}
