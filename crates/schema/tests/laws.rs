//! Laws that hold for all inputs: what one reader writes another reads, nothing panics, doing a thing twice is doing
//! it once.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::{Map, Value};
use proptest::prelude::*;
use schema::apply::{self, OneShape, Request};
use schema::decode::{self, FieldValidation};
use schema::encode::{self, Body, TypeMeta};
use schema::patch::{self, JsonPatch};
use schema::protobuf::Codec;
use schema::row::Type;
use schema::{Table, TypeId};

/// Any tree.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-1e6f64..1e6).prop_map(Value::from),
        "[a-z<&\"\\\\é\u{2028}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(
                prop_oneof![
                    "[a-c]",
                    Just("$patch".to_owned()),
                    Just("name".to_owned()),
                    Just("$retainKeys".to_owned())
                ],
                inner,
                0..4
            )
            .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// An object of a type: each choice is a byte of `seed`.
fn object(table: &Table, ty: &Type, seed: &mut impl Iterator<Item = u8>, depth: usize) -> Value {
    let byte = seed.next().unwrap_or(0);
    match ty {
        Type::String => ["", "a", "b<&>", "é"][usize::from(byte) % 4].into(),
        Type::Bool => (byte.is_multiple_of(2)).into(),
        Type::Int32 | Type::Int64 => i64::from(byte % 3).into(),
        Type::Double => (f64::from(byte) / 2.0).into(),
        Type::Bytes => ["", "aGk="][usize::from(byte) % 2].into(),
        Type::Time => "2024-01-02T03:04:05Z".into(),
        Type::MicroTime => "2024-01-02T03:04:05.000006Z".into(),
        Type::Quantity => ["0", "1", "500m", "1Gi"][usize::from(byte) % 4].into(),
        Type::IntOrString => {
            if byte.is_multiple_of(2) {
                5.into()
            } else {
                "http".into()
            }
        }
        Type::Any | Type::Object => json!({"x": byte}),
        // Never empty: protobuf does not tell an empty list that is always written from none.
        Type::List(item) => (0..byte % 2 + 1).map(|_| object(table, item, seed, depth + 1)).collect(),
        Type::Map(item) => (0..byte % 2 + 1)
            .map(|i| (format!("k{i}"), object(table, item, seed, depth + 1)))
            .collect::<Map>()
            .into(),
        Type::Ref(id) => {
            let row = table.ty(*id);
            if let Some(scalar) = &row.scalar {
                return object(table, scalar, seed, depth);
            }
            let mut map = Map::new();
            for field in row.fields.iter() {
                let take = seed.next().unwrap_or(0);
                if depth < 6 && take.is_multiple_of(4) && field.name != "managedFields" {
                    map.insert(field.name.to_string(), object(table, &field.ty, seed, depth + 1));
                }
            }
            map.into()
        }
    }
}

fn kind(i: usize) -> (&'static Table, TypeId, &'static str, &'static str, &'static str) {
    let table = api::table();
    let kinds = [
        ("", "v1", "Pod"),
        ("apps", "v1", "Deployment"),
        ("", "v1", "Service"),
        ("batch", "v1", "CronJob"),
        ("", "v1", "Secret"),
    ];
    let (group, version, kind) = kinds[i % kinds.len()];
    (table, table.kind(group, version, kind).unwrap(), group, version, kind)
}

