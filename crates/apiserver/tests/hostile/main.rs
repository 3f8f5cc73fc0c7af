//! Hostile requests: grammatical ones that mean nothing, broken ones, and noise, over every served resource, in every
//! encoding. Whatever comes is answered by a `Status`; nothing panics, nothing is answered with an undesigned 5xx, and
//! nothing is left behind in memory.
//!
//! A case is made of the seed and its number alone: `TIPHYS_HOSTILE=100000 TIPHYS_HOSTILE_SEED=7 cargo test -p apiserver
//! --test hostile` asks longer and otherwise, `TIPHYS_HOSTILE_CASE=4711` shows what one case says.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod addresses;
mod bodies;
mod dice;
#[path = "../house/mod.rs"]
mod house;
mod requests;
#[path = "../pairs/sample.rs"]
mod sample;
#[path = "../pairs/seeds.rs"]
#[allow(dead_code)] // The pairs need all of them.
mod seeds;
mod trees;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::gate::Gate;
use apiserver::handlers::Encodings;
use apiserver::resources::Served;
use bytes::Bytes;
use dice::Dice;
use futures::{FutureExt as _, StreamExt as _};
use house::House;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use requests::Ground;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many are under way at a time, and after how many what they made is removed.
const TOGETHER: usize = 16;
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ROUND: u64 = 500;
/// What may be in memory at the end beyond what was there after half of the cases.
const GROWTH_KIB: u64 = 48 << 10;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_answered() {
    let (cases, seed) = (variable("TIPHYS_HOSTILE", 2_000), variable("TIPHYS_HOSTILE_SEED", 1));
    let panics = count_panics();
    let gate = Gate { encodings: Encodings::WithCbor, ..Gate::default() };
    let house = house::house_behind(gate).await;
    house.define(sprockets()).await;
    let namespace = json!({"metadata": {"name": "hostile"}});
    assert_eq!(house.json(Method::POST, "/api/v1/namespaces", namespace).await.0, 201);
    let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}});
    assert_eq!(house.json(Method::POST, RANGES, range).await.0, 201);
    let ground = Ground::new(sorted(house.server.registry.resources.all()));
    if let Ok(case) = std::env::var("TIPHYS_HOSTILE_CASE") {
        return show(&house, &ground, seed, case.parse().unwrap()).await;
    }
    let (mut codes, mut bad, mut halfway) = (BTreeMap::<u16, u64>::new(), Vec::new(), 0);
    for round in (0..cases).step_by(ROUND as usize) {
        let ask = |case| {
            let (house, ground) = (&house, &ground);
            async move { (case, answer(house, ground.request(&mut Dice::new(seed, case))).await) }
        };
        let mut answers =
            futures::stream::iter(round..(round + ROUND).min(cases)).map(ask).buffer_unordered(TOGETHER);
        while let Some((case, (code, body))) = answers.next().await {
            *codes.entry(code.as_u16()).or_default() += 1;
            if code.is_server_error() && !is_designed(&body) {
                bad.push(format!("case {case}: {code} {}", String::from_utf8_lossy(&body)));
            }
        }
        remove_all(&house, &ground.resources).await;
        if round < cases / 2 {
            halfway = resident_kib();
        }
    }
    let grown = resident_kib().saturating_sub(halfway);
    println!("{cases} cases: {codes:?}; {halfway} KiB, then {grown} KiB more");
    assert!(bad.is_empty(), "{} undesigned answers\n{}", bad.len(), bad[..bad.len().min(20)].join("\n"));
    assert_eq!(panics.load(Ordering::SeqCst), 0, "something panicked");
    assert!(grown < GROWTH_KIB, "{grown} KiB grown");
}

/// What a request comes to: all of its answer, or of one that goes on what is there at once.
async fn answer(house: &House, request: Request<Bytes>) -> (StatusCode, Vec<u8>) {
    let told = format!("{} {}", request.method(), request.uri());
    let request = request.map(apiserver::body::full);
    let serving = house.server.clone().serve(request, Arc::default());
    let response = tokio::time::timeout(Duration::from_secs(30), serving).await;
    let (parts, mut body) = response.unwrap_or_else(|_| panic!("{told} was not answered")).into_parts();
    let goes_on = http_body::Body::size_hint(&body).exact().is_none();
    let mut bytes = Vec::new();
    loop {
        let frame = if goes_on { body.frame().now_or_never().flatten() } else { body.frame().await };
        match frame {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            _ => return (parts.status, bytes),
        }
    }
}

/// Whether an answer of the five hundreds is as it should be: what is asked for is yet to come, or not set up here.
fn is_designed(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    ["Too large resource version", "this API server issues no tokens"]
        .iter()
        .any(|known| text.contains(known))
}

async fn show(house: &House, ground: &Ground, seed: u64, case: u64) {
    let request = ground.request(&mut Dice::new(seed, case));
    println!("{request:#?}\n{}", String::from_utf8_lossy(request.body()));
    let (code, body) = answer(house, request).await;
    println!("{code}\n{}", String::from_utf8_lossy(&body));
}

/// Removes what was made, so that quotas, policies and webhooks of one round do not keep the next from getting anywhere.
async fn remove_all(house: &House, resources: &[Arc<Served>]) {
    for resource in resources.iter().filter(|r| r.row.allows("deletecollection") && r.custom.is_none()) {
        let row = &resource.row;
        let root = if row.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", row.group) };
        let within = if row.namespaced { "/namespaces/hostile" } else { "" };
        let path = format!("{root}/{}{within}/{}?gracePeriodSeconds=0", row.version, row.resource);
        if !["customresourcedefinitions", "servicecidrs", "ipaddresses"].contains(&row.resource.as_ref()) {
            house.json(Method::DELETE, &path, Value::Null).await;
        }
    }
}

fn sorted(mut resources: Vec<Arc<Served>>) -> Vec<Arc<Served>> {
    resources.sort_by_key(|r| (r.api_version.clone(), r.row.resource.to_string()));
    resources
}

/// A custom kind that has a bit of everything.
fn sprockets() -> Value {
    let spec = json!({"type": "object", "properties": {
        "count": {"type": "integer", "minimum": 0, "default": 1},
        "pattern": {"type": "string", "pattern": "^(a+)+$", "maxLength": 40},
        "when": {"type": "string", "format": "date-time"},
        "anything": {"x-kubernetes-preserve-unknown-fields": true, "type": "object"},
        "either": {"x-kubernetes-int-or-string": true},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "maxItems": 20},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "maxItems": 20,
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 20}}}},
    }, "x-kubernetes-validations": [{"rule": "!has(self.count) || self.count < 1000", "message": "too many"}]});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}}});
    json!({"metadata": {"name": "sprockets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "sprockets", "kind": "Sprocket"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count"}}}]}})
}

/// Counts panics of every thread, beside telling them.
fn count_panics() -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let (counted, tell) = (count.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        counted.fetch_add(1, Ordering::SeqCst);
        tell(panic);
    }));
    count
}

/// What this process has in memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
