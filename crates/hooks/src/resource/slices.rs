//! The rules of resource slices: pools, devices, their attributes, capacities, counters and taints.

use super::validation::{EFFECTS, binding, label_value, limited, pool_name, qualified, set};
use crate::check::{Check, label, subdomain};
use crate::core::pod_validation::validate_node_selector;
use crate::core::validate_driver_name;
use crate::shown::shown_typed;
use crate::tree::typed;
use api::resource::v1::{CapacityRequestPolicy, Device, DeviceAttribute, DeviceTaint, ResourceSlice};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::validation::validate_label_name;
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;

const MAX_TAINTS: usize = 16;
const MAX_DEVICES: usize = 128;
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_ATTRIBUTES: usize = 32;
const MAX_ATTRIBUTE_VALUES: usize = 48;
const MAX_VALUE: usize = 64;
const MAX_OPTIONS: usize = 10;

pub(super) fn validate_slice(slice: &Value) -> ErrorList {
    slice_rules(slice, None)
}

pub(super) fn validate_slice_update(slice: &Value, old: &Value) -> ErrorList {
    slice_rules(slice, Some(old))
}

fn slice_rules(slice: &Value, old: Option<&Value>) -> ErrorList {
    let mut check = Check::default();
    let slice: ResourceSlice = typed(slice);
    let (path, spec) = (Path::new("spec"), &slice.spec);
    let pool = path.child("pool");
    validate_driver_name(&mut check, &path.child("driver"), &spec.driver);
    pool_name(&mut check, &pool.child("name"), &spec.pool.name);
    if spec.pool.resource_slice_count <= 0 {
        let at = pool.child("resourceSliceCount");
        check.invalid(&at, spec.pool.resource_slice_count, "must be greater than zero");
    }
    if spec.pool.generation < 0 {
        let at = pool.child("generation");
        check.invalid(&at, spec.pool.generation, "must be greater than or equal to zero");
    }
    let was: Option<ResourceSlice> = old.map(typed);
    if let Some(was) = &was {
        let immutable = "field is immutable";
        if was.spec.pool.name != spec.pool.name {
            check.invalid(&pool.child("name"), spec.pool.name.as_str(), immutable);
        }
        if was.spec.driver != spec.driver {
            check.invalid(&path.child("driver"), spec.driver.as_str(), immutable);
        }
        if was.spec.node_name != spec.node_name {
            check.invalid(&path.child("nodeName"), BadValue::json(&spec.node_name), immutable);
        }
    }
    let mut chosen = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => {
            let why = "must be either unset or set to a non-empty string";
            check.invalid(&path.child("nodeName"), "", why);
        }
        Some(name) => {
            chosen.push("`nodeName`");
            check.keeps(&path.child("nodeName"), name, subdomain);
        }
    }
    if let Some(selector) = &spec.node_selector {
        chosen.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        validate_node_selector(&mut check.0, selector, &at);
        if selector.node_selector_terms.len() != 1 {
            let why = "must have exactly one node selector term";
            let shown = match selector.node_selector_terms.as_slice() {
                [] => BadValue::verbatim("null"),
                terms => BadValue::json(terms),
            };
            check.invalid(&at.child("nodeSelectorTerms"), shown, why);
        }
    }
    let flags = [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ];
    for (member, shown, flag) in flags {
        match flag {
            None => {}
            Some(true) => chosen.push(shown),
            Some(false) => {
                check.invalid(&path.child(member), false, "must be either unset or set to true");
            }
        }
    }
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match chosen.len() {
        0 => check.required(&path, ONE),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", chosen.join(", "));
            check.invalid(&path, shown.as_str(), format!("{ONE}, but multiple fields are set"));
        }
    }
    if !spec.shared_counters.is_empty() && !spec.devices.is_empty() {
        check.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = spec.devices.iter().any(|d| {
        !d.taints.is_empty()
            || !d.consumes_counters.is_empty()
            || d.attributes.values().any(|a| {
                !(a.bools.is_empty() && a.ints.is_empty() && a.strings.is_empty() && a.versions.is_empty())
            })
    });
    let max = if advanced { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let per_device = spec.per_device_node_selection == Some(true);
    set(
        &mut check,
        &path.child("devices"),
        &spec.devices,
        max,
        |d| d.name.clone(),
        |check, path, one| {
            let before = was.as_ref().and_then(|w| w.spec.devices.iter().find(|d| d.name == one.name));
            device(check, path, one, before, per_device);
        },
    );
    let at = path.child("sharedCounters");
    set(
        &mut check,
        &at,
        &spec.shared_counters,
        MAX_COUNTER_SETS,
        |c| c.name.clone(),
        |check, path, counters| {
            check.present_and_keeps(&path.child("name"), &counters.name, "", label);
            counter_names(check, &path.child("counters"), counters.counters.keys());
        },
    );
    check.0
}

fn counter_names<'a>(check: &mut Check, path: &Path, names: impl ExactSizeIterator<Item = &'a String>) {
    match names.len() {
        0 => check.required(path, ""),
        count if count > MAX_COUNTERS => check.0.push(Error::too_many(path, Some(count), MAX_COUNTERS)),
        _ => names.for_each(|name| check.keeps(path, name, label)),
    }
}

