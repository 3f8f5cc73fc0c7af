//! A definition whose versions differ in shape: a webhook converts, whoever reads or writes.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use house::hook::{Hook, serve};
use house::{CRDS, House, house};
use http::Method;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const V1: &str = "/apis/example.com/v1/namespaces/default/links";
const V2: &str = "/apis/example.com/v2/namespaces/default/links";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// `v1` says `address: host:port`, `v2` says `host` and `port`.
fn converted(mut object: Value, to: &str) -> Value {
    let spec = object["spec"].as_object().cloned().unwrap_or_default();
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    object["spec"] = if to == "example.com/v2" {
        let address = text("address");
        let (host, port) = address.split_once(':').unwrap_or((&address, ""));
        let mut new = json!({"host": host, "unknown": "pruned"});
        if !port.is_empty() {
            new["port"] = port.into();
        }
        new
    } else {
        json!({"address": format!("{}:{}", text("host"), text("port"))})
    };
    object["apiVersion"] = to.into();
    object["metadata"]["annotations"]["via"] = to.into();
    object["metadata"]["resourceVersion"] = "1".into();
    object
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let objects = request["objects"].as_array().unwrap();
    let converted: Vec<Value> = objects.iter().map(|o| converted(o.clone(), to)).collect();
    json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": {
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted,
    }})
}

fn links(hook: &Hook) -> Value {
    let version = |name: &str, storage: bool, properties: Value, selectable: &str| {
        json!({"name": name, "served": true, "storage": storage,
            "selectableFields": [{"jsonPath": selectable}],
            "additionalPrinterColumns": [{"name": "Where", "type": "string", "jsonPath": selectable}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": properties}}}}})
    };
    let string = json!({"type": "string"});
    json!({
        "metadata": {"name": "links.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "links", "kind": "Link"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": hook.url, "caBundle": hook.bundle}, "conversionReviewVersions": ["v9", "v1"],
            }},
            "versions": [
                version("v1", true, json!({"address": string}), ".spec.address"),
                version("v2", false, json!({"host": string, "port": string}), ".spec.host"),
            ],
        },
    })
}

