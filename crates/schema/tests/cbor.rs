//! CBOR: every vector to it and back, its rules, and what is refused with upstream's words.
#![allow(clippy::unwrap_used)]

mod shared;

use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use schema::cbor;
use schema::decode::{FieldValidation, normalise};
use schema::{Table, TypeId};

fn config_map() -> (&'static Table, TypeId) {
    let table = api::table();
    (table, table.kind("", "v1", "ConfigMap").unwrap())
}

#[test]
fn every_vector_survives() {
    let Some(vectors) = shared::vectors() else { return };
    let table = api::table();
    for vector in &vectors {
        // Some kinds are of no served API.
        let Some(id) = table.kind(&vector.group, &vector.version, &vector.kind) else { continue };
        let value: Value = serde_json::from_str(&vector.read("json")).unwrap();
        let value = normalise(table, id, value, FieldValidation::Strict).unwrap().value;
        let bytes = cbor::encode(table, id, &value);
        assert!(bytes.starts_with(cbor::PREFIX), "{}", vector.name);
        let read = cbor::document(&bytes).unwrap();
        assert_eq!(cbor::unknown_field(table, id, &bytes), None, "{}", vector.name);
        let back = normalise(table, id, read, FieldValidation::Strict).unwrap();
        assert_eq!((&back.value, back.strict), (&value, Vec::new()), "{}", vector.name);
        assert_eq!(cbor::encode(table, id, &back.value), bytes, "{}", vector.name);
        // Whoever knows no types loses no more than the bytes' being bytes.
        assert_eq!(cbor::document(&cbor::encode_free(&value)).unwrap(), value, "{}", vector.name);
    }
    assert!(vectors.len() > 150, "{}", vectors.len());
}

