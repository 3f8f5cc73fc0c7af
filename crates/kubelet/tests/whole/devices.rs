//! A device plugin of the tests' own, which speaks real gRPC on real sockets: it registers, is counted, asked, preferred,
//! refuses, goes and comes back; what containers were given outlives the kubelet, and the pod-resources API tells of it.

use crate::{Node, container};
use apimachinery::json;
use apimachinery::value::Value;
use cri::RuntimeService as _;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use kubelet::plugins::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use kubelet::plugins::device_plugin::registration_client::RegistrationClient;
use kubelet::plugins::device_plugin::*;
use kubelet::plugins::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use kubelet::plugins::pod_resources::{
    AllocatableResourcesRequest, GetPodResourcesRequest, ListPodResourcesRequest,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

const RESOURCE: &str = "crew.example/oar";

/// What the plugin answers, and what it was asked.
#[derive(Clone)]
struct Oars {
    list: watch::Sender<Vec<Device>>,
    calls: Arc<Mutex<Vec<String>>>,
    refuses: watch::Sender<bool>,
    /// How often it has gone away.
    gone: watch::Sender<u32>,
}

fn device(id: &str, health: &str) -> Device {
    let topology = (id == "oar-3").then(|| TopologyInfo { nodes: vec![NumaNode { id: 0 }] });
    Device { id: id.into(), health: health.into(), topology }
}

impl Oars {
    fn new() -> Oars {
        let list = ["oar-1", "oar-2", "oar-3"].map(|id| device(id, "Healthy")).to_vec();
        Oars {
            list: watch::Sender::new(list),
            calls: Arc::default(),
            refuses: watch::Sender::new(false),
            gone: watch::Sender::new(0),
        }
    }

    fn say(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    /// Serves on a socket until the sender is dropped.
    fn serve(&self, socket: &Path) -> tokio::sync::oneshot::Sender<()> {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = tonic::transport::Server::builder().add_service(DevicePluginServer::new(self.clone()));
        tokio::spawn(async move {
            let serving = server.serve_with_incoming(incoming);
            tokio::select! {
                _ = stopped => {}
                served = serving => served.unwrap(),
            }
        });
        stop
    }
}

#[tonic::async_trait]
impl DevicePlugin for Oars {
    type ListAndWatchStream = BoxStream<'static, Result<ListAndWatchResponse, Status>>;

    async fn get_device_plugin_options(
        &self,
        _: Request<Empty>,
    ) -> Result<Response<DevicePluginOptions>, Status> {
        let options =
            DevicePluginOptions { pre_start_required: true, get_preferred_allocation_available: true };
        Ok(Response::new(options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Result<Response<Self::ListAndWatchStream>, Status> {
        let mut list = self.list.subscribe();
        list.mark_changed();
        type State = (watch::Receiver<Vec<Device>>, watch::Receiver<u32>);
        let next = |(mut list, mut gone): State| async move {
            tokio::select! {
                // A server that is dropped goes on with the connections that it has.
                _ = gone.changed() => return None,
                changed = list.changed() => changed.ok()?,
            }
            let devices = list.borrow_and_update().clone();
            Some((Ok(ListAndWatchResponse { devices }), (list, gone)))
        };
        Ok(Response::new(stream::unfold((list, self.gone.subscribe()), next).boxed()))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Result<Response<PreferredAllocationResponse>, Status> {
        let request = request.into_inner().container_requests.remove(0);
        self.say(format!(
            "prefer {} of {}",
            request.allocation_size,
            request.available_device_i_ds.join(" ")
        ));
        let last = request.available_device_i_ds.into_iter().max().into_iter().collect();
        let response = ContainerPreferredAllocationResponse { device_i_ds: last };
        Ok(Response::new(PreferredAllocationResponse { container_responses: vec![response] }))
    }

    async fn allocate(
        &self,
        request: Request<AllocateRequest>,
    ) -> Result<Response<AllocateResponse>, Status> {
        if *self.refuses.borrow() {
            return Err(Status::unknown("the oars are wet"));
        }
        let ids = request.into_inner().container_requests.remove(0).devices_ids.join(" ");
        self.say(format!("allocate {ids}"));
        let response = ContainerAllocateResponse {
            envs: [("OARS".to_owned(), ids)].into(),
            mounts: vec![kubelet::plugins::device_plugin::Mount {
                container_path: "/oars".into(),
                host_path: "/tmp".into(),
                read_only: true,
            }],
            devices: vec![DeviceSpec {
                container_path: "/dev/oar".into(),
                host_path: "/dev/null".into(),
                permissions: "rw".into(),
            }],
            annotations: [("crew.example/oars".to_owned(), "yes".to_owned())].into(),
            cdi_devices: vec![CdiDevice { name: "crew.example/oar=1".into() }],
        };
        Ok(Response::new(AllocateResponse { container_responses: vec![response] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Result<Response<PreStartContainerResponse>, Status> {
        self.say(format!("start {}", request.into_inner().devices_ids.join(" ")));
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

pub(crate) async fn dial(path: PathBuf) -> Result<Channel, tonic::transport::Error> {
    let connect = move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    };
    Endpoint::from_static("http://kubelet").connect_with_connector(tower::service_fn(connect)).await
}

/// Waits until the kubelet listens: a plugin watches for the socket as well.
async fn connected(path: &Path) -> Channel {
    let waiting = async {
        loop {
            match dial(path.to_owned()).await {
                Ok(channel) => return channel,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("the kubelet listens")
}

async fn register(dir: &Path, request: RegisterRequest) -> Result<(), String> {
    let channel = connected(&dir.join("kubelet.sock")).await;
    RegistrationClient::new(channel)
        .register(request)
        .await
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

fn request() -> RegisterRequest {
    RegisterRequest {
        version: "v1beta1".into(),
        endpoint: "oars.sock".into(),
        resource_name: RESOURCE.into(),
        options: None,
    }
}

/// Capacity and allocatable of the node.
fn counted(node: &Node) -> String {
    let object = node.api.get("/api/v1/nodes/n1").unwrap_or_default();
    let of = |list: &str| object["status"][list][RESOURCE].as_str().unwrap_or("-").to_owned();
    format!("{} {}", of("capacity"), of("allocatable"))
}

fn wants(count: usize) -> Value {
    let mut one = container("main");
    one["resources"] =
        json!({ "limits": { RESOURCE: count.to_string() }, "requests": { RESOURCE: count.to_string() } });
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [one] })
}

/// The `OARS` of a pod's container, as the runtime was told.
fn oars(node: &Node, pod: &str) -> Option<String> {
    let uid = node.api.pod(pod)?.metadata.uid;
    let made = node.runtime.containers().into_values();
    let mut own = made.filter(|c| c.config.labels.get("io.kubernetes.pod.uid") == Some(&uid));
    let config = own.next()?.config;
    let env = config.envs.iter().find(|env| env.key == "OARS")?;
    Some(String::from_utf8_lossy(&env.value).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_gives_devices_of_plugins() {
    let mut node = Node::new();
    let root = node.dir.path().join("kubelet");
    let dir = root.join("device-plugins");
    let plugin = Oars::new();
    for (bad, message) in [
        (
            RegisterRequest { version: "v1alpha".into(), ..request() },
            "requested API version \"v1alpha\" is not supported by kubelet. Supported version is [\"v1beta1\"]",
        ),
        (RegisterRequest { resource_name: "cpu".into(), ..request() }, "the ResourceName \"cpu\" is invalid"),
        (
            RegisterRequest { endpoint: "../kubelet.sock".into(), ..request() },
            "the endpoint \"../kubelet.sock\" is invalid",
        ),
    ] {
        assert_eq!(register(&dir, bad).await.unwrap_err(), message);
    }
    let serving = plugin.serve(&dir.join("oars.sock"));
    register(&dir, request()).await.unwrap();
    node.until("counted", |n| counted(n) == "3 3").await;
    plugin.list.send_modify(|list| list[1].health = "Unhealthy".into());
    node.until("one is sick", |n| counted(n) == "3 2").await;
    plugin.list.send_modify(|list| list[1].health = "Healthy".into());
    node.until("and well", |n| counted(n) == "3 3").await;

    node.create("one", wants(1));
    node.until("it has its device", |n| n.ready("one")).await;
    assert_eq!(oars(&node, "one").as_deref(), Some("oar-3"));
    assert_eq!(
        *plugin.calls.lock().unwrap(),
        ["prefer 1 of oar-1 oar-2 oar-3", "allocate oar-3", "start oar-3"]
    );
    let config = node.runtime.containers().into_values().next().unwrap().config;
    assert!(config.mounts.iter().any(|m| m.container_path == "/oars" && m.host_path == "/tmp" && m.readonly));
    let device = &config.devices[0];
    assert_eq!((device.container_path.as_str(), device.permissions.as_str()), ("/dev/oar", "rw"));
    assert_eq!(config.annotations["crew.example/oars"], "yes");
    assert_eq!(config.cdi_devices[0].name, "crew.example/oar=1");
    let health = |n: &Node, health: &str| {
        let status = n.api.get("/api/v1/namespaces/default/pods/one").unwrap_or_default();
        let shown = &status["status"]["containerStatuses"][0]["allocatedResourcesStatus"];
        let resources = json!([{ "resourceID": "oar-3", "health": health }]);
        shown == &json!([{ "name": "crew.example/oar", "resources": resources }])
    };
    node.until("its device is told of", |n| health(n, "Healthy")).await;
    plugin.list.send_modify(|list| list[2].health = "Unhealthy".into());
    node.until("and that it is sick", |n| health(n, "Unhealthy")).await;
    plugin.list.send_modify(|list| list[2].health = "Healthy".into());
    node.until("and well", |n| health(n, "Healthy")).await;

    // A plugin that refuses: the pod is, too, and nothing is held for it.
    plugin.refuses.send_replace(true);
    node.create("refused", wants(2));
    node.until("refused", |n| n.phase("refused") == "Failed").await;
    let status = node.api.pod("refused").unwrap().status;
    assert_eq!(status.reason, "UnexpectedAdmissionError");
    assert_eq!(
        status.message,
        "Pod was rejected: Allocate failed due to rpc error: code = Unknown desc = the oars are wet, which is unexpected"
    );
    plugin.refuses.send_replace(false);

    // The pod-resources API.
    let mut lister = PodResourcesListerClient::new(connected(&root.join("pod-resources/kubelet.sock")).await);
    let all = lister.list(ListPodResourcesRequest {}).await.unwrap().into_inner().pod_resources;
    let own = all.iter().find(|pod| pod.name == "one").unwrap();
    let given = &own.containers[0].devices[0];
    assert_eq!(
        (given.resource_name.as_str(), given.device_ids.as_slice()),
        (RESOURCE, &["oar-3".to_owned()][..])
    );
    assert_eq!(given.topology.as_ref().unwrap().nodes[0].id, 0);
    let get = |name: &str| GetPodResourcesRequest { pod_name: name.into(), pod_namespace: "default".into() };
    assert_eq!(lister.get(get("one")).await.unwrap().into_inner().pod_resources.as_ref(), Some(own));
    let missing = lister.get(get("two")).await.unwrap_err();
    assert_eq!(missing.message(), "pod two in namespace default not found");
    let free = lister.get_allocatable_resources(AllocatableResourcesRequest {}).await.unwrap().into_inner();
    assert_eq!(free.devices.len(), 3);

    node.counts(&[
        // Three that were refused, and one.
        "kubelet_device_plugin_registration_total{resource_name=\"crew.example/oar\"} 3",
        "kubelet_device_plugin_registration_total{resource_name=\"cpu\"} 1",
        "kubelet_device_plugin_alloc_duration_seconds_count{resource_name=\"crew.example/oar\"} 2",
        "kubelet_topology_manager_admission_requests_total 2",
        "kubelet_topology_manager_admission_errors_total 1",
        "kubelet_admission_rejections_total{reason=\"UnexpectedAdmissionError\"} 1",
        "kubelet_pod_resources_endpoint_requests_total{server_api_version=\"v1\"} 4",
        "kubelet_pod_resources_endpoint_requests_list{server_api_version=\"v1\"} 1",
        "kubelet_pod_resources_endpoint_requests_get{server_api_version=\"v1\"} 2",
        "kubelet_pod_resources_endpoint_errors_get{server_api_version=\"v1\"} 1",
        "kubelet_pod_resources_endpoint_requests_get_allocatable{server_api_version=\"v1\"} 1",
    ])
    .await;

    // The plugin goes: its devices are sick at once. Kubelet and plugin come back: what was given is still given.
    drop(serving);
    plugin.gone.send_modify(|times| *times += 1);
    node.until("nobody vouches for them", |n| counted(n) == "3 0").await;
    node.stop().await;
    node.start();
    // The socket is made anew, which tells plugins to come back.
    let again = connected(&dir.join("kubelet.sock")).await;
    let _serving = plugin.serve(&dir.join("oars.sock"));
    RegistrationClient::new(again).register(request()).await.unwrap();
    node.until("counted again", |n| counted(n) == "3 3").await;
    node.create("two", wants(2));
    node.until("the others", |n| n.ready("two")).await;
    assert_eq!(oars(&node, "two").as_deref(), Some("oar-1 oar-2"));
    assert_eq!(oars(&node, "one").as_deref(), Some("oar-3"));

    // More than there are: the kubelet judges by the node, as for any resource.
    node.create("three", wants(1));
    node.until("there is none left", |n| n.phase("three") == "Failed").await;
    assert_eq!(node.api.pod("three").unwrap().status.reason, format!("OutOf{RESOURCE}"));
    // One that ends gives back what it had.
    node.runtime.exit(&node.runtime.container_named("main").unwrap(), 0);
    let ended = |n: &Node| ["one", "two"].iter().any(|pod| n.phase(pod) == "Succeeded");
    node.until("one has ended", ended).await;
    node.create("four", wants(1));
    node.until("it has a device", |n| n.ready("four")).await;
    assert!(node.runtime.version(Default::default()).await.is_ok());
    node.stop().await;
}
