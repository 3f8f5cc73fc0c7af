//! What Services take: addresses with their objects, and node ports; given out once, whoever asks, and given back.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::clock::SystemClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::services::{PortRange, Ranges, Repair};
use expect_test::{Expect, expect};
use futures::future::join_all;
use house::{House, house, over};
use http::Method;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

async fn range(house: &House, name: &str, cidr: &str) {
    let object = json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}});
    let (code, made) = house.json(Method::POST, RANGES, object).await;
    assert_eq!(code, 201, "{made}");
}

async fn ready() -> House {
    let house = house().await;
    range(&house, "kubernetes", "10.96.0.0/16").await;
    house
}

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn create(house: &House, name: &str, spec: Value) -> (u16, Value) {
    house.json(Method::POST, SERVICES, service(name, spec)).await
}

async fn created(house: &House, name: &str, spec: Value) -> Value {
    let (code, made) = create(house, name, spec).await;
    assert_eq!(code, 201, "{made}");
    made
}

async fn addresses(house: &House) -> Vec<String> {
    let listed = house.get(ADDRESSES).await;
    let items = listed["items"].as_array().unwrap().iter();
    items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

async fn refused(house: &House, spec: Value, expected: Expect) {
    let (_, status) = create(house, "refused", spec).await;
    expected.assert_eq(status["message"].as_str().unwrap_or("it was not refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_comes_and_goes_with_its_service() {
    let house = ready().await;
    let made = created(&house, "web", json!({})).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(made["spec"]["clusterIPs"], json!([ip]));
    assert_eq!(
        (&made["spec"]["ipFamilies"], &made["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    let address = house.get(&format!("{ADDRESSES}/{ip}")).await;
    assert_eq!(
        address["spec"],
        json!({"parentRef": {"resource": "services", "namespace": "default", "name": "web"}})
    );
    assert_eq!(
        address["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    // One transaction wrote both.
    assert_eq!(address["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let (code, _) = house.json(Method::DELETE, &format!("{SERVICES}/web"), Value::Null).await;
    assert_eq!((code, addresses(&house).await.len()), (200, 0));

    let chosen = created(&house, "chosen", json!({"clusterIP": "10.96.0.77"})).await;
    assert_eq!(chosen["spec"]["clusterIPs"], json!(["10.96.0.77"]));
    created(&house, "headless", json!({"clusterIP": "None"})).await;
    created(&house, "picky", json!({"clusterIP": "None", "selector": {"a": "b"}})).await;
    created(&house, "name", json!({"type": "ExternalName", "externalName": "example.com"})).await;
    assert_eq!(addresses(&house).await, ["10.96.0.77"]);
    let headless = house.get(&format!("{SERVICES}/headless")).await;
    assert_eq!(headless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(house.get(&format!("{SERVICES}/picky")).await["spec"]["ipFamilies"], json!(["IPv4"]));

    refused(&house, json!({"clusterIP": "10.96.0.77"}), expect![[r#"Service "refused" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.77"]: failed to allocate IP 10.96.0.77: provided IP is already allocated"#]]).await;
    refused(&house, json!({"clusterIP": "10.97.0.1"}), expect![[r#"Service "refused" is invalid: spec.clusterIPs: Invalid value: ["10.97.0.1"]: failed to allocate IP 10.97.0.1: the provided network does not match the current range"#]]).await;
    refused(&house, json!({"clusterIP": "10.96.0.0"}), expect![[r#"Service "refused" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.0"]: failed to allocate IP 10.96.0.0: the provided network does not match the current range"#]]).await;
    refused(&house, json!({"clusterIP": "ten"}), expect![[r#"Service "refused" is invalid: spec.clusterIPs[0]: Invalid value: "ten": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#]]).await;
    refused(&house, json!({"clusterIP": "fd00::1"}), expect![[r#"Service "refused" is invalid: spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster"#]]).await;
    refused(&house, json!({"clusterIPs": ["10.96.0.78"]}), expect![[r#"Service "refused" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.78"]: must be empty when `clusterIP` is not specified"#]]).await;
    refused(&house, json!({"ipFamilyPolicy": "RequireDualStack"}), expect![[r#"Service "refused" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#]]).await;
    refused(&house, json!({"ipFamilies": ["IPv6"]}), expect![[r#"Service "refused" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#]]).await;
    // What is refused afterwards has taken nothing.
    refused(&house, json!({"sessionAffinity": "x"}), expect![[r#"Service "refused" is invalid: spec.sessionAffinity: Unsupported value: "x": supported values: "ClientIP", "None""#]]).await;
    assert_eq!(addresses(&house).await, ["10.96.0.77"]);

    // A name becomes a service with an address, and a name again.
    let change = |spec: Value| json!({"spec": spec});
    let merge = "application/merge-patch+json";
    let path = format!("{SERVICES}/name");
    let (code, now) = house
        .call(Method::PATCH, &path, merge, change(json!({"type": "ClusterIP", "externalName": null})))
        .await;
    assert_eq!(code, 200, "{now}");
    let ip = now["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(addresses(&house).await.contains(&ip));
    let (code, now) = house
        .call(
            Method::PATCH,
            &path,
            merge,
            change(json!({"type": "ExternalName", "externalName": "example.com"})),
        )
        .await;
    assert_eq!(code, 200, "{now}");
    assert!(now["spec"]["clusterIP"].is_null() && now["spec"]["ipFamilies"].is_null(), "{now}");
    assert_eq!(addresses(&house).await, ["10.96.0.77"]);

    // Who does not repeat the address keeps it; nobody changes it.
    let path = format!("{SERVICES}/chosen");
    let (code, now) =
        house.json(Method::PUT, &path, service("chosen", json!({"ports": [{"port": 81}]}))).await;
    assert_eq!((code, &now["spec"]["clusterIP"]), (200, &json!("10.96.0.77")), "{now}");
    let (code, status) =
        house.json(Method::PUT, &path, service("chosen", json!({"clusterIP": "10.96.0.78"}))).await;
    assert_eq!(code, 422);
    expect![[r#"Service "chosen" is invalid: spec.clusterIPs[0]: Invalid value: ["10.96.0.78"]: may not change once set"#]].assert_eq(status["message"].as_str().unwrap());
    assert_eq!(addresses(&house).await, ["10.96.0.77"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ports_come_and_go_with_their_service() {
    let house = ready().await;
    let path = |name: &str| format!("{SERVICES}/{name}");
    let port = |number: u16| json!([{"port": 80, "nodePort": number}]);
    let made = created(&house, "web", json!({"type": "NodePort"})).await;
    let given = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30086..=32767).contains(&given));
    created(&house, "fixed", json!({"type": "NodePort", "ports": port(30001)})).await;
    refused(&house, json!({"type": "NodePort", "ports": port(30001)}), expect![[r#"Service "refused" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"#]]).await;
    refused(&house, json!({"type": "NodePort", "ports": port(80)}), expect![[r#"Service "refused" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"#]]).await;
    // A dry run takes nothing, and says no port that there could be.
    let dry = format!("{SERVICES}?dryRun=All");
    let (code, tried) = house.json(Method::POST, &dry, service("dry", json!({"type": "NodePort"}))).await;
    assert_eq!((code, &tried["spec"]["ports"][0]["nodePort"]), (201, &json!(32769)));
    assert_eq!(addresses(&house).await.len(), 2);
    // Without a type that has ports it gives its port back, and somebody else takes it.
    let merge = "application/merge-patch+json";
    let plain = json!({"spec": {"type": "ClusterIP"}});
    let (code, now) = house.call(Method::PATCH, &path("fixed"), merge, plain).await;
    assert_eq!((code, &now["spec"]["ports"][0]["nodePort"]), (200, &Value::Null), "{now}");
    created(&house, "second", json!({"type": "NodePort", "ports": port(30001)})).await;
    house.json(Method::DELETE, &path("second"), Value::Null).await;
    created(&house, "third", json!({"type": "NodePort", "ports": port(30001)})).await;
    // The port of a service that says nothing of it stays.
    let (code, now) =
        house.json(Method::PUT, &path("web"), service("web", json!({"type": "NodePort"}))).await;
    assert_eq!((code, &now["spec"]["ports"][0]["nodePort"]), (200, &json!(given)), "{now}");
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let balanced = created(&house, "balanced", local).await;
    let health = balanced["spec"]["healthCheckNodePort"].as_u64().unwrap();
    let (code, now) = house
        .call(Method::PATCH, &path("balanced"), merge, json!({"spec": {"externalTrafficPolicy": "Cluster"}}))
        .await;
    assert_eq!((code, &now["spec"]["healthCheckNodePort"]), (200, &Value::Null), "{now}");
    created(&house, "health", json!({"type": "NodePort", "ports": port(u16::try_from(health).unwrap())}))
        .await;
}

/// Two servers give out all of a small range, and the same port, at once.
async fn two_servers_give_out_everything_once(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    let houses = [over(one, "10.96.0.0/16", None).await, over(other, "10.96.0.0/16", None).await];
    let namespace = json!({"metadata": {"name": "default"}});
    assert_eq!(houses[0].json(Method::POST, "/api/v1/namespaces", namespace).await.0, 201);
    range(&houses[0], "kubernetes", "10.96.0.0/28").await;
    for house in &houses {
        // Both know the range and the namespace.
        let revision = houses[0].get("/api/v1/namespaces/default").await;
        let newest =
            house.server.registry.store.consistent_snapshot("/registry/servicecidrs/").await.unwrap();
        assert!(
            newest.revision.0 >= revision["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        );
    }
    let wishes = (0..24_usize).map(|index| {
        let house = &houses[index % 2];
        async move { create(house, &format!("s{index}"), json!({})).await }
    });
    let outcomes = join_all(wishes).await;
    let given: Vec<String> = outcomes
        .iter()
        .filter(|(code, _)| *code == 201)
        .map(|(_, made)| made["spec"]["clusterIP"].as_str().unwrap().to_owned())
        .collect();
    let distinct: HashSet<&String> = given.iter().collect();
    assert_eq!((given.len(), distinct.len()), (14, 14), "a /28 has fourteen: {outcomes:?}");
    for (code, status) in outcomes.iter().filter(|(code, _)| *code != 201) {
        assert!(*code == 500 && status["message"].as_str().unwrap().ends_with("range is full"), "{status}");
    }
    for index in 0..24 {
        houses[index % 2].json(Method::DELETE, &format!("{SERVICES}/s{index}"), Value::Null).await;
    }
    let wishes = (0..12_usize).map(|index| {
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000 + index / 4}]});
        let house = &houses[index % 2];
        async move { create(house, &format!("p{index}"), spec).await.0 }
    });
    let mut codes = join_all(wishes).await;
    codes.sort_unstable();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 3, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 422).count(), 9, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_store() {
    let home = tempfile::tempdir().unwrap();
    let store = store::embedded::Embedded::open(home.path(), Default::default()).unwrap();
    two_servers_give_out_everything_once(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_agree_is_put_right() {
    let house = house().await;
    let client = client::Client::new(Arc::new(house.client.clone()), "repair");
    let (clock, metrics) = (Arc::new(SystemClock::default()), component::metrics::Registry::new());
    let ranges = Ranges::new("10.96.0.0/16", PortRange::default(), None).unwrap();
    let mut repair = Repair::new(house.stock.clone(), &client, clock, &ranges, &metrics);
    repair.once().await;
    assert!(metrics.render().contains("apiserver_nodeport_repair_reconcile_errors_total 0"));
    let range = house.get(&format!("{RANGES}/kubernetes")).await;
    assert_eq!(range["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    let condition = &range["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["message"]),
        (&json!("Ready"), &json!("True"), &json!("Kubernetes default Service CIDR is ready"))
    );
    let made = created(&house, "web", json!({})).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let stop = CancellationToken::new();
    let store = house.server.registry.store.clone();
    let mut watch = store.watch("/registry/ipaddresses/", store.revision()).unwrap();
    let path = format!("{ADDRESSES}/{ip}");
    let mut repair = Some(repair);
    let mut running = None;
    // Somebody deletes the address of a service before anybody watches, and again: it comes back.
    for _ in 0..2 {
        assert_eq!(house.json(Method::DELETE, &path, Value::Null).await.0, 200);
        if let Some(repair) = repair.take() {
            running = Some(tokio::spawn(repair.run(stop.clone())));
        }
        let mut events = Vec::new();
        while events.len() < 2 {
            let batch = tokio::time::timeout(Duration::from_secs(10), watch.next_batch()).await.unwrap();
            events.extend(batch.unwrap());
        }
        assert_eq!(house.get(&path).await["spec"]["parentRef"]["name"], "web");
    }
    stop.cancel();
    running.unwrap().await.unwrap();
}

#[tokio::test]
async fn what_is_given_is_counted() {
    let house = ready().await;
    range(&house, "small", "10.97.0.0/29").await;
    created(&house, "a", json!({})).await;
    created(&house, "b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]})).await;
    created(&house, "c", json!({"clusterIP": "10.97.0.1"})).await;
    created(&house, "d", json!({"type": "NodePort"})).await;
    for spec in [
        // Its address was found before its port was not, and is free again.
        json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]}),
        json!({"clusterIP": "10.97.0.1"}),
        // Of no range: nobody's mistake.
        json!({"clusterIP": "10.98.0.1"}),
        json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
    ] {
        assert_eq!(create(&house, "refused", spec).await.0, 422);
    }
    // Nothing is taken where nothing is kept.
    let dry = format!("{SERVICES}?dryRun=All");
    assert_eq!(house.json(Method::POST, &dry, service("dry", json!({"type": "NodePort"}))).await.0, 201);
    let text = house.server.metrics.render();
    let shown =
        |line: &&str| line.contains("_allocator_") && !line.contains("_bucket") && !line.contains("_sum");
    expect![[r##"
        # HELP kube_apiserver_clusterip_allocator_allocated_ips [ALPHA] Gauge measuring the number of allocated IPs for Services
        # TYPE kube_apiserver_clusterip_allocator_allocated_ips gauge
        kube_apiserver_clusterip_allocator_allocated_ips{cidr="10.96.0.0/16"} 3
        kube_apiserver_clusterip_allocator_allocated_ips{cidr="10.97.0.0/29"} 1
        # HELP kube_apiserver_clusterip_allocator_allocation_duration_seconds [ALPHA] Duration in seconds to allocate a Cluster IP by ServiceCIDR
        # TYPE kube_apiserver_clusterip_allocator_allocation_duration_seconds histogram
        kube_apiserver_clusterip_allocator_allocation_duration_seconds_count{cidr="10.96.0.0/16"} 5
        kube_apiserver_clusterip_allocator_allocation_duration_seconds_count{cidr="10.97.0.0/29"} 1
        # HELP kube_apiserver_clusterip_allocator_allocation_errors_total [ALPHA] Number of errors trying to allocate Cluster IPs
        # TYPE kube_apiserver_clusterip_allocator_allocation_errors_total counter
        kube_apiserver_clusterip_allocator_allocation_errors_total{cidr="10.97.0.0/29",scope="static"} 1
        # HELP kube_apiserver_clusterip_allocator_allocation_total [ALPHA] Number of Cluster IPs allocations
        # TYPE kube_apiserver_clusterip_allocator_allocation_total counter
        kube_apiserver_clusterip_allocator_allocation_total{cidr="10.96.0.0/16",scope="dynamic"} 4
        kube_apiserver_clusterip_allocator_allocation_total{cidr="10.96.0.0/16",scope="static"} 1
        kube_apiserver_clusterip_allocator_allocation_total{cidr="10.97.0.0/29",scope="static"} 1
        # HELP kube_apiserver_clusterip_allocator_available_ips [ALPHA] Gauge measuring the number of available IPs for Services
        # TYPE kube_apiserver_clusterip_allocator_available_ips gauge
        kube_apiserver_clusterip_allocator_available_ips{cidr="10.96.0.0/16"} 65531
        kube_apiserver_clusterip_allocator_available_ips{cidr="10.97.0.0/29"} 5
        # HELP kube_apiserver_nodeport_allocator_allocated_ports [ALPHA] Gauge measuring the number of allocated NodePorts for Services
        # TYPE kube_apiserver_nodeport_allocator_allocated_ports gauge
        kube_apiserver_nodeport_allocator_allocated_ports 2
        # HELP kube_apiserver_nodeport_allocator_allocation_errors_total [ALPHA] Number of errors trying to allocate NodePort
        # TYPE kube_apiserver_nodeport_allocator_allocation_errors_total counter
        kube_apiserver_nodeport_allocator_allocation_errors_total{scope="static"} 2
        # HELP kube_apiserver_nodeport_allocator_allocation_total [ALPHA] Number of NodePort allocations
        # TYPE kube_apiserver_nodeport_allocator_allocation_total counter
        kube_apiserver_nodeport_allocator_allocation_total{scope="dynamic"} 1
        kube_apiserver_nodeport_allocator_allocation_total{scope="static"} 1
        # HELP kube_apiserver_nodeport_allocator_available_ports [ALPHA] Gauge measuring the number of available NodePorts for Services
        # TYPE kube_apiserver_nodeport_allocator_available_ports gauge
        kube_apiserver_nodeport_allocator_available_ports 2766
    "##]]
        .assert_eq(&text.lines().filter(shown).map(|line| format!("{line}\n")).collect::<String>());
    // A Service that goes gives back what it had.
    assert_eq!(house.json(Method::DELETE, &format!("{SERVICES}/b"), Value::Null).await.0, 200);
    let text = house.server.metrics.render();
    for line in [
        "kube_apiserver_clusterip_allocator_allocated_ips{cidr=\"10.96.0.0/16\"} 2",
        "kube_apiserver_nodeport_allocator_allocated_ports 1",
        "kube_apiserver_nodeport_allocator_available_ports 2767",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
