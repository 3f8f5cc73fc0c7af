//! Discovery and OpenAPI, compared with what a v1.36 API server serves.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

mod shared;

use schema::discovery::{self, AggregatedVersion, Resources};
use serde_json::{Value, json};

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Says where two trees part, which a dump of both would hide.
fn assert_same(got: &Value, want: &Value, path: &str, differences: &mut Vec<String>) {
    match (got, want) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => assert_same(a, b, &format!("{path}/{key}"), differences),
                    (Some(a), None) => differences.push(format!("{path}/{key}: extra {a:.100}")),
                    (None, Some(b)) => differences.push(format!("{path}/{key}: absent {b:.100}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(a, b, &format!("{path}/{i}"), differences);
            }
        }
        _ if got == want => {}
        _ => differences.push(format!("{path}: got {got:.200} want {want:.200}")),
    }
}

fn compare(name: &str, got: &Value, want: &Value) {
    let mut differences = Vec::new();
    assert_same(got, want, "", &mut differences);
    let shown: Vec<String> = differences.iter().take(40).map(|d| d.chars().take(300).collect()).collect();
    assert!(differences.is_empty(), "{name}: {} differences:\n{}", differences.len(), shown.join("\n"));
}

#[test]
fn aggregated_discovery_is_what_upstream_serves_by_default() {
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    for (file, groups) in [("discovery_api.json", &groups[..1]), ("discovery_apis.json", &groups[1..])] {
        let Some(want) = shared::text(&format!("default-flags/{file}")) else { return };
        compare(file, &parse(&discovery::aggregated(groups, AggregatedVersion::V2)), &parse(want.as_bytes()));
    }
}

#[test]
fn classic_discovery_is_what_upstream_serves_with_everything_on() {
    let groups = discovery::groups(api::table(), &|_| true);
    let check = |file: &str, got: &[u8]| {
        if let Some(want) = shared::text(&format!("discovery/{file}.json")) {
            compare(file, &parse(got), &parse(want.as_bytes()));
        }
    };
    check("api", &discovery::api_versions(&groups[0], "10.10.10.10:8050"));
    check("apis", &discovery::group_list(&groups));
    for group in &groups {
        let file = if group.name.is_empty() { "api".to_owned() } else { format!("apis__{}", group.name) };
        if !group.name.is_empty() {
            check(&file, &discovery::group(group));
        }
        for version in &group.versions {
            check(
                &format!("{file}__{}", version.version),
                &discovery::resource_list(group.name, version).unwrap(),
            );
        }
    }
    check("aggregated_v2", &discovery::aggregated(&groups[1..], AggregatedVersion::V2));
}

#[test]
fn foreign_groups_and_versions_have_their_place() {
    let theirs = json!([{"resource": "pods", "verbs": ["get"]}]);
    let version =
        discovery::Version { version: "v1beta1", resources: Resources::Foreign(&theirs), stale: true };
    let group = discovery::Group { name: "metrics.k8s.io", versions: vec![version] };
    assert_eq!(
        parse(&discovery::aggregated(&[group], AggregatedVersion::V2Beta1))["items"],
        json!([{"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "resources": theirs, "freshness": "Stale"}]}])
    );
    let mut versions =
        ["foo10", "v1beta1", "v12alpha1", "v2", "v3beta1", "v11alpha2", "v1", "foo1", "v11beta2", "v10"];
    versions.sort_by(|a, b| discovery::compare_versions(b, a));
    assert_eq!(
        versions,
        ["v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
    );
    assert!(discovery::etag(b"").starts_with("\"CF83E1357EEFB8BD"));
}

/// Parameters and answers are compared by what machines read.
fn undescribed(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(k, v)| *k != "description" || !v.is_string())
            .map(|(k, v)| (k.clone(), undescribed(v)))
            .collect(),
        Value::Array(items) => items.iter().map(undescribed).collect(),
        other => other.clone(),
    }
}

#[test]
fn openapi_schemas_are_what_upstream_serves_by_default() {
    let Some(index) = shared::data("default-flags/openapi_v3") else { return };
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    let documents = schema::openapi::Documents::new(api::table(), &groups, api::descriptions);
    let listed = parse(&documents.index(&[]));
    assert_eq!(
        listed["paths"].as_object().unwrap().len(),
        groups.iter().map(|g| g.versions.len()).sum::<usize>()
    );
    let mut differences = Vec::new();
    let mut compared = 0;
    for entry in std::fs::read_dir(index).unwrap() {
        let path = entry.unwrap().path();
        let key = path.file_stem().unwrap().to_str().unwrap().replace("__", "/");
        let Some((got, hash)) = documents.v3(&key) else { continue };
        assert_eq!(listed["paths"][&key]["serverRelativeURL"], format!("/openapi/v3/{key}?hash={hash}"));
        let got = parse(&got);
        let want = parse(&std::fs::read(&path).unwrap());
        compared += 1;
        for (name, want) in want["components"]["schemas"].as_object().unwrap() {
            match got["components"]["schemas"].get(name) {
                Some(got) => assert_same(got, want, &format!("{key} {name}"), &mut differences),
                // Options of connections are not in the table.
                None if want.get("oneOf").is_none() && name.ends_with("Scale") => {}
                None => differences.push(format!("{key} {name}: absent")),
            }
        }
        let want = undescribed(&want);
        let (ours, theirs) = (got["paths"].as_object().unwrap(), want["paths"].as_object().unwrap());
        for (path, want) in theirs.iter().filter(|(p, _)| !p.contains("/watch/") && !p.ends_with("{path}")) {
            let Some(got) = ours.get(path) else {
                differences.push(format!("{key} {path}: absent"));
                continue;
            };
            for (method, want) in want.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
                for member in [
                    "operationId",
                    "x-kubernetes-action",
                    "x-kubernetes-group-version-kind",
                    "parameters",
                    "requestBody",
                ] {
                    if want.get("x-kubernetes-action") == Some(&json!("connect")) && member == "parameters" {
                        continue;
                    }
                    let (mut got, mut want) = (undescribed(got)[method][member].take(), want[member].clone());
                    if let (Value::Array(got), Value::Array(want)) = (&mut got, &mut want) {
                        got.sort_by_key(|p| p["name"].to_string());
                        want.sort_by_key(|p| p["name"].to_string());
                    }
                    assert_same(&got, &want, &format!("{key} {path} {method} {member}"), &mut differences);
                }
            }
        }
    }
    assert!(compared > 20);
    differences.retain(|d| !known(d));
    let shown: Vec<String> = differences.iter().take(60).map(|d| d.chars().take(260).collect()).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.join("\n"));
}

