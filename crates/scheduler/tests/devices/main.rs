//! Which devices claims get.
#![allow(clippy::unwrap_used)]

#[path = "../small_clusters/mod.rs"]
mod small_clusters;

mod decisions;
mod features;
mod scenarios;
mod verdicts;

use api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use apimachinery::json;
use apimachinery::value::{Value, from_value};
use client::{ObjectKey, Projection};
use scheduler::devices::allocate::Refused;
use scheduler::devices::rows::{Claim, ClassRow, Slice};
use scheduler::devices::{Devices, Features};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What upstream's allocator answered to the scenarios, a line each.
const RECORDED: &str = include_str!("recorded.txt");

pub(crate) fn devices(world: &Value) -> Devices {
    devices_with(world, Features::default())
}

pub(crate) fn devices_with(world: &Value, features: Features) -> Devices {
    let mut devices = Devices::new(features);
    for slice in world["slices"].as_array().into_iter().flatten() {
        let slice: ResourceSlice = from_value(slice.clone()).unwrap();
        devices.set_slice(Arc::new(Slice::of(&slice)));
    }
    for class in world["classes"].as_array().into_iter().flatten() {
        let class: DeviceClass = from_value(class.clone()).unwrap();
        devices.set_class(ClassRow::project(&class));
    }
    for (i, given) in world["allocated"].as_array().into_iter().flatten().enumerate() {
        let name = format!("other-{i}");
        let claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
            "status": {"allocation": {"devices": {"results": [given]}}}});
        devices.set_claim(&ObjectKey::new("ns", &name), Arc::new(claim_of(&claim)), 1);
    }
    devices
}

pub(crate) fn claim_of(claim: &Value) -> Claim {
    Claim::of(&from_value::<ResourceClaim>(claim.clone()).unwrap())
}

fn joined(values: &[String]) -> String {
    values.join(",")
}

/// All that was allocated, in short.
fn told(claim: &Claim, given: &AllocationResult) -> String {
    let devices = given.devices.results.iter().map(|d| {
        let mut told = format!("{}={}/{}/{}", d.request, d.driver, d.pool, d.device);
        told.extend(d.admin_access.map(|_| '!'));
        told.extend(d.share_id.as_ref().map(|_| '*'));
        d.consumed_capacity.iter().for_each(|(name, amount)| told += &format!("+{name}:{amount}"));
        if !d.binding_conditions.is_empty() {
            told += &format!("?{}", d.binding_conditions.join("&"));
        }
        told
    });
    let mut line = format!("{}: {}", claim.name, devices.collect::<Vec<_>>().join(" "));
    for config in &given.devices.config {
        line += &format!(" {}({})", config.source, joined(&config.requests));
    }
    for term in given.node_selector.iter().flat_map(|selector| &selector.node_selector_terms) {
        term.match_fields.iter().for_each(|f| line += &format!(" at {}={}", f.key, joined(&f.values)));
        term.match_expressions.iter().for_each(|e| line += &format!(" in {}={}", e.key, joined(&e.values)));
    }
    line
}

fn answer(world: &Value) -> String {
    answer_with(world, Features::default())
}

pub(crate) fn answer_with(world: &Value, features: Features) -> String {
    answer_of(&devices_with(world, features), world)
}

pub(crate) fn answer_of(devices: &Devices, world: &Value) -> String {
    let labels = json!({"zone": "a", "name": "node"});
    let cache = small_clusters::cluster(&[json!({"metadata": {"name": "node", "labels": labels}})], &[]);
    let claims: Vec<Claim> = world["claims"].as_array().unwrap().iter().map(claim_of).collect();
    let claims: Vec<&Claim> = claims.iter().collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    match devices.allocate(cache.node("node").unwrap(), &claims, Some(deadline)) {
        Ok(given) => {
            let lines = claims.iter().zip(&given).map(|(claim, given)| told(claim, given));
            lines.collect::<Vec<_>>().join("; ")
        }
        Err(Refused::Here("cannot allocate all claims")) => "none".into(),
        Err(Refused::Here(why)) => format!("error: {why}"),
        Err(Refused::Everywhere(why)) => format!("error: {why}"),
    }
}

/// With `SCENARIOS` set to a file, writes the scenarios there, a line each, for who is to answer them. What was answered
/// replaces `recorded.txt`.
#[test]
fn as_upstream_allocates() {
    let count = RECORDED.lines().count() as u64;
    if let Some(path) = std::env::var_os("SCENARIOS") {
        let lines: String = (0..1900).map(|seed| format!("{}\n", scenarios::scenario(seed))).collect();
        return std::fs::write(path, lines).unwrap();
    }
    assert!(count >= 1000, "{count}");
    let mut wrong = Vec::new();
    for (seed, recorded) in (0..).zip(RECORDED.lines()) {
        let answered = answer(&scenarios::scenario(seed));
        if answered != recorded {
            wrong.push(format!("{seed}\n  upstream {recorded}\n  ours     {answered}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}
