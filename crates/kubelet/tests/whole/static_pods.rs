//! Static pods: seen as soon as their manifest is there, left alone by a restart of the kubelet, and never two of one name.

use crate::{Node, container};
use apimachinery::json;
use std::path::PathBuf;

/// How often the kubelet looks when it cannot watch.
const POLL: std::time::Duration = std::time::Duration::from_secs(20);

fn manifests(node: &Node) -> PathBuf {
    node.dir.path().join("etc/kubernetes/manifests")
}

/// Writes the manifest, whole or not at all.
fn write(node: &Node, command: &str) {
    let mut one = container("a");
    one["command"] = json!([command]);
    one["ports"] = json!([{ "containerPort": 80, "hostPort": 8080 }]);
    let spec = json!({ "containers": [one], "terminationGracePeriodSeconds": 0 });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "watch" }, "spec": spec });
    let new = node.dir.path().join("new");
    std::fs::write(&new, pod.to_string()).unwrap();
    std::fs::rename(new, manifests(node).join("watch.yaml")).unwrap();
}

/// The command of the only container, which runs.
fn command(node: &Node) -> String {
    let made: Vec<_> = node.runtime.containers().into_values().collect();
    let commands: Vec<String> = made.iter().flat_map(|made| made.config.command.clone()).collect();
    commands.join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_runs_what_manifests_say() {
    let mut node = Node::with(|config| {
        config.static_pod_path = Some(config.root_dir.with_file_name("etc").join("kubernetes/manifests"));
    });
    node.until("the node", |n| n.api.get("/api/v1/nodes/n1").is_some()).await;
    // Nothing on the way to the directory is there yet.
    let began = std::time::Instant::now();
    std::fs::create_dir_all(manifests(&node)).unwrap();
    write(&node, "first");
    node.until("ready", |n| n.ready("watch-n1")).await;
    assert!(began.elapsed() < POLL / 2, "it was looked for, not seen");
    let first = node.runtime.container_named("a").unwrap();

    // A restart of the kubelet is none of the pod's business.
    node.stop().await;
    node.runtime.take_calls();
    node.start();
    node.create("later", json!({ "restartPolicy": "Always", "containers": [container("b")] }));
    node.until("the new kubelet works", |n| n.ready("later")).await;
    let touched: Vec<String> = node.runtime.take_calls();
    assert!(!touched.iter().any(|call| call.starts_with("stop_")), "{touched:?}");
    assert_eq!(node.runtime.container_named("a").unwrap(), first);

    // Another manifest of the same name, with the same port: it waits until the other has gone.
    write(&node, "second");
    node.until("the second runs", |n| command(n) == "second" && n.ready("watch-n1")).await;
    assert!(!node.api.events().iter().any(|event| event.starts_with("NodePorts")), "{:?}", node.api.events());

    // The same again, while it ends.
    let uid = node.api.pod("watch-n1").unwrap().metadata.uid;
    node.runtime.take_calls();
    std::fs::remove_file(manifests(&node).join("watch.yaml")).unwrap();
    node.until("it goes", |n| n.api.pod("watch-n1").is_none_or(|pod| pod.metadata.uid != uid)).await;
    write(&node, "second");
    node.until("it is there again", |n| command(n) == "second" && n.ready("watch-n1")).await;
    // With the directory goes the pod; and it comes back with it.
    std::fs::remove_dir_all(manifests(&node)).unwrap();
    node.until("gone", |n| n.phase("watch-n1") == "gone").await;
    std::fs::create_dir_all(manifests(&node)).unwrap();
    write(&node, "third");
    node.until("the third runs", |n| command(n) == "third" && n.ready("watch-n1")).await;
    assert!(began.elapsed() < POLL, "it was looked for, not seen");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_removes_what_is_left_of_pods() {
    let mut node = Node::new();
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let uid = node.api.pod("web").unwrap().metadata.uid;
    node.stop().await;
    let (pods, logs) = (node.dir.path().join("kubelet/pods"), node.dir.path().join("pods"));
    let left = pods.join("long-gone/volumes/kubernetes.io~empty-dir/v");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("file"), "left").unwrap();
    let left = logs.join("default_old_long-gone/a");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::create_dir_all(logs.join("somebody-elses")).unwrap();
    node.start();
    node.create("later", json!({ "restartPolicy": "Always", "containers": [container("b")] }));
    node.until("the new kubelet works", |n| n.ready("later")).await;
    // Pods start first, what is left of others goes then.
    let gone = async {
        while pods.join("long-gone").exists() || logs.join("default_old_long-gone").exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), gone).await.expect("what is left goes");
    assert!(pods.join(&uid).exists() && logs.join(format!("default_web_{uid}")).exists());
    assert!(logs.join("somebody-elses").exists());
    node.counts(&["kubelet_orphan_pod_cleaned_volumes 1", "kubelet_orphan_pod_cleaned_volumes_errors 0"])
        .await;
    node.stop().await;
}
