//! What is served with default flags, compared with what a v1.36.2 API server serves with them.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::{Key, Value};
use apiserver::features::Features;
use apiserver::gate::Gate;
use apiserver::observed::Observed;
use apiserver::resources::Resources;
use component::metrics::Registry;
use expect_test::expect;
use house::{house, house_behind, house_with_everything};
use http::Method;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

fn reference_path(path: &str) -> PathBuf {
    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let root = std::env::var_os("TIPHYS_REFERENCE_DATA").map_or_else(|| PathBuf::from(DATA), PathBuf::from);
    root.join(path)
}

/// A document of the reference data beside the project; none, with the reason printed, where it is absent.
fn reference(path: &str) -> Option<Value> {
    let path = reference_path(path);
    if path.exists() {
        return Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap());
    }
    assert!(std::env::var_os("CI").is_none(), "{} is absent", path.display());
    println!("passed over: {} is absent (TIPHYS_REFERENCE_DATA names its root)", path.display());
    None
}

/// The groups of an aggregated discovery document, by name: their order depends on who registered first.
fn groups(document: &Value) -> Vec<Value> {
    let mut items = document["items"].as_array().unwrap().clone();
    for item in &mut items {
        // When a group was registered is nobody's business.
        item["metadata"].as_object_mut().unwrap().remove("creationTimestamp");
    }
    items.sort_by_key(|item| item["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    items
}

#[tokio::test(flavor = "multi_thread")]
async fn default_flags_serve_what_upstream_serves() {
    let house = house().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, file) in [("/api", "discovery_api"), ("/apis", "discovery_apis")] {
        let Some(wanted) = reference(&format!("default-flags/{file}.json")) else { return };
        let response = house.send(Method::GET, path, &[("accept", accept)], Value::Null).await;
        let served: Value = serde_json::from_slice(response.body()).unwrap();
        let (served, wanted) = (groups(&served), groups(&wanted));
        for (ours, theirs) in served.iter().zip(&wanted) {
            assert_eq!(ours, theirs);
        }
        assert_eq!(served.len(), wanted.len());
    }
}

/// Each recorded document of discovery, and which documents of OpenAPI there are: what these say is compared where they are
/// made. With every feature and every API there is one whole path from flags to documents.
#[tokio::test(flavor = "multi_thread")]
async fn everything_serves_what_upstream_serves() {
    let Some(_) = reference("discovery/apis.json") else { return };
    let house = house_with_everything().await;
    let directory = reference_path("discovery");
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut wanted: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if name == "aggregated_v2" {
            let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
            let answer = house.send(Method::GET, "/apis", &accept, Value::Null).await;
            let served: Value = serde_json::from_slice(answer.body()).unwrap();
            assert_eq!(groups(&served), groups(&wanted));
            continue;
        }
        let mut served = house.get(&format!("/{}", name.replace("__", "/"))).await;
        for document in [&mut served, &mut wanted] {
            // The address is the server's.
            document.as_object_mut().unwrap().remove("serverAddressByClientCIDRs");
        }
        assert_eq!(served, wanted, "{name}");
    }
    let index = house.get("/openapi/v3").await;
    let served: BTreeSet<String> = index["paths"].as_object().unwrap().keys().map(Key::to_string).collect();
    let recorded = std::fs::read_dir(reference_path("openapi/v3")).unwrap().map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.trim_end_matches(".json").trim_end_matches("_openapi").replace("__", "/")
    });
    // The recorder left out what begins with a dot, and had what shows files of the machine.
    let mut recorded: BTreeSet<String> = recorded.filter(|name| name != "logs").collect();
    recorded.insert(".well-known/openid-configuration".into());
    assert_eq!(served, recorded);
    let paths = |document: &Value| -> BTreeSet<String> {
        document["paths"].as_object().unwrap().keys().map(Key::to_string).collect()
    };
    let mut recorded = paths(&reference("openapi/swagger.json").unwrap());
    recorded.retain(|path| !path.starts_with("/logs/"));
    assert_eq!(paths(&house.get("/openapi/v2").await), recorded);
}

