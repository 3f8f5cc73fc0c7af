//! What is not to be measured, and which values labels may have: the real binary.
#![allow(clippy::unwrap_used)]

mod server;

use expect_test::expect;
use server::Cluster;
use std::time::{Duration, Instant};

#[test]
fn a_server_measures_what_it_is_told_to() {
    let cluster = Cluster::with(&[
        "--disabled-metrics=apiserver_request_total,process_max_fds",
        "--disabled-metrics=unknown",
        r#"--allow-metric-labels="workqueue_depth,name=job","apiserver_current_inflight_requests,request_kind=mutating""#,
    ]);
    let metrics = cluster.run("1.36.4", &["get", "--raw", "/metrics"]);
    let shown = |names: &[&str]| {
        let of = |line: &&str| names.iter().any(|name| line.starts_with(name));
        metrics.lines().filter(of).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(shown(&["apiserver_request_total", "process_max_fds"]), "");
    expect![[r#"
        disabled_metrics_total 3
        hidden_metrics_total 2"#]]
    .assert_eq(&shown(&["disabled_metrics_total", "hidden_metrics_total"]));
    let names = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(&shown(&["workqueue_depth{"])),
        [r#"workqueue_depth{name="job"}"#, r#"workqueue_depth{name="unexpected"}"#]
    );
    let counted = shown(&["cardinality_enforcement_unexpected_categorizations_total"]);
    assert!(!counted.ends_with(" 0"), "{counted}");
}

#[test]
fn what_pods_ask_for_is_told() {
    let cluster = Cluster::new();
    let manifest = cluster.data().join("pod.yaml");
    let pod = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: kube-system}
spec:
  schedulerName: nobody
  priority: 0
  overhead: {cpu: 10m}
  runtimeClassName: heavy
  initContainers:
  - {name: first, image: busybox, resources: {requests: {memory: 64Mi}}}
  containers:
  - {name: a, image: busybox, resources: {requests: {cpu: 100m, memory: 16Mi}, limits: {memory: 32Mi, example.com/thing: "2"}}}
  - {name: b, image: busybox, resources: {requests: {cpu: 400m}}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: heavy}
handler: heavy
overhead: {podFixed: {cpu: 10m}}
"#;
    let (pod, class) = pod.split_once("---").unwrap();
    for document in [class, pod] {
        std::fs::write(&manifest, document).unwrap();
        // The namespace has its service account a moment after the server is ready.
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let (done, text) = cluster.try_run("1.36.4", &["create", "-f", manifest.to_str().unwrap()]);
            if done {
                break;
            }
            assert!(text.contains("no service account") || text.contains("serviceaccount"), "{text}");
            assert!(Instant::now() < until, "{text}");
        }
    }
    let told = cluster.run("1.36.4", &["get", "--raw", "/metrics/resources"]);
    let values: Vec<&str> = told.lines().filter(|line| !line.starts_with('#')).collect();
    let of = |family: &str, resource: &str, unit: &str, value: &str| {
        format!(
            r#"{family}{{namespace="kube-system",node="",pod="web",priority="0",resource="{resource}",scheduler="nobody",unit="{unit}"}} {value}"#
        )
    };
    assert_eq!(
        values,
        [
            of("kube_pod_resource_limit", "example.com/thing", "", "2"),
            of("kube_pod_resource_limit", "memory", "bytes", "3.3554432e+07"),
            of("kube_pod_resource_request", "cpu", "cores", "0.51"),
            of("kube_pod_resource_request", "example.com/thing", "", "2"),
            of("kube_pod_resource_request", "memory", "bytes", "6.7108864e+07"),
        ]
    );
}
