//! Versions of kinds beside the one that hooks run on: most have its shape, and only say another version.

use super::ConversionRow;
use super::tree::{each, with};
use apimachinery::value::{Map, Value};

/// Kinds whose versions all have one shape.
pub(super) const ONE_SHAPE: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("certificates.k8s.io", "ClusterTrustBundle"),
    ("coordination.k8s.io", "LeaseCandidate"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "ServiceCIDR"),
    (GROUP, "DeviceClass"),
    (GROUP, "DeviceTaintRule"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

const GROUP: &str = "resource.k8s.io";
const V1: &str = "resource.k8s.io/v1";
const V1BETA1: &str = "resource.k8s.io/v1beta1";
const V1BETA2: &str = "resource.k8s.io/v1beta2";

/// Of the dynamic resources, `v1beta2` has the shape of `v1`; `v1beta1` has requests and devices in another one.
pub(super) const CONVERSIONS: &[ConversionRow] = &[
    (GROUP, "ResourceClaim", V1BETA1, V1, claim_from_v1beta1),
    (GROUP, "ResourceClaim", V1, V1BETA1, claim_to_v1beta1),
    (GROUP, "ResourceClaim", V1BETA2, V1, same),
    (GROUP, "ResourceClaim", V1, V1BETA2, same),
    (GROUP, "ResourceClaimTemplate", V1BETA1, V1, template_from_v1beta1),
    (GROUP, "ResourceClaimTemplate", V1, V1BETA1, template_to_v1beta1),
    (GROUP, "ResourceClaimTemplate", V1BETA2, V1, same),
    (GROUP, "ResourceClaimTemplate", V1, V1BETA2, same),
    (GROUP, "ResourceSlice", V1BETA1, V1, slice_from_v1beta1),
    (GROUP, "ResourceSlice", V1, V1BETA1, slice_to_v1beta1),
    (GROUP, "ResourceSlice", V1BETA2, V1, same),
    (GROUP, "ResourceSlice", V1, V1BETA2, same),
];

fn same(object: Value) -> Value {
    object
}

/// What a request says of its devices itself in `v1beta1`, and under `exactly` in `v1`.
const OF_DEVICES: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

fn requests(spec: &mut Value, convert: fn(&mut Value)) {
    with(spec, "devices", |devices| each(devices, "requests", convert));
}

fn request_from_v1beta1(request: &mut Value) {
    let Value::Object(map) = request else { return };
    let taken: Map =
        OF_DEVICES.iter().filter_map(|key| Some(((*key).to_owned(), map.remove(key)?))).collect();
    // A class that is not named is written empty beside alternatives.
    let says = taken.values().any(|value| !matches!(value, Value::Null) && value != "");
    if says {
        map.insert("exactly", taken.into());
    }
}

fn request_to_v1beta1(request: &mut Value) {
    let Value::Object(map) = request else { return };
    if let Some(Value::Object(exactly)) = map.remove("exactly") {
        map.extend(exactly);
    }
}

fn device_from_v1beta1(device: &mut Value) {
    let Value::Object(map) = device else { return };
    if let Some(Value::Object(basic)) = map.remove("basic") {
        map.extend(basic);
    }
}

fn device_to_v1beta1(device: &mut Value) {
    let Value::Object(map) = device else { return };
    let name = map.remove("name");
    let basic = std::mem::take(map);
    map.extend(name.map(|name| ("name".to_owned(), name)));
    map.insert("basic", basic.into());
}

fn claim_from_v1beta1(mut claim: Value) -> Value {
    with(&mut claim, "spec", |spec| requests(spec, request_from_v1beta1));
    claim
}

fn claim_to_v1beta1(mut claim: Value) -> Value {
    with(&mut claim, "spec", |spec| requests(spec, request_to_v1beta1));
    claim
}

fn template_from_v1beta1(mut template: Value) -> Value {
    with(&mut template, "spec", |spec| with(spec, "spec", |spec| requests(spec, request_from_v1beta1)));
    template
}

fn template_to_v1beta1(mut template: Value) -> Value {
    with(&mut template, "spec", |spec| with(spec, "spec", |spec| requests(spec, request_to_v1beta1)));
    template
}

fn slice_from_v1beta1(mut slice: Value) -> Value {
    with(&mut slice, "spec", |spec| each(spec, "devices", device_from_v1beta1));
    slice
}

fn slice_to_v1beta1(mut slice: Value) -> Value {
    with(&mut slice, "spec", |spec| each(spec, "devices", device_to_v1beta1));
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use schema::{Type, TypeId};

    /// The members of a type, and of the types within, in order.
    fn shape(id: TypeId, path: &str, found: &mut Vec<String>) {
        for field in api::table().ty(id).fields.iter() {
            let at = format!("{path}.{}", field.name);
            let mut ty = &field.ty;
            let mut around = String::new();
            while let Type::List(inner) | Type::Map(inner) = ty {
                around.push_str(if matches!(ty, Type::List(_)) { "[]" } else { "{}" });
                ty = inner;
            }
            match ty {
                // Schemas of custom resources have themselves inside; none of these kinds has.
                Type::Ref(inner) => shape(*inner, &format!("{at}{around}"), found),
                scalar => found.push(format!("{at}{around} {scalar:?}")),
            }
        }
    }

    #[test]
    fn versions_of_one_shape_have_one() {
        for (group, kind) in ONE_SHAPE {
            let rows = api::table().resources().iter();
            let versions: Vec<&str> = rows
                .filter(|row| row.group == *group && row.kind == *kind && row.split().1.is_none())
                .map(|row| row.version.as_ref())
                .collect();
            assert!(versions.len() > 1, "{kind} has one version only");
            let shapes = versions.iter().map(|version| {
                let mut found = Vec::new();
                shape(api::table().kind(group, version, kind).unwrap(), "", &mut found);
                found.sort();
                found
            });
            let shapes: Vec<_> = shapes.collect();
            assert!(shapes.windows(2).all(|pair| pair[0] == pair[1]), "{kind} {versions:?}");
        }
    }

    #[test]
    fn dynamic_resources_come_back_as_they_went() {
        let check = |old: Value, there: fn(Value) -> Value, back: fn(Value) -> Value, new: Value| {
            assert_eq!(there(old.clone()), new);
            assert_eq!(back(new), old);
        };
        let exact = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
        let old = json!({"name": "r", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
        let either = json!({"name": "s", "firstAvailable": [{"name": "t", "deviceClassName": "c"}]});
        let spec = |first: Value| json!({"devices": {"requests": [first, either.clone()]}});
        let new = json!({"name": "r", "exactly": exact});
        let of = |spec: Value| json!({"spec": spec});
        check(of(spec(old.clone())), claim_from_v1beta1, claim_to_v1beta1, of(spec(new.clone())));
        check(of(of(spec(old))), template_from_v1beta1, template_to_v1beta1, of(of(spec(new))));
        let device = json!({"name": "d", "attributes": {"a": {"int": 1}}});
        let basic = json!({"name": "d", "basic": {"attributes": {"a": {"int": 1}}}});
        let slice = |device: Value| json!({"spec": {"driver": "x", "devices": [device]}});
        check(slice(basic), slice_from_v1beta1, slice_to_v1beta1, slice(device));
    }
}