/// Every resource of the table can be served: its objects can be brought to the version that hooks run on, and back.
#[test]
fn everything_can_be_enabled() {
    let (features, _) = Features::parse("AllAlpha=true,AllBeta=true", "api/all=true").unwrap();
    let resources = Resources::serving(api::table(), &|row| features.serves(row));
    let rows = api::table().resources().iter().filter(|row| row.split().1.is_none());
    let missing = rows.filter(|row| resources.get(&row.group, &row.version, &row.resource).is_none());
    let missing: Vec<String> =
        missing.map(|row| format!("{}/{}/{}", row.group, row.version, row.resource)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

/// What is not stored has no table.
#[tokio::test(flavor = "multi_thread")]
async fn reviews_have_no_table() {
    let house = house().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = house.send(Method::POST, path, &[("accept", accept)], review).await;
    assert_eq!(answer.status(), 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_selected_in_the_words_of_their_version() {
    let house = house().await;
    let event = json!({
        "metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"namespace": "default"},
        "reason": "Test", "type": "Normal", "reportingComponent": "tester",
    });
    let events = "/api/v1/namespaces/default/events";
    assert_eq!(house.json(Method::POST, events, event).await.0, 201);
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let found = async |path: &str, selector: &str| {
        let list = house.get(&format!("{path}?fieldSelector={selector}")).await;
        list["items"].as_array().map_or_else(|| list["message"].to_string(), |items| items.len().to_string())
    };
    let mut told = Vec::new();
    for (path, selector) in [
        (events, "reportingComponent%3Dtester"),
        (events, "source%3Dtester"),
        (events, "reportingController%3Dtester"),
        (newer, "reportingController%3Dtester"),
        (newer, "reportingController%3Dother"),
        (newer, "regarding.namespace%3Ddefault"),
        (newer, "involvedObject.namespace%3Ddefault"),
        (newer, "source%3Dtester"),
    ] {
        told.push(format!("{selector} {}", found(path, selector).await));
    }
    let expected = expect![[r#"
        reportingComponent%3Dtester 1
        source%3Dtester 1
        reportingController%3Dtester "field label not supported: reportingController"
        reportingController%3Dtester 1
        reportingController%3Dother 0
        regarding.namespace%3Ddefault 1
        involvedObject.namespace%3Ddefault "field label not supported: involvedObject.namespace"
        source%3Dtester "field label not supported: source""#]];
    expected.assert_eq(&told.join("\n"));
}

/// A key that stands twice is told by its line, whatever the object's kind.
#[tokio::test(flavor = "multi_thread")]
async fn applied_documents_are_read_strictly() {
    let house = house().await;
    let path = "/api/v1/namespaces/default/configmaps/twice?fieldManager=test&fieldValidation=Strict";
    let apply = async |text: &str| {
        let media = [("content-type", "application/apply-patch+yaml")];
        let answer = house.send_text(Method::PATCH, path, &media, text).await;
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        format!("{} {}", answer.status().as_u16(), body["message"])
    };
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: twice\ndata:\n  a: x\n  a: z\n";
    let json =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"twice"},"data":{"a":"x","a":"y"}}"#;
    let expected = expect![[r#"
        400 "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map"
        400 "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 1: key \"a\" already set in map""#]];
    expected.assert_eq(&[apply(yaml).await, apply(json).await].join("\n"));
}

/// Whoever asks for what is not there makes no metrics of his words.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_not_counted_by_name() {
    let registry = Registry::new();
    let gate = Gate { observed: Some(Arc::new(Observed::new(&registry))), ..Gate::default() };
    let house = house_behind(gate).await;
    let path = "/api/v1/namespaces/default/configmaps/a";
    assert_eq!(house.json(Method::GET, path, Value::Null).await.0, 404);
    for word in ["/bogus-subresource", "/status"] {
        assert_eq!(house.json(Method::GET, &format!("{path}{word}"), Value::Null).await.0, 404);
    }
    for path in ["/api/v1/bogus-resource", "/apis/bogus-group/v1/things", "/bogus-path"] {
        assert_eq!(house.json(Method::GET, path, Value::Null).await.0, 404);
    }
    let text = registry.render();
    assert!(text.contains(r#"resource="configmaps",scope="resource",subresource="",verb="GET""#), "{text}");
    assert!(!text.contains("bogus") && !text.contains(r#"subresource="status""#), "{text}");
}
