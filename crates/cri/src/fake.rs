//! A runtime in memory whose containers run nothing: tests decide when they exit, what exec prints, which call
//! fails, and what time it is. Semantics (idempotence, codes, states, events) are those of the real ones.

use crate::filter;
use crate::v1::*;
use crate::{Error, EventStream, ImageService, Result, RuntimeService};
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// A sandbox with its state, as tests look at it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// As given to `RunPodSandbox`.
    pub config: PodSandboxConfig,
    /// What `PodSandboxStatus` answers.
    pub status: PodSandboxStatus,
}

/// A container with its state, as tests look at it.
#[derive(Debug, Clone)]
pub struct Container {
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// As given to `CreateContainer`.
    pub config: ContainerConfig,
    /// What `ContainerStatus` answers.
    pub status: ContainerStatus,
}

struct State {
    now: i64,
    next_id: u64,
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeMap<String, Image>,
    pullable: bool,
    calls: Vec<String>,
    failures: HashMap<String, VecDeque<Error>>,
    exec: HashMap<Vec<String>, ExecSyncResponse>,
    ip: String,
}

/// The fake; cheap to clone, all clones are one runtime.
#[derive(Clone)]
pub struct Runtime {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<ContainerEventResponse>,
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime::new()
    }
}

impl Runtime {
    /// An empty runtime at time 0 that pulls any image.
    pub fn new() -> Self {
        let state = State {
            now: 0,
            next_id: 1,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            pullable: true,
            calls: Vec::new(),
            failures: HashMap::new(),
            exec: HashMap::new(),
            ip: "10.244.0.2".into(),
        };
        Runtime { state: Arc::new(Mutex::new(state)), events: broadcast::channel(4096).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time, in nanoseconds since the epoch, that states and events are stamped with.
    pub fn set_now(&self, nanoseconds: i64) {
        self.lock().now = nanoseconds;
    }

    /// The address the next sandboxes get.
    pub fn set_ip(&self, ip: &str) {
        self.lock().ip = ip.into();
    }

    /// Makes an image present.
    pub fn add_image(&self, image: Image) {
        self.lock().images.insert(image.id.clone(), image);
    }

    /// Whether `PullImage` succeeds for images that are absent.
    pub fn set_pullable(&self, pullable: bool) {
        self.lock().pullable = pullable;
    }

    /// The next call of `method` (snake case) fails with `error`; several are used in turn.
    pub fn fail_next(&self, method: &str, error: Error) {
        self.lock().failures.entry(method.into()).or_default().push_back(error);
    }

    /// What `ExecSync` of this command answers from now on; other commands succeed with no output.
    pub fn set_exec(&self, command: &[&str], response: ExecSyncResponse) {
        self.lock().exec.insert(command.iter().map(|s| s.to_string()).collect(), response);
    }

    /// Every call so far, in order: the method, then the id or the name it was about.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// Forgets the calls so far and returns them.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().calls)
    }

    /// All sandboxes by id.
    pub fn sandboxes(&self) -> BTreeMap<String, Sandbox> {
        self.lock().sandboxes.clone()
    }

    /// All containers by id.
    pub fn containers(&self) -> BTreeMap<String, Container> {
        self.lock().containers.clone()
    }

    /// The id of the newest container of that name, in any sandbox.
    pub fn container_named(&self, name: &str) -> Option<String> {
        let state = self.lock();
        let named = state.containers.values().filter(|c| metadata_name(&c.config) == name);
        named.max_by_key(|c| (c.status.created_at, id_number(&c.status.id))).map(|c| c.status.id.clone())
    }

    /// The container's process ends by itself.
    pub fn exit(&self, id: &str, code: i32) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        self.exit_with(id, code, reason, "");
    }

    /// As `exit`, with the reason (`OOMKilled`…) and message of the status.
    pub fn exit_with(&self, id: &str, code: i32, reason: &str, message: &str) {
        let mut state = self.lock();
        let now = state.now;
        let Some(container) = state.containers.get_mut(id) else { return };
        if container.status.state() == ContainerState::ContainerExited {
            return;
        }
        container.status.state = ContainerState::ContainerExited.into();
        container.status.finished_at = now;
        container.status.exit_code = code;
        container.status.reason = reason.into();
        container.status.message = message.into();
        self.emit(&state, id, ContainerEventType::ContainerStoppedEvent);
    }

    /// Changes what is known of a container, without an event: for states no call leads to.
    pub fn edit_container(&self, id: &str, edit: impl FnOnce(&mut Container)) {
        if let Some(container) = self.lock().containers.get_mut(id) {
            edit(container);
        }
    }

