//! The runtime as a CRI service: what exists, who does what to it, and the two traits. Every mutating call runs as a task
//! of its own, so that it survives its caller, and in the turn of the id it is about.

/// Making, starting, stopping, removing containers.
mod container;
/// Told to whoever listens.
mod events;
/// Commands and connections into containers.
mod exec;
/// The image service.
mod image_service;
mod metrics;
/// The start: adopting what runs, undoing what was half done.
mod recover;
/// Making, stopping, removing sandboxes.
mod sandbox;
/// Usage.
mod stats;
/// Answers to questions.
mod status;
/// Exec, attach and port-forward for callers in other processes.
mod streaming;

use crate::config::Config;
use crate::images::Images;
use crate::keyed::Keyed;
use crate::record::{CONTAINER_FILE, ContainerRecord, Phase, SANDBOX_FILE, SandboxRecord, save};
use crate::shims::Shim;
use cri::v1::*;
use cri::{Error, EventStream, Result, RuntimeService};
use linux::cgroup::Cgroups;
use parking_lot::Mutex;
use shim::protocol::Exit;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};

/// The embedded runtime; cheap to clone, all clones are one.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) images: Arc<Images>,
    pub(crate) cgroups: Cgroups,
    pub(crate) program: shim::spawn::Program,
    pub(crate) boot: String,
    /// Whether pods can have user namespaces of their own here.
    pub(crate) user_namespaces: bool,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// Names that are taken, with the id that has them.
    names: Mutex<HashMap<String, String>>,
    turns: Keyed,
    events: broadcast::Sender<ContainerEventResponse>,
    /// For callers on a socket; set when there may be any.
    door: std::sync::OnceLock<streaming::Door>,
}

/// A sandbox: its record as it is on disk, and its shim.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    record: Mutex<Arc<SandboxRecord>>,
    shim: Mutex<Option<Arc<Shim>>>,
}

/// A container: its record as it is on disk, and how its process is.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) dir: PathBuf,
    record: Mutex<Arc<ContainerRecord>>,
    live: Mutex<Live>,
    /// True once it has exited.
    exited: watch::Sender<bool>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Live {
    pub(crate) pid: i32,
    /// Nanoseconds; 0: not started.
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
}

macro_rules! record_access {
    ($object:ident, $record:ident, $file:ident) => {
        impl $object {
            /// As it is now.
            pub(crate) fn record(&self) -> Arc<$record> {
                self.record.lock().clone()
            }

            /// Changes it on disk, then in memory. A small write to the page cache: does not block for long.
            pub(crate) fn update(&self, change: impl FnOnce(&mut $record)) -> Result<Arc<$record>> {
                self.put(change, |_| false)
            }

            /// Takes it a step nearer to its end. A full disk does not hold that up, which is what makes room again: then
            /// only memory knows, and after a crash the end begins anew.
            pub(crate) fn end(&self, phase: Phase) -> Result<Arc<$record>> {
                self.put(|record| record.phase = phase, |error| error.kind() == std::io::ErrorKind::StorageFull)
            }

            /// Changes it on disk, unless that fails in a way that is passed over, then in memory.
            fn put(
                &self,
                change: impl FnOnce(&mut $record),
                passes: fn(&std::io::Error) -> bool,
            ) -> Result<Arc<$record>> {
                let mut record = self.record.lock();
                let mut next = (**record).clone();
                change(&mut next);
                match save(&self.dir, $file, &next) {
                    Err(error) if passes(&error) => {
                        tracing::warn!(id = %self.id, phase = ?next.phase, %error, "{} is not written", $file);
                    }
                    saved => saved.map_err(io_error(format!("writing {}", $file)))?,
                }
                *record = Arc::new(next);
                Ok(record.clone())
            }

            pub(crate) fn phase(&self) -> Phase {
                self.record.lock().phase
            }
        }
    };
}
record_access!(Sandbox, SandboxRecord, SANDBOX_FILE);
record_access!(Container, ContainerRecord, CONTAINER_FILE);

impl Sandbox {
    pub(crate) fn new(dir: PathBuf, record: SandboxRecord) -> Sandbox {
        Sandbox { id: record.id.clone(), dir, record: Mutex::new(Arc::new(record)), shim: Mutex::default() }
    }

    /// The shim of a sandbox that runs.
    pub(crate) fn shim(&self) -> Result<Arc<Shim>> {
        let gone = || Error::failed_precondition(format!("sandbox container {:?} is not running", self.id));
        self.shim.lock().clone().ok_or_else(gone)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready
    }

    /// Where its network namespace is pinned.
    pub(crate) fn netns(&self) -> PathBuf {
        self.record().run_dir.join("ns/net")
    }
}

