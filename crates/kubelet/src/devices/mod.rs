//! Device plugins: they register on a socket, tell their devices as long as they live, and are asked before a container
//! gets some. What a container was given is kept, and shows in its configuration. Upstream: `cm/devicemanager`.

mod checkpoint;
mod registration;
mod state;

use crate::config::{Config, ExtendedClaims};
use crate::metrics::Managers;
use crate::plugins::device_plugin::device_plugin_client::DevicePluginClient;
use crate::plugins::device_plugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, PreStartContainerRequest,
    PreferredAllocationRequest,
};
use crate::plugins::watcher::Handler;
use crate::pods::Pods;
use crate::topology::hint::{Hint, Hints};
use crate::topology::mask::Mask;
use crate::topology::{Provider, Refusal, most_at_once};
use api::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};
use futures::future::BoxFuture;
use parking_lot::Mutex;
pub(crate) use state::{Given, NO_NODE, State};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// The version of the API. Upstream's constant.
const VERSION: &str = "v1beta1";
/// How long a resource is told after its plugin has gone. Upstream: `endpointStopGracePeriod`.
const GRACE: Duration = Duration::from_secs(300);

/// A plugin that is connected, or was.
struct Endpoint {
    client: DevicePluginClient<Channel>,
    options: DevicePluginOptions,
    /// Tells it from its predecessor of the same name.
    generation: u64,
    stopped_at: Option<Instant>,
}

/// All devices of the node.
pub(crate) struct Devices {
    extended: ExtendedClaims,
    /// `<root>/device-plugins`.
    dir: PathBuf,
    state: Mutex<State>,
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
    /// One allocation after another.
    turn: tokio::sync::Mutex<()>,
    /// Goes up when the node has more or less than before.
    changed: watch::Sender<u64>,
    metrics: Managers,
    shutdown: CancellationToken,
}

/// A resource as the node's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub resource: String,
    pub capacity: usize,
    pub allocatable: usize,
}

impl Devices {
    /// Knows what containers were given before.
    pub(crate) fn load(config: &Config, metrics: Managers, shutdown: CancellationToken) -> Arc<Self> {
        let dir = config.root_dir.join("device-plugins");
        Arc::new(Devices {
            extended: config.extended_claims(),
            state: Mutex::new(checkpoint::read(&dir)),
            endpoints: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            changed: watch::Sender::new(0),
            metrics,
            shutdown,
            dir,
        })
    }

