//! Whole objects, in every encoding.

use apimachinery::value::Value;
use schema::decode::{self, FieldValidation};
use schema::encode::Body;
use schema::{Table, TypeId};

pub(crate) const SCHEMAS: &[&str] = &[
    r#"{"type":"object","properties":{"spec":{"type":"object","required":["a"],"properties":{"a":{"type":"string","pattern":"^a+$","default":"a"},"l":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["n"],"items":{"type":"object","properties":{"n":{"type":"string"}}}}},"x-kubernetes-validations":[{"rule":"self.a != ''"}]}}}"#,
    r#"{"type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"e":{"x-kubernetes-embedded-resource":true},"i":{"x-kubernetes-int-or-string":true,"anyOf":[{"type":"integer"},{"type":"string"}]}}}"#,
];

/// The kind that an object says it is; a Pod where it says nothing that there is.
fn kind(api_version: &str, kind: &str) -> (&'static Table, TypeId) {
    let table = api::table();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = table.kind(group, version, kind).or_else(|| table.kind("", "v1", "Pod"));
    (table, ty.unwrap_or(TypeId(0)))
}

fn of(value: &Value) -> (&'static Table, TypeId) {
    kind(value["apiVersion"].as_str().unwrap_or_default(), value["kind"].as_str().unwrap_or_default())
}

/// What was read is read again from what is written of it.
fn again(table: &Table, ty: TypeId, value: &Value) {
    let written = schema::encode::json(table, ty, value);
    let read = decode::json(table, ty, &written, FieldValidation::Strict).map(|decoded| decoded.value);
    assert_eq!(read.as_ref(), Ok(value), "of {}", String::from_utf8_lossy(&written));
}

pub(crate) fn json(data: &[u8]) {
    let meta = decode::type_meta(data).unwrap_or_default();
    let (table, ty) = kind(&meta.0, &meta.1);
    let _ = decode::free_json(data, FieldValidation::Strict);
    if let Ok(decoded) = decode::json(table, ty, data, FieldValidation::Strict) {
        again(table, ty, &decoded.value);
    }
}

pub(crate) fn yaml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(free) = decode::free_yaml(&text, FieldValidation::Strict) else { return };
    let _ = schema::encode::yaml(&free.value);
    let (table, ty) = of(&free.value);
    if let Ok(decoded) = decode::yaml(table, ty, &text, FieldValidation::Strict) {
        again(table, ty, &decoded.value);
    }
}

pub(crate) fn protobuf(data: &[u8]) {
    let Ok(envelope) = schema::protobuf::read_envelope(data) else { return };
    let (table, ty) = kind(envelope.api_version, envelope.kind);
    let Ok(value) = api::protobuf().decode(ty, data) else { return };
    let Ok(decoded) = decode::normalise(table, ty, value, FieldValidation::Ignore) else { return };
    let bytes = api::protobuf().encode(ty, &decoded.value, "K", "v1");
    assert!(api::protobuf().decode(ty, &bytes).is_ok());
}

/// Bytes that may be CBOR; and, where they are JSON, the CBOR of that.
pub(crate) fn cbor(data: &[u8]) {
    let made = serde_json::from_slice::<Value>(data).ok().map(|value| {
        let (table, ty) = of(&value);
        schema::cbor::encode(table, ty, &value)
    });
    for bytes in [Some(data), made.as_deref()].into_iter().flatten() {
        let Ok(value) = schema::cbor::document(bytes) else { continue };
        let _ = schema::cbor::type_meta(bytes);
        let (table, ty) = of(&value);
        let _ = schema::cbor::unknown_field(table, ty, bytes);
        let _ = schema::cbor::typed(table, ty, bytes);
        assert_eq!(schema::cbor::document(&schema::cbor::encode_free(&value)).as_ref(), Ok(&value));
    }
}

pub(crate) fn stored_body(data: &[u8]) {
    let made = serde_json::from_slice::<Value>(data).ok().map(|value| {
        let (table, ty) = of(&value);
        Body::encode(table, ty, &value).stored().to_vec()
    });
    for bytes in [Some(data), made.as_deref()].into_iter().flatten() {
        if let Ok(body) = Body::from_stored(bytes) {
            let _ = body.value(None, 7);
        }
    }
}

/// The schema of a definition, judged, and compiled where it would be.
pub(crate) fn custom_schema(data: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(data) else { return };
    let root = apimachinery::field::Path::new("schema");
    let wrong = schema::custom::structural::validate_structural(&root, &schema);
    let _ = schema::custom::structural::unsupported(&schema);
    let parsed = cel::schema::Schema::from_json(&schema, &|_| None);
    let _ = parsed.decl();
    if !wrong.is_empty() {
        return;
    }
    let table = schema::custom::compile(api::table(), &schema, ("g", "v1", "K"), Vec::new());
    let object = br#"{"apiVersion":"g/v1","kind":"K","metadata":{"name":"a"},"spec":{"a":1,"l":[{"n":"x"},{}]},"e":{},"i":"5"}"#;
    let _ = decode::json(&table, TypeId(0), object, FieldValidation::Strict);
}
