//! A whole kubelet between a fake runtime and a fake API server: pods run, crash, end, are adopted. Needs root for cgroups.

// The helpers of these tests fail like the tests themselves.
#![allow(clippy::unwrap_used)]

mod api;
mod claims;
mod cpus;
mod devices;
mod health;
mod resize;
mod restarts;
mod server;
mod shutdown;
mod static_pods;
mod topology;

use api::Api;
use apimachinery::json;
use apimachinery::value::Value;
use client::{Client, Informers};
use cri::RuntimeService as _;
use cri::fake::Runtime;
use futures::StreamExt as _;
use kubelet::{Config, Kubelet, Parts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Node {
    api: Api,
    runtime: Runtime,
    dir: tempfile::TempDir,
    cgroup: String,
    configure: fn(&mut Config),
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    /// Signs for the server and its clients.
    ca: pki::Authority,
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

impl Node {
    fn new() -> Self {
        Node::with(|_| {})
    }

    /// One that is told otherwise than usual.
    fn with(configure: fn(&mut Config)) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let runtime = Runtime::new();
        runtime.set_now(now());
        let mut node = Node {
            api: Api::new(),
            runtime,
            dir: tempfile::tempdir().unwrap(),
            cgroup: format!("/kubelet-test-{}-{number}", std::process::id()),
            configure,
            running: None,
            ca: pki::Authority::create("ca", Duration::from_secs(3600), apimachinery::time::Timestamp::now())
                .unwrap(),
        };
        node.start();
        node
    }

    fn start(&mut self) {
        let root = self.dir.path();
        let mut config = Config::new("n1", "127.0.0.1");
        config.root_dir = root.join("kubelet");
        config.pod_logs_dir = root.join("pods");
        config.container_logs_dir = root.join("containers");
        config.cgroup_root = self.cgroup.clone();
        config.address = ([127, 0, 0, 1], 0).into();
        // The port is one for all of these tests.
        config.healthz.set_port(0);
        // Whatever the machine is short of.
        config.eviction_thresholds.clear();
        (self.configure)(&mut config);
        let shutdown = CancellationToken::new();
        let client = Client::new(Arc::new(self.api.clone()), "kubelet");
        let parts = Parts {
            informers: Informers::new(&client, shutdown.clone()),
            client,
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
            streams: None,
            serving: Some(self.serving()),
            bootstrap: None,
            calling: None,
        };
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { Kubelet::new(config, parts).run(stop).await.unwrap() });
        self.running = Some((shutdown, task));
    }

    fn serving(&self) -> kubelet::server::Serving {
        let sans = vec![pki::San::Ip([127, 0, 0, 1].into())];
        let subject = pki::Subject::new("system:node:n1", &["system:nodes"]);
        let profile = pki::Profile::server(subject, sans, Duration::from_secs(3600));
        let identity = self.ca.issue(&profile, apimachinery::time::Timestamp::now()).unwrap();
        kubelet::server::Serving {
            identity: pki::tls::Slot::of(&identity).unwrap(),
            client_authorities: vec![self.ca.certificate.clone()],
        }
    }

    /// GETs from the kubelet's server as a user with a client certificate, or as nobody.
    async fn get(&self, user: Option<&str>, path: &str) -> (u16, String) {
        self.send("GET", user, path).await
    }

    /// Asks the kubelet's server.
    async fn send(&self, method: &str, user: Option<&str>, path: &str) -> (u16, String) {
        let now = apimachinery::time::Timestamp::now();
        let slot = user.map(|user| {
            let profile = pki::Profile::client(pki::Subject::new(user, &[]), Duration::from_secs(3600));
            pki::tls::Slot::of(&self.ca.issue(&profile, now).unwrap()).unwrap()
        });
        let trust = pki::tls::Trust::Roots(vec![self.ca.certificate.der().clone()]);
        let tls = pki::tls::client_config(&trust, slot, &[b"http/1.1"]).unwrap();
        let object = self.api.get("/api/v1/nodes/n1").unwrap();
        let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap() as u16;
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.unwrap();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kubelet")
            .body(http_body_util::Empty::<bytes::Bytes>::new());
        let response = sender.send_request(request.unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }

    /// That `/metrics` has all of these lines.
    async fn counts(&self, lines: &[&str]) {
        let (_, text) = self.get(Some("admin"), "/metrics").await;
        for line in lines {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let near: Vec<&str> = text.lines().filter(|known| known.starts_with(name)).collect();
            assert!(near.contains(line), "{line} in {near:#?}");
        }
    }

    async fn stop(&mut self) {
        let (shutdown, task) = self.running.take().unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.expect("a kubelet stops when told").unwrap();
    }

    fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        let created = apimachinery::time::Time::from_unix(now() / 1_000_000_000);
        let pod = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name, "namespace": "default", "generation": 1, "creationTimestamp": created }, "spec": spec, "status": { "phase": "Pending" } });
        self.api.put(&path, pod);
    }

    /// Waits until the API says what is expected.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.api.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), waiting).await.is_err() {
            panic!(
                "never: {what}\npods: {:#?}\nevents: {:#?}\ncalls: {:#?}",
                ["web", "two", "three"].map(|name| self.api.pod(name).map(|p| (p.metadata, p.status))),
                self.api.events(),
                self.runtime.calls()
            );
        }
    }

    fn phase(&self, name: &str) -> String {
        self.api.pod(name).map_or_else(|| "gone".into(), |pod| pod.status.phase)
    }

    fn ready(&self, name: &str) -> bool {
        self.api.pod(name).is_some_and(|pod| rules::pod_conditions::is_ready(&pod.status))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove(&hierarchy.path().join(self.cgroup.trim_start_matches('/')));
        }
        remove(&std::path::Path::new("/sys/fs/cgroup").join(self.cgroup.trim_start_matches('/')));
    }
}