async fn linked(answer: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> (House, Hook) {
    let house = house().await;
    let hook = serve(answer).await;
    house.define(links(&hook)).await;
    (house, hook)
}

fn link(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Link", "metadata": {"name": name}, "spec": spec})
}

/// What of an object matters here.
fn shown(object: &Value) -> String {
    format!("{} {} {}", object["apiVersion"], object["spec"], object["metadata"]["annotations"])
}

/// The objects of each review since the last look, and the version they were wanted in.
fn asked(hook: &Hook) -> Vec<String> {
    let reviews = std::mem::take(&mut *hook.asked.lock());
    let line = |review: &Value| {
        let names: Vec<&str> = review["objects"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap())
            .collect();
        format!("{} to {}", names.join(" "), review["desiredAPIVersion"].as_str().unwrap())
    };
    reviews.iter().map(line).collect()
}

async fn check(house: &House, hook: &Hook, method: Method, path: &str, body: Value, expected: Expect) {
    let media = match () {
        () if method == Method::PATCH && path.contains("fieldManager") => APPLY,
        () if method == Method::PATCH => MERGE,
        () => "application/json",
    };
    let response = house.send(method, path, &[("content-type", media)], body).await;
    let mut lines = vec![response.status().as_u16().to_string()];
    for line in String::from_utf8_lossy(response.body()).lines() {
        let answer: Value = serde_json::from_str(line).unwrap();
        let ty = answer["type"].as_str().unwrap_or_default();
        let object = answer.get("object").unwrap_or(&answer);
        lines.extend(match object["items"].as_array() {
            Some(items) => items.iter().map(shown).collect(),
            None if object["kind"] == "Status" => vec![object["message"].to_string()],
            None => vec![format!("{ty}{}", shown(object))],
        });
    }
    lines.extend(asked(hook).iter().map(|line| format!("asked for {line}")));
    expected.assert_eq(&lines.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_seen_in_every_version() {
    let (house, hook) = linked(|review| Some(answer(review))).await;
    let one = link("v1", "one", json!({"address": "a:1"}));
    check(
        &house,
        &hook,
        Method::POST,
        V1,
        one,
        expect![[r#"
        201
        "example.com/v1" {"address":"a:1"} null"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::POST,
        V2,
        link("v2", "two", json!({"host": "b", "port": "2"})),
        expect![[r#"
            201
            "example.com/v2" {"host":"b","port":"2"} {"via":"example.com/v2"}
            asked for two to example.com/v1
            asked for two to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::POST,
        V2,
        link("v2", "six", json!({"host": "b", "port": "6"})),
        expect![[r#"
            201
            "example.com/v2" {"host":"b","port":"6"} {"via":"example.com/v2"}
            asked for six to example.com/v1
            asked for six to example.com/v2"#]],
    )
    .await;
    let at = |name: &str| (format!("{V1}/{name}"), format!("{V2}/{name}"));
    check(
        &house,
        &hook,
        Method::GET,
        &at("two").0,
        Value::Null,
        expect![[r#"
        200
        "example.com/v1" {"address":"b:2"} {"via":"example.com/v1"}"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        &at("one").1,
        Value::Null,
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"1"} {"via":"example.com/v2"}
        asked for one to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        V2,
        Value::Null,
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"1"} {"via":"example.com/v2"}
        "example.com/v2" {"host":"b","port":"6"} {"via":"example.com/v2"}
        "example.com/v2" {"host":"b","port":"2"} {"via":"example.com/v2"}"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::PATCH,
        &at("one").1,
        json!({"spec": {"port": "3"}}),
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"3"} {"via":"example.com/v2"}
        asked for one to example.com/v1
        asked for one to example.com/v1
        asked for one to example.com/v1
        asked for one to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        &format!("{V2}?fieldSelector=spec.host%3Db&limit=1"),
        Value::Null,
        expect![[r#"
            200
            "example.com/v2" {"host":"b","port":"6"} {"via":"example.com/v2"}"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        &format!("{V2}?watch=1&timeoutSeconds=1"),
        Value::Null,
        expect![[r#"
        200
        ADDED"example.com/v2" {"host":"a","port":"3"} {"via":"example.com/v2"}
        ADDED"example.com/v2" {"host":"b","port":"6"} {"via":"example.com/v2"}
        ADDED"example.com/v2" {"host":"b","port":"2"} {"via":"example.com/v2"}"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        &format!("{V1}?fieldSelector=spec.address%3Da:3"),
        Value::Null,
        expect![[r#"
            200
            "example.com/v1" {"address":"a:3"} {"via":"example.com/v1"}"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::DELETE,
        &at("one").1,
        Value::Null,
        expect![[r#"
        200
        null"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_converted_together() {
    let (house, hook) = linked(|review| Some(answer(review))).await;
    for name in ["a", "b", "c"] {
        let object = link("v1", name, json!({"address": format!("{name}:1")}));
        assert_eq!(house.json(Method::POST, V1, object).await.0, 201);
    }
    check(
        &house,
        &hook,
        Method::GET,
        V2,
        Value::Null,
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"1"} {"via":"example.com/v2"}
        "example.com/v2" {"host":"b","port":"1"} {"via":"example.com/v2"}
        "example.com/v2" {"host":"c","port":"1"} {"via":"example.com/v2"}
        asked for a b c to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        &format!("{V2}?limit=2"),
        Value::Null,
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"1"} {"via":"example.com/v2"}
        "example.com/v2" {"host":"b","port":"1"} {"via":"example.com/v2"}"#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_have_owners_in_every_version() {
    let (house, hook) = linked(|review| Some(answer(review))).await;
    let apply = |at: &str, manager: &str| format!("{at}/x?fieldManager={manager}");
    check(
        &house,
        &hook,
        Method::PATCH,
        &apply(V1, "ann"),
        link("v1", "x", json!({"address": "a:1"})),
        expect![[r#"
            201
            "example.com/v1" {"address":"a:1"} null"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::PATCH,
        &apply(V2, "bob"),
        link("v2", "x", json!({"host": "b"})),
        expect![[r#"
            409
            "Apply failed with 1 conflict: conflict with \"ann\": .spec.address"
            asked for x to example.com/v2
            asked for x to example.com/v1
            asked for x to example.com/v1"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::PATCH,
        &(apply(V2, "bob") + "&force=true"),
        link("v2", "x", json!({"host": "b"})),
        expect![[r#"
            200
            "example.com/v2" {"host":"b","port":"1"} {"via":"example.com/v2"}
            asked for x to example.com/v1
            asked for x to example.com/v1
            asked for x to example.com/v1
            asked for x to example.com/v2"#]],
    )
    .await;
    let object = house.get(&format!("{V1}/x")).await;
    let owners = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let owners: Vec<String> =
        owners.map(|o| format!("{} {} {}", o["manager"], o["apiVersion"], o["fieldsV1"])).collect();
    expect![[r#""bob" "example.com/v2" {"f:spec":{"f:host":{}}}"#]].assert_eq(&owners.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let (house, hook) = linked(move |review| {
        let mut answer = answer(review);
        if switch.load(Ordering::Relaxed) {
            answer["response"]["result"] = json!({"status": "Failure", "message": "I cannot"});
        }
        Some(answer)
    })
    .await;
    check(
        &house,
        &hook,
        Method::POST,
        V1,
        link("v1", "x", json!({"address": "a:1"})),
        expect![[r#"
        201
        "example.com/v1" {"address":"a:1"} null"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::POST,
        V2,
        link("v2", "y", json!({"host": "b"})),
        expect![[r#"
        500
        "conversion webhook for example.com/v2, Kind=Link failed: I cannot"
        asked for y to example.com/v1"#]],
    )
    .await;
    let at = format!("{V2}/x");
    check(
        &house,
        &hook,
        Method::GET,
        &at,
        Value::Null,
        expect![[r#"
        500
        "conversion webhook for example.com/v1, Kind=Link failed: I cannot"
        asked for x to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::GET,
        V2,
        Value::Null,
        expect![[r#"
        500
        "conversion webhook for example.com/v1, Kind=Link failed: I cannot"
        asked for x to example.com/v2"#]],
    )
    .await;
    check(
        &house,
        &hook,
        Method::DELETE,
        &at,
        Value::Null,
        expect![[r#"
        500
        "conversion webhook for example.com/v1, Kind=Link failed: I cannot"
        asked for x to example.com/v2"#]],
    )
    .await;
    broken.store(false, Ordering::Relaxed);
    check(
        &house,
        &hook,
        Method::GET,
        &at,
        Value::Null,
        expect![[r#"
        200
        "example.com/v2" {"host":"a","port":"1"} {"via":"example.com/v2"}
        asked for x to example.com/v2"#]],
    )
    .await;
    let text = house.server.metrics.render();
    let counts = text.lines().filter(|line| line.starts_with("apiserver_conversion_webhook_request_total"));
    expect![[r#"
        apiserver_conversion_webhook_request_total{failure_type="conversion_webhook_malformed_response_failure",result="failure"} 4
        apiserver_conversion_webhook_request_total{failure_type="",result="success"} 1"#]].assert_eq(&counts.collect::<Vec<_>>().join("\n"));
    // The definition takes its objects with it though nobody converts any more.
    broken.store(true, Ordering::Relaxed);
    let (code, _) = house.json(Method::DELETE, &format!("{CRDS}/links.example.com"), Value::Null).await;
    assert_eq!(code, 200);
    house.until("links.example.com", |definition| definition.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_stored_in_the_storage_version() {
    let (house, hook) = linked(|review| Some(answer(review))).await;
    assert_eq!(house.json(Method::POST, V1, link("v1", "x", json!({"address": "a:1"}))).await.0, 201);
    let before = house.server.registry.resources.get("example.com", "v1", "links").unwrap();
    let turn = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    let at = format!("{CRDS}/links.example.com");
    let (code, definition) = house.call(Method::PATCH, &at, "application/json-patch+json", turn).await;
    assert_eq!((code, &definition["status"]["storedVersions"]), (200, &json!(["v1", "v2"])));
    let stored = || {
        let snapshot = house.server.registry.store.snapshot("/registry/example.com/links/");
        let entry = snapshot.entries.values().next().unwrap().clone();
        String::from_utf8_lossy(&entry.value[8..]).split("\"metadata\"").next().unwrap().to_owned()
    };
    let mut seen = vec![stored()];
    // The definition's new shape is served in place of the old one.
    before.custom.as_ref().unwrap().gone.cancelled().await;
    assert_eq!(house.call(Method::PATCH, &format!("{V1}/x"), MERGE, json!({})).await.0, 200);
    seen.push(stored());
    expect![[r#"
        {"apiVersion":"example.com/v1","kind":"Link",
        {"apiVersion":"example.com/v2","kind":"Link","#]]
    .assert_eq(&seen.join("\n"));
    drop(hook);
}
