//! What is remembered of nodes is what looking anew would find, whatever has changed since.

use crate::scenarios::scenario;
use crate::small_clusters::cluster;
use crate::{claim_of, devices};
use api::resource::v1::{DeviceClass, ResourceSlice};
use apimachinery::json;
use apimachinery::value::{Value, from_value};
use client::Projection as _;
use scheduler::cache::Cache;
use scheduler::devices::rows::{Claim, ClassRow, Slice};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn zoned(cache: &mut Cache, zone: &str) {
    let of = |name: &str, zone: &str| json!({"metadata": {"name": name, "labels": {"zone": zone}}});
    let devices = std::mem::take(&mut cache.surroundings.devices);
    *cache = cluster(&[of("node", zone), of("other", "b")], &[]);
    cache.surroundings.devices = devices;
}

/// Asks for each node twice: what is answered then is remembered.
fn check(cache: &Cache, claims: &[&Claim], after: &str) {
    let devices = &cache.surroundings.devices;
    let known = devices.known(claims);
    for name in ["node", "other"] {
        let node = cache.node(name).unwrap();
        let look = || {
            let deadline = Instant::now() + Duration::from_secs(60);
            devices.allocate(node, claims, Some(deadline)).map(drop)
        };
        for _ in 0..2 {
            assert_eq!(devices.has(node, &known, look), look(), "{name} after {after}");
        }
    }
}

fn story(seed: u64) {
    let world = scenario(seed);
    let mut cache = Cache::default();
    cache.surroundings.devices = devices(&world);
    zoned(&mut cache, "a");
    let claims: Vec<Claim> = world["claims"].as_array().unwrap().iter().map(claim_of).collect();
    let claims: Vec<&Claim> = claims.iter().collect();
    check(&cache, &claims, "the beginning");
    let node = cache.node("node").unwrap();
    let found = cache.surroundings.devices.allocate(node, &claims, None);
    for (i, given) in found.unwrap_or_default().into_iter().enumerate() {
        let uid = format!("flying-{i}");
        cache.surroundings.devices.fly(&uid, &Arc::new(given));
        check(&cache, &claims, "devices were taken");
        if i == 0 {
            cache.surroundings.devices.land(&uid);
            check(&cache, &claims, "devices were given back");
        }
    }
    let read = |slice: &Value| from_value::<ResourceSlice>(slice.clone()).unwrap();
    for slice in world["slices"].as_array().unwrap() {
        cache.surroundings.devices.remove_slice(&read(slice).metadata.name);
        check(&cache, &claims, "a slice went");
        let mut moved = slice.clone();
        if moved["spec"]["nodeName"] == "node" {
            moved["spec"]["nodeName"] = "other".into();
        }
        for slice in [&moved, slice] {
            cache.surroundings.devices.set_slice(Arc::new(Slice::of(&read(slice))));
            check(&cache, &claims, "a slice came");
        }
    }
    zoned(&mut cache, "b");
    check(&cache, &claims, "a node changed");
    let none = json!([{"cel": {"expression": "false"}}]);
    let class: DeviceClass =
        from_value(json!({"metadata": {"name": "any"}, "spec": {"selectors": none}})).unwrap();
    cache.surroundings.devices.set_class(ClassRow::project(&class));
    check(&cache, &claims, "a class changed");
}

#[test]
fn what_is_remembered_is_so() {
    (0..250).for_each(story);
}