fn canonical(table: &Table, id: TypeId, value: Value) -> Value {
    decode::normalise(table, id, value, FieldValidation::Ignore).unwrap().value
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_survive_every_codec(i in 0usize..5, seed in prop::collection::vec(any::<u8>(), 400)) {
        let (table, id, ..) = kind(i);
        let value = canonical(table, id, object(table, &Type::Ref(id), &mut seed.into_iter(), 0));
        let bytes = encode::json(table, id, &value);
        prop_assert_eq!(&serde_json::from_slice::<Value>(&bytes).unwrap(), &value);
        prop_assert_eq!(&decode::json(table, id, &bytes, FieldValidation::Strict).unwrap().value, &value);
        let codec = Codec::new(api::table(), api::proto_only);
        let mut bare = value.clone();
        bare.as_object_mut().unwrap().retain(|k, _| k != "kind" && k != "apiVersion");
        prop_assert_eq!(codec.decode_message(id, &codec.encode_message(id, &bare)).unwrap(), bare.clone());
        bare["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let body = Body::encode(table, id, &value);
        prop_assert_eq!(body.value(None, 0).unwrap(), bare);
        let whole: Value = serde_json::from_slice(&body.splice(Some(&TypeMeta::new("K", "v")), 7)).unwrap();
        prop_assert_eq!(&whole["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn nothing_panics(i in 0usize..5, a in tree(), b in tree(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (table, id, ..) = kind(i);
        let codec = Codec::new(api::table(), api::proto_only);
        let _ = codec.decode_message(id, &bytes);
        let _ = codec.decode(id, &[b"k8s\0", bytes.as_slice()].concat());
        let _ = decode::json(table, id, &bytes, FieldValidation::Strict);
        let _ = decode::free_yaml(&String::from_utf8_lossy(&bytes), FieldValidation::Strict);
        let _ = decode::json(table, id, a.to_string().as_bytes(), FieldValidation::Strict);
        let _ = patch::strategic(table, id, json!({"spec": a, "metadata": b}), json!({"spec": b, "metadata": a}));
        let mut merged = a.clone();
        patch::merge(&mut merged, &b);
        if let Ok(patch) = JsonPatch::parse(json!([{"op": "add", "path": "/a/-1", "value": b}, {"op": "move", "from": "/a", "path": "/b/0"}]).to_string().as_bytes(), FieldValidation::Warn) {
            let _ = patch.apply(a.clone());
        }
        let mut pruned = a.clone();
        schema::prune::prune(table, id, &mut pruned);
        schema::defaults::apply(table, id, &mut pruned);
        let _ = encode::json(table, id, &json!({"spec": a, "metadata": b}));
    }

    #[test]
    fn a_merge_patch_takes_one_tree_to_another(a in tree(), b in tree()) {
        fn without_nulls(v: &Value) -> Value {
            let mut out = json!({});
            patch::merge(&mut out, &json!({ "v": v }));
            out["v"].take()
        }
        // The difference is: b, and null for what only a has.
        fn diff(a: &Value, b: &Value) -> Value {
            match (a, b) {
                (Value::Object(x), Value::Object(y)) => {
                    let mut out = Map::new();
                    x.keys().filter(|k| !y.contains_key(k)).for_each(|k| { out.insert(k.clone(), Value::Null); });
                    y.iter().for_each(|(k, v)| { out.insert(k.clone(), x.get(k).map_or_else(|| v.clone(), |w| diff(w, v))); });
                    out.into()
                }
                _ => b.clone(),
            }
        }
        let (mut a, b) = (json!({"r": without_nulls(&a)}), json!({"r": without_nulls(&b)}));
        if b["r"].is_null() { return Ok(()); }
        let patch = diff(&a, &b);
        patch::merge(&mut a, &patch);
        prop_assert_eq!(a, b);
    }

    #[test]
    fn applying_twice_is_applying_once(i in 0usize..5, seed in prop::collection::vec(any::<u8>(), 400), more in prop::collection::vec(any::<u8>(), 400)) {
        let (table, id, group, version, kind) = kind(i);
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let make = |seed: Vec<u8>| {
            let mut value = object(table, &Type::Ref(id), &mut seed.into_iter(), 0);
            value["apiVersion"] = json!(api_version);
            value["kind"] = json!(kind);
            value
        };
        let request = |manager, now| Request {
            table, ty: Some(id), api_version: &api_version, kind, subresource: "", manager,
            now: Time::from_unix(now), reset_fields: None, versions: &OneShape,
        };
        let mut live = canonical(table, id, make(seed));
        apply::update(&request("a", 1), None, &mut live);
        let live = canonical(table, id, live);
        // A list key that decoding would drop (an empty string) is another key afterwards, upstream too.
        let applied = canonical(table, id, make(more));
        if let Ok(once) = apply::apply(&request("b", 2), Some(&live), &applied, true) {
            let once = canonical(table, id, once);
            let twice = canonical(table, id, apply::apply(&request("b", 2), Some(&once), &applied, true).unwrap());
            prop_assert_eq!(twice, once);
        }
    }
}

#[test]
fn deep_trees_are_refused() {
    let (table, id, ..) = kind(0);
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode::json(table, id, deep.as_bytes(), FieldValidation::Warn).is_err());
    assert_eq!(
        decode::free_json(format!("{{\"a\":{deep}}}").as_bytes(), FieldValidation::Warn).unwrap_err().0,
        "exceeded max depth"
    );
    assert!(decode::free_yaml(&deep, FieldValidation::Warn).is_err());
    // On the small stack that this test's thread has, too.
    let bearable = format!("a: {}1{}", "[".repeat(120), "]".repeat(120));
    assert!(decode::free_yaml(&bearable, FieldValidation::Warn).is_ok());
}
