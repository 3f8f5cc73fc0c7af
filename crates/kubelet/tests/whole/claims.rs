//! A DRA driver of the tests' own, found by its socket in `plugins_registry`: claims are prepared before a container is
//! made, shown to the runtime by their CDI names, and undone when the last pod is done.

use crate::devices::dial;
use crate::{Node, container};
use futures::stream;
use kubelet::plugins::dra::dra_plugin_server::{DraPlugin, DraPluginServer};
use kubelet::plugins::dra::*;
use kubelet::plugins::plugin_registration::registration_server::{Registration, RegistrationServer};
use kubelet::plugins::plugin_registration::{
    InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse,
};
use kubelet::plugins::pod_resources::GetPodResourcesRequest;
use kubelet::plugins::pod_resources::pod_resources_lister_client::PodResourcesListerClient;
use serde_json::{Value, json};
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
}

impl Driver {
    fn new(versions: &[&str]) -> Driver {
        let versions = versions.iter().map(|version| (*version).to_owned()).collect();
        Driver {
            calls: Arc::default(),
            error: watch::Sender::new(String::new()),
            told: watch::Sender::new(None),
            versions,
        }
    }

    fn serve(&self, socket: &Path) {
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async move {
            Some((listener.accept().await.map(|(stream, _)| stream), listener))
        });
        let server = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(self.clone()))
            .add_service(DraPluginServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
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
    node.until("the node is there", |n| n.api.get("/api/v1/nodes/n1").is_some()).await;
    let root = node.dir.path().join("kubelet");
    let registry = root.join("plugins_registry");
    let old = Driver::new(&["v1alpha3.Node"]);
    old.serve(&registry.join("old.sock"));
    let status = old.registered().await;
    assert!(!status.plugin_registered, "{status:?}");
    assert!(status.error.starts_with("RegisterPlugin error -- plugin validation failed with err: invalid supported gRPC versions of DRA driver plugin oars.example"), "{status:?}");
    std::fs::remove_file(registry.join("old.sock")).unwrap();

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
    driver.serve(&registry.join("oars.sock"));
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
}
