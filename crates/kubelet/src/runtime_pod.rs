//! What the runtime says of one pod: its sandboxes and containers, newest first. Read through the CRI, judged by the
//! plan and the status. Upstream: `kubecontainer.PodStatus`.

use crate::labels::{self, Annotated};
use crate::termination_message;
use cri::RuntimeService;
use cri::v1;
use std::collections::HashMap;

/// A sandbox of the pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at: i64,
    /// Whether it uses the node's network.
    pub host_network: bool,
    /// Empty while the network is not set up, and with the node's network.
    pub ips: Vec<String>,
    /// Whether the runtime told anything about the network at all.
    pub network_known: bool,
}

/// The runtime's states of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

/// A container of the pod. Times are nanoseconds since the epoch, as in the CRI.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RuntimeContainer {
    pub id: String,
    pub name: String,
    pub sandbox_id: String,
    pub state: State,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub hash: u64,
    pub restart_count: i32,
    /// The image as the user named it.
    pub image: String,
    /// The image's reference with digest.
    pub image_ref: String,
    pub log_path: String,
    pub resources: Option<v1::LinuxContainerResources>,
    pub user: Option<v1::LinuxContainerUser>,
    pub stop_signal: i32,
    pub annotated: Annotated,
}

/// Everything the runtime has of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct RuntimePod {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first, of all sandboxes.
    pub containers: Vec<RuntimeContainer>,
}

impl RuntimePod {
    /// The newest container of this name.
    pub(crate) fn container(&self, name: &str) -> Option<&RuntimeContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of this name in the newest sandbox.
    pub(crate) fn active_container(&self, name: &str) -> Option<&RuntimeContainer> {
        let sandbox = self.sandboxes.first()?;
        self.containers.iter().find(|c| c.name == name && c.sandbox_id == sandbox.id)
    }

    /// The addresses of the newest sandbox.
    pub(crate) fn ips(&self) -> &[String] {
        self.sandboxes.first().map(|s| s.ips.as_slice()).unwrap_or_default()
    }

    /// Containers that run, or might.
    pub(crate) fn running(&self) -> impl Iterator<Item = &RuntimeContainer> {
        self.containers.iter().filter(|c| matches!(c.state, State::Running | State::Unknown))
    }

    /// Whether anything of the pod may still be alive.
    pub(crate) fn could_run(&self) -> bool {
        self.running().next().is_some() || self.sandboxes.iter().any(|s| s.ready)
    }
}

/// Statuses of exited containers, which never change again: spares asking and reading termination messages anew.
pub(crate) type ExitedCache = HashMap<String, RuntimeContainer>;

fn of_pod(uid: &str) -> HashMap<String, String> {
    HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())])
}

/// Asks the runtime for everything it has of the pod with this uid.
pub(crate) async fn observe(
    runtime: &dyn RuntimeService,
    uid: &str,
    exited: &mut ExitedCache,
) -> cri::Result<RuntimePod> {
    let filter = v1::PodSandboxFilter { label_selector: of_pod(uid), ..Default::default() };
    let listed = runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await?;
    let mut sandboxes = Vec::with_capacity(listed.items.len());
    for item in listed.items {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: item.id, verbose: false };
        match runtime.pod_sandbox_status(request).await {
            Ok(answer) => sandboxes.extend(answer.status.map(sandbox)),
            // Removed between the two looks.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    sandboxes.sort_by_key(|s: &Sandbox| std::cmp::Reverse((s.created_at, s.attempt)));

    let filter = v1::ContainerFilter { label_selector: of_pod(uid), ..Default::default() };
    let listed = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?;
    let mut containers: Vec<RuntimeContainer> = Vec::with_capacity(listed.containers.len());
    for item in listed.containers {
        if let Some(known) = exited.get(&item.id) {
            containers.push(known.clone());
            continue;
        }
        let request = v1::ContainerStatusRequest { container_id: item.id, verbose: false };
        let status = match runtime.container_status(request).await {
            Ok(answer) => answer.status,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let Some(status) = status else { continue };
        let mut one = container(&status, item.pod_sandbox_id);
        if one.state == State::Exited {
            let told = termination_message::read(&status, &one).await;
            if !told.is_empty() {
                one.message = if one.message.is_empty() { told } else { format!("{}: {told}", one.message) };
            }
            exited.insert(one.id.clone(), one.clone());
        }
        containers.push(one);
    }
    containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
    exited.retain(|id, _| containers.iter().any(|c| &c.id == id));
    Ok(RuntimePod { sandboxes, containers })
}

fn sandbox(status: v1::PodSandboxStatus) -> Sandbox {
    let options = status.linux.as_ref().and_then(|l| l.namespaces.as_ref()).and_then(|n| n.options.as_ref());
    let network_known = status.network.is_some();
    let ips = status.network.map_or_else(Vec::new, |network| {
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect()
    });
    Sandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |m| m.attempt),
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        created_at: status.created_at,
        host_network: options.is_some_and(|o| o.network == v1::NamespaceMode::Node as i32),
        ips,
        network_known,
    }
}

fn container(status: &v1::ContainerStatus, sandbox_id: String) -> RuntimeContainer {
    let annotated = Annotated::read(&status.annotations);
    let image = status.image.as_ref().map(|i| {
        if i.user_specified_image.is_empty() { i.image.clone() } else { i.user_specified_image.clone() }
    });
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => State::Created,
        Ok(v1::ContainerState::ContainerRunning) => State::Running,
        Ok(v1::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    };
    RuntimeContainer {
        id: status.id.clone(),
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        sandbox_id,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message: status.message.clone(),
        hash: annotated.hash,
        restart_count: annotated.restart_count,
        image: image.unwrap_or_default(),
        image_ref: status.image_ref.clone(),
        log_path: status.log_path.clone(),
        resources: status.resources.as_ref().and_then(|r| r.linux.clone()),
        user: status.user.as_ref().and_then(|u| u.linux.clone()),
        stop_signal: status.stop_signal,
        annotated,
    }
}
