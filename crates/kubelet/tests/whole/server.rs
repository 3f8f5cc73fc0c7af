//! What the kubelet's server gives beside logs: checkpoints, the node's own logs, and what it counts.

use crate::{Node, container};
use apimachinery::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_serves_the_nodes_logs_and_checkpoints() {
    let mut node = Node::with(|config| {
        config.system_log_query = true;
        config.system_logs_dir = config.root_dir.join("logs");
    });
    node.create("web", json!({ "restartPolicy": "Always", "containers": [container("a")] }));
    node.until("ready", |n| n.ready("web")).await;
    let logs = node.dir.path().join("kubelet/logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(logs.join("rudder.log"), "hard to port\n").unwrap();
    assert_eq!(node.get(None, "/logs/").await.0, 401);
    assert_eq!(node.get(Some("mallory"), "/logs/rudder.log").await.0, 403);
    assert_eq!(node.get(Some("admin"), "/logs/rudder.log").await, (200, "hard to port\n".into()));
    assert!(node.get(Some("admin"), "/logs/").await.1.contains("<a href=\"rudder.log\">rudder.log</a>"));
    assert_eq!(node.get(Some("admin"), "/logs/?query=rudder").await, (200, "hard to port\n".into()));
    assert_eq!(node.get(Some("admin"), "/logs/?query=/rudder.log").await, (200, "hard to port\n".into()));
    assert_eq!(
        node.get(Some("admin"), "/logs/?query=sail").await,
        (200, "\nlog not found for sail\n".into())
    );
    let (code, why) = node.get(Some("admin"), "/logs/?query=$(reboot)").await;
    assert_eq!(
        (code, why.as_str()),
        (406, "query: Invalid value: \"$(reboot)\": input contains unsupported characters\n")
    );

    let checkpoint = async |path: &str| node.send("POST", Some("admin"), path).await;
    assert_eq!(node.get(Some("admin"), "/checkpoint/default/web/a").await.0, 405);
    assert_eq!(checkpoint("/checkpoint/default/none/a").await, (404, "pod does not exist".into()));
    assert_eq!(checkpoint("/checkpoint/default/web/b").await, (404, "container b does not exist".into()));
    assert_eq!(
        checkpoint("/checkpoint/default/web/a?timeout=soon").await,
        (404, "cannot parse value of timeout parameter".into())
    );
    let (code, why) = checkpoint("/checkpoint/default/web/a").await;
    let wanted = "checkpointing of default/web/a failed (rpc error: code = Unimplemented desc = unknown method CheckpointContainer";
    assert!(code == 500 && why.starts_with(wanted), "{code} {why}");

    let (_, metrics) = node.get(Some("admin"), "/metrics").await;
    for wanted in [
        "kubelet_pod_start_sli_duration_seconds_count 1",
        "kubelet_pod_start_total_duration_seconds_count 1",
        "kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"} 1",
        "kubelet_pod_worker_start_duration_seconds_count 1",
        "kubelet_containers_per_pod_count_count 1",
        "kubelet_working_pods{config=\"desired\",lifecycle=\"sync\",static=\"\"} 1",
    ] {
        assert!(metrics.lines().any(|line| line == wanted), "{wanted} in {metrics}");
    }
    let logs = "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"logs\",server_type=\"readwrite\"} 8";
    node.counts(&[
        logs,
        "kubelet_http_inflight_requests{long_running=\"false\",method=\"GET\",path=\"metrics\",server_type=\"readwrite\"} 1",
        "kubelet_http_requests_duration_seconds_count{long_running=\"false\",method=\"POST\",path=\"checkpoint\",server_type=\"readwrite\"} 4",
        "kubelet_image_manager_ensure_image_requests_total{present_locally=\"false\",pull_policy=\"ifnotpresent\",pull_required=\"true\"} 1",
        "kubelet_imagemanager_ondisk_pullintents 0",
        "kubelet_imagemanager_ondisk_pulledrecords 1",
        "kubelet_metrics_provider{provider=\"cri\"} 1",
        "kubelet_orphan_pod_cleaned_volumes 0",
        "kubelet_lifecycle_handler_http_fallbacks_total 0",
    ])
    .await;
    for positive in [
        "kubelet_certificate_manager_server_ttl_seconds ",
        "kubelet_node_startup_duration_seconds ",
        "kubelet_node_startup_pre_kubelet_duration_seconds ",
        "kubelet_node_startup_pre_registration_duration_seconds ",
        "kubelet_node_startup_registration_duration_seconds ",
        "kubelet_node_startup_post_registration_duration_seconds ",
        "kubelet_first_network_pod_start_sli_duration_seconds ",
        "kubelet_pleg_pod_relist_duration_seconds_count ",
        "kubelet_container_log_filesystem_used_bytes{container=\"a\",namespace=\"default\",pod=\"web\",uid=",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(positive));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value > 0.0), "{positive} in {metrics}");
    }
    node.runtime.exit(&node.runtime.container_named("a").unwrap(), 3);
    let counted = "kubelet_terminated_containers_total{container_type=\"container\",exit_code=\"3\"";
    node.until("restarted", |n| {
        n.api.pod("web").is_some_and(|pod| pod.status.container_statuses[0].restart_count == 1)
    })
    .await;
    let (_, metrics) = node.get(Some("admin"), "/metrics").await;
    assert!(metrics.lines().any(|line| line.starts_with(counted) && line.ends_with(" 1")), "{metrics}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_shows_nothing_when_told_so() {
    let mut node = Node::with(|config| {
        (config.debugging_handlers, config.system_log_handler) = (false, false);
    });
    node.until("the node", |n| n.api.get("/api/v1/nodes/n1").is_some()).await;
    let disabled = (405, "Debug endpoints are disabled.\n".to_owned());
    assert_eq!(node.get(Some("admin"), "/containerLogs/default/web/a").await, disabled);
    assert_eq!(node.get(Some("admin"), "/logs/").await, disabled);
    assert_eq!(node.get(Some("admin"), "/metrics").await.0, 200);
    node.stop().await;
}
