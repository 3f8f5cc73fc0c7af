//! What a kubelet would do about a pod next, if containers started and ended at once. Pure.

use api::core::v1::{Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, Pod};
use api::core::v1::{ContainerStatus, HostIP, PodCondition, PodIP, PodStatus};
use apimachinery::time::Time;
use rules::container_status::is_restartable_init_container;
use rules::pod_conditions::{
    CONTAINERS_READY, INITIALIZED, POD_READY_TO_START_CONTAINERS, READY, is_terminal, set,
};
use std::net::Ipv4Addr;

/// The next step.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing is to be done.
    Rest,
    /// The status changes.
    Status(Box<PodStatus>),
    /// The pod was asked to go and is gone.
    Delete,
}

/// Decides. `host` and `ip` are the addresses of the node, and of the pod if it needs a new one.
pub fn plan(pod: &Pod, host: Ipv4Addr, ip: Ipv4Addr, now: Time) -> Step {
    if pod.metadata.deletion_timestamp.is_some() {
        return Step::Delete;
    }
    let phase = pod.status.phase.as_str();
    if is_terminal(phase) {
        return Step::Rest;
    }
    if phase != "Running" {
        return Step::Status(Box::new(running(pod, host, ip, now)));
    }
    // A job's pod has something to do and is done with it.
    match pod.metadata.owner_references.iter().any(|o| o.kind == "Job") {
        true => Step::Status(Box::new(succeeded(pod, now))),
        false => Step::Rest,
    }
}

fn running(pod: &Pod, host: Ipv4Addr, ip: Ipv4Addr, now: Time) -> PodStatus {
    let ip = if pod.spec.host_network { host } else { ip };
    let mut status = pod.status.clone();
    status.observed_generation = pod.metadata.generation;
    status.phase = "Running".into();
    status.host_ip = host.to_string();
    status.host_ips = vec![HostIP { ip: host.to_string() }];
    status.pod_ip = ip.to_string();
    status.pod_ips = vec![PodIP { ip: ip.to_string() }];
    status.start_time.get_or_insert(now);
    for type_ in [POD_READY_TO_START_CONTAINERS, INITIALIZED, READY, CONTAINERS_READY] {
        truth(&mut status, pod, type_, true, "", now);
    }
    let up = ContainerState {
        running: Some(ContainerStateRunning { started_at: Some(now) }),
        ..Default::default()
    };
    let one = |c: &Container| {
        let state =
            match is_restartable_init_container(c) || pod.spec.containers.iter().any(|o| o.name == c.name) {
                true => up.clone(),
                false => completed(now),
            };
        ContainerStatus {
            name: c.name.clone(),
            started: Some(state.running.is_some()),
            ready: true,
            state,
            image: c.image.clone(),
            image_id: format!("simulated://{}", c.image),
            container_id: format!("simulated://{}/{}", pod.metadata.uid, c.name),
            ..Default::default()
        }
    };
    status.container_statuses = pod.spec.containers.iter().map(one).collect();
    status.init_container_statuses = pod.spec.init_containers.iter().map(one).collect();
    status
}

fn completed(now: Time) -> ContainerState {
    let terminated = ContainerStateTerminated {
        reason: "Completed".into(),
        started_at: Some(now),
        finished_at: Some(now),
        ..Default::default()
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn succeeded(pod: &Pod, now: Time) -> PodStatus {
    let mut status = pod.status.clone();
    status.phase = "Succeeded".into();
    for container in &mut status.container_statuses {
        (container.ready, container.started) = (false, Some(false));
        container.state = completed(now);
    }
    for type_ in [READY, CONTAINERS_READY] {
        truth(&mut status, pod, type_, false, "PodCompleted", now);
    }
    status
}

fn truth(status: &mut PodStatus, pod: &Pod, type_: &str, truth: bool, reason: &str, now: Time) {
    let condition = PodCondition {
        type_: type_.into(),
        status: if truth { "True" } else { "False" }.into(),
        reason: reason.into(),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    set(&mut status.conditions, condition, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// Lets a pod live until it rests, and shows each step.
    fn check(pod: apimachinery::value::Value, expected: Expect) {
        let mut pod: Pod = apimachinery::value::from_value(pod).unwrap();
        let mut lines = Vec::new();
        loop {
            let step =
                plan(&pod, Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(10, 0, 0, 9), Time::from_unix(60));
            match step {
                Step::Status(status) => {
                    let condition = |c: &PodCondition| format!("{}={}", c.type_, c.status);
                    let conditions: Vec<_> = status.conditions.iter().map(condition).collect();
                    let states = status.init_container_statuses.iter().chain(&status.container_statuses);
                    let state = |c: &ContainerStatus| {
                        let state = if c.state.running.is_some() { "running" } else { "terminated" };
                        format!("{} {state} ready={}", c.name, c.ready)
                    };
                    let states: Vec<_> = states.map(state).collect();
                    lines.push(format!(
                        "{} {} {} {}",
                        status.phase,
                        status.pod_ip,
                        conditions.join(","),
                        states.join(",")
                    ));
                    pod.status = *status;
                }
                other => {
                    lines.push(format!("{other:?}"));
                    break;
                }
            }
        }
        expected.assert_eq(&lines.join("\n"));
    }

    #[test]
    fn lives() {
        check(
            apimachinery::json!({
                "metadata": {"name": "web"},
                "spec": {"initContainers": [{"name": "init"}, {"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "app"}]},
                "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]},
            }),
            expect![[r#"
                Running 10.0.0.9 PodScheduled=True,PodReadyToStartContainers=True,Initialized=True,Ready=True,ContainersReady=True init terminated ready=true,side running ready=true,app running ready=true
                Rest"#]],
        );
        check(
            apimachinery::json!({
                "metadata": {"name": "job", "ownerReferences": [{"kind": "Job", "name": "j", "apiVersion": "batch/v1", "uid": "1"}]},
                "spec": {"hostNetwork": true, "containers": [{"name": "app"}]},
            }),
            expect![[r#"
                Running 100.64.0.1 PodReadyToStartContainers=True,Initialized=True,Ready=True,ContainersReady=True app running ready=true
                Succeeded 100.64.0.1 PodReadyToStartContainers=True,Initialized=True,Ready=False,ContainersReady=False app terminated ready=false
                Rest"#]],
        );
        check(
            apimachinery::json!({"metadata": {"name": "gone", "deletionTimestamp": "1970-01-01T00:00:00Z"}, "spec": {"containers": []}}),
            expect!["Delete"],
        );
    }
}
