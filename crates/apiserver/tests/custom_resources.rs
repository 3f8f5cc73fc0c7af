//! Custom resources: a definition is created, served before anybody can see it established, its objects live their lives,
//! and all goes with the definition.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use expect_test::expect;
use house::{CRDS, condition, house};
use http::Method;

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn widgets() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                 "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.count", "statusReplicasPath": ".status.count", "labelSelectorPath": ".status.selector"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}],
                 "additionalPrinterColumns": [
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                    {"name": "Count", "type": "integer", "jsonPath": ".spec.count", "priority": 1},
                 ],
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["color"], "properties": {
                        "color": {"type": "string", "enum": ["red", "green"]},
                        "count": {"type": "integer", "minimum": 0, "default": 1},
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
                    }},
                    "status": {"type": "object", "properties": {"count": {"type": "integer"}, "selector": {"type": "string"}}},
                 }}}},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_kind_lives_its_life() {
    let house = house().await;
    assert_eq!(house.json(Method::GET, WIDGETS, Value::Null).await.0, 404);
    house.define(widgets()).await;

    let (code, made) =
        house.json(Method::POST, WIDGETS, widget("a", json!({"color": "red", "bogus": 1}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"], json!({"color": "red", "count": 1}), "defaulted and pruned");
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, list) =
        house.json(Method::GET, &format!("{WIDGETS}?fieldSelector=spec.color%3Dred"), Value::Null).await;
    assert_eq!(
        (code, &list["kind"], list["items"][0]["kind"].as_str()),
        (200, &json!("WidgetList"), Some("Widget"))
    );
    let none = house.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dgreen")).await;
    assert_eq!(none["items"], json!([]));

    let at = format!("{WIDGETS}/a");
    let merge = "application/merge-patch+json";
    let (code, patched) =
        house.call(Method::PATCH, &at, merge, json!({"spec": {"count": 3}, "status": {"count": 9}})).await;
    assert_eq!((code, &patched["spec"]["count"], patched.get("status")), (200, &json!(3), None), "{patched}");
    assert_eq!(patched["metadata"]["generation"], 2);
    let (code, status) = house
        .call(
            Method::PATCH,
            &format!("{at}/status"),
            merge,
            json!({"spec": {"count": 7}, "status": {"count": 2, "selector": "a=b"}}),
        )
        .await;
    assert_eq!(
        (code, &status["spec"]["count"], &status["status"]["count"]),
        (200, &json!(3), &json!(2)),
        "{status}"
    );
    assert_eq!(status["metadata"]["generation"], 2);

    let scale = house.get(&format!("{at}/scale")).await;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 3}), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let (code, scaled) =
        house.call(Method::PATCH, &format!("{at}/scale"), merge, json!({"spec": {"replicas": 5}})).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(5)), "{scaled}");
    assert_eq!(house.get(&at).await["spec"]["count"], 5);

    let old = house.get("/apis/example.com/v1beta1/namespaces/default/widgets/a").await;
    assert_eq!(
        (&old["apiVersion"], &old["spec"]["count"]),
        (&json!("example.com/v1beta1"), &json!(5)),
        "{old}"
    );
    let warned = house.send(Method::GET, "/apis/example.com/v1beta1/widgets", &[], Value::Null).await;
    let warning = warned.headers().get("warning").unwrap().to_str().unwrap().to_owned();
    assert_eq!(warning, "299 - \"example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget\"");

    let table = house
        .send(
            Method::GET,
            WIDGETS,
            &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")],
            Value::Null,
        )
        .await;
    let table: Value = serde_json::from_slice(table.body()).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red", 5]), "{table}");

    let mut full = house.get(&at).await;
    full["spec"]["color"] = "green".into();
    assert_eq!(house.json(Method::PUT, &at, full.clone()).await.0, 200);
    assert_eq!(house.json(Method::PUT, &at, full.clone()).await.0, 409, "the version is stale");
    full["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (code, refused) = house.json(Method::PUT, &at, full).await;
    assert_eq!(code, 422);
    assert_eq!(
        refused["message"],
        "widgets.example.com \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );

    let (code, gone) = house.json(Method::DELETE, WIDGETS, Value::Null).await;
    assert_eq!(code, 200, "{gone}");
    assert_eq!(house.json(Method::GET, &at, Value::Null).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_and_definitions_are_judged() {
    let house = house().await;
    house.define(widgets()).await;
    let mut answers = Vec::new();
    for (path, object) in [
        (WIDGETS.to_owned(), widget("a", json!({}))),
        (WIDGETS.to_owned(), widget("a", json!({"color": "blue", "count": -1}))),
        (WIDGETS.to_owned(), widget("a", json!({"color": "red", "ports": [{"name": "x"}, {"name": "x"}]}))),
        (format!("{WIDGETS}?fieldValidation=Strict"), widget("a", json!({"color": "red", "x": 1}))),
        (
            CRDS.to_owned(),
            json!({"metadata": {"name": "x"}, "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true}]}}),
        ),
        (
            CRDS.to_owned(),
            json!({"metadata": {"name": "xs.example.com"}, "spec": {"group": "example.com", "scope": "All", "names": {"plural": "xs", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "thing"}}}}}]}}),
        ),
    ] {
        let (code, status) = house.json(Method::POST, &path, object).await;
        answers.push(format!(
            "{code} {} {}",
            status["reason"].as_str().unwrap(),
            status["message"].as_str().unwrap()
        ));
    }
    let expected = expect![[r#"
        422 Invalid Widget.example.com "a" is invalid: spec.color: Required value
        422 Invalid Widget.example.com "a" is invalid: [spec.color: Unsupported value: "blue": supported values: "red", "green", spec.count: Invalid value: -1: spec.count in body should be greater than or equal to 0, .spec.count: Invalid value: -1: should be a non-negative integer]
        422 Invalid Widget.example.com "a" is invalid: spec.ports[1]: Duplicate value: {"name":"x"}
        400 BadRequest Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.x"
        422 Invalid CustomResourceDefinition.apiextensions.k8s.io "x" is invalid: [metadata.name: Invalid value: "x": must be spec.names.plural+"."+spec.group, spec.versions[0].schema.openAPIV3Schema: Required value]
        422 Invalid CustomResourceDefinition.apiextensions.k8s.io "xs.example.com" is invalid: [spec.scope: Unsupported value: "All": supported values: "Cluster", "Namespaced", spec.versions: Invalid value: [{"Name":"v1","Served":true,"Storage":false,"Deprecated":false,"DeprecationWarning":null,"Schema":null,"Subresources":null,"AdditionalPrinterColumns":null,"SelectableFields":null}]: must have exactly one version marked as storage version, spec.validation.openAPIV3Schema.properties[a].type: Unsupported value: "thing": supported values: "array", "boolean", "integer", "number", "object", "string", status.storedVersions: Invalid value: null: must have at least one stored version]"#]];
    expected.assert_eq(&answers.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_openapi_follow() {
    let house = house().await;
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let before = house.send(Method::GET, "/apis", &accept, Value::Null).await;
    house.define(widgets()).await;
    let after = house.send(Method::GET, "/apis", &accept, Value::Null).await;
    assert_ne!(before.headers()["etag"], after.headers()["etag"]);
    let document: Value = serde_json::from_slice(after.body()).unwrap();
    let group = document["items"].as_array().unwrap().last().unwrap();
    assert_eq!(group["metadata"]["name"], "example.com");
    assert_eq!(group["versions"][0]["resources"][0]["shortNames"], json!(["wd"]));
    let subresources = group["versions"][0]["resources"][0]["subresources"].as_array().unwrap();
    assert_eq!(subresources.len(), 2);
    let list = house.get("/apis/example.com/v1").await;
    assert_eq!(list["resources"].as_array().unwrap().len(), 3);
    assert_eq!(house.get("/apis/example.com").await["preferredVersion"]["version"], "v1");

    let index = house.get("/openapi/v3").await;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = house.get(url).await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["count"]["default"], 1, "{document}");
    assert!(
        document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status"].is_object()
    );
    let v2 = house.get("/openapi/v2").await;
    let schema = &v2["definitions"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["color"]["type"], "string");
    let loose = &v2["definitions"]["com.example.v1beta1.Widget"];
    let kind = json!({"group": "example.com", "kind": "Widget", "version": "v1beta1"});
    assert_eq!(loose, &json!({"type": "object", "x-kubernetes-group-version-kind": [kind]}));
    let metadata = &document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"];
    let words = metadata["properties"]["creationTimestamp"]["description"].as_str().unwrap();
    assert!(words.starts_with("CreationTimestamp is a timestamp"), "{words}");

    assert_eq!(house.json(Method::DELETE, &format!("{CRDS}/widgets.example.com"), Value::Null).await.0, 200);
    house.until("widgets.example.com", |d| d.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_go_before_their_definition() {
    let house = house().await;
    house.define(widgets()).await;
    let mut held = widget("held", json!({"color": "red"}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    assert_eq!(house.json(Method::POST, WIDGETS, held).await.0, 201);
    assert_eq!(house.json(Method::POST, WIDGETS, widget("free", json!({"color": "red"}))).await.0, 201);
    let (code, going) = house.json(Method::DELETE, &format!("{CRDS}/widgets.example.com"), Value::Null).await;
    assert_eq!((code, condition(&going, "Terminating")), (200, "True"), "{going}");
    house
        .until("widgets.example.com", |d| {
            d.is_some_and(|d| {
                let conditions = d["status"]["conditions"].as_array().unwrap();
                conditions.iter().any(|c| c["reason"] == "InstanceDeletionInProgress")
            })
        })
        .await;
    let (code, refused) = house.json(Method::POST, WIDGETS, widget("late", json!({"color": "red"}))).await;
    assert_eq!(code, 403, "{refused}");
    let free = json!({"metadata": {"finalizers": null}});
    let (code, _) =
        house.call(Method::PATCH, &format!("{WIDGETS}/held"), "application/merge-patch+json", free).await;
    assert_eq!(code, 200);
    house.until("widgets.example.com", |d| d.is_none()).await;
    // The same name again is a new kind, without the old one's objects.
    house.define(widgets()).await;
    assert_eq!(house.get(WIDGETS).await["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_definitions_cost_little() {
    let house = house().await;
    let filler = "d".repeat(40 << 10);
    for i in 0..100 {
        let mut definition = widgets();
        let plural = format!("w{i}s");
        definition["metadata"]["name"] = format!("{plural}.example.com").into();
        definition["spec"]["names"] = json!({"plural": plural, "kind": format!("W{i}")});
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] =
            filler.as_str().into();
        house.define(definition).await;
    }
    let list = house.get("/apis/example.com/v1").await;
    assert_eq!(list["resources"].as_array().unwrap().len(), 300);
}

fn ruled(spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gates.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "gates", "kind": "Gate"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_kept() {
    let house = house().await;
    let spec = json!({"type": "object", "properties": {
        "low": {"type": "integer"}, "high": {"type": "integer"},
        "name": {"type": "string", "maxLength": 10, "x-kubernetes-validations": [
            {"rule": "self == oldSelf", "message": "the name stays"}]},
    }, "x-kubernetes-validations": [
        {"rule": "self.low <= self.high", "messageExpression": "'%d is more than %d'.format([self.low, self.high])", "fieldPath": ".low"},
    ]});
    house.define(ruled(spec)).await;
    let gates = "/apis/example.com/v1/gates";
    let gate = |low: i64, high: i64, name: &str| json!({"apiVersion": "example.com/v1", "kind": "Gate", "metadata": {"name": "g"}, "spec": {"low": low, "high": high, "name": name}});
    let (code, refused) = house.json(Method::POST, gates, gate(3, 2, "a")).await;
    let why = "Gate.example.com \"g\" is invalid: spec.low: Invalid value: 3 is more than 2";
    assert_eq!((code, refused["message"].as_str().unwrap()), (422, why));
    assert_eq!(house.json(Method::POST, gates, gate(1, 2, "a")).await.0, 201);
    let patch = json!({"spec": {"name": "b"}});
    let (code, refused) =
        house.call(Method::PATCH, &format!("{gates}/g"), "application/merge-patch+json", patch).await;
    let why = "Gate.example.com \"g\" is invalid: spec.name: Invalid value: \"b\": the name stays";
    assert_eq!((code, refused["message"].as_str().unwrap()), (422, why));
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_judged() {
    let house = house().await;
    let rule = |text: &str| json!([{ "rule": text }]);
    for (spec, why) in [
        (
            json!({"type": "object", "x-kubernetes-validations": rule("self.nothing == 1")}),
            "undefined field 'nothing'",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": rule("'text'")}),
            "cel expression must evaluate to a bool",
        ),
        (
            json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": rule("self.matches('^a+$')")}}),
            "x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x",
        ),
        (
            json!({"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5, "x-kubernetes-validations": rule("self == oldSelf")}}),
            "oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[spec]",
        ),
    ] {
        let (code, status) = house.json(Method::POST, CRDS, ruled(spec)).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert!(code == 422 && message.contains(why), "{code} {message}");
    }
}
