//! Small worlds of devices, made by chance from a number: what drivers have for a node, what of it is taken, and what claims
//! ask for.

use apimachinery::json;
use apimachinery::value::Value;

/// A generator whose numbers are the same everywhere: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// True in so many of a hundred cases.
    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

/// A world: `slices`, `classes`, `claims`, and `allocated`, of which others have each. Where devices consume counters, no claim
/// has constraints: upstream does not give the counters back of a device that a constraint is against.
pub(super) fn scenario(seed: u64) -> Value {
    let chance = &mut Chance(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let counters = chance.percent(35);
    let mut slices = Vec::new();
    let mut devices = Vec::new();
    for pool in 0..=1 + chance.below(3) {
        let driver = chance.one(&["gpu.example", "nic.example"]);
        slices.extend(self::pool(chance, driver, &format!("pool-{pool}"), counters, &mut devices));
    }
    let allocated: Vec<Value> = devices.iter().filter_map(|device| taken(chance, device)).collect();
    let claims: Vec<Value> = (0..=chance.below(2)).map(|i| claim(chance, i, !counters)).collect();
    json!({"slices": slices, "classes": classes(), "claims": claims, "allocated": allocated})
}

fn classes() -> Value {
    let class = |name: &str, selector: &str, config: Value| {
        json!({"metadata": {"name": name},
            "spec": {"selectors": [{"cel": {"expression": selector}}], "config": config}})
    };
    let config = json!([{"opaque": {"driver": "gpu.example", "parameters": {"a": 1}}}]);
    json!([
        class("any", "true", json!([])),
        class("gpu", "device.driver == 'gpu.example'", config),
        class("nic", "device.driver == 'nic.example'", json!([])),
    ])
}

fn placed(chance: &mut Chance) -> Value {
    match chance.below(10) {
        0..=4 => json!({"nodeName": "node"}),
        5 => json!({"nodeName": "other"}),
        6 | 7 => json!({"allNodes": true}),
        n => {
            let zone = if n == 8 { "a" } else { "b" };
            json!({"nodeSelector": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}})
        }
    }
}

