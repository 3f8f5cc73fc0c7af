//! Every built-in kind as upstream stores it: its published test objects in protobuf form are read, and what is written
//! back holds the same object.

#![allow(clippy::unwrap_used)]

use apimachinery::value::Value;
use apiserver::resources::Resources;
use apiserver::storage::UpstreamForm;
use schema::decode::FieldValidation;
use store::{Key, Transform};

#[path = "../../schema/tests/shared/mod.rs"]
mod shared;

/// What a message says in its own version, in canonical form.
fn tree(kept: &[u8]) -> Value {
    let envelope = schema::protobuf::read_envelope(kept).unwrap();
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", envelope.api_version));
    let ty = api::table().kind(group, version, envelope.kind).unwrap();
    let tree = api::protobuf().decode_message(ty, envelope.raw).unwrap();
    schema::decode::normalise(api::table(), ty, tree, FieldValidation::Ignore).unwrap().value
}

/// What is in `a` and not the same in `b`. Defaults may add members; nothing may be lost or changed.
fn lost(a: &Value, b: &Value, path: &str, into: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in a {
                lost(value, b.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}"), into);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                lost(a, b, &format!("{path}[{index}]"), into);
            }
        }
        _ if a == b => {}
        _ => into.push(format!("{path}: {a} became {b}")),
    }
}

#[test]
fn upstreams_objects_are_read_and_written_back_whole() {
    let Some(vectors) = shared::data("testdata") else { return };
    let resources = Resources::new(api::table(), &[]);
    let form = UpstreamForm::new(&resources);
    let (mut count, mut problems) = (0, Vec::new());
    for served in resources.all() {
        let group = if served.row.group.is_empty() { "core" } else { &*served.row.group };
        let file = vectors.join(format!("{group}.{}.{}.pb", served.row.version, served.row.kind));
        let Ok(kept) = std::fs::read(file) else { continue };
        if served.prefix.is_empty() {
            continue;
        }
        let key = Key::new(served.prefix.clone(), "a");
        let name = format!("{}/{}", served.api_version, served.row.kind);
        let loaded = form.load(&key, kept.clone().into()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let saved = form.save(&key, &loaded.value).unwrap_or_else(|error| panic!("{name}: {error}"));
        let again = form.load(&key, saved.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.value, loaded.value, "{name}: what was written reads differently");
        assert!(!again.stale, "{name}: what was just written is stale");
        count += 1;
        // In another version the members have other names; in the same one all of them are there.
        if saved.starts_with(b"k8s\0")
            && schema::protobuf::read_envelope(&saved).unwrap().api_version == served.api_version
        {
            lost(&tree(&kept), &tree(&saved), &name, &mut problems);
        }
    }
    // The revision is filled in at every read; the old name of the account follows the new one, and stringData is
    // merged into data before anything is stored; an address alone is the first of the list of them. So they are not in
    // what upstream stores either.
    const NOT_STORED: [&str; 5] = [
        ".metadata.resourceVersion:",
        ".serviceAccount:",
        "v1/Secret.stringData:",
        "v1/Pod.status.podIPs[0].ip:",
        "v1/Node.spec.podCIDRs[0]:",
    ];
    problems.retain(|problem| !NOT_STORED.iter().any(|path| problem.contains(path)));
    assert!(problems.is_empty(), "{} of {count} kinds:\n{}", problems.len(), problems.join("\n"));
    assert!(count > 50, "only {count} kinds have test objects");
}
