//! What a pod's status says.

use super::super::container_statuses::Reasons;
use super::super::phase::Finality;
use super::super::status;
use super::*;
use crate::resize::Resizing;
use apimachinery::time::Time;
use expect_test::expect;

pub(super) fn show_status(yaml: &str, has: &str, finality: Finality, reasons: &[(&str, &str)]) -> String {
    shown_status(&status_after(yaml, has, &PodStatus::default(), finality, reasons))
}

pub(super) fn status_after(
    yaml: &str,
    has: &str,
    old: &PodStatus,
    finality: Finality,
    reasons: &[(&str, &str)],
) -> PodStatus {
    let pod = pod(yaml);
    let runtime = runtime(&pod, has);
    let reasons: Reasons = reasons
        .iter()
        .map(|(name, reason)| ((*name).to_owned(), ((*reason).to_owned(), String::new())))
        .collect();
    status::status(&status::Inputs {
        pod: &pod,
        old,
        runtime: &runtime,
        runtime_name: "tiphys",
        results: &Results::default(),
        reasons: &reasons,
        resizing: &Resizing::default(),
        host_ips: &["10.1.1.1".to_owned()],
        finality,
        forced: None,
        recursive_read_only: false,
        now: Time::from_unix(100),
    })
}

pub(super) fn shown_status(status: &PodStatus) -> String {
    let mut out = vec![status.phase.clone()];
    for one in status.init_container_statuses.iter().chain(&status.container_statuses) {
        let state = match (&one.state.running, &one.state.terminated, &one.state.waiting) {
            (Some(_), _, _) => "running".to_owned(),
            (_, Some(t), _) => format!("{}({})", t.reason, t.exit_code),
            (_, _, Some(w)) => w.reason.clone(),
            _ => "?".to_owned(),
        };
        let ready = if one.ready { "+" } else { "" };
        out.push(format!("{}={state}{ready}", one.name));
    }
    let conditions = status.conditions.iter().filter(|c| c.status != "True");
    out.extend(conditions.map(|c| format!("!{}:{}:{}", c.type_, c.reason, c.message)));
    out.join("\n")
}

#[test]
fn statuses() {
    let check = |yaml: &str, has: &str, reasons: &[(&str, &str)], want: Expect| {
        want.assert_eq(&show_status(yaml, has, Finality::Going, reasons));
    };
    check(
        TWO,
        "sandbox a=running b=running",
        &[],
        expect![[r#"
        Running
        a=running+
        b=running+"#]],
    );
    check(
        TWO,
        "sandbox a=running",
        &[("b", "ErrImagePull")],
        expect![[r#"
        Pending
        a=running+
        b=ErrImagePull
        !Ready:ContainersNotReady:containers with unready status: [b]
        !ContainersReady:ContainersNotReady:containers with unready status: [b]"#]],
    );
    check(
        TWO,
        "sandbox a=exit:1 b=running",
        &[("a", "CrashLoopBackOff")],
        expect![[r#"
        Running
        a=CrashLoopBackOff
        b=running+
        !Ready:ContainersNotReady:containers with unready status: [a]
        !ContainersReady:ContainersNotReady:containers with unready status: [a]"#]],
    );
    check(
        INIT,
        "sandbox i=exit:0 j=running",
        &[],
        expect![[r#"
        Pending
        i=Completed(0)+
        j=running
        a=PodInitializing
        !Initialized:ContainersNotInitialized:containers with incomplete status: [j]
        !Ready:ContainersNotReady:containers with unready status: [a]
        !ContainersReady:ContainersNotReady:containers with unready status: [a]"#]],
    );
    check(
        ONCE,
        "sandbox a=exit:0",
        &[],
        expect![[r#"
        Succeeded
        a=Completed(0)
        !Ready:PodCompleted:
        !ContainersReady:PodCompleted:"#]],
    );
    check(
        ONCE,
        "sandbox a=exit:2",
        &[],
        expect![[r#"
        Failed
        a=Error(2)
        !Ready:PodFailed:
        !ContainersReady:PodFailed:"#]],
    );
    check(
        ONCE,
        "",
        &[],
        expect![[r#"
        Pending
        a=ContainerCreating
        !PodReadyToStartContainers::
        !Ready:ContainersNotReady:containers with unready status: [a]
        !ContainersReady:ContainersNotReady:containers with unready status: [a]"#]],
    );
}
