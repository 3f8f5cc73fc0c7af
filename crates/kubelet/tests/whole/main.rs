//! A whole kubelet between a fake runtime and a fake API server: pods run, crash, end, are adopted. Needs root for cgroups.

mod api;

use api::Api;
use client::{Client, Informers};
use cri::RuntimeService as _;
use cri::fake::Runtime;
use futures::StreamExt as _;
use kubelet::{Config, Kubelet, Parts};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Node {
    api: Api,
    runtime: Runtime,
    dir: tempfile::TempDir,
    cgroup: String,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

impl Node {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let runtime = Runtime::new();
        runtime.set_now(now());
        let mut node = Node {
            api: Api::new(),
            runtime,
            dir: tempfile::tempdir().unwrap(),
            cgroup: format!("/kubelet-test-{}-{number}", std::process::id()),
            running: None,
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
        let shutdown = CancellationToken::new();
        let client = Client::new(Arc::new(self.api.clone()), "kubelet");
        let parts = Parts {
            informers: Informers::new(&client, shutdown.clone()),
            client,
            runtime: Arc::new(self.runtime.clone()),
            images: Arc::new(self.runtime.clone()),
            streams: None,
            serving: None,
        };
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { Kubelet::new(config, parts).run(stop).await.unwrap() });
        self.running = Some((shutdown, task));
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
        let pod = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name, "namespace": "default", "generation": 1 }, "spec": spec, "status": { "phase": "Pending" } });
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
        if tokio::time::timeout(Duration::from_secs(10), waiting).await.is_err() {
            panic!(
                "never: {what}\npods: {:#?}\nevents: {:#?}\ncalls: {:#?}",
                self.api.pod("web").map(|p| p.status),
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
    let mut going = node.api.get(path).unwrap();
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    going["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    node.api.put(path, going);
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
    node.stop().await;
}
