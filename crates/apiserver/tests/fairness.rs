//! Priority and fairness through the server: who floods it does not drown others, and everybody is told what classified them.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::clock::SystemClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::flowcontrol::Flow;
use apiserver::flowcontrol::controller::Controller;
use apiserver::flowcontrol::max_in_flight::MaxInFlight;
use apiserver::gate::{Gate, Limit};
use client::{Client, Informers};
use component::metrics::Registry;
use house::{House, house_behind};
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server with so many seats, of which a level with queues has most.
async fn fair(seats: u32) -> (Arc<House>, Registry, CancellationToken) {
    let registry = Registry::new();
    let clock = Arc::new(SystemClock::default());
    let flow = Arc::new(Flow::new(seats, Duration::from_secs(60), &registry, clock));
    let gate = Gate { limit: Limit::Fair(flow.clone()), ..Gate::default() };
    let house = house_behind(gate).await;
    let level = json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 100,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 32, "handSize": 4, "queueLengthLimit": 10}},
    }}});
    assert_eq!(house.json(Method::POST, &format!("{GROUP}/prioritylevelconfigurations"), level).await.0, 201);
    let schema = |name: &str, level: &str, precedence: i32, subject: Value| {
        json!({"metadata": {"name": name}, "spec": {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "Group", "group": subject}],
                "resourceRules": [{
                    "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
                }],
            }],
        }})
    };
    let everybody = json!({"name": "system:authenticated"});
    for schema in
        [schema("all", "narrow", 1000, everybody.clone()), schema("lost", "nowhere", 900, everybody)]
    {
        assert_eq!(house.json(Method::POST, &format!("{GROUP}/flowschemas"), schema).await.0, 201);
    }
    let shutdown = CancellationToken::new();
    let client = Client::new(Arc::new(house.client.clone()), "kube-apiserver");
    let informers = Informers::new(&client, shutdown.clone());
    let server = house.server.clone();
    let controller =
        Controller::start(flow, server.registry.clone(), &informers, client, &Default::default()).await;
    tokio::spawn(controller.run(shutdown.clone()));
    (Arc::new(house), registry, shutdown)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_does_not_drown_a_trickle() {
    let (house, registry, shutdown) = fair(3).await;
    let stop = CancellationToken::new();
    let (served, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let flood = (0..120).map(|client| {
        let (house, stop) = (house.clone(), stop.clone());
        let (served, refused) = (served.clone(), refused.clone());
        tokio::spawn(async move {
            for n in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                let map = json!({"metadata": {"name": format!("flood-{client}-{n}")}});
                let answer = house.outside("flood", Method::POST, MAPS, map).await;
                let count = if answer.status() == 429 { &refused } else { &served };
                count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        })
    });
    let flood: Vec<_> = flood.collect();
    let mut between = Vec::new();
    while refused.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    for n in 0..20 {
        let before = served.load(Ordering::Relaxed);
        let map = json!({"metadata": {"name": format!("trickle-{n}")}});
        let answer = house.outside("trickle", Method::POST, MAPS, map).await;
        assert_eq!(answer.status(), 201, "{:?}", answer.body());
        between.push(served.load(Ordering::Relaxed) - before);
    }
    stop.cancel();
    futures::future::join_all(flood).await;
    // Forty of the flood wait at any time; in one line, all of them would have been served first.
    between.sort_unstable();
    assert!(between[10] < 20, "served of the flood between sending and being served: {between:?}");
    let text = registry.render();
    assert!(
        text.contains(
            "rejected_requests_total{flow_schema=\"all\",priority_level=\"narrow\",reason=\"queue-full\"}"
        ),
        "{text}"
    );
    shutdown.cancel();
}

/// Follows an object until it says something.
async fn until(house: &House, resource: &str, name: &str, what: &str) -> String {
    use http_body_util::BodyExt as _;
    let path = format!("{GROUP}/{resource}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut watch = house.client_watch(&path).await.into_body();
    loop {
        let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        if text.contains(what) {
            return text;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_told_what_classified_them() {
    let (house, _, shutdown) = fair(100).await;
    let answer = house.outside("jo", Method::GET, MAPS, Value::Null).await;
    let uid = |path: &str| {
        let house = house.clone();
        let path = format!("{GROUP}/{path}");
        async move { house.get(&path).await["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    assert_eq!(answer.headers()["x-kubernetes-pf-flowschema-uid"], uid("flowschemas/all").await);
    let level = uid("prioritylevelconfigurations/narrow").await;
    assert_eq!(answer.headers()["x-kubernetes-pf-prioritylevel-uid"], level);
    let table =
        house.send(Method::GET, "/debug/api_priority_and_fairness/dump_queues", &[], Value::Null).await;
    assert_eq!(table.body().iter().filter(|byte| **byte == b'\n').count(), 33);
    // A schema that leads nowhere says so.
    let text = until(&house, "flowschemas", "lost", "there is no such object").await;
    assert!(text.contains("api-priority-and-fairness-config-consumer-v1"), "{text}");
    // What every cluster has is made.
    until(&house, "prioritylevelconfigurations", "exempt", "\"type\":\"Exempt\"").await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fairness_there_is_a_limit() {
    let gate = Gate { limit: Limit::MaxInFlight(MaxInFlight::new(1, 1)), ..Gate::default() };
    let house = house_behind(gate).await;
    // Two at once: one may have ended before the other begins, a hundred not.
    let maps = (0..100)
        .map(|n| house.outside("jo", Method::POST, MAPS, json!({"metadata": {"name": format!("m{n}")}})));
    let answers = futures::future::join_all(maps).await;
    let refused = answers.iter().find(|answer| answer.status() == 429).unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.body(), "Too many requests, please try again later.\n");
    assert!(answers.iter().any(|answer| answer.status() == 201));
}