    /// The sandbox dies under its containers, which exit with 137.
    pub fn kill_sandbox(&self, id: &str) {
        let inside: Vec<String> = {
            let mut state = self.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.status.state = PodSandboxState::SandboxNotready.into();
            }
            self.emit(&state, id, ContainerEventType::ContainerStoppedEvent);
            state.containers.values().filter(|c| c.sandbox == id).map(|c| c.status.id.clone()).collect()
        };
        inside.iter().for_each(|id| self.exit(id, 137));
    }

    fn begin(&self, method: &str, subject: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls.push(if subject.is_empty() { method.into() } else { format!("{method} {subject}") });
        match state.failures.get_mut(method).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    fn emit(&self, state: &State, id: &str, kind: ContainerEventType) {
        let sandbox = state.containers.get(id).map_or(id, |container| container.sandbox.as_str());
        let of_sandbox = state.containers.values().filter(|c| c.sandbox == sandbox);
        // Nobody listening is not an error.
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.into(),
            container_event_type: kind.into(),
            created_at: state.now,
            pod_sandbox_status: state.sandboxes.get(sandbox).map(|sandbox| sandbox.status.clone()),
            containers_statuses: of_sandbox.map(|container| container.status.clone()).collect(),
        });
    }
}

fn metadata_name(config: &ContainerConfig) -> &str {
    config.metadata.as_ref().map_or("", |metadata| &metadata.name)
}

