//! Answers to questions: sandboxes, containers and the runtime itself as CRI shows them.

use super::{Container, Inner, Sandbox};
use crate::record::{Phase, now};
use crate::spec::signals;
use cri::Result;
use cri::filter;
use cri::v1::*;
use std::collections::HashMap;
use std::sync::Arc;

fn sandbox_state(phase: Phase) -> PodSandboxState {
    match phase {
        Phase::Ready => PodSandboxState::SandboxReady,
        _ => PodSandboxState::SandboxNotready,
    }
}

pub(super) fn sandbox_status(sandbox: &Sandbox) -> PodSandboxStatus {
    let record = sandbox.record();
    let config = &record.config;
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.clone());
    // As containerd: a stopped sandbox has no address.
    let ips = if record.phase == Phase::Ready { record.ips.as_slice() } else { &[] };
    let mut ips = ips.iter().map(|ip| ip.to_string());
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: sandbox_state(record.phase).into(),
        created_at: record.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

fn container_state(container: &Container) -> ContainerState {
    let live = container.live();
    match (live.exit.is_some(), live.started_at) {
        (true, _) => ContainerState::ContainerExited,
        (false, 0) => ContainerState::ContainerCreated,
        (false, _) => ContainerState::ContainerRunning,
    }
}

/// Why a container exited, in containerd's words.
fn reason(exit: &shim::protocol::Exit) -> &'static str {
    match exit {
        exit if exit.oom_killed => "OOMKilled",
        exit if !exit.message.is_empty() && exit.started_at == 0 => "StartError",
        exit if !exit.message.is_empty() && exit.code == 255 => "Unknown",
        exit if exit.code == 0 => "Completed",
        _ => "Error",
    }
}

fn image_spec(config: &ContainerConfig) -> ImageSpec {
    let mut spec = config.image.clone().unwrap_or_default();
    if !spec.user_specified_image.is_empty() {
        spec.image = spec.user_specified_image.clone();
    }
    spec
}

pub(super) fn of_container(container: &Container) -> ContainerStatus {
    let (record, live) = (container.record(), container.live());
    let config = &record.config;
    let user = LinuxContainerUser {
        uid: record.user.uid.into(),
        gid: record.user.gid.into(),
        supplemental_groups: record.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    };
    let mut status = ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: container_state(container).into(),
        created_at: record.created_at,
        started_at: live.started_at,
        image: Some(image_spec(config)),
        image_ref: record.image_ref.clone(),
        image_id: record.image.to_string(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log_path.clone(),
        resources: Some(ContainerResources { linux: Some(record.resources.clone()), windows: None }),
        user: Some(ContainerUser { linux: Some(user) }),
        stop_signal: signals::to_cri(record.stop_signal).into(),
        ..Default::default()
    };
    if let Some(exit) = &live.exit {
        status.finished_at = exit.finished_at;
        status.exit_code = exit.code;
        status.reason = reason(exit).into();
        status.message = exit.message.clone();
    }
    status
}

pub(super) fn pod_sandbox_status(
    inner: &Inner,
    request: &PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse> {
    let sandbox = inner.sandbox(&request.pod_sandbox_id)?;
    let containers = inner.containers_of(&sandbox.id);
    let containers = containers.iter().filter(|container| container.phase() != Phase::Creating);
    let mut info = HashMap::new();
    if request.verbose {
        let record = sandbox.record();
        let text = serde_json::json!({
            "runtimeHandler": record.handler,
            "cgroupParent": record.cgroup_parent,
            "runDir": record.run_dir,
            "netns": sandbox.netns(),
        });
        info.insert("info".to_owned(), text.to_string());
    }
    Ok(PodSandboxStatusResponse {
        status: Some(sandbox_status(&sandbox)),
        info,
        containers_statuses: containers.map(|container| of_container(container)).collect(),
        timestamp: now(),
    })
}

pub(super) fn list_sandboxes(inner: &Inner, wanted: Option<&PodSandboxFilter>) -> Vec<PodSandbox> {
    let all: Vec<Arc<Sandbox>> = inner.sandboxes.lock().values().cloned().collect();
    let shown = all.iter().filter(|sandbox| sandbox.phase() != Phase::Creating).map(|sandbox| {
        let record = sandbox.record();
        PodSandbox {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            state: sandbox_state(record.phase).into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            runtime_handler: record.handler.clone(),
        }
    });
    shown.filter(|sandbox| filter::sandbox_matches(wanted, sandbox)).collect()
}

pub(super) fn list_containers(inner: &Inner, wanted: Option<&ContainerFilter>) -> Vec<cri::v1::Container> {
    let all: Vec<Arc<Container>> = inner.containers.lock().values().cloned().collect();
    let shown = all.iter().filter(|container| container.phase() != Phase::Creating).map(|container| {
        let record = container.record();
        cri::v1::Container {
            id: record.id.clone(),
            pod_sandbox_id: record.sandbox.clone(),
            metadata: record.config.metadata.clone(),
            image: Some(image_spec(&record.config)),
            image_ref: record.image_ref.clone(),
            state: container_state(container).into(),
            created_at: record.created_at,
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
            image_id: record.image.to_string(),
        }
    });
    shown.filter(|container| filter::container_matches(wanted, container)).collect()
}

pub(super) fn container_status(
    inner: &Inner,
    request: &ContainerStatusRequest,
) -> Result<ContainerStatusResponse> {
    let container = inner.container(&request.container_id)?;
    let mut info = HashMap::new();
    if request.verbose {
        let (record, live) = (container.record(), container.live());
        let text = serde_json::json!({
            "sandboxID": record.sandbox,
            "pid": live.pid,
            "cgroup": record.cgroup,
            "process": record.process,
        });
        info.insert("info".to_owned(), text.to_string());
    }
    Ok(ContainerStatusResponse { status: Some(of_container(&container)), info })
}

pub(super) async fn runtime(inner: &Inner, verbose: bool) -> Result<StatusResponse> {
    let network = match &inner.config.network {
        Some(network) => network.status().await,
        None => Ok(()),
    };
    let condition = |name: &str, result: &std::result::Result<(), String>| RuntimeCondition {
        r#type: name.into(),
        status: result.is_ok(),
        reason: result.as_ref().err().map_or("", |_| "NetworkPluginNotReady").into(),
        message: result
            .as_ref()
            .err()
            .map_or(String::new(), |why| format!("Network plugin returns error: {why}")),
    };
    let mut info = HashMap::new();
    if verbose {
        let text = serde_json::json!({"dataDir": inner.config.data_dir, "runDir": inner.config.run_dir});
        info.insert("config".to_owned(), text.to_string());
    }
    let features =
        RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: inner.user_namespaces };
    Ok(StatusResponse {
        status: Some(RuntimeStatus {
            conditions: vec![condition("RuntimeReady", &Ok(())), condition("NetworkReady", &network)],
        }),
        info,
        runtime_handlers: vec![RuntimeHandler { name: String::new(), features: Some(features) }],
        features: Some(RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
    })
}