impl Container {
    pub(crate) fn new(dir: PathBuf, record: ContainerRecord) -> Container {
        Container {
            id: record.id.clone(),
            sandbox: record.sandbox.clone(),
            dir,
            record: Mutex::new(Arc::new(record)),
            live: Mutex::default(),
            exited: watch::channel(false).0,
        }
    }

    pub(crate) fn live(&self) -> Live {
        self.live.lock().clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        let live = self.live.lock();
        live.started_at != 0 && live.exit.is_none()
    }

    /// Marks it as running. False if it was already, or has exited since.
    pub(crate) fn set_started(&self, pid: i32, at: i64) -> bool {
        let mut live = self.live.lock();
        if live.started_at != 0 || live.exit.is_some() {
            return false;
        }
        (live.pid, live.started_at) = (pid, at);
        true
    }

    /// Marks it as exited. False if it was already: the first word counts.
    pub(crate) fn set_exited(&self, exit: Exit) -> bool {
        {
            let mut live = self.live.lock();
            if live.exit.is_some() {
                return false;
            }
            if live.started_at == 0 {
                live.started_at = exit.started_at;
            }
            live.pid = 0;
            live.exit = Some(exit);
        }
        self.exited.send_replace(true);
        true
    }

    /// Returns when it has exited.
    pub(crate) async fn wait(&self) {
        // The sender lives as long as we do.
        let _ = self.exited.subscribe().wait_for(|exited| *exited).await;
    }
}

/// For `map_err`: a failure of the disk or the kernel.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| Error::unknown(format!("{what}: {error}"))
}

/// A failed connection in Go's words, which containerd's errors have.
pub(crate) fn dial_error(network: &str, address: &str, error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(_) => {
            let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            format!("dial {network} {address}: connect: {text}")
        }
        None => format!("dial {network} {address}: {text}"),
    }
}

/// Runs what blocks where that hurts nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
}

/// Runs to its end even if the caller gives up.
async fn survive<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::internal(error.to_string())))
}

impl Inner {
    pub(crate) fn sandboxes_dir(&self) -> PathBuf {
        self.config.data_dir.join("sandboxes")
    }

    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.config.data_dir.join("containers")
    }

    /// By id or unambiguous prefix.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>> {
        let missing =
            || Error::not_found(format!("an error occurred when try to find sandbox: {id:?}: not found"));
        lookup(&self.sandboxes.lock(), id).ok_or_else(missing)
    }

    /// By id or unambiguous prefix.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>> {
        let missing =
            || Error::not_found(format!("an error occurred when try to find container {id:?}: not found"));
        lookup(&self.containers.lock(), id).ok_or_else(missing)
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.lock().values().filter(|container| container.sandbox == sandbox).cloned().collect()
    }

    /// Takes a name for an id.
    fn reserve(&self, kind: &str, name: &str, id: &str) -> Result<()> {
        let mut names = self.names.lock();
        match names.get(&format!("{kind} {name}")) {
            Some(owner) => Err(Error::already_exists(format!(
                "failed to reserve {kind} name {name:?}: name {name:?} is reserved for {owner:?}"
            ))),
            None => {
                names.insert(format!("{kind} {name}"), id.to_owned());
                Ok(())
            }
        }
    }

    fn release(&self, id: &str) {
        self.names.lock().retain(|_, owner| owner != id);
    }
}

fn lookup<T>(map: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if id.is_empty() {
        return None;
    }
    let mut found = map.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
    match (found.next(), found.next()) {
        (Some((known, object)), other) if known == id || other.is_none() => Some(object.clone()),
        _ => None,
    }
}

impl Runtime {
    /// The image store, for commands that are not CRI's (import, tag).
    pub fn images(&self) -> Arc<Images> {
        self.inner.images.clone()
    }

    /// Makes `Exec`, `Attach` and `PortForward` answer with URLs, for callers on a socket.
    pub async fn serve_streams(&self) -> io::Result<()> {
        let door = streaming::Door::open(&self.inner).await?;
        // A second call changes nothing: the first door stays.
        let _ = self.inner.door.set(door);
        Ok(())
    }

    /// Stops and removes every sandbox and what the runtime keeps beside them: for taking a node down. Images stay.
    pub async fn purge(&self) -> Result<()> {
        let ids: Vec<String> = self.inner.sandboxes.lock().keys().cloned().collect();
        for id in ids {
            self.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
        }
        let inner = self.inner.clone();
        blocking(move || {
            inner.shim_group()?.remove().map_err(io_error("removing the shims' cgroup"))?;
            // The root is ours only if nobody else has groups in it.
            let root = inner.cgroups.group(&inner.config.cgroup_root).map_err(io_error("cgroup root"))?;
            root.dirs().iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
            Ok(())
        })
        .await
    }
}

