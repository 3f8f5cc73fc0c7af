//! Plans and statuses as tables: a pod in short YAML, what the runtime has of it, and what comes out.

mod plans;
mod resizes;
mod starting_anew;
mod statuses;

use super::back_off::BackOff;
use super::plan::{Action, Inputs, Place, Role, container_at, plan};
use super::restart_all;
use crate::labels::container_hash;
use crate::probes::Results;
use crate::resize::Resources;
use crate::runtime_pod::{RuntimeContainer, RuntimePod, Sandbox, State};
use api::core::v1::{Pod, PodStatus};
use expect_test::Expect;

const S: i64 = 1_000_000_000;

fn pod(yaml: &str) -> Pod {
    let decoded =
        schema::decode::free_yaml(&format!("spec: {yaml}"), schema::decode::FieldValidation::Ignore).unwrap();
    let mut pod: Pod = apimachinery::value::from_value(apimachinery::json!(decoded.value)).unwrap();
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
