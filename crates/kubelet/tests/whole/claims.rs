//! A DRA driver of the tests' own, found by its socket in `plugins_registry`: claims are prepared before a container is
//! made, shown to the runtime by their CDI names, and undone when the last pod is done.

use crate::devices::dial;
use crate::{Node, container};
use apimachinery::json;
use apimachinery::value::Value;
use futures::stream;
use kubelet::plugins::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use kubelet::plugins::dra::*;
use kubelet::plugins::dra_health::dra_resource_health_server::{DraResourceHealth, DraResourceHealthServer};
use kubelet::plugins::dra_health::{
    DeviceHealth, DeviceIdentifier, HealthStatus, NodeWatchResourcesRequest, NodeWatchResourcesResponse,
};
use kubelet::plugins::plugin_registration::registration_server::{Registration, RegistrationServer};
use kubelet::plugins::plugin_registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use kubelet::plugins::pod_resources::GetPodResourcesRequest;
use kubelet::plugins::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

const DRIVER: &str = "oars.example";

#[derive(Clone)]
struct Driver {
    calls: Arc<Mutex<Vec<String>>>,
    /// What preparing fails with.
    error: watch::Sender<String>,
    /// What the kubelet said of the registration.
    told: watch::Sender<Option<RegistrationStatus>>,
    versions: Vec<String>,
    /// How the first device is, and why.
    health: watch::Sender<(HealthStatus, String)>,
}

/// The service of before, whose messages are the same.
#[derive(Clone)]
struct Beta<S>(S);

impl<S> tonic::server::NamedService for Beta<S> {
    const NAME: &'static str = "k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin";
}

impl<S: tower::Service<http::Request<B>>, B> tower::Service<http::Request<B>> for Beta<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        let path = request.uri().path().replace(".v1beta1.", ".v1.");
        *request.uri_mut() = path.parse().unwrap();
        self.0.call(request)
    }
}

impl Driver {
    fn new(versions: &[&str]) -> Driver {
        let versions = versions.iter().map(|version| (*version).to_owned()).collect();
        Driver {
            calls: Arc::default(),
            error: watch::Sender::new(String::new()),
            told: watch::Sender::new(None),
            versions,
            health: watch::Sender::new((HealthStatus::Healthy, String::new())),
        }
    }

    /// Serves until what is returned is shut down, connections and all.
    fn serve(&self, socket: &Path) -> tokio::runtime::Runtime {
        let life =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = life.enter();
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(self.clone()))
            .add_service(DraPluginServer::new(self.clone()))
            .add_service(Beta(DraPluginServer::new(self.clone())))
            .add_service(DraResourceHealthServer::new(self.clone()));
        life.spawn(server.serve_with_incoming(incoming));
        life
    }

    async fn registered(&self) -> RegistrationStatus {
        let mut told = self.told.subscribe();
        let told = told.wait_for(Option::is_some);
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), told).await;
        told.expect("the kubelet tells").unwrap().clone().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