#[test]
fn bytes_are_bytes_and_text_is_too() {
    let (table, id) = config_map();
    let value = json!({"kind": "ConfigMap", "binaryData": {"b": "aGk="}, "data": {"long": "é", "a": ""}});
    let bytes = cbor::encode(table, id, &value);
    let shown: String = bytes
        .iter()
        .map(|b| if b.is_ascii_graphic() { (*b as char).to_string() } else { format!("<{b:02x}>") })
        .collect();
    expect!["<d9><d9><f7><a3>Ddata<a2>Aa@DlongB<c3><a9>DkindIConfigMapJbinaryData<a1>Ab<d6>Bhi"]
        .assert_eq(&shown);
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

/// Reads a document, in hexadecimal digits.
fn check(hex: &str, expected: Expect) {
    expected.assert_eq(&match cbor::document(&bytes_of(hex)) {
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    });
}

#[test]
fn what_is_read() {
    check("d9d9f7 a1 41 61 01", expect![[r#"{"a":1}"#]]);
    check("a1 61 61 62 c3 a9", expect![[r#"{"a":"é"}"#]]);
    check("bf 61 61 9f 01 20 ff ff", expect![[r#"{"a":[1,-1]}"#]]);
    check("5f 41 61 42 62 63 ff", expect![[r#""abc""#]]);
    check("83 f4 f5 f6", expect!["[false,true,null]"]);
    check("83 f9 3c00 fa 47c35000 fb 3ff199999999999a", expect!["[1.0,100000.0,1.1]"]);
    check("83 f9 0001 f9 8000 f9 7bff", expect!["[5.960464477539063e-8,-0.0,65504.0]"]);
    check("83 d5 42 fbff d6 42 fbff d7 42 fbff", expect![[r#"["-_8","+/8=","fbff"]"#]]);
    check("d8 40 41 00", expect![[r#""\u0000""#]]);
    check("c1 1a 514b67b0", expect![[r#""2013-03-21T20:04:00Z""#]]);
    check(
        "c0 54 323031332d30332d32315432303a30343a30305a",
        expect!["cbor: tag number 0 must be followed by text string, got byte string"],
    );
    check("41 ff", expect![[r#""�""#]]);
}

#[test]
fn what_is_refused() {
    check("", expect!["EOF"]);
    check("a1", expect!["unexpected EOF"]);
    check("a1 41 61", expect!["unexpected EOF"]);
    check(
        "5b ffffffffffffffff 00",
        expect!["cbor: byte string length 18446744073709551615 is too large, causing integer overflow"],
    );
    check(
        "9b ffffffffffffffff 00",
        expect!["cbor: array length 18446744073709551615 is too large, it would cause integer overflow"],
    );
    check("01 02 03", expect!["cbor: 2 bytes of extraneous data starting at index 1"]);
    check("a2 41 61 01 61 61 02", expect![[r#"cbor: found duplicate map key "a" at map element index 1"#]]);
    check("a1 01 02", expect!["cbor: cannot unmarshal positive integer into Go value of type string"]);
    check(
        "1b ffffffffffffffff",
        expect![
            "cbor: cannot unmarshal positive integer into Go value of type int64 (18446744073709551615 overflows Go's int64)"
        ],
    );
    check(
        "3b ffffffffffffffff",
        expect![
            "cbor: cannot unmarshal negative integer into Go value of type int64 (-18446744073709551616 overflows Go's int64)"
        ],
    );
    check("61 ff", expect!["cbor: invalid UTF-8 string"]);
    check(
        "f9 7e00",
        expect!["cbor: data item of cbor type primitives is not accepted by protocol: floating-point NaN"],
    );
    check(
        "f9 fc00",
        expect![
            "cbor: data item of cbor type primitives is not accepted by protocol: floating-point infinity"
        ],
    );
    check(
        "f7",
        expect![
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized"
        ],
    );
    check("c2 41 01", expect!["cbor: data item of cbor type tag is not accepted by protocol: bignum"]);
    check("c0 41 78", expect!["cbor: tag number 0 must be followed by text string, got byte string"]);
    check("ff", expect![[r#"cbor: unexpected "break" code"#]]);
    check("1c", expect!["cbor: invalid additional information 28 for type positive integer"]);
    check(
        "5f 61 61 ff",
        expect!["cbor: wrong element type UTF-8 text string for indefinite-length byte string"],
    );
    check(&"81".repeat(200_000), expect!["cbor: exceeded max nested level 10000"]);
    check(&"c1".repeat(200_000), expect!["cbor: exceeded max nested level 10000"]);
}

#[test]
fn what_is_of_another_type() {
    let table = api::table();
    let id = |kind| table.kind("", "v1", kind).unwrap();
    let check = |kind, value: Value, expected: Expect| {
        let read = cbor::typed(table, id(kind), &cbor::encode_free(&value));
        expected.assert_eq(&read.map_or_else(|error| error.to_string(), |value| value.to_string()));
    };
    check(
        "ConfigMap",
        json!({"metadata": {"name": 5}}),
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.ConfigMap.metadata of type string"
        ],
    );
    check(
        "ConfigMap",
        json!({"metadata": "x"}),
        expect![
            "cbor: cannot unmarshal byte string into Go struct field v1.ConfigMap.metadata of type v1.ObjectMeta"
        ],
    );
    check(
        "ConfigMap",
        json!({"metadata": [1]}),
        expect![
            "cbor: cannot unmarshal array into Go struct field v1.ConfigMap.metadata of type v1.ObjectMeta (cannot decode CBOR array to struct without toarray option)"
        ],
    );
    check(
        "ConfigMap",
        json!({"data": {"a": true}, "immutable": "x"}),
        expect!["cbor: cannot unmarshal primitives into Go struct field v1.ConfigMap.data of type string"],
    );
    check(
        "ConfigMap",
        json!({"data": ["a"]}),
        expect![
            "cbor: cannot unmarshal array into Go struct field v1.ConfigMap.data of type map[string]string"
        ],
    );
    check("ConfigMap", json!({"binaryData": {"a": "aGk="}}), expect![[r#"{"binaryData":{"a":"aGk="}}"#]]);
    check(
        "ConfigMap",
        json!({"binaryData": {"a": "*", "b": [104, 105]}}),
        expect!["cbor: failed to decode base64 from byte string: illegal base64 data at input byte 0"],
    );
    check(
        "ConfigMap",
        json!({"binaryData": {"b": [104, 256]}}),
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.ConfigMap.binaryData of type uint8 (256 overflows uint8)"
        ],
    );
    check("ConfigMap", json!({"bogus": {"a": 1}, "immutable": true}), expect![[r#"{"immutable":true}"#]]);
    check(
        "ConfigMap",
        json!([]),
        expect![
            "cbor: cannot unmarshal array into Go value of type v1.ConfigMap (cannot decode CBOR array to struct without toarray option)"
        ],
    );
    check(
        "Pod",
        json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 1}}}]}}),
        expect!["cbor: cannot unmarshal positive integer into Go struct field v1.Pod.spec of type string"],
    );
    check(
        "Pod",
        json!({"spec": {"priority": 2147483648u64}}),
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.spec of type int32 (2147483648 overflows int32)"
        ],
    );
    check(
        "Pod",
        json!({"spec": {"priority": 1.5}}),
        expect!["cbor: cannot unmarshal primitives into Go struct field v1.Pod.spec of type int32"],
    );
    check(
        "Pod",
        json!({"spec": {"restartPolicy": 1}}),
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.spec of type v1.RestartPolicy"
        ],
    );
    check(
        "Pod",
        json!({"metadata": {"creationTimestamp": 1}}),
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.Pod.metadata of type string"
        ],
    );
    check(
        "Pod",
        json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
        expect!["cbor: cannot unmarshal primitives into Go struct field v1.Pod.spec of type int32"],
    );
}

/// As [`check`], for a ConfigMap.
fn check_map(hex: &str, expected: Expect) {
    let bytes = bytes_of(hex);
    let (table, id) = config_map();
    let read = cbor::typed(table, id, &bytes);
    expected.assert_eq(&read.map_or_else(|error| error.to_string(), |value| value.to_string()));
}

#[test]
fn keys_and_tags_of_structs() {
    // {1: 2, -1: 3}: numbers are keys of no field.
    check_map("a2 01 02 20 03", expect!["{}"]);
    check_map("a2 01 02 01 03", expect!["cbor: found duplicate map key 1 at map element index 1"]);
    check_map(
        "a1 f4 02",
        expect![
            "cbor: cannot unmarshal primitives into Go value of type string (map key is of type primitives and cannot be used to match struct field name)"
        ],
    );
    check_map(
        "a2 41 78 01 61 78 02",
        expect![[r#"cbor: found duplicate map key "x" at map element index 1"#]],
    );
    // {"data": {1: "x"}}
    check_map(
        "a1 44 64617461 a1 01 41 78",
        expect![
            "cbor: cannot unmarshal positive integer into Go struct field v1.ConfigMap.data of type string"
        ],
    );
    // {"binaryData": 22({"a": 'hi'})}: the tag is that of all bytes within.
    check_map(
        "a1 4a 62696e61727944617461 d6 a1 41 61 42 6869",
        expect![[r#"{"binaryData":{"YQ==":"aGk="}}"#]],
    );
    // {"immutable": undefined}
    check_map("a1 49 696d6d757461626c65 f7", expect![[r#"{"immutable":null}"#]]);
    // {"data": undefined}
    check_map(
        "a1 44 64617461 f7",
        expect![
            "cbor: data item of cbor type primitives is not accepted by protocol: simple value 23 is not recognized"
        ],
    );
    check_map("f6", expect!["null"]);
}

#[test]
fn unknown_fields_are_told_by_their_place() {
    let (table, id) = config_map();
    let check = |value: Value, expected: Expect| {
        let found = cbor::unknown_field(table, id, &cbor::encode_free(&value));
        expected.assert_eq(&found.unwrap_or_default());
    };
    check(json!({"kind": "ConfigMap", "data": {"anything": "x"}}), expect![""]);
    check(
        json!({"data": {}, "kind": "ConfigMap", "bogus": 1}),
        expect!["cbor: found unknown field at map element index 2"],
    );
    check(
        json!({"metadata": {"name": "a", "bogus": [{}]}, "b": 1}),
        expect!["cbor: found unknown field at map element index 0"],
    );
}
