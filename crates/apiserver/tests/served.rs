//! What is served with default flags, compared with what a v1.36.2 API server serves with them.
#![allow(clippy::unwrap_used)]

mod house;

use apiserver::features::Features;
use apiserver::resources::Resources;
use house::house;
use http::Method;
use serde_json::Value;
use std::path::PathBuf;

/// A document of the reference data beside the project; none, with the reason printed, where it is absent.
fn reference(path: &str) -> Option<Value> {
    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let root = std::env::var_os("TIPHYS_REFERENCE_DATA").map_or_else(|| PathBuf::from(DATA), PathBuf::from);
    let path = root.join(path);
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
