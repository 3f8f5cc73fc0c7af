//! What the scheduler tells of itself under `/metrics`, on virtual time.
#![allow(clippy::unwrap_used)]

mod api;

use api::Api;
use apimachinery::json;
use apimachinery::value::Value;
use client::Client;
use component::gates::FeatureGates;
use component::metrics::Registry;
use expect_test::{Expect, expect};
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

struct Cluster {
    api: Api,
    registry: Registry,
    _running: DropGuard,
}

fn path(pod: &str) -> String {
    format!("/api/v1/namespaces/ns/pods/{pod}")
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "ns" },
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }],
        },
        "status": { "phase": "Pending" },
    })
}

impl Cluster {
    /// A node with two processors.
    fn start() -> Self {
        let api = Api::new();
        api.put(
            "/api/v1/nodes/a",
            json!({
                "metadata": { "name": "a" },
                "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "10" } },
            }),
        );
        let (stop, registry) = (CancellationToken::new(), Registry::new());
        let (client, ended) = (Client::new(Arc::new(api.clone()), "test"), stop.clone());
        let told = registry.clone();
        tokio::spawn(async move { scheduler::run(client, &FeatureGates::new(&[]), &told, ended).await });
        Cluster { api, registry, _running: stop.drop_guard() }
    }

    async fn is_bound(&self, pod: &str) {
        let on = |api: &Api| api.get(&path(pod)).is_some_and(|pod| pod["spec"]["nodeName"] == "a");
        self.api.until("the pod is bound", on).await;
    }

    async fn is_refused(&self, pod: &str) {
        let refused = |api: &Api| {
            let pod = api.get(&path(pod)).unwrap();
            pod["status"]["conditions"][0]["reason"] == "Unschedulable"
        };
        self.api.until("the pod is refused", refused).await;
    }

    /// What is told in families whose names begin so, but for what is a matter of time.
    fn check(&self, families: &[&str], expected: Expect) {
        let text = self.registry.render();
        let of_time = |line: &str| line.contains("_bucket{") || line.contains("_seconds_sum");
        let told = text.lines().filter(|line| families.iter().any(|family| line.starts_with(family)));
        let told: Vec<&str> = told.filter(|line| !of_time(line)).collect();
        expected.assert_eq(&told.join("\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_and_what_waits_is_counted() {
    let cluster = Cluster::start();
    cluster.api.put(&path("small"), pod("small", "1"));
    cluster.is_bound("small").await;
    cluster.api.put(&path("large"), pod("large", "8"));
    cluster.is_refused("large").await;
    let mut gated = pod("gated", "1");
    gated["spec"]["schedulingGates"] = json!([{ "name": "example.com/wait" }]);
    cluster.api.put(&path("gated"), gated);
    // The last that is put is seen after all before it.
    cluster.api.put(&path("last"), pod("last", "100m"));
    cluster.is_bound("last").await;
    cluster.check(
        &[
            "scheduler_pending_pods",
            "scheduler_queue_incoming_pods_total",
            "scheduler_schedule_attempts_total",
            "scheduler_scheduling_attempt_duration_seconds",
            "scheduler_unschedulable_pods",
            "scheduler_pod_scheduling",
            "scheduler_preemption_attempts",
            "scheduler_framework_extension_point_duration_seconds",
        ],
        expect![[r#"
            scheduler_framework_extension_point_duration_seconds_count{extension_point="Bind",profile="default-scheduler",status="Success"} 2
            scheduler_framework_extension_point_duration_seconds_count{extension_point="Filter",profile="default-scheduler",status="Success"} 3
            scheduler_framework_extension_point_duration_seconds_count{extension_point="PostFilter",profile="default-scheduler",status="Unschedulable"} 1
            scheduler_framework_extension_point_duration_seconds_count{extension_point="PreFilter",profile="default-scheduler",status="Success"} 3
            scheduler_framework_extension_point_duration_seconds_count{extension_point="Reserve",profile="default-scheduler",status="Success"} 2
            scheduler_pending_pods{queue="active"} 0
            scheduler_pending_pods{queue="backoff"} 0
            scheduler_pending_pods{queue="gated"} 1
            scheduler_pending_pods{queue="unschedulable"} 1
            scheduler_pod_scheduling_attempts_sum 2
            scheduler_pod_scheduling_attempts_count 2
            scheduler_pod_scheduling_sli_duration_seconds_count{attempts="1"} 2
            scheduler_preemption_attempts_total 1
            scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="active"} 3
            scheduler_queue_incoming_pods_total{event="ScheduleAttemptFailure",queue="unschedulable"} 1
            scheduler_queue_incoming_pods_total{event="UnschedulablePodAdd",queue="unschedulable"} 1
            scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 2
            scheduler_schedule_attempts_total{profile="default-scheduler",result="unschedulable"} 1
            scheduler_scheduling_attempt_duration_seconds_count{profile="default-scheduler",result="scheduled"} 2
            scheduler_scheduling_attempt_duration_seconds_count{profile="default-scheduler",result="unschedulable"} 1
            scheduler_unschedulable_pods{plugin="NodeResourcesFit",profile="default-scheduler"} 1
            scheduler_unschedulable_pods{plugin="SchedulingGates",profile="default-scheduler"} 1"#]],
    );
    cluster.api.remove(&path("gated"));
    cluster.api.remove(&path("large"));
    cluster.api.put(&path("end"), pod("end", "100m"));
    cluster.is_bound("end").await;
    cluster.check(
        &["scheduler_pending_pods", "scheduler_unschedulable_pods", "scheduler_cache_size"],
        expect![[r#"
            scheduler_cache_size{type="assumed_pods"} 0
            scheduler_cache_size{type="nodes"} 1
            scheduler_cache_size{type="pods"} 3
            scheduler_pending_pods{queue="active"} 0
            scheduler_pending_pods{queue="backoff"} 0
            scheduler_pending_pods{queue="gated"} 0
            scheduler_pending_pods{queue="unschedulable"} 0"#]],
    );
}
