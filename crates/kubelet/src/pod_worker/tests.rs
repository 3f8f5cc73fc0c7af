//! Plans and statuses as tables: a pod in short YAML, what the runtime has of it, and what comes out.

use super::back_off::BackOff;
use super::container_statuses::Reasons;
use super::phase::Finality;
use super::plan::{Action, Inputs, Place, Role, container_at, plan};
use super::{restart_all, status};
use crate::labels::container_hash;
use crate::probes::{Kind, Outcome, Results};
use crate::resize::{Resizing, Resources};
use crate::runtime_pod::{RuntimeContainer, RuntimePod, Sandbox, State};
use api::core::v1::{Pod, PodStatus};
use apimachinery::time::Time;
use expect_test::{Expect, expect};

const S: i64 = 1_000_000_000;

fn pod(yaml: &str) -> Pod {
    let decoded =
        schema::decode::free_yaml(&format!("spec: {yaml}"), schema::decode::FieldValidation::Ignore).unwrap();
    let mut pod: Pod = serde_json::from_value(serde_json::json!(decoded.value)).unwrap();
    pod.metadata.name = "web".into();
    pod.metadata.namespace = "default".into();
    pod.metadata.uid = "u".into();
    pod.metadata.generation = 3;
    if pod.spec.restart_policy.is_empty() {
        pod.spec.restart_policy = "Always".into();
    }
    pod
}

/// `sandbox`, then containers, oldest first: `name=running`, `name=exit:1`, `name=created`, `name=unknown`; a `!` after the
/// name means that it was made from another image.
fn runtime(pod: &Pod, text: &str) -> RuntimePod {
    let mut out = RuntimePod::default();
    for (i, word) in text.split_whitespace().enumerate() {
        let at = (i as i64 + 1) * S;
        match word {
            "sandbox" | "dead-sandbox" => out.sandboxes.insert(
                0,
                Sandbox {
                    id: format!("s{i}"),
                    attempt: out.sandboxes.len() as u32,
                    ready: word == "sandbox",
                    created_at: at,
                    ips: vec!["10.0.0.1".into()],
                    network_known: true,
                    ..Default::default()
                },
            ),
            word => {
                let (name, state) = word.split_once('=').unwrap();
                let (name, other) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
                let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
                let hash = all.into_iter().find(|c| c.name == name).map_or(0, container_hash);
                let restart_count = out.containers.iter().filter(|c| c.name == name).count() as i32;
                let mut one = RuntimeContainer {
                    id: format!("{name}{i}"),
                    name: name.into(),
                    sandbox_id: out.sandboxes.first().map(|s| s.id.clone()).unwrap_or_default(),
                    created_at: at,
                    started_at: at,
                    hash: if other { 1 } else { hash },
                    restart_count,
                    image: "img".into(),
                    ..Default::default()
                };
                match state.split_once(':') {
                    Some((_, code)) => {
                        one.state = State::Exited;
                        one.exit_code = code.parse().unwrap();
                        one.finished_at = at;
                        one.reason = if one.exit_code == 0 { "Completed" } else { "Error" }.into();
                    }
                    None => {
                        one.state = match state {
                            "running" => State::Running,
                            "created" => State::Created,
                            _ => State::Unknown,
                        };
                    }
                }
                out.containers.insert(0, one);
            }
        }
    }
    out
}

fn shown(pod: &Pod, action: &Action) -> String {
    let name = |place: &Place| container_at(pod, *place).unwrap().name.clone();
    match action {
        Action::KillPod => "kill pod".into(),
        Action::KillContainer { id, message, .. } => format!("kill {id}: {message}"),
        Action::CreateSandbox { attempt } => format!("sandbox {attempt}"),
        Action::StartContainer(place) if place.role == Role::Init => format!("init {}", name(place)),
        Action::StartContainer(place) => format!("start {}", name(place)),
        Action::RemoveContainer { id, .. } => format!("remove {id}"),
        Action::Resize => "resize".into(),
        Action::BackOff { place, delay, .. } => format!("back off {} {}s", name(place), delay.as_secs()),
    }
}

fn check_with(yaml: &str, has: &str, results: Results, back_off: &BackOff, want: Expect) {
    let pod = pod(yaml);
    let runtime = runtime(&pod, has);
    let actuated = Resources::default();
    let inputs = Inputs {
        pod: &pod,
        runtime: &runtime,
        results: &results,
        back_off,
        actuated: &actuated,
        restart_all: restart_all::wanted(&pod, &runtime, &PodStatus::default()),
        now: 20 * S,
    };
    let actions: Vec<String> = plan(&inputs).iter().map(|a| shown(&pod, a)).collect();
    want.assert_eq(&actions.join("; "));
}

