//! CBOR: every vector to it and back, its rules, and what is refused with upstream's words.
#![allow(clippy::unwrap_used)]

mod shared;

use expect_test::{Expect, expect};
use schema::cbor;
use schema::decode::{FieldValidation, normalise};
use schema::{Table, TypeId};
use serde_json::{Value, json};

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

/// Reads a document, in hexadecimal digits.
fn check(hex: &str, expected: Expect) {
    let digits: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    expected.assert_eq(&match cbor::document(&bytes) {
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
    check("83 d5 42 fbff d6 42 fbff d7 42 fbff", expect![[r#"["-_8=","+/8=","fbff"]"#]]);
    check("d8 40 41 00", expect![[r#""\u0000""#]]);
    check("c1 1a 514b67b0", expect![[r#""2013-03-21T20:04:00Z""#]]);
    check("c0 54 323031332d30332d32315432303a30343a30305a", expect![[r#""2013-03-21T20:04:00Z""#]]);
    check("41 ff", expect![[r#""�""#]]);
}

#[test]
fn what_is_refused() {
    check("", expect!["EOF"]);
    check("a1", expect!["unexpected EOF"]);
    check("a1 41 61", expect!["unexpected EOF"]);
    check("5b ffffffffffffffff 00", expect!["unexpected EOF"]);
    check("9b ffffffffffffffff 00", expect!["unexpected EOF"]);
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
    check(
        "c0 41 78",
        expect![[
            r#"cbor: cannot set "x" for time.Time: parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#
        ]],
    );
    check("ff", expect![[r#"cbor: unexpected "break" code"#]]);
    check("1c", expect!["cbor: invalid additional information 28 for type positive integer"]);
    check("5f 61 61 ff", expect!["cbor: wrong element type for indefinite-length byte string"]);
    check(&"81".repeat(200_000), expect!["cbor: exceeded max nested level 127"]);
    check(&"c1".repeat(200_000), expect!["cbor: exceeded max nested level 127"]);
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