fn device(check: &mut Check, path: &Path, device: &Device, before: Option<&Device>, per_device: bool) {
    check.keeps(&path.child("name"), &device.name, label);
    let count = device.attributes.len() + device.capacity.len();
    if count > MAX_ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}");
        check.invalid(path, count, why);
    }
    let values: usize = device
        .attributes
        .values()
        .map(|a| (a.bools.len() + a.ints.len() + a.strings.len() + a.versions.len()).max(1))
        .sum();
    if values > MAX_ATTRIBUTE_VALUES {
        let why = format!("the total number of attribute values must not exceed {MAX_ATTRIBUTE_VALUES}");
        check.invalid(path, values, why);
    }
    for (name, value) in &device.attributes {
        let at = path.child("attributes");
        qualified(check, &at, name);
        attribute(check, &at.key(name.as_str()), value);
    }
    for (name, capacity) in &device.capacity {
        let at = path.child("capacity");
        qualified(check, &at, name);
        let Some(policy) = &capacity.request_policy else { continue };
        let at = at.key(name.as_str()).child("requestPolicy");
        if device.allow_multiple_allocations == Some(true) {
            request_policy(check, &at, &capacity.value, policy);
        } else {
            check.forbidden(&at, "allowMultipleAllocations must be true");
        }
    }
    if before.is_none_or(|b| b.taints != device.taints) {
        limited(check, &path.child("taints"), &device.taints, MAX_TAINTS, taint);
    }
    let at = path.child("consumesCounters");
    let key = |c: &api::resource::v1::DeviceCounterConsumption| c.counter_set.clone();
    set(check, &at, &device.consumes_counters, MAX_CONSUMPTIONS, key, |check, path, consumed| {
        check.present_and_keeps(&path.child("counterSet"), &consumed.counter_set, "", label);
        counter_names(check, &path.child("counters"), consumed.counters.keys());
    });
    device_nodes(check, path, device, per_device);
    binding(check, path, &device.binding_conditions, &device.binding_failure_conditions);
}

fn device_nodes(check: &mut Check, path: &Path, device: &Device, per_device: bool) {
    if !per_device {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            check.invalid(path, BadValue::verbatim("null"), why);
        }
        return;
    }
    let mut chosen = Vec::new();
    match device.node_name.as_deref() {
        None => {}
        Some("") => check.invalid(&path.child("nodeName"), "", "must not be empty"),
        Some(name) => {
            chosen.push("`nodeName`");
            check.keeps(&path.child("nodeName"), name, subdomain);
        }
    }
    if let Some(selector) = &device.node_selector {
        chosen.push("`nodeSelector`");
        validate_node_selector(&mut check.0, selector, &path.child("nodeSelector"));
    }
    match device.all_nodes {
        None => {}
        Some(true) => chosen.push("`allNodes`"),
        Some(false) => check.invalid(&path.child("allNodes"), false, "must be either unset or set to true"),
    }
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match chosen.len() {
        0 => check.required(path, ONE),
        1 => {}
        _ => check.invalid(path, format!("{{{}}}", chosen.join(", ")).as_str(), ONE),
    }
}