    /// Tells when the counts may have changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Connects to a plugin and follows its list of devices.
    async fn connect(self: &Arc<Self>, resource: &str, socket: &Path) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("failed to dial device plugin: {error}");
        let channel = crate::plugins::dial(socket).await.map_err(|error| failed(&error))?;
        let mut client = DevicePluginClient::new(channel).max_decoding_message_size(16 << 20);
        let options = client.get_device_plugin_options(Empty {}).await.map_err(|error| failed(&error))?;
        let list = client.list_and_watch(Empty {}).await.map_err(|error| failed(&error))?;
        let generation = {
            let mut endpoints = self.endpoints.lock();
            let generation = endpoints.get(resource).map_or(0, |before| before.generation + 1);
            let options = options.into_inner();
            let endpoint = Endpoint { client, options, generation, stopped_at: None };
            endpoints.insert(resource.to_owned(), endpoint);
            generation
        };
        tracing::info!(resource, "connected to a device plugin");
        let (devices, resource) = (self.clone(), resource.to_owned());
        tokio::spawn(async move {
            let shutdown = devices.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = devices.follow(&resource, list.into_inner(), generation) => {}
            }
        });
        Ok(())
    }

    async fn follow(
        &self,
        resource: &str,
        mut list: tonic::Streaming<crate::plugins::device_plugin::ListAndWatchResponse>,
        generation: u64,
    ) {
        let current = || self.endpoints.lock().get(resource).is_some_and(|e| e.generation == generation);
        while let Ok(Some(message)) = list.message().await {
            if !current() {
                return;
            }
            self.state.lock().list(resource, message.devices);
            self.write();
            self.tell();
        }
        if current() {
            self.stopped(resource);
            // A plugin that does not come back takes its resource with it.
            tokio::time::sleep(GRACE).await;
            self.tell();
        }
    }

    fn stopped(&self, resource: &str) {
        tracing::info!(resource, "a device plugin has gone");
        if let Some(endpoint) = self.endpoints.lock().get_mut(resource) {
            endpoint.stopped_at.get_or_insert_with(Instant::now);
        }
        self.state.lock().unhealthy(resource);
        self.tell();
    }

    /// What the node has; a resource whose plugin stays away counts as none.
    pub(crate) fn counts(&self) -> Vec<Counted> {
        let (state, endpoints) = (self.state.lock(), self.endpoints.lock());
        let counted = state.resources.keys().map(|resource| {
            let alive =
                endpoints.get(resource).is_some_and(|e| e.stopped_at.is_none_or(|at| at.elapsed() < GRACE));
            let (capacity, allocatable) = if alive { state.counts(resource) } else { (0, 0) };
            Counted { resource: resource.clone(), capacity, allocatable }
        });
        counted.collect()
    }

    fn write(&self) {
        let state = self.state.lock().clone();
        if let Err(error) = checkpoint::write(&self.dir, &state) {
            tracing::warn!(%error, "the checkpoint of devices was not written");
        }
    }

    /// The plugin resources that a container asks for, but for those that a claim gives it.
    fn asked(&self, pod: &Pod, container: &Container) -> Vec<(String, usize)> {
        let state = self.state.lock();
        let claimed = |resource: &String| {
            let mut mappings = self.extended.of(pod).into_iter().flat_map(|c| &c.request_mappings);
            mappings.any(|m| m.container_name == container.name && m.resource_name == *resource)
        };
        let limits = container.resources.limits.iter();
        let limits = limits.filter(|(resource, _)| state.is_known(resource) && !claimed(resource));
        let counted =
            limits.map(|(resource, count)| (resource.clone(), usize::try_from(count.value()).unwrap_or(0)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Gives a container its devices, near `place` as far as that goes, before its pod is admitted.
    async fn give(&self, pod: &Pod, container: &Container, place: Option<Mask>) -> Result<(), String> {
        let asked = self.asked(pod, container);
        if asked.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        for (resource, required) in asked {
            self.one(pod, &container.name, &resource, required, place).await?;
        }
        self.write();
        Ok(())
    }

    async fn one(
        &self,
        pod: &Pod,
        container: &str,
        resource: &str,
        required: usize,
        place: Option<Mask>,
    ) -> Result<(), String> {
        let owner = (pod.metadata.uid.clone(), container.to_owned());
        let choice = {
            let state = self.state.lock();
            let reuse = state.reusable(pod, resource);
            match state.wanted(&owner, resource, required, &reuse, place)? {
                Some(choice) => choice,
                None => return Ok(()),
            }
        };
        let (mut client, options) = {
            let endpoints = self.endpoints.lock();
            let endpoint =
                endpoints.get(resource).ok_or_else(|| format!("unknown Device Plugin {resource}"))?;
            (endpoint.client.clone(), endpoint.options)
        };
        let mut preferred = Vec::new();
        if let Some(from) = choice.open().filter(|_| options.get_preferred_allocation_available) {
            let request = ContainerPreferredAllocationRequest {
                available_device_i_ds: from.union(&choice.reused).cloned().collect(),
                must_include_device_i_ds: choice.reused.iter().cloned().collect(),
                allocation_size: i32::try_from(required).unwrap_or(i32::MAX),
            };
            let request = PreferredAllocationRequest { container_requests: vec![request] };
            let answer = client.get_preferred_allocation(request).await.map_err(|status| {
                format!("device plugin GetPreferredAllocation rpc failed with err: {}", go_error(&status))
            })?;
            let first = answer.into_inner().container_responses.into_iter().next();
            preferred = first.map(|response| response.device_i_ds).unwrap_or_default();
        }
        let ids = choice.pick(&preferred);
        let request = ContainerAllocateRequest { devices_ids: ids.iter().cloned().collect() };
        let began = Instant::now();
        let answer = client.allocate(AllocateRequest { container_requests: vec![request] }).await;
        self.metrics.allocations.with(&[resource]).observe_since(began);
        let answer = answer.map_err(|status| go_error(&status))?.into_inner();
        let response = answer.container_responses.into_iter().next();
        let response = response.ok_or("no containers return in allocation response")?;
        self.state.lock().give(owner, resource, ids, response);
        Ok(())
    }

    /// What a container's devices bring with them, as its plugins have answered; tells plugins that want it that the
    /// container is about to start.
    pub(crate) async fn of_container(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Vec<ContainerAllocateResponse>, String> {
        let owner = (pod.metadata.uid.clone(), container.name.clone());
        let given = self.state.lock().given.get(&owner).cloned().unwrap_or_default();
        for (resource, given) in &given {
            let endpoint = {
                let endpoints = self.endpoints.lock();
                endpoints.get(resource).map(|e| (e.client.clone(), e.options.pre_start_required))
            };
            let (mut client, wanted) = endpoint.ok_or_else(|| {
                format!("endpoint not found in cache for a registered resource: {resource}")
            })?;
            if wanted {
                let request = PreStartContainerRequest { devices_ids: given.ids().into_iter().collect() };
                client.pre_start_container(request).await.map_err(|status| {
                    format!("device plugin PreStartContainer rpc failed with err: {}", go_error(&status))
                })?;
            }
        }
        Ok(given.into_values().map(|given| given.response).collect())
    }

    /// The devices of containers, by owner and resource.
    pub(crate) fn given(&self) -> BTreeMap<state::Owner, BTreeMap<String, Given>> {
        self.state.lock().given.clone()
    }

    /// How the devices of a container are; those that nobody knows of are not said to be ill. Upstream:
    /// `UpdateAllocatedResourcesStatus`.
    pub(crate) fn health(&self, uid: &str, container: &str) -> Vec<ResourceStatus> {
        let state = self.state.lock();
        let given = state.given.get(&(uid.to_owned(), container.to_owned()));
        let shown = given.into_iter().flatten().map(|(resource, given)| {
            let known = state.resources.get(resource);
            let is_healthy =
                |id: &String| known.and_then(|known| known.get(id)).is_none_or(|known| known.healthy);
            let each = given.ids().into_iter().map(|id| ResourceHealth {
                health: if is_healthy(&id) { "Healthy" } else { "Unhealthy" }.into(),
                resource_id: id,
                ..Default::default()
            });
            ResourceStatus { name: resource.clone(), resources: each.collect() }
        });
        shown.collect()
    }

    /// The healthy devices of each resource, with their NUMA nodes.
    pub(crate) fn allocatable(&self) -> Vec<(String, String, Vec<i64>)> {
        let state = self.state.lock();
        let each = state.resources.iter().flat_map(|(resource, devices)| {
            let healthy = devices.iter().filter(|(_, device)| device.healthy);
            healthy.map(|(id, device)| (resource.clone(), id.clone(), device.nodes.clone()))
        });
        each.collect()
    }

    /// Others may have the devices of pods that are not among these.
    pub(crate) fn retain(&self, alive: impl Fn(&str) -> bool) {
        let changed = self.state.lock().retain(alive);
        if changed {
            self.write();
        }
    }
}

impl Provider for Devices {
    fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        let asked = self.asked(pod, container);
        let state = self.state.lock();
        let owner = (pod.metadata.uid.clone(), container.name.clone());
        let each = asked.into_iter().map(|(resource, request)| {
            let had = state.given.get(&owner).and_then(|given| given.get(&resource));
            let had = had.map(Given::ids).unwrap_or_default();
            let hints = state.hints(&resource, request, &had, &state.reusable(pod, &resource));
            (resource, hints)
        });
        each.collect()
    }

    fn pod_hints(&self, pod: &Pod) -> Hints {
        let all = || pod.spec.init_containers.iter().chain(&pod.spec.containers);
        let resources: BTreeSet<String> =
            all().flat_map(|container| self.asked(pod, container)).map(|(resource, _)| resource).collect();
        let state = self.state.lock();
        let each = resources.into_iter().map(|resource| {
            let request = most_at_once(pod, |container| {
                let limit = container.resources.limits.get(&resource).map_or(0, |count| count.value());
                u64::try_from(limit).unwrap_or(0)
            });
            let had = all().filter_map(|container| {
                state.given.get(&(pod.metadata.uid.clone(), container.name.clone()))?.get(&resource)
            });
            let had = had.flat_map(Given::ids).collect();
            let request = usize::try_from(request).unwrap_or(usize::MAX);
            let hints = state.hints(&resource, request, &had, &BTreeSet::new());
            (resource, hints)
        });
        each.collect()
    }

    fn allocate<'a>(
        &'a self,
        pod: &'a Pod,
        container: &'a Container,
        place: Hint,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move { Ok(self.give(pod, container, place.affinity).await?) })
    }
}