fn merged(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn pool(
    chance: &mut Chance,
    driver: &str,
    pool: &str,
    counters: bool,
    devices: &mut Vec<Value>,
) -> Vec<Value> {
    let count = 1 + chance.below(2);
    let counted = counters && chance.percent(70);
    let told = count + u64::from(counted) + u64::from(chance.percent(8));
    let spec = |more: Value| {
        let named = json!({"name": pool, "generation": 1, "resourceSliceCount": told});
        merged(json!({"driver": driver, "pool": named}), more)
    };
    let mut slices = Vec::new();
    if counted {
        let amount = chance.one(&["2", "3", "6"]);
        let sets = json!([{"name": "set", "counters": {"slots": {"value": amount}}}]);
        slices.push(json!({"metadata": {"name": format!("{pool}-counters")},
            "spec": merged(spec(json!({"nodeName": "node"})), json!({"sharedCounters": sets}))}));
    }
    for i in 0..count {
        let by_device = chance.percent(20);
        let of_slice: Vec<Value> = (0..=1 + chance.below(3))
            .map(|j| {
                let device = device(chance, &format!("d{i}{j}"), counted);
                if by_device { merged(device, placed(chance)) } else { device }
            })
            .collect();
        for device in &of_slice {
            devices.push(json!({"driver": driver, "pool": pool, "device": device["name"],
                "shared": device["allowMultipleAllocations"]}));
        }
        let placed = if by_device { json!({"perDeviceNodeSelection": true}) } else { placed(chance) };
        slices.push(json!({"metadata": {"name": format!("{pool}-{i}")},
            "spec": merged(spec(placed), json!({"devices": of_slice}))}));
    }
    slices
}

fn device(chance: &mut Chance, name: &str, counted: bool) -> Value {
    let mut device = json!({"name": name, "attributes": {
        "model": {"string": chance.one(&["a", "b"])},
        "numa": {"int": chance.below(3)},
        "common.example/root": {"string": chance.one(&["x", "y"])},
    }});
    if chance.percent(40) {
        device["attributes"]["version"] = json!({"version": chance.one(&["1.0.0", "2.1.0"])});
    }
    if chance.percent(40) {
        let policy = match chance.below(4) {
            0 => json!({"default": "1", "validValues": ["1", "2", "4"]}),
            1 => json!({"default": "1", "validRange": {"min": "1", "max": "6", "step": "2"}}),
            _ => Value::Null,
        };
        device["capacity"] = json!({"memory": {"value": chance.one(&["4", "8"])}});
        let shared = chance.percent(60);
        if shared {
            device["allowMultipleAllocations"] = json!(true);
        }
        if shared && !policy.is_null() {
            device["capacity"]["memory"]["requestPolicy"] = policy;
        }
    }
    if counted && device["allowMultipleAllocations"].is_null() {
        let amount = chance.one(&["1", "2"]);
        device["consumesCounters"] = json!([{"counterSet": "set", "counters": {"slots": {"value": amount}}}]);
    } else if chance.percent(15) {
        let effect = chance.one(&["NoSchedule", "NoExecute", "None"]);
        device["taints"] = json!([{"key": "sick", "value": "yes", "effect": effect}]);
    }
    if chance.percent(10) {
        device["bindingConditions"] = json!(["ready"]);
        device["bindingFailureConditions"] = json!(["broken"]);
        device["bindsToNode"] = json!(chance.percent(50));
    }
    device
}

fn taken(chance: &mut Chance, device: &Value) -> Option<Value> {
    if !chance.percent(20) {
        return None;
    }
    let mut given = json!({"request": "r", "driver": device["driver"], "pool": device["pool"],
        "device": device["device"]});
    if device["shared"] == true {
        given["shareID"] = json!("0b9ba5a5-9d3b-4f9e-8c53-5f4a4f3f0a11");
        given["consumedCapacity"] = json!({"memory": chance.one(&["1", "2", "4"])});
    }
    Some(given)
}

const SELECTORS: [&str; 5] = [
    "device.attributes[device.driver].model == 'a'",
    "device.attributes['common.example'].root == 'x'",
    "device.attributes[device.driver].numa < 2",
    "device.allowMultipleAllocations",
    "'memory' in device.capacity[device.driver]",
];

fn exact(chance: &mut Chance) -> Value {
    let class = chance.one(&["any", "gpu", "nic"]);
    let mut exact = json!({"deviceClassName": class});
    if chance.percent(6) {
        exact["allocationMode"] = json!("All");
    } else {
        exact["allocationMode"] = json!("ExactCount");
        exact["count"] = json!(1 + chance.below(3) * chance.below(2));
    }
    if chance.percent(25) {
        let expression = if chance.percent(3) {
            "device.attributes['gpu.example'].model == 'a'"
        } else {
            chance.one(&SELECTORS)
        };
        exact["selectors"] = json!([{"cel": {"expression": expression}}]);
    }
    if chance.percent(20) {
        exact["tolerations"] = json!([{"key": "sick", "operator": "Exists"}]);
    }
    if chance.percent(12) {
        exact["capacity"] = json!({"requests": {"memory": chance.one(&["1", "2", "3", "5"])}});
    }
    exact
}

fn claim(chance: &mut Chance, number: u64, constrained: bool) -> Value {
    let mut requests = Vec::new();
    for i in 0..=chance.below(3) {
        let name = format!("r{i}");
        if chance.percent(25) {
            let subs = (0..2).map(|j| merged(exact(chance), json!({"name": format!("s{j}")})));
            requests.push(json!({"name": name, "firstAvailable": subs.collect::<Vec<_>>()}));
        } else {
            let mut exact = exact(chance);
            if chance.percent(8) {
                exact["adminAccess"] = json!(true);
            }
            requests.push(json!({"name": name, "exactly": exact}));
        }
    }
    let mut spec = json!({"requests": requests});
    if constrained && chance.percent(35) {
        let about = chance.one(&[json!([]), json!(["r0"]), json!(["r0/s1", "r1"])]);
        let attribute = chance.one(&["gpu.example/model", "common.example/root", "nic.example/numa"]);
        spec["constraints"] = json!([{"requests": about, "matchAttribute": attribute}]);
    }
    if chance.percent(20) {
        let about = chance.one(&[json!([]), json!(["r0"]), json!(["r0/s0"])]);
        spec["config"] = json!([{"requests": about,
            "opaque": {"driver": "gpu.example", "parameters": {"b": 2}}}]);
    }
    let name = format!("c{number}");
    json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"devices": spec}})
}