fn remove(dir: &std::path::Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

fn container(name: &str) -> Value {
    json!({ "name": name, "image": "img:1", "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_runs_a_pod_to_ready_and_ends_it() {
    let mut node = Node::new();
    node.until("the node registers and is ready", |n| {
        let node = n.api.get("/api/v1/nodes/n1").unwrap_or_default();
        node["status"]["conditions"]
            .as_array()
            .is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    })
    .await;
    node.create("web", json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 1, "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let pod = node.api.pod("web").unwrap();
    assert_eq!((pod.status.pod_ip.as_str(), pod.status.host_ip.as_str()), ("10.244.0.2", "127.0.0.1"));
    assert_eq!(pod.status.observed_generation, 1);
    node.until("the start is told", |n| n.api.events().iter().any(|e| e.starts_with("Started"))).await;
    let events = node.api.events();
    for want in
        ["Pulling: Pulling image \"img:1\"", "Created: Container created", "Started: Container started"]
    {
        assert!(events.iter().any(|e| e == want), "{want} in {events:?}");
    }
    node.until("the lease", |n| {
        n.api.get("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1").is_some()
    })
    .await;

    let path = "/api/v1/namespaces/default/pods/web";
    let mut happened = node.runtime.get_container_events(Default::default()).await.unwrap();
    let going = |mut pod: Value| {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
        pod
    };
    node.api.edit(path, going).unwrap();
    node.until("gone", |n| n.phase("web") == "gone").await;
    let clean = async {
        while !node.runtime.sandboxes().is_empty() {
            happened.next().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), clean).await.expect("the runtime is cleaned up");
    assert!(node.runtime.sandboxes().is_empty() && node.runtime.containers().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_restarts_backs_off_and_adopts() {
    let mut node = Node::new();
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let crash = |n: &Node| {
        n.runtime.set_now(now());
        n.runtime.exit(&n.runtime.container_named("a").unwrap(), 3);
    };
    let restarts = |n: &Node| n.api.pod("web").map_or(0, |p| p.status.container_statuses[0].restart_count);
    crash(&node);
    node.until("restarted at once", |n| restarts(n) == 1 && n.ready("web")).await;
    crash(&node);
    node.until("backing off", |n| {
        let waiting = n.api.pod("web").and_then(|p| p.status.container_statuses[0].state.waiting.clone());
        waiting.is_some_and(|w| {
            w.reason == "CrashLoopBackOff"
                && w.message.starts_with("back-off 10s restarting failed container=a pod=web_default(")
        })
    })
    .await;
    let last =
        node.api.pod("web").unwrap().status.container_statuses[0].last_state.terminated.clone().unwrap();
    assert_eq!(last.exit_code, 3);

    node.create("calm", json!({ "restartPolicy": "Always", "containers": [container("b")] }));
    node.until("the calm one is ready", |n| n.ready("calm")).await;
    node.stop().await;
    node.runtime.take_calls();
    node.start();
    node.create("later", json!({ "restartPolicy": "Never", "containers": [container("c")] }));
    node.until("the new kubelet works", |n| n.ready("later")).await;
    let calls = node.runtime.take_calls();
    let touched = |name: &str| {
        calls.iter().any(|c| {
            c.starts_with("create_container") && c.ends_with(name) || c.starts_with("run_pod_sandbox calm")
        })
    };
    assert!(!touched("b"), "{calls:?}");
    assert_eq!(node.api.pod("calm").unwrap().status.container_statuses[0].restart_count, 0);

    node.runtime.set_now(now());
    node.runtime.exit(&node.runtime.container_named("c").unwrap(), 0);
    node.until("succeeded", |n| n.phase("later") == "Succeeded").await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_waits_for_what_is_missing_and_follows_probes() {
    let mut node = Node::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    node.runtime.set_ip("127.0.0.1");
    let mut web = container("a");
    web["env"] = json!([{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "k" } } }, { "name": "Y", "value": "$(X)!" }]);
    web["readinessProbe"] = json!({ "tcpSocket": { "port": port }, "periodSeconds": 1, "failureThreshold": 1, "successThreshold": 1, "timeoutSeconds": 1 });
    node.create("web", json!({ "restartPolicy": "Always", "containers": [web] }));
    node.until("the missing ConfigMap is told", |n| {
        let waiting =
            n.api.pod("web").and_then(|p| p.status.container_statuses.first()?.state.waiting.clone());
        waiting.is_some_and(|w| {
            w.reason == "CreateContainerConfigError" && w.message == "configmap \"cm\" not found"
        })
    })
    .await;
    let map = json!({ "metadata": { "name": "cm", "namespace": "default" }, "data": { "k": "v" } });
    node.api.put("/api/v1/namespaces/default/configmaps/cm", map);
    node.until("ready", |n| n.ready("web")).await;
    let made = node.runtime.containers().into_values().next().unwrap();
    let env = |key: &str| {
        made.config.envs.iter().find(|e| e.key == key).map(|e| String::from_utf8_lossy(&e.value).into_owned())
    };
    assert_eq!((env("X").as_deref(), env("Y").as_deref()), (Some("v"), Some("v!")));
    drop(listener);
    node.until("not ready", |n| !n.ready("web")).await;
    node.until("told", |n| {
        n.api.events().iter().any(|e| e.starts_with("Unhealthy: Readiness probe failed: dial tcp 127.0.0.1"))
    })
    .await;
    let (_, probes) = node.get(Some("admin"), "/metrics/probes").await;
    let failed = "probe_type=\"Readiness\",result=\"failed\"} ";
    let of_web = "prober_probe_total{container=\"a\",namespace=\"default\",pod=\"web\"";
    assert!(probes.lines().any(|line| line.starts_with(of_web) && line.contains(failed)), "{probes}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_serves_logs_to_whom_the_api_allows_it() {
    let mut node = Node::new();
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let id = node.runtime.container_named("a").unwrap();
    let uid = node.api.pod("web").unwrap().metadata.uid;
    let log = node.dir.path().join("pods").join(format!("default_web_{uid}")).join("a/0.log");
    std::fs::write(&log, "2024-01-01T00:00:00Z stdout F one\n2024-01-01T00:00:01Z stdout F two\n").unwrap();
    node.runtime.edit_container(&id, |c| c.status.log_path = log.to_string_lossy().into_owned());
    let path = "/containerLogs/default/web/a";
    assert_eq!(node.get(None, path).await.0, 401);
    assert_eq!(node.get(Some("mallory"), path).await.0, 403);
    assert_eq!(node.get(Some("admin"), path).await, (200, "one\ntwo\n".into()));
    assert_eq!(node.get(Some("admin"), &format!("{path}?tailLines=1")).await.1, "two\n");
    assert_eq!(node.get(Some("admin"), "/containerLogs/default/web/x").await.0, 404);
    assert_eq!(node.get(Some("admin"), &format!("{path}?previous=true")).await.0, 400);
    // A GET opens a WebSocket; whoever may only read must not get a shell by it.
    assert_eq!(node.get(Some("reader"), "/exec/default/web/a?command=sh&output=1").await.0, 403);
    assert_eq!(node.get(Some("reader"), "/pods").await.0, 200);
    let (code, pods) = node.get(Some("admin"), "/pods").await;
    assert!(code == 200 && pods.contains("\"name\":\"web\""));
    assert_eq!(node.get(Some("admin"), "/debug/pprof/").await.0, 404);
    for path in
        ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/stats/summary", "/configz", "/healthz"]
    {
        assert_eq!(node.get(Some("admin"), path).await.0, 200, "{path}");
    }
    let (_, counted) = node.get(Some("admin"), "/metrics").await;
    for line in [
        "kubelet_started_pods_total 1",
        "kubelet_started_containers_total{container_type=\"container\"} 1",
        "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
        "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"0-10MB\"} 1",
        "kubelet_pod_start_duration_seconds_count 1",
        "kubelet_desired_pods{static=\"\"} 1",
    ] {
        assert!(counted.lines().any(|known| known == line), "{line} in {counted}");
    }
    node.stop().await;
}