/// Has pods tell how their devices are when that may have changed.
pub(crate) async fn follow(devices: Arc<Devices>, pods: Arc<Pods>, shutdown: CancellationToken) {
    let mut changes = devices.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        devices.given().keys().for_each(|(uid, _)| pods.wake(uid));
    }
}

/// A status in the words of grpc-go.
pub(crate) fn go_error(status: &tonic::Status) -> String {
    let code = format!("{:?}", status.code());
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// Plugins that come by way of `plugins_registry` instead of their own socket.
pub(crate) struct ByRegistry(pub Arc<Devices>);

impl Handler for ByRegistry {
    fn kind(&self) -> &'static str {
        "DevicePlugin"
    }

    fn validate(&self, name: &str, _: &Path, versions: &[String]) -> Result<(), String> {
        if !versions.iter().any(|version| version == VERSION) {
            let known = versions.join(" ");
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{known}]"
            ));
        }
        match registration::is_extended_resource(name) {
            true => Ok(()),
            false => {
                Err(format!("invalid name of device plugin socket: the ResourceName {name:?} is invalid"))
            }
        }
    }

    fn register<'a>(
        &'a self,
        name: &'a str,
        endpoint: &'a Path,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.0.connect(name, endpoint))
    }

    fn deregister(&self, name: &str, _: &Path) {
        self.0.stopped(name);
    }
}

pub(crate) use registration::serve;