fn attribute(check: &mut Check, path: &Path, attribute: &DeviceAttribute) {
    let text = |check: &mut Check, path: &Path, text: &str| {
        check.when(text.len() > MAX_VALUE, || Error::too_long(path, MAX_VALUE));
    };
    let version = |check: &mut Check, path: &Path, version: &str| {
        if !is_semantic_version(version) {
            check.invalid(path, version, "must be a string compatible with semver.org spec 2.0.0");
        }
        check.when(version.len() > MAX_VALUE, || Error::too_long(path, MAX_VALUE));
    };
    if let Some(value) = &attribute.string {
        text(check, &path.child("string"), value);
    }
    if let Some(value) = &attribute.version {
        version(check, &path.child("version"), value);
    }
    for (i, value) in attribute.strings.iter().enumerate() {
        text(check, &path.child("strings").index(i), value);
    }
    for (i, value) in attribute.versions.iter().enumerate() {
        version(check, &path.child("versions").index(i), value);
    }
    let given = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        !attribute.bools.is_empty(),
        !attribute.ints.is_empty(),
        !attribute.strings.is_empty(),
        !attribute.versions.is_empty(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => check.invalid(path, "", "exactly one value must be specified"),
        1 => {}
        _ => {
            let shown = shown_typed("io.k8s.api.resource.v1.DeviceAttribute", attribute);
            check.invalid(path, shown, "exactly one value must be specified");
        }
    }
}

/// `1.2.3-rc.1+build`, as semver.org has it.
fn is_semantic_version(text: &str) -> bool {
    let number =
        |t: &str| t == "0" || !t.starts_with('0') && !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let numbers: Vec<&str> = core.split('.').collect();
    numbers.len() == 3
        && numbers.into_iter().all(number)
        && before.is_none_or(|b| {
            b.split('.').all(|p| word(p) && (number(p) || p.bytes().any(|b| !b.is_ascii_digit())))
        })
        && build.is_none_or(|b| b.split('.').all(word))
}

fn request_policy(check: &mut Check, path: &Path, capacity: &Quantity, policy: &CapacityRequestPolicy) {
    if !policy.valid_values.is_empty() && policy.valid_range.is_some() {
        let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return check.forbidden(path, why);
    }
    let above = |a: &Quantity, b: &Quantity| a.cmp(b).is_gt();
    if !policy.valid_values.is_empty() {
        let Some(default) = &policy.default_ else {
            return check.required(&path.child("default"), "required when validValues is defined");
        };
        let at = path.child("validValues");
        for (i, pair) in policy.valid_values.windows(2).enumerate() {
            if above(&pair[0], &pair[1]) {
                let why = "values must be sorted in ascending order";
                check.invalid(&at.index(i + 1), pair[1].to_string().as_str(), why);
            }
        }
        set(check, &at, &policy.valid_values, MAX_OPTIONS, Quantity::to_string, |check, path, option| {
            if above(option, capacity) {
                let why = format!("option is larger than capacity value: {capacity}");
                check.invalid(path, option.to_string().as_str(), why);
            }
        });
        if !policy.valid_values.iter().any(|v| v.cmp(default).is_eq()) {
            let why = "default value is not valid according to the requestPolicy";
            check.invalid(&at, default.to_string().as_str(), why);
        }
    } else if let Some(range) = &policy.valid_range {
        let Some(default) = &policy.default_ else {
            return check.required(&path.child("default"), "required when validRange is defined");
        };
        let at = path.child("validRange");
        let Some(min) = &range.min else {
            return check.required(&at.child("min"), "required when validRange is defined");
        };
        let mut refuse = |member: &'static str, value: &Quantity, why: String| {
            check.invalid(&at.child(member), value.to_string().as_str(), why);
        };
        if above(min, capacity) {
            refuse("min", min, format!("min is larger than capacity value: {capacity}"));
        }
        if above(min, default) {
            refuse("min", default, format!("default is less than min: {min}"));
        }
        if let Some(max) = &range.max {
            if above(min, max) {
                refuse("max", min, format!("min is larger than max: {max}"));
            }
            if above(max, capacity) {
                refuse("max", max, format!("max is larger than capacity value: {capacity}"));
            }
            if above(default, max) {
                refuse("max", default, format!("default is more than max: {max}"));
            }
        }
    }
}

fn taint(check: &mut Check, path: &Path, taint: &DeviceTaint) {
    taint_name(check, path, &taint.key, &taint.value);
    taint_effect(check, path, &taint.effect);
}

pub(super) fn taint_name(check: &mut Check, path: &Path, key: &str, value: &str) {
    check.extend(validate_label_name(key, &path.child("key")));
    if !value.is_empty() {
        label_value(check, &path.child("value"), value);
    }
}

pub(super) fn taint_effect(check: &mut Check, path: &Path, effect: &str) {
    let at = path.child("effect");
    if effect.is_empty() {
        check.required(&at, "");
    } else {
        check.one_of(&at, effect, EFFECTS);
    }
}