#[async_trait::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse> {
        Ok(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "tiphys".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
        survive(sandbox::run(self.inner.clone(), request)).await
    }

    async fn stop_pod_sandbox(&self, request: StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
        survive(sandbox::stop(self.inner.clone(), request.pod_sandbox_id)).await?;
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
        survive(sandbox::remove(self.inner.clone(), request.pod_sandbox_id)).await?;
        Ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
        status::pod_sandbox_status(&self.inner, &request)
    }

    async fn list_pod_sandbox(&self, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
        Ok(ListPodSandboxResponse { items: status::list_sandboxes(&self.inner, request.filter.as_ref()) })
    }

    async fn create_container(&self, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
        survive(container::create(self.inner.clone(), request)).await
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse> {
        survive(container::start(self.inner.clone(), request.container_id)).await?;
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse> {
        survive(container::stop(self.inner.clone(), request.container_id, request.timeout)).await?;
        Ok(StopContainerResponse {})
    }

    async fn remove_container(&self, request: RemoveContainerRequest) -> Result<RemoveContainerResponse> {
        survive(container::remove(self.inner.clone(), request.container_id)).await?;
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse> {
        Ok(ListContainersResponse {
            containers: status::list_containers(&self.inner, request.filter.as_ref()),
        })
    }

    async fn container_status(&self, request: ContainerStatusRequest) -> Result<ContainerStatusResponse> {
        status::container_status(&self.inner, &request)
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse> {
        survive(container::update(self.inner.clone(), request)).await?;
        Ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse> {
        container::reopen_log(&self.inner, &request.container_id).await?;
        Ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
        exec::sync(&self.inner, request).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecResponse> {
        Ok(ExecResponse { url: streaming::exec(&self.inner, request)? })
    }

    async fn attach(&self, request: AttachRequest) -> Result<AttachResponse> {
        Ok(AttachResponse { url: streaming::attach(&self.inner, request)? })
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse> {
        Ok(PortForwardResponse { url: streaming::port_forward(&self.inner, request)? })
    }

    async fn checkpoint_container(
        &self,
        _: CheckpointContainerRequest,
    ) -> Result<CheckpointContainerResponse> {
        // As containerd says it on a node without a CRIU that works with it; clients know these words.
        Err(Error::unimplemented("method CheckpointContainer not implemented"))
    }

    async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse> {
        let container = self.inner.container(&request.container_id)?;
        let inner = self.inner.clone();
        let stats = blocking(move || Ok(stats::container(&inner, &container))).await?;
        Ok(ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse> {
        let inner = self.inner.clone();
        let stats = blocking(move || Ok(stats::containers(&inner, request.filter.as_ref()))).await?;
        Ok(ListContainerStatsResponse { stats })
    }

    async fn pod_sandbox_stats(&self, request: PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
        let sandbox = self.inner.sandbox(&request.pod_sandbox_id)?;
        let inner = self.inner.clone();
        let stats = blocking(move || Ok(stats::sandbox(&inner, &sandbox))).await?;
        Ok(PodSandboxStatsResponse { stats: Some(stats) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse> {
        let inner = self.inner.clone();
        let stats = blocking(move || Ok(stats::sandboxes(&inner, request.filter.as_ref()))).await?;
        Ok(ListPodSandboxStatsResponse { stats })
    }

    async fn list_metric_descriptors(
        &self,
        _: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse> {
        Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse> {
        let inner = self.inner.clone();
        let pod_metrics = blocking(move || Ok(metrics::of_pods(&inner))).await?;
        Ok(ListPodSandboxMetricsResponse { pod_metrics })
    }

    async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        let ranges = network.map(|network| network.pod_cidr).unwrap_or_default();
        let ranges: Vec<String> =
            ranges.split(',').filter(|range| !range.is_empty()).map(str::to_owned).collect();
        if let (Some(network), false) = (self.inner.config.network.clone(), ranges.is_empty()) {
            survive(async move {
                network.set_ranges(&ranges).await.map_err(Error::invalid_argument)?;
                tracing::info!(?ranges, "pods get their addresses from these ranges");
                Ok(())
            })
            .await?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse> {
        status::runtime(&self.inner, request.verbose).await
    }

    async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse> {
        // As containerd: the pod's own cgroup is the kubelet's; a runtime only takes note.
        let sandbox = self.inner.sandbox(&request.pod_sandbox_id)?;
        sandbox.update(|record| {
            let linux = record.config.linux.get_or_insert_default();
            (linux.overhead, linux.resources) = (request.overhead, request.resources);
        })?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<EventStream> {
        Ok(events::stream(self.inner.events.subscribe()))
    }
}

/// A file of ours, replaced whole.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let written = std::fs::write(path, text)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)));
    written.map_err(io_error(format!("writing {}", path.display())))
}
