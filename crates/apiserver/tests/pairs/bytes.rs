//! What is absent, empty, null or zero, and text that must be escaped, of every kind: whatever an answer says of it stands
//! there byte for byte, in JSON and in protobuf.

use crate::case::{JSON, PROTOBUF, Story, case};
use crate::cases::namespace;
use crate::mutate::{Place, places, with};
use crate::seeds::{Seed, seeds};
use apimachinery::json;
use apimachinery::value::Value;
use http::Method;
use schema::row::Type;

const TEXT: &str = "<a href='b'>&amp;</a> \"\\/ \u{1}\u{7f}\u{85}\u{2028}\u{2029}\u{feff} é 😀\t\r\n";

/// What a field that is absent is said to be.
fn empty(place: &Place<'_>) -> Option<Value> {
    match place.field.ty {
        Type::List(_) if !place.present => Some(json!([])),
        Type::Map(_) if !place.present => Some(json!({})),
        _ => None,
    }
}

fn null(place: &Place<'_>) -> Option<Value> {
    (!place.present).then_some(Value::Null)
}

fn zero(place: &Place<'_>) -> Option<Value> {
    match place.field.ty {
        Type::Time => Some(json!("0001-01-01T00:00:00Z")),
        Type::MicroTime => Some(json!("0001-01-01T00:00:00.000000Z")),
        Type::Quantity if !place.present => Some(json!("0")),
        Type::Bool if !place.present => Some(json!(false)),
        _ => None,
    }
}

pub fn story() -> Story {
    let seeds = seeds();
    let before = seeds.iter().flat_map(|seed| namespace(&seed.namespace())).collect();
    let mut cases = Vec::new();
    for seed in &seeds {
        for (word, object) in variants(seed) {
            let path = collection(seed);
            for (form, media) in [("JSON", JSON), ("protobuf", PROTOBUF)] {
                let name = format!("{}/{}/{} {word} as {form}", seed.group, seed.version, seed.resource);
                cases.push(case(name, Method::POST, &path).accept(media).json(object.clone()));
            }
        }
    }
    Story { file: "bytes".into(), before, cases, after: Vec::new() }
}

fn collection(seed: &Seed) -> String {
    let row = api::table().resource(&seed.group, &seed.version, &seed.resource).unwrap();
    let root = match seed.group.as_str() {
        "" => "/api".to_owned(),
        group => format!("/apis/{group}"),
    };
    let place = if row.namespaced { format!("namespaces/{}/", seed.namespace()) } else { String::new() };
    let dry = if row.allows("get") { "?dryRun=All" } else { "" };
    format!("{root}/{}/{place}{}{dry}", seed.version, seed.resource)
}

fn variants(seed: &Seed) -> Vec<(&'static str, Value)> {
    let table = api::table();
    let row = table.resource(&seed.group, &seed.version, &seed.resource).unwrap();
    let ty = table.kind(&seed.group, &seed.version, &row.kind).unwrap();
    let mut base = seed.base.clone();
    if !row.kind.ends_with("Review") && base["metadata"]["name"].is_null() {
        let name = if seed.name == "base" { "bytes" } else { &seed.name };
        base["metadata"]["name"] = json!(name);
    }
    let sparse = json!({"metadata": base["metadata"]});
    let mut text = base.clone();
    text["metadata"]["annotations"] = json!({"a": TEXT, "b": ""});
    let mut found = Vec::new();
    places(table, ty, &base, "", &mut found);
    let all = |of: fn(&Place<'_>) -> Option<Value>| {
        found.iter().fold(base.clone(), |object, place| match of(place) {
            Some(value) => with(&object, &place.at, Some(&value)),
            None => object,
        })
    };
    vec![("sparse", sparse), ("empty", all(empty)), ("null", all(null)), ("zero", all(zero)), ("text", text)]
}
