//! What changes objects.

use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use schema::TypeId;
use schema::apply::{self, OneShape, Request};
use schema::decode::{self, FieldValidation};
use schema::patch::{self, JsonPatch};

pub(crate) const JSON_PATCHES: &[&str] = &[
    r#"[{"op":"add","path":"/metadata/labels/a~1b","value":"c"},{"op":"remove","path":"/spec/containers/0"}]"#,
    r#"[{"op":"test","path":"/kind","value":"Pod"},{"op":"move","from":"/spec","path":"/spec/x"},{"op":"copy","from":"","path":"/spec/containers/-"}]"#,
];
pub(crate) const OBJECTS: &[&str] = &[
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":null},"finalizers":["b"]},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":1,"protocol":"UDP"}]}]}}"#,
    r#"{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"c","$patch":"delete"},{"name":"d","$retainKeys":["name"]}],"$retainKeys":["containers"]}}"#,
    r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"$setElementOrder/finalizers":["b","a"]},"spec":{"tolerations":[{"$patch":"replace"}],"securityContext":{"$patch":"replace"}}}"#,
];
pub(crate) const MANAGED: &[&str] = &[
    r#"[{"manager":"m","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","time":"2024-01-02T03:04:05Z","fieldsV1":{"f:metadata":{"f:labels":{".":{},"f:a":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}},"f:x":{"v:1":{},"i:0":{}}}}}]"#,
];

fn pod() -> (TypeId, Value) {
    let ty = api::table().kind("", "v1", "Pod").unwrap_or(TypeId(0));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a": "b"}, "finalizers": ["a", "b"]},
        "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "j"}]}});
    (ty, pod)
}

fn request(ty: TypeId) -> Request<'static> {
    Request {
        table: api::table(),
        ty: Some(ty),
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        manager: "m",
        now: Time::from_unix(1),
        reset_fields: None,
        versions: &OneShape,
    }
}

pub(crate) fn json_patch(data: &[u8]) {
    if let Ok(patch) = JsonPatch::parse(data, FieldValidation::Strict) {
        let _ = patch.apply(pod().1);
    }
}

pub(crate) fn merge(data: &[u8]) {
    if let Ok(parsed) = patch::parse_object(data, FieldValidation::Strict) {
        let mut once = pod().1;
        patch::merge(&mut once, &parsed.value);
        let mut twice = once.clone();
        patch::merge(&mut twice, &parsed.value);
        assert_eq!(once, twice);
    }
}

pub(crate) fn strategic(data: &[u8]) {
    let (ty, pod) = pod();
    if let Ok(parsed) = patch::parse_strategic(data, FieldValidation::Strict) {
        let _ = patch::go_format(&parsed.value);
        let _ = patch::strategic(api::table(), ty, pod, parsed.value);
    }
}

pub(crate) fn apply(data: &[u8]) {
    let (ty, mut live) = pod();
    apply::update(&request(ty), None, &mut live);
    let text = String::from_utf8_lossy(data);
    if let Ok(applied) = decode::yaml_document(&text, FieldValidation::Strict) {
        let _ = apply::apply(&request(ty), None, &applied.value, true);
        let _ = apply::apply(&request(ty), Some(&live), &applied.value, false);
    }
}

/// Managed fields as a client may send them, and as they may be stored.
pub(crate) fn managed_fields(data: &[u8]) {
    let Ok(managed) = serde_json::from_slice::<Value>(data) else { return };
    let (ty, mut live) = pod();
    live["metadata"]["managedFields"] = managed;
    let mut new = live.clone();
    new["spec"]["nodeName"] = "n".into();
    apply::update(&request(ty), Some(&live), &mut new);
    let applied = pod().1;
    let _ = apply::apply(&request(ty), Some(&live), &applied, true);
}