fn check(yaml: &str, has: &str, want: Expect) {
    check_with(yaml, has, Results::default(), &BackOff::default(), want);
}

const TWO: &str = "{containers: [{name: a, image: x}, {name: b, image: x}]}";
const ONCE: &str = "{restartPolicy: Never, containers: [{name: a, image: x}]}";
const ON_FAILURE: &str = "{restartPolicy: OnFailure, containers: [{name: a, image: x}]}";
const INIT: &str =
    "{initContainers: [{name: i, image: x}, {name: j, image: x}], containers: [{name: a, image: x}]}";
const SIDECAR: &str = "{initContainers: [{name: s, image: x, restartPolicy: Always}, {name: j, image: x}], containers: [{name: a, image: x}]}";

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
    let key = super::plan::back_off_key(&spec.spec.containers[0]);
    back_off.next(&key, 0);
    back_off.next(&key, 1);
    check_with(TWO, "sandbox a=exit:1 b=running", Results::default(), &back_off, expect!["back off a 20s"]);
}

fn show_status(yaml: &str, has: &str, finality: Finality, reasons: &[(&str, &str)]) -> String {
    shown_status(&status_after(yaml, has, &PodStatus::default(), finality, reasons))
}

fn status_after(
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

fn shown_status(status: &PodStatus) -> String {
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

#[test]
fn sidecars_stop_last_and_in_reverse() {
    let pod = pod(
        "{initContainers: [{name: s, restartPolicy: Always}, {name: t, restartPolicy: Always}], containers: [{name: a}, {name: b}]}",
    );
    let runtime = runtime(&pod, "sandbox s=running t=running a=running b=running");
    let running: Vec<&RuntimeContainer> = runtime.running().collect();
    let stages = super::plan::termination_order(&pod, &running);
    let names: Vec<Vec<&str>> =
        stages.iter().map(|stage| stage.iter().map(|i| running[*i].name.as_str()).collect()).collect();
    assert_eq!(names, [vec!["b", "a"], vec!["t"], vec!["s"]]);
}

#[test]
fn resizes() {
    const BOTH: &str = "{containers: [{name: a, resources: {limits: {cpu: 200m}}, resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]}, {name: b}]}";
    let check = |was: &str, has: &str, want: Expect| {
        let pod = pod(BOTH);
        let runtime = runtime(&pod, has);
        let mut actuated = Resources::of(&pod);
        actuated.containers.insert("a".into(), serde_json::from_str(was).unwrap());
        let (results, back_off) = (Results::default(), BackOff::default());
        let inputs = Inputs {
            pod: &pod,
            runtime: &runtime,
            results: &results,
            back_off: &back_off,
            actuated: &actuated,
            restart_all: false,
            now: 20 * S,
        };
        let actions: Vec<String> = plan(&inputs).iter().map(|a| shown(&pod, a)).collect();
        want.assert_eq(&actions.join("; "));
    };
    check(r#"{"limits":{"cpu":"0.2"}}"#, "sandbox a=running b=running", expect![""]);
    check(r#"{"limits":{"cpu":"1"}}"#, "sandbox a=running b=running", expect!["resize"]);
    check(
        r#"{"limits":{"cpu":"200m","memory":"1Gi"}}"#,
        "sandbox a=running b=running",
        expect!["kill a1: Container a resize requires restart; resize; start a"],
    );
    // What does not run gets what is allocated when it starts.
    check(r#"{"limits":{"cpu":"1"}}"#, "sandbox a=exit:1 b=running", expect!["start a"]);

    const BEGINS: &str =
        "{initContainers: [{name: a, resources: {limits: {cpu: 200m}}}], containers: [{name: b}]}";
    let check = |has: &str, want: Expect| {
        let pod = pod(BEGINS);
        let runtime = runtime(&pod, has);
        let mut actuated = Resources::of(&pod);
        actuated.containers.insert("a".into(), serde_json::from_str(r#"{"limits":{"cpu":"1"}}"#).unwrap());
        let inputs = Inputs {
            pod: &pod,
            runtime: &runtime,
            results: &Results::default(),
            back_off: &BackOff::default(),
            actuated: &actuated,
            restart_all: false,
            now: 20 * S,
        };
        let actions: Vec<String> = plan(&inputs).iter().map(|a| shown(&pod, a)).collect();
        want.assert_eq(&actions.join("; "));
    };
    check("sandbox a=running", expect!["resize"]);
    check("sandbox a=exit:0", expect!["start b"]);
}

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