#[tonic::async_trait]
impl Registration for Driver {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "DRAPlugin".into(),
            name: DRIVER.into(),
            endpoint: String::new(),
            supported_versions: self.versions.clone(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        self.told.send_replace(Some(request.into_inner()));
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[tonic::async_trait]
impl DraResourceHealth for Driver {
    type NodeWatchResourcesStream =
        futures::stream::BoxStream<'static, Result<NodeWatchResourcesResponse, Status>>;

    async fn node_watch_resources(
        &self,
        _: Request<NodeWatchResourcesRequest>,
    ) -> Result<Response<Self::NodeWatchResourcesStream>, Status> {
        let first = (self.health.subscribe(), true);
        let told = stream::unfold(first, |(mut health, first)| async move {
            if !first {
                health.changed().await.ok()?;
            }
            let (state, message) = health.borrow_and_update().clone();
            let device = |name: &str, state: HealthStatus, message: String| DeviceHealth {
                device: Some(DeviceIdentifier { pool_name: "pool".into(), device_name: name.into() }),
                health: state.into(),
                last_updated_time: 0,
                health_check_timeout_seconds: 60,
                message,
            };
            let devices =
                vec![device("oar-1", state, message), device("oar-2", HealthStatus::Healthy, String::new())];
            Some((Ok(NodeWatchResourcesResponse { devices }), (health, false)))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

#[tonic::async_trait]
impl DraPlugin for Driver {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Result<Response<NodePrepareResourcesResponse>, Status> {
        let error = self.error.borrow().clone();
        let answer = |claim: Claim| {
            self.calls.lock().unwrap().push(format!("prepare {}/{}", claim.namespace, claim.name));
            let device = Device {
                request_names: vec!["left".into()],
                pool_name: "pool".into(),
                device_name: "oar-1".into(),
                cdi_device_ids: vec!["oars.example/oar=1".into()],
                share_id: None,
            };
            let other = Device {
                request_names: vec!["right".into()],
                device_name: "oar-2".into(),
                cdi_device_ids: vec!["oars.example/oar=2".into()],
                ..device.clone()
            };
            (claim.uid, NodePrepareResourceResponse { devices: vec![device, other], error: error.clone() })
        };
        let claims = request.into_inner().claims.into_iter().map(answer).collect();
        Ok(Response::new(NodePrepareResourcesResponse { claims }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Result<Response<NodeUnprepareResourcesResponse>, Status> {
        let answer = |claim: Claim| {
            self.calls.lock().unwrap().push(format!("unprepare {}/{}", claim.namespace, claim.name));
            (claim.uid, NodeUnprepareResourceResponse::default())
        };
        let claims = request.into_inner().claims.into_iter().map(answer).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_prepares_claims() {
    let mut node = Node::new();
    let slices = "/apis/resource.k8s.io/v1/resourceslices/n1-oars";
    node.api.put(
        slices,
        json!({ "metadata": { "name": "n1-oars" }, "spec": { "nodeName": "n1", "driver": DRIVER } }),
    );
    node.until("the node is there", |n| n.api.get("/api/v1/nodes/n1").is_some()).await;
    node.until("nobody offers anything yet", |n| n.api.get(slices).is_none()).await;
    let root = node.dir.path().join("kubelet");
    let registry = root.join("plugins_registry");
    let old = Driver::new(&["v1alpha3.Node"]);
    let life = old.serve(&registry.join("old.sock"));
    let status = old.registered().await;
    assert!(!status.plugin_registered, "{status:?}");
    assert!(status.error.starts_with("RegisterPlugin error -- plugin validation failed with err: invalid supported gRPC versions of DRA driver plugin oars.example at endpoint "), "{status:?}");
    std::fs::remove_file(registry.join("old.sock")).unwrap();
    life.shutdown_background();

    // A pod comes before its driver, and waits for it.
    let claim = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/pair";
    let object = |pods: &[&str]| {
        let reserved: Vec<_> =
            pods.iter().map(|uid| json!({ "resource": "pods", "name": uid, "uid": uid })).collect();
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": { "name": "pair", "namespace": "default", "uid": "claim-1" }, "spec": {},
            "status": { "reservedFor": reserved, "allocation": { "devices": { "results": [
                { "request": "left", "driver": DRIVER, "pool": "pool", "device": "oar-1" },
                { "request": "right", "driver": DRIVER, "pool": "pool", "device": "oar-2" },
            ] } } },
        })
    };
    let spec = |request: Option<&str>| {
        let mut one = container("main");
        let mut wanted = json!({ "name": "oars" });
        if let Some(request) = request {
            wanted["request"] = json!(request);
        }
        one["resources"] = json!({ "claims": [wanted] });
        json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [one],
            "resourceClaims": [{ "name": "oars", "resourceClaimName": "pair" }],
        })
    };
    node.create("web", spec(None));
    let uid = node.api.pod("web").unwrap().metadata.uid;
    node.api.put(claim, object(&[&uid]));
    let told = |n: &Node, what: &str| n.api.events().iter().any(|event| event.contains(what));
    let want = "FailedPrepareDynamicResources: Failed to prepare dynamic resources: prepare dynamic resources: DRA driver oars.example is not registered";
    node.until("the missing driver is told", |n| told(n, want)).await;
    let driver = Driver::new(&["v1.DRAPlugin"]);
    driver.error.send_replace("the oars are wet".into());
    let life = driver.serve(&registry.join("oars.sock"));
    assert!(driver.registered().await.plugin_registered);
    let want = "NodePrepareResources failed for ResourceClaim pair: the oars are wet";
    node.until("the failure is told", |n| told(n, want)).await;
    driver.error.send_replace(String::new());
    node.until("ready", |n| n.ready("web")).await;
    let shown = |n: &Node, uid: &str| {
        let made = n.runtime.containers().into_values();
        let mut own = made.filter(|c| c.config.labels["io.kubernetes.pod.uid"] == uid);
        let names = own.next().unwrap().config.cdi_devices.into_iter().map(|device| device.name);
        names.collect::<Vec<_>>()
    };
    assert_eq!(shown(&node, &uid), ["oars.example/oar=1", "oars.example/oar=2"]);

    let channel = dial(root.join("pod-resources/kubelet.sock")).await.unwrap();
    let request = GetPodResourcesRequest { pod_name: "web".into(), pod_namespace: "default".into() };
    let answer = PodResourcesListerClient::new(channel).get(request).await.unwrap().into_inner();
    let dynamic = &answer.pod_resources.unwrap().containers[0].dynamic_resources[0];
    assert_eq!((dynamic.claim_name.as_str(), dynamic.claim_resources.len()), ("pair", 2));
    assert_eq!(dynamic.claim_resources[0].driver_name, DRIVER);

    // A second pod of the claim, with one of its requests; after a restart of the kubelet, of which the driver hears.
    node.stop().await;
    driver.calls();
    node.start();
    node.create("two", spec(Some("right")));
    let second = node.api.pod("two").unwrap().metadata.uid;
    node.api.put(claim, object(&[&uid, &second]));
    node.until("the second is ready", |n| n.ready("two")).await;
    assert_eq!(shown(&node, &second), ["oars.example/oar=2"]);
    // A third is not among those for whom the claim is reserved.
    node.create("three", spec(None));
    node.until("the third is refused", |n| told(n, "is not allowed to use ResourceClaim pair (claim-1)"))
        .await;
    assert_eq!(driver.calls(), ["prepare default/pair"]);
    node.counts(&[
        "dra_operations_duration_seconds_count{is_error=\"false\",operation_name=\"PrepareResources\"} 1",
        "dra_grpc_operations_duration_seconds_count{driver_name=\"oars.example\",grpc_status_code=\"OK\",method_name=\"/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources\"} 1",
        "dra_resource_claims_in_use{driver_name=\"<any>\"} 1",
        "dra_resource_claims_in_use{driver_name=\"oars.example\"} 1",
        &format!("plugin_manager_total_plugins{{socket_path=\"{}\",state=\"actual_state_of_world\"}} 1", registry.join("oars.sock").display()),
    ])
    .await;

    let end = |node: &Node, name: &str| {
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let going = |mut pod: Value| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            pod
        };
        node.api.edit(&path, going).unwrap();
    };
    end(&node, "three");
    end(&node, "web");
    node.until("gone", |n| n.phase("web") == "gone" && n.phase("three") == "gone").await;
    assert!(driver.calls().is_empty());
    end(&node, "two");
    node.until("gone", |n| n.phase("two") == "gone").await;
    assert_eq!(driver.calls(), ["unprepare default/pair"]);
    let state = std::fs::read_to_string(root.join("dra_manager_state")).unwrap();
    assert_eq!(state, r#"{"Entries":[]}"#);
    node.stop().await;
    life.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_tells_how_devices_of_claims_are() {
    let mut node = Node::new();
    node.until("the node is there", |n| n.api.get("/api/v1/nodes/n1").is_some()).await;
    let registry = node.dir.path().join("kubelet/plugins_registry");
    // One that speaks as before.
    let driver = Driver::new(&["v1beta1.DRAPlugin", "v1alpha1.DRAResourceHealth"]);
    let life = driver.serve(&registry.join("oars.sock"));
    assert!(driver.registered().await.plugin_registered);
    let mut one = container("main");
    one["resources"] = json!({ "claims": [{ "name": "oars" }, { "name": "oars", "request": "right" }] });
    node.create(
        "web",
        json!({
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [one],
            "resourceClaims": [{ "name": "oars", "resourceClaimName": "pair" }],
        }),
    );
    let uid = node.api.pod("web").unwrap().metadata.uid;
    let claim = json!({
        "metadata": { "name": "pair", "namespace": "default", "uid": "claim-1" }, "spec": {},
        "status": {
            "reservedFor": [{ "resource": "pods", "name": "web", "uid": uid }],
            "allocation": { "devices": { "results": [
                { "request": "left", "driver": DRIVER, "pool": "pool", "device": "oar-1" },
                { "request": "right", "driver": DRIVER, "pool": "pool", "device": "oar-2" },
            ] } },
        },
    });
    node.api.put("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/pair", claim);
    node.until("ready", |n| n.ready("web")).await;
    // The first claim's first device; all else is well as long as anybody says so.
    let shows = |n: &Node, first: Value, others: &str| {
        let pod = n.api.get("/api/v1/namespaces/default/pods/web").unwrap_or_default();
        let second = json!({ "resourceID": "oars.example/oar=2", "health": others });
        pod["status"]["containerStatuses"][0]["allocatedResourcesStatus"]
            == json!([
                { "name": "claim:oars", "resources": [first, second] },
                { "name": "claim:oars/right", "resources": [second] },
            ])
    };
    let first = |health: &str| json!({ "resourceID": "oars.example/oar=1", "health": health });
    node.until("they are well", |n| shows(n, first("Healthy"), "Healthy")).await;
    driver.health.send_replace((HealthStatus::Unhealthy, "it is wet".into()));
    let wet = json!({ "resourceID": "oars.example/oar=1", "health": "Unhealthy", "message": "it is wet" });
    node.until("one is not", |n| shows(n, wet.clone(), "Healthy")).await;
    // Another kubelet knows it, too.
    node.stop().await;
    node.start();
    node.until("the new one hears of it", |n| shows(n, wet.clone(), "Healthy")).await;
    driver.health.send_replace((HealthStatus::Unknown, String::new()));
    node.until("nobody knows of one", |n| shows(n, first("Unknown"), "Healthy")).await;
    // The driver dies: its socket stays, but nobody vouches for anything.
    life.shutdown_background();
    node.until("nor of any", |n| shows(n, first("Unknown"), "Unknown")).await;
    node.stop().await;
}
