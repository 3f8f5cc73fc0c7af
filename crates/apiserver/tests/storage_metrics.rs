//! What is counted of the store: requests, lists, events, sizes, under upstream's names.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::storage::metrics;
use component::metrics::Registry;
use expect_test::expect;
use http::Method;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_is_asked_for_is_counted() {
    let house = house::house().await;
    let registry = Registry::new();
    let served = &house.server.registry;
    metrics::register(&registry, &served.store, &served.resources);
    for name in ["a", "b", "c"] {
        house.json(Method::POST, MAPS, json!({"metadata": {"name": name}})).await;
    }
    // Nobody writes what is there, what is not, or what is as it was.
    house.json(Method::POST, MAPS, json!({"metadata": {"name": "a"}})).await;
    house.json(Method::PUT, &format!("{MAPS}/none"), json!({"metadata": {"name": "none"}})).await;
    house.json(Method::PUT, &format!("{MAPS}/a"), json!({"metadata": {"name": "a"}})).await;
    house
        .json(Method::PUT, &format!("{MAPS}/a"), json!({"metadata": {"name": "a"}, "data": {"k": "v"}}))
        .await;
    house.json(Method::DELETE, &format!("{MAPS}/b"), Value::Null).await;
    house.get(MAPS).await;
    let page = house.get(&format!("{MAPS}?limit=1")).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    house.get(&format!("{MAPS}?limit=1&continue={token}")).await;
    house.get(&format!("{MAPS}?labelSelector=x")).await;
    let text = registry.render();
    let shown: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("configmaps") && !line.contains("_bucket") && !line.contains("_sum"))
        .filter(|line| !line.contains("size_estimate") && !line.contains("resource_version"))
        .collect();
    expect![[r#"
        apiserver_cache_list_fetched_objects_total{group="",index="",resource="configmaps"} 5
        apiserver_cache_list_returned_objects_total{group="",resource="configmaps"} 3
        apiserver_cache_list_total{group="",index="",resource="configmaps"} 3
        apiserver_resource_objects{group="",resource="configmaps"} 2
        apiserver_storage_events_received_total{group="",resource="configmaps"} 5
        apiserver_storage_list_evaluated_objects_total{group="",resource="configmaps"} 1
        apiserver_storage_list_fetched_objects_total{group="",resource="configmaps"} 1
        apiserver_storage_list_returned_objects_total{group="",resource="configmaps"} 1
        apiserver_storage_list_total{group="",resource="configmaps"} 1
        apiserver_storage_objects{resource="configmaps"} 2
        apiserver_watch_cache_consistent_read_total{fallback="false",group="",resource="configmaps",success="true"} 3
        apiserver_watch_cache_events_dispatched_total{group="",resource="configmaps"} 5
        apiserver_watch_cache_events_received_total{group="",resource="configmaps"} 5
        apiserver_watch_cache_initializations_total{group="",resource="configmaps"} 1
        apiserver_watch_cache_read_wait_seconds_count{group="",resource="configmaps"} 3
        etcd_request_duration_seconds_count{group="",operation="create",resource="configmaps"} 4
        etcd_request_duration_seconds_count{group="",operation="delete",resource="configmaps"} 1
        etcd_request_duration_seconds_count{group="",operation="get",resource="configmaps"} 4
        etcd_request_duration_seconds_count{group="",operation="list",resource="configmaps"} 1
        etcd_request_duration_seconds_count{group="",operation="update",resource="configmaps"} 1
        etcd_request_errors_total{group="",operation="create",resource="configmaps"} 0
        etcd_request_errors_total{group="",operation="delete",resource="configmaps"} 0
        etcd_request_errors_total{group="",operation="get",resource="configmaps"} 0
        etcd_request_errors_total{group="",operation="list",resource="configmaps"} 0
        etcd_request_errors_total{group="",operation="update",resource="configmaps"} 0
        etcd_requests_total{group="",operation="create",resource="configmaps"} 4
        etcd_requests_total{group="",operation="delete",resource="configmaps"} 1
        etcd_requests_total{group="",operation="get",resource="configmaps"} 4
        etcd_requests_total{group="",operation="list",resource="configmaps"} 1
        etcd_requests_total{group="",operation="update",resource="configmaps"} 1
        watch_cache_capacity{group="",resource="configmaps"} 100000"#]].assert_eq(&shown.join("\n"));
    let size = text.lines().find(|line| line.starts_with("apiserver_storage_size_bytes{")).unwrap();
    let bytes: f64 = size.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(bytes, served.store.stats().file_bytes as f64);
}
