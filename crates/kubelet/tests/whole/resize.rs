//! Resizing in place: what is asked for is allocated, brought to the runtime and told; what does not fit waits.

use crate::{Node, container};
use serde_json::{Value, json};

fn resources(cpu: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } })
}

/// As the API server answers a change of `pods/resize`.
fn ask(node: &Node, generation: i64, resources: &Value) {
    let path = "/api/v1/namespaces/default/pods/web";
    let mut pod = node.api.get(path).unwrap();
    pod["metadata"]["generation"] = json!(generation);
    pod["spec"]["containers"][0]["resources"] = resources.clone();
    node.api.put(path, pod);
}

fn condition(node: &Node, type_: &str) -> Option<String> {
    let pod = node.api.pod("web")?;
    let found = pod.status.conditions.iter().find(|c| c.type_ == type_)?;
    Some(format!("{} {} {}", found.reason, found.message, found.observed_generation))
}

fn in_force(node: &Node) -> String {
    let Some(pod) = node.api.pod("web") else { return String::new() };
    let Some(status) = pod.status.container_statuses.first() else { return String::new() };
    let limits = status.resources.clone().unwrap_or_default().limits;
    let show = |list: &std::collections::BTreeMap<String, _>| {
        ["cpu", "memory"]
            .map(|name| serde_json::to_value(list.get(name)).unwrap().as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    format!("{} of {} restarts {}", show(&limits), show(&status.allocated_resources), status.restart_count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_resizes_in_place() {
    let mut node = Node::new();
    let mut one = container("a");
    one["resources"] = resources("100m", "64Mi");
    one["resizePolicy"] = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    node.create("web", json!({ "restartPolicy": "Always", "containers": [one] }));
    node.until("ready", |n| n.ready("web")).await;
    assert_eq!(in_force(&node), "100m 64Mi of 100m 64Mi restarts 0");

    node.runtime.take_calls();
    ask(&node, 2, &resources("200m", "64Mi"));
    node.until("more processor time", |n| in_force(n) == "200m 64Mi of 200m 64Mi restarts 0").await;
    node.until("told", |n| n.api.events().iter().any(|e| e.starts_with("ResizeCompleted"))).await;
    node.until("done", |n| condition(n, "PodResizeInProgress").is_none()).await;
    let calls = node.runtime.take_calls();
    assert_eq!(calls.iter().filter(|c| c.starts_with("update_container_resources")).count(), 1, "{calls:?}");
    assert!(!calls.iter().any(|c| c.starts_with("stop_container")), "{calls:?}");
    let summary = r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"200m","memory":"64Mi"}}}],"generation":2}"#;
    for want in ["ResizeStarted: Pod resize started", "ResizeCompleted: Pod resize completed"] {
        let want = format!("{want}: {summary}");
        assert!(node.api.events().contains(&want), "{want} in {:#?}", node.api.events());
    }

    // More memory takes a restart, as its policy says.
    ask(&node, 3, &resources("200m", "128Mi"));
    node.until("more memory", |n| in_force(n) == "200m 128Mi of 200m 128Mi restarts 1").await;
    node.until("told why", |n| {
        n.api.events().iter().any(|e| e == "Killing: Container a resize requires restart")
    })
    .await;

    // What the node does not have waits, while the pod goes on with what it has; also over a restart of the kubelet.
    ask(&node, 4, &resources("1000", "128Mi"));
    let waits = |n: &Node| {
        condition(n, "PodResizePending").is_some_and(|c| {
            c.starts_with(
                "Deferred Node didn't have enough resource: cpu, requested: 1000000, used: 0, capacity: ",
            ) && c.ends_with(" 4")
        })
    };
    node.until("deferred", waits).await;
    assert_eq!(in_force(&node), "200m 128Mi of 200m 128Mi restarts 1");
    node.stop().await;
    node.runtime.take_calls();
    node.start();
    node.create("later", json!({ "restartPolicy": "Never", "containers": [container("b")] }));
    node.until("the new kubelet works", |n| n.ready("later")).await;
    assert_eq!(in_force(&node), "200m 128Mi of 200m 128Mi restarts 1");
    let calls = node.runtime.take_calls();
    assert!(!calls.iter().any(|c| c.starts_with("update_container_resources")), "{calls:?}");
    assert!(waits(&node), "{:?}", condition(&node, "PodResizePending"));

    // Asking for less again ends the waiting.
    ask(&node, 5, &resources("150m", "128Mi"));
    node.until("less", |n| in_force(n) == "150m 128Mi of 150m 128Mi restarts 1").await;
    node.until("nothing waits", |n| condition(n, "PodResizePending").is_none()).await;
    node.stop().await;
}
