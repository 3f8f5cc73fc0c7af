//! The three patches, on built-in objects.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

use apimachinery::json;
use apimachinery::value::Value;
use schema::decode::FieldValidation::Strict;
use schema::patch::{self, JsonPatch};

fn check_json(doc: Value, ops: Value, want: Result<Value, &str>) {
    let patch = JsonPatch::parse(ops.to_string().as_bytes(), Strict);
    let got = patch.and_then(|p| p.apply(doc)).map_err(|e| e.message);
    assert_eq!(got, want.map_err(str::to_owned), "{ops}");
}

#[test]
fn json_patches_apply_as_upstreams_do() {
    let doc = || json!({"a": {"b/c": 1}, "l": [1, 2, 3]});
    for (ops, want) in [
        (
            json!([{"op": "add", "path": "/a/x", "value": null}]),
            json!({"a": {"b/c": 1, "x": null}, "l": [1, 2, 3]}),
        ),
        (json!([{"op": "add", "path": "/l/-", "value": 4}]), json!({"a": {"b/c": 1}, "l": [1, 2, 3, 4]})),
        (json!([{"op": "add", "path": "/l/-1", "value": 4}]), json!({"a": {"b/c": 1}, "l": [1, 2, 3, 4]})),
        (json!([{"op": "remove", "path": "/l/-1"}]), json!({"a": {"b/c": 1}, "l": [1, 2]})),
        (json!([{"op": "replace", "path": "/a/b~1c", "value": 2}]), json!({"a": {"b/c": 2}, "l": [1, 2, 3]})),
        // What is not there is null.
        (
            json!([{"op": "replace", "path": "/z", "value": 2}, {"op": "test", "path": "/y", "value": null}]),
            json!({"a": {"b/c": 1}, "l": [1, 2, 3], "z": 2}),
        ),
        (
            json!([{"op": "move", "from": "/l/0", "path": "/a/m"}]),
            json!({"a": {"b/c": 1, "m": 1}, "l": [2, 3]}),
        ),
        (
            json!([{"op": "copy", "from": "/l", "path": "/m"}, {"op": "test", "path": "/m/1", "value": 2.0}]),
            json!({"a": {"b/c": 1}, "l": [1, 2, 3], "m": [1, 2, 3]}),
        ),
    ] {
        check_json(doc(), ops, Ok(want));
    }
    for (ops, want) in [
        (
            json!([{"op": "remove", "path": "/nope"}]),
            "error in remove for path: '/nope': Unable to remove nonexistent key: nope: missing value",
        ),
        (
            json!([{"op": "replace", "path": "/l/9", "value": 1}]),
            "replace operation does not apply: doc is missing key: /l/9: missing value",
        ),
        (json!([{"op": "test", "path": "/a/z", "value": 1}]), "testing value /a/z failed: test failed"),
        (
            json!([{"op": "add", "path": "/z/y", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/z/y\": missing value",
        ),
        (
            json!([{"op": "add", "path": "/l/9", "value": 1}]),
            "error in add for path: '/l/9': Unable to access invalid index: 9: invalid index referenced",
        ),
        (json!([{"op": "test", "path": "/l/0", "value": 9}]), "testing value /l/0 failed: test failed"),
        (json!([{"op": "jump", "path": "/l"}]), "Unexpected kind: jump"),
        (
            json!({"op": "add"}),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
    ] {
        check_json(doc(), ops, Err(want));
    }
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/l/0", "value": 1})).collect();
    check_json(doc(), many.into(), Err("The allowed maximum operations in a JSON patch is 10000, got 10001"));
    let patch = JsonPatch::parse(br#"[{"op":"add","op":"add","path":"/a","x":1}]"#, Strict).unwrap();
    assert_eq!(patch.strict, ["json patch duplicate field \"[0].op\"", "json patch unknown field \"[0].x\""]);
}

#[test]
fn merge_patches_leave_no_nulls() {
    let mut doc = json!({"a": {"b": 1, "c": 2}, "d": [1]});
    patch::merge(
        &mut doc,
        &json!({"a": {"b": null, "e": {"f": null, "g": [null, {"h": null}]}}, "d": {"x": null}}),
    );
    assert_eq!(doc, json!({"a": {"c": 2, "e": {"g": [null, {}]}}, "d": {}}));
    assert_eq!(
        patch::parse_object(b"[]", Strict).unwrap_err().message,
        "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
    );
}

/// Strategic merge into a pod's spec.
fn check(spec: Value, patch: Value, want: Result<Value, &str>) {
    let table = api::table();
    let id = table.kind("", "v1", "Pod").unwrap();
    let shown = patch.to_string();
    let got = patch::strategic(table, id, json!({ "spec": spec }), json!({ "spec": patch }))
        .map(|mut v| v["spec"].take())
        .map_err(|e| e.message);
    assert_eq!(got, want.map_err(str::to_owned), "{shown}");
}

#[test]
fn strategic_merge_follows_the_rows() {
    let names = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n})).collect() };
    let abc = || json!({"containers": names(&["a", "b", "c"])});
    check(
        abc(),
        json!({"containers": [{"name": "b", "image": "x"}]}),
        Ok(json!({"containers": [{"name": "a"}, {"name": "b", "image": "x"}, {"name": "c"}]})),
    );
    check(
        abc(),
        json!({"containers": [{"name": "d"}]}),
        Ok(json!({"containers": names(&["d", "a", "b", "c"])})),
    );
    check(
        abc(),
        json!({"containers": [{"name": "b", "$patch": "delete"}]}),
        Ok(json!({"containers": names(&["a", "c"])})),
    );
    check(
        abc(),
        json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
        Ok(json!({"containers": names(&["z"])})),
    );
    check(
        abc(),
        json!({"$setElementOrder/containers": names(&["c", "x", "a"]), "containers": names(&["x"])}),
        Ok(json!({"containers": names(&["b", "c", "x", "a"])})),
    );
    check(
        abc(),
        json!({"$setElementOrder/containers": names(&["c", "a"]), "containers": [{"name": "b"}]}),
        Err(
            "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:c] map[name:a]]\n",
        ),
    );
    check(
        abc(),
        json!({"containers": [{"image": "x"}]}),
        Err("map: map[image:x] does not contain declared merge key: name"),
    );
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
        Ok(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]})),
    );
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/"}}]}),
        Err("invalid patch format of retainKeys"),
    );
    // Atomic lists are replaced, primitive merge lists joined, maps merged, nulls delete.
    check(
        json!({"tolerations": [{"key": "a"}], "nodeSelector": {"x": "1", "y": "2"}, "nodeName": "n"}),
        json!({"tolerations": [{"key": "b"}], "nodeSelector": {"x": null, "z": "3"}, "nodeName": null, "hostname": null}),
        Ok(json!({"tolerations": [{"key": "b"}], "nodeSelector": {"y": "2", "z": "3"}})),
    );
    check(
        json!({"nodeSelector": {"x": "1"}}),
        json!({"nodeSelector": {"$patch": "replace", "y": "2"}, "securityContext": {"$patch": "delete"}}),
        Ok(json!({"nodeSelector": {"y": "2"}})),
    );
    let table = api::table();
    let id = table.kind("", "v1", "Pod").unwrap();
    let finalizers = |of: Value, patch: Value| {
        let got = patch::strategic(
            table,
            id,
            json!({"metadata": {"finalizers": of}}),
            json!({ "metadata": patch }),
        );
        got.unwrap()["metadata"]["finalizers"].take()
    };
    assert_eq!(finalizers(json!(["a", "b"]), json!({"finalizers": ["c", "a"]})), json!(["c", "a", "b"]));
    assert_eq!(
        finalizers(json!(["a", "b"]), json!({"$deleteFromPrimitiveList/finalizers": ["a"]})),
        json!(["b"])
    );
    assert_eq!(
        finalizers(
            json!(["a", "b"]),
            json!({"$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"]})
        ),
        json!(["a", "b", "c"])
    );
}
