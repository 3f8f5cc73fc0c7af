//! How long it takes to decide where a pod goes that claims devices:
//! `cargo run --release -p scheduler --example devices_bench [NODES] [DEVICES] [SORTS]`, in a world of 1,000 nodes with 8 devices
//! each, until there are none left, with claims of one sort. Each row is about the decisions of a tenth of the pods.

use api::core::v1::{Node, Pod};
use api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use apimachinery::decode::Decode;
use apimachinery::json;
use apimachinery::value::Value;
use client::source::Raw;
use client::{Cached, ObjectKey, Projection as _};
use scheduler::cache::Cache;
use scheduler::decide::place;
use scheduler::devices::rows::{Claim, ClassRow, Slice};
use scheduler::facts::{NodeFacts, PodFacts, PodInfo};
use scheduler::framework::Cycle;
use scheduler::stopwatch::Stopwatch;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn typed<T: Decode>(value: Value) -> T {
    apimachinery::value::typed(&value).expect("an object")
}

fn world(nodes: usize, devices: usize) -> Cache {
    let mut cache = Cache::default();
    for i in 0..nodes {
        let name = format!("node-{i:05}");
        let allocatable = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
        let node: Node = typed(json!({"metadata": {"name": name}, "status": {"allocatable": allocatable}}));
        cache.set_node(&name, &NodeFacts::project(&node));
        let device = |d: usize| {
            json!({"name": format!("gpu-{d}"), "capacity": {"memory": {"value": "80Gi"}},
                "attributes": {"model": {"string": "large"}, "index": {"int": d}}})
        };
        let slice: ResourceSlice = typed(json!({"metadata": {"name": name}, "spec": {
            "driver": "gpu.example", "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": (0..devices).map(device).collect::<Vec<_>>()}}));
        cache.surroundings.devices.set_slice(Arc::new(Slice::of(&slice)));
    }
    let selector = json!([{"cel": {"expression": "device.driver == 'gpu.example'"}}]);
    let class: DeviceClass = typed(json!({"metadata": {"name": "gpu"}, "spec": {"selectors": selector}}));
    cache.surroundings.devices.set_class(ClassRow::project(&class));
    cache
}

/// A pod, and the claim that it names: for one device of a model. Claims of each sort say it in other words.
fn pod(i: usize, sort: usize) -> (PodInfo, ObjectKey, Claim) {
    let name = format!("pod-{i:06}");
    let wanted = format!("device.attributes['gpu.example'].model == 'large' && {sort} >= 0");
    let model = json!([{"cel": {"expression": wanted}}]);
    let exact =
        json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": model});
    let claim: ResourceClaim =
        typed(json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("claim-{i}")},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exact}]}}}));
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
    let pod: Pod = typed(json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": containers, "resourceClaims": [{"name": "gpu", "resourceClaimName": name}]}}));
    let key = ObjectKey::new("ns", &name);
    let raw = Raw { key: key.clone(), revision: 1, bytes: Vec::new().into() };
    let facts = Arc::new(Cached { raw, uid: name.as_str().into(), projection: PodFacts::project(&pod) });
    (PodInfo { pod, facts }, key, Claim::of(&claim))
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().expect("a number"));
    let nodes = numbers.next().unwrap_or(1000);
    let devices = numbers.next().unwrap_or(8);
    let sorts = numbers.next().unwrap_or(1).max(1);
    let mut cache = world(nodes, devices);
    let pods = nodes * devices;
    println!("{nodes} nodes with {devices} devices each, {sorts} sorts of claims");
    let (mut spent, mut longest, mut since) = (Duration::ZERO, Duration::ZERO, 0);
    for i in 0..pods {
        let (pod, key, claim) = pod(i, i % sorts);
        cache.surroundings.devices.set_claim(&key, Arc::new(claim), i as u64 + 1);
        let began = Instant::now();
        let placed = place(Cycle { pod: &pod, cache: &cache }, 0, &mut Stopwatch::default());
        let took = began.elapsed();
        let placed = placed.expect("a node");
        let reservation = placed.reservation.expect("devices");
        reservation.assume(&mut cache.surroundings, &placed.node);
        cache.assume(&pod.facts, &placed.node);
        (spent, longest, since) = (spent + took, longest.max(took), since + 1);
        if (i + 1) % (pods / 10).max(1) == 0 {
            let each = spent / since;
            let rate = 1.0 / each.as_secs_f64();
            println!("{:3} % taken: {each:?} each, {longest:?} at most; {rate:.0}/s", (i + 1) * 100 / pods);
            (spent, longest, since) = (Duration::ZERO, Duration::ZERO, 0);
        }
    }
}