fn id_number(id: &str) -> u64 {
    id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn no_sandbox(id: &str) -> Error {
    Error::not_found(format!("an error occurred when try to find sandbox: not found: {id}"))
}

fn no_container(id: &str) -> Error {
    Error::not_found(format!("an error occurred when try to find container {id:?}: not found"))
}

fn short_sandbox(sandbox: &Sandbox) -> PodSandbox {
    let status = sandbox.status.clone();
    PodSandbox {
        id: status.id,
        metadata: status.metadata,
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        runtime_handler: status.runtime_handler,
    }
}

fn short_container(container: &Container) -> crate::v1::Container {
    let status = container.status.clone();
    crate::v1::Container {
        id: status.id,
        pod_sandbox_id: container.sandbox.clone(),
        metadata: status.metadata,
        image: status.image,
        image_ref: status.image_ref,
        state: status.state,
        created_at: status.created_at,
        labels: status.labels,
        annotations: status.annotations,
        image_id: status.image_id,
    }
}

#[async_trait::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse> {
        drop(self.begin("version", "")?);
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0.0".into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn status(&self, _: StatusRequest) -> Result<StatusResponse> {
        drop(self.begin("status", "")?);
        let conditions = ["RuntimeReady", "NetworkReady"].map(|name| RuntimeCondition {
            r#type: name.into(),
            status: true,
            ..Default::default()
        });
        let status = Some(RuntimeStatus { conditions: conditions.into() });
        Ok(StatusResponse { status, ..Default::default() })
    }

    async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
        drop(self.begin("runtime_config", "")?);
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(
        &self,
        _: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse> {
        drop(self.begin("update_runtime_config", "")?);
        Ok(UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
        let config = request.config.unwrap_or_default();
        let metadata = config.metadata.clone().unwrap_or_default();
        let mut state = self.begin("run_pod_sandbox", &metadata.name)?;
        let id = format!("sandbox-{}", state.next_id);
        state.next_id += 1;
        let options = config
            .linux
            .as_ref()
            .and_then(|l| l.security_context.as_ref())
            .and_then(|s| s.namespace_options.clone());
        let on_host = options.as_ref().is_some_and(|options| options.network() == NamespaceMode::Node);
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: PodSandboxState::SandboxReady.into(),
            created_at: state.now,
            network: Some(PodSandboxNetworkStatus {
                ip: if on_host { String::new() } else { state.ip.clone() },
                additional_ips: Vec::new(),
            }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: request.runtime_handler,
        };
        state.sandboxes.insert(id.clone(), Sandbox { config, status });
        self.emit(&state, &id, ContainerEventType::ContainerStartedEvent);
        Ok(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
        let id = request.pod_sandbox_id;
        let ready = {
            let state = self.begin("stop_pod_sandbox", &id)?;
            let ready = PodSandboxState::SandboxReady;
            state.sandboxes.get(&id).is_some_and(|sandbox| sandbox.status.state() == ready)
        };
        if ready {
            self.kill_sandbox(&id);
        }
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
        let id = request.pod_sandbox_id;
        let mut state = self.begin("remove_pod_sandbox", &id)?;
        if state.sandboxes.remove(&id).is_some() {
            state.containers.retain(|_, container| container.sandbox != id);
            self.emit(&state, &id, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
        let id = request.pod_sandbox_id;
        let state = self.begin("pod_sandbox_status", &id)?;
        let sandbox = state.sandboxes.get(&id).ok_or_else(|| no_sandbox(&id))?;
        let inside = state.containers.values().filter(|container| container.sandbox == id);
        Ok(PodSandboxStatusResponse {
            status: Some(sandbox.status.clone()),
            info: HashMap::new(),
            containers_statuses: inside.map(|container| container.status.clone()).collect(),
            timestamp: state.now,
        })
    }

    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
        let state = self.begin("list_pod_sandbox", "")?;
        let all = state.sandboxes.values().map(short_sandbox);
        Ok(ListPodSandboxResponse {
            items: all.filter(|s| filter::sandbox_matches(request.filter.as_ref(), s)).collect(),
        })
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
        let config = request.config.unwrap_or_default();
        let mut state = self.begin("create_container", metadata_name(&config))?;
        let sandbox = request.pod_sandbox_id;
        if !state.sandboxes.contains_key(&sandbox) {
            return Err(no_sandbox(&sandbox));
        }
        let id = format!("container-{}", state.next_id);
        state.next_id += 1;
        let image = config.image.clone().unwrap_or_default();
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::ContainerCreated.into(),
            created_at: state.now,
            image_ref: image.image.clone(),
            image_id: image.image.clone(),
            image: Some(image),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: config.log_path.clone(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), Container { sandbox, config, status });
        self.emit(&state, &id, ContainerEventType::ContainerCreatedEvent);
        Ok(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse> {
        let id = request.container_id;
        let mut state = self.begin("start_container", &id)?;
        let now = state.now;
        let container = state.containers.get_mut(&id).ok_or_else(|| no_container(&id))?;
        if container.status.state() != ContainerState::ContainerCreated {
            return Err(Error::unknown(format!(
                "container {id:?} is in {} state",
                container.status.state().as_str_name()
            )));
        }
        container.status.state = ContainerState::ContainerRunning.into();
        container.status.started_at = now;
        self.emit(&state, &id, ContainerEventType::ContainerStartedEvent);
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse> {
        let id = request.container_id;
        drop(self.begin("stop_container", &format!("{id} {}s", request.timeout))?);
        self.exit_with(&id, if request.timeout > 0 { 143 } else { 137 }, "Error", "");
        Ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
        let id = request.container_id;
        let mut state = self.begin("remove_container", &id)?;
        if let Some(removed) = state.containers.remove(&id) {
            self.emit(&state, &removed.sandbox, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse> {
        let state = self.begin("list_containers", "")?;
        let all = state.containers.values().map(short_container);
        Ok(ListContainersResponse {
            containers: all.filter(|c| filter::container_matches(request.filter.as_ref(), c)).collect(),
        })
    }

    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
        let id = request.container_id;
        let state = self.begin("container_status", &id)?;
        let container = state.containers.get(&id).ok_or_else(|| no_container(&id))?;
        Ok(ContainerStatusResponse { status: Some(container.status.clone()), info: HashMap::new() })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        let id = request.container_id;
        let mut state = self.begin("update_container_resources", &id)?;
        let container = state.containers.get_mut(&id).ok_or_else(|| no_container(&id))?;
        container.status.resources = Some(ContainerResources { linux: request.linux, windows: None });
        Ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse> {
        let id = request.container_id;
        let state = self.begin("reopen_container_log", &id)?;
        state.containers.get(&id).ok_or_else(|| no_container(&id))?;
        Ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        let id = request.container_id;
        let state = self.begin("exec_sync", &format!("{id} {}", request.cmd.join(" ")))?;
        let container = state.containers.get(&id).ok_or_else(|| no_container(&id))?;
        if container.status.state() != ContainerState::ContainerRunning {
            let name = container.status.state().as_str_name();
            return Err(Error::unknown(format!("container is in {name} state")));
        }
        Ok(state.exec.get(&request.cmd).cloned().unwrap_or_default())
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<EventStream> {
        drop(self.begin("get_container_events", "")?);
        let receiver = self.events.subscribe();
        let stream = futures::stream::unfold(receiver, |mut receiver| async move {
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), receiver)),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    Some((Err(Error::resource_exhausted("event stream fell behind")), receiver))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Ok(stream.boxed())
    }
}

impl crate::Streams for Runtime {}

#[async_trait::async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse> {
        let state = self.begin("list_images", "")?;
        let all = state.images.values();
        Ok(ListImagesResponse {
            images: all.filter(|i| filter::image_matches(request.filter.as_ref(), i)).cloned().collect(),
        })
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
        let spec = request.image.unwrap_or_default();
        let state = self.begin("image_status", &spec.image)?;
        let wanted = ImageFilter { image: Some(spec) };
        let image = state.images.values().find(|image| filter::image_matches(Some(&wanted), image)).cloned();
        Ok(ImageStatusResponse { image, info: HashMap::new() })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse> {
        let name = request.image.unwrap_or_default().image;
        let mut state = self.begin("pull_image", &name)?;
        if !state.pullable {
            return Err(Error::not_found(format!(
                "failed to pull and unpack image {name:?}: {name}: not found"
            )));
        }
        let image = Image { id: name.clone(), repo_tags: vec![name.clone()], size: 1, ..Default::default() };
        state.images.entry(name.clone()).or_insert(image);
        Ok(PullImageResponse { image_ref: name })
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        let spec = request.image.unwrap_or_default();
        let mut state = self.begin("remove_image", &spec.image)?;
        let wanted = ImageFilter { image: Some(spec) };
        state.images.retain(|_, image| !filter::image_matches(Some(&wanted), image));
        Ok(RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
        let state = self.begin("image_fs_info", "")?;
        let usage = FilesystemUsage { timestamp: state.now, ..Default::default() };
        Ok(ImageFsInfoResponse { image_filesystems: vec![usage.clone()], container_filesystems: vec![usage] })
    }
}