/// What the facts do not tell (unions, one enumeration, the groups of kinds that every group has, methods of
/// proxies), and what is left out (the deprecated watch paths, and wrapping where nothing is described).
fn known(difference: &str) -> bool {
    difference.contains("x-kubernetes-unions: absent")
        || difference.contains("allocatedResourceStatuses/additionalProperties/enum: absent")
        || difference.contains("DeleteOptions/x-kubernetes-group-version-kind")
        || difference.contains("WatchEvent")
        || difference.contains("RawExtension: absent")
        || difference.contains("/proxy head ")
        || difference.contains("/proxy options ")
        || difference.contains("JSONSchemaProps/properties/")
        || difference.contains("IngressRule/properties/http/")
}

#[test]
fn openapi_v2_definitions_are_what_upstream_serves_by_default() {
    let Some(want) = shared::text("default-flags/openapi_v2.json") else { return };
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    let documents = schema::openapi::Documents::new(api::table(), &groups, api::descriptions);
    let got = parse(&documents.v2().0);
    let want = parse(want.as_bytes());
    let mut differences = Vec::new();
    for (name, want) in want["definitions"].as_object().unwrap() {
        if let Some(got) = got["definitions"].get(name) {
            assert_same(got, want, name, &mut differences);
        }
    }
    differences.retain(|d| !known(d));
    let shown: Vec<String> = differences.iter().take(60).map(|d| d.chars().take(260).collect()).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.join("\n"));
}

/// The fields of a protobuf message: number, and bytes where it has some.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut n, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            n |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return n;
            }
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => {
                varint(&mut bytes);
                out.push((key >> 3, &[][..]));
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                out.push((key >> 3, &bytes[..length]));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    out
}

#[test]
fn openapi_v2_is_there_as_protobuf_too() {
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    let documents = schema::openapi::Documents::new(api::table(), &groups, api::descriptions);
    let json = parse(&documents.v2().0);
    let bytes = documents.v2_protobuf().0;
    let document = fields(&bytes);
    let one = |tag: u64| document.iter().find(|(t, _)| *t == tag).unwrap().1;
    assert_eq!(one(1), b"2.0");
    assert_eq!(fields(one(8)).len(), json["paths"].as_object().unwrap().len());
    let definitions = fields(one(9));
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let (_, pod) = definitions.iter().find(|(_, d)| fields(d)[0].1 == b"io.k8s.api.core.v1.Pod").unwrap();
    let schema = fields(fields(pod)[1].1);
    let tags: Vec<u64> = schema.iter().map(|(t, _)| *t).collect();
    assert_eq!(tags, [4, 22, 25, 31]);
    assert!(schema[0].1.starts_with(b"Pod is a collection of containers"));
    assert_eq!(fields(schema[1].1), [(1, &b"object"[..])]);
    assert_eq!(fields(schema[3].1)[0].1, b"x-kubernetes-group-version-kind");
}
