//! The protobuf transcoder against the built-in rows.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

mod shared;

use apimachinery::json;
use schema::decode::{self, FieldValidation};
use schema::encode;
use schema::protobuf::{self, Codec};
use std::sync::LazyLock;

static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new(api::table(), api::proto_only));

#[test]
fn every_vector_transcodes_byte_for_byte() {
    let Some(vectors) = shared::vectors() else { return };
    let table = api::table();
    let (mut failures, mut checked) = (Vec::new(), 0);
    for v in &vectors {
        let Some(id) = table.kind(&v.group, &v.version, &v.kind) else { continue };
        let bytes = std::fs::read(v.file("pb")).unwrap();
        let text = shared::compact(&v.read("json"));
        let value = decode::json(table, id, text.as_bytes(), FieldValidation::Strict).unwrap().value;
        let envelope = protobuf::read_envelope(&bytes).unwrap();
        let named = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        if !named("kind").is_empty() {
            assert_eq!(
                (envelope.kind, envelope.api_version),
                (&*named("kind"), &*named("apiVersion")),
                "{}",
                v.name
            );
        }
        checked += 1;
        match CODEC.decode(id, &bytes) {
            Ok(decoded) => {
                let got = String::from_utf8(encode::json(table, id, &decoded)).unwrap();
                shared::same(&mut failures, &format!("{} read", v.name), &got, &text);
            }
            Err(e) => failures.push(format!("{} read: {e}", v.name)),
        }
        let encoded = CODEC.encode(id, &value, envelope.kind, envelope.api_version);
        if encoded != bytes {
            let at = encoded.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
            let cut = |b: &[u8]| {
                format!("{:?}", String::from_utf8_lossy(&b[at.saturating_sub(40)..(at + 40).min(b.len())]))
            };
            failures.push(format!(
                "{} written at {at}:\n  got  {}\n  want {}",
                v.name,
                cut(&encoded),
                cut(&bytes)
            ));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 100);
}

#[test]
fn absent_fields_are_written_as_gogo_writes_them() {
    let table = api::table();
    let id = table.kind("", "v1", "ConfigMap").unwrap();
    let value = json!({"metadata": {"name": "a"}});
    let message = CODEC.encode_message(id, &value);
    let metadata = b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";
    assert_eq!(message, [&[0x0a, metadata.len() as u8][..], metadata].concat());
    assert_eq!(CODEC.decode_message(id, &message).unwrap(), value);
    for bad in [&b"k8s"[..], b"k8s\0\xff", b"k8s\0\x12\x05a"] {
        assert!(CODEC.decode(id, bad).is_err());
    }
    let frame = protobuf::watch_frame("ADDED", b"x");
    assert_eq!(frame, [&12u32.to_be_bytes()[..], b"\x0a\x05ADDED\x12\x03\x0a\x01x"].concat());
}

#[test]
fn verbs_are_a_message_of_their_own() {
    let table = api::table();
    let id = table.type_named("io.k8s.apimachinery.pkg.apis.meta.v1.APIResource").unwrap();
    let resource = json!({"name": "a", "kind": "A", "verbs": ["get", "list"]});
    let bytes = CODEC.encode_message(id, &resource);
    // Field 4 holds a message of 11 bytes: `get` and `list` under number 1.
    let verbs = [&[0x22, 11, 0x0a, 3][..], b"get", &[0x0a, 4], b"list"].concat();
    assert!(bytes.windows(verbs.len()).any(|window| window == verbs), "{bytes:x?}");
    assert_eq!(CODEC.decode_message(id, &bytes).unwrap()["verbs"], resource["verbs"]);
}
