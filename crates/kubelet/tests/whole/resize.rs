//! Resizing in place: what is asked for is allocated, brought to the runtime and told; what does not fit waits.

use crate::{Node, container};
use apimachinery::json;
use apimachinery::value::Value;

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
            .map(|name| {
                apimachinery::value::to_value(list.get(name)).unwrap().as_str().unwrap_or("-").to_owned()
            })
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
    node.counts(&[
        "kubelet_container_requested_resizes_total{operation=\"increase\",requirement=\"limits\",resource=\"cpu\"} 2",
        "kubelet_container_requested_resizes_total{operation=\"increase\",requirement=\"requests\",resource=\"memory\"} 1",
        "kubelet_pod_resize_duration_milliseconds_count{success=\"true\"} 2",
        "kubelet_pod_pending_resizes{reason=\"deferred\"} 1",
        "kubelet_pod_in_progress_resizes 0",
    ])
    .await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_waits_for_room_and_refuses_what_never_comes() {
    let mut node = Node::with(|config| {
        config.cpu_manager_policy = kubelet::cpus::Policy::Static;
        config.reserved_cpus = "0".parse().unwrap();
    });
    let with = |resources: Value| {
        let mut one = container("a");
        one["resources"] = resources;
        json!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 0, "containers": [one] })
    };
    let memory = |size: &str| json!({ "requests": { "memory": size } });
    node.create("web", with(resources("100m", "64Mi")));
    node.until("ready", |n| n.ready("web")).await;
    ask(&node, 2, &resources("200m", "64Mi"));
    let never =
        "Infeasible Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\" 2";
    node.until("infeasible", |n| condition(n, "PodResizePending").as_deref() == Some(never)).await;
    node.until("told", |n| {
        n.api.events().iter().any(|event| event.starts_with("ResizeInfeasible: Pod resize Infeasible: {"))
    })
    .await;
    node.counts(&[
        "kubelet_pod_infeasible_resizes_total{reason_detail=\"guaranteed_pod_cpu_manager_static_policy\"} 1",
        "kubelet_pod_pending_resizes{reason=\"infeasible\"} 1",
    ])
    .await;
    // What it has is all it gets, and it may take that back.
    ask(&node, 3, &resources("100m", "64Mi"));
    node.until("nothing waits", |n| condition(n, "PodResizePending").is_none()).await;

    // Another has the room, until it goes.
    let end = |name: &str| {
        let going = |mut pod: Value| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            pod
        };
        node.api.edit(&format!("/api/v1/namespaces/default/pods/{name}"), going).unwrap();
    };
    end("web");
    node.until("gone", |n| n.phase("web") == "gone").await;
    let object = node.api.get("/api/v1/nodes/n1").unwrap();
    let text = object["status"]["allocatable"]["memory"].as_str().unwrap().to_owned();
    let all = text.trim_end_matches("Ki").parse::<u64>().unwrap();
    node.create("web", with(memory("64Mi")));
    node.create("large", with(memory(&format!("{}Ki", all / 2))));
    node.until("both are ready", |n| n.ready("web") && n.ready("large")).await;
    let wanted = memory(&format!("{}Ki", all - (16 << 10)));
    ask(&node, 2, &wanted);
    let waits = |n: &Node| condition(n, "PodResizePending").is_some_and(|c| c.starts_with("Deferred "));
    node.until("deferred", waits).await;
    end("large");
    node.until("it has the room", |n| condition(n, "PodResizePending").is_none()).await;
    let (_, metrics) = node.get(Some("admin"), "/metrics").await;
    // Whichever was seen first: that the other has ended, or that it is gone.
    let accepted = "kubelet_pod_deferred_accepted_resizes_total{retry_trigger=\"pod";
    assert!(metrics.lines().any(|line| line.starts_with(accepted) && line.ends_with(" 1")), "{metrics}");
    node.stop().await;
}
